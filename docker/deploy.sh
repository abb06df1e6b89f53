#!/usr/bin/env bash
# How the service's containers are replaced while it serves.
#
#   make deploy     build, migrate, replace
#   make rollback   replace by the image of before; the schema stays
#   make roll       replace by the same image: for new settings and secrets
#
# Images: `latest` is what Compose starts, `next` what was built last, `previous` what ran before.
set -euo pipefail
cd "$(dirname "$0")/.."

HEALTHY_WITHIN=120 # s
KNOWN_WITHIN=30    # s
export TAG=latest
compose=(docker compose -f docker-compose.yml)
image=$("${compose[@]}" config --images api | grep ':latest$' | sort -u)
image=${image%:latest}

say() { echo "deploy: $*"; }
fail() {
    say "$*" >&2
    exit 1
}

containers() { "${compose[@]}" ps --quiet api; }

image_of() { docker inspect --format '{{.Image}}' "$1"; }

tagged() { docker image inspect --format '{{.Id}}' "$image:$1" 2>/dev/null; }

wait_until_healthy() {
    local state deadline=$((SECONDS + HEALTHY_WITHIN))
    while :; do
        state=$(docker inspect --format '{{.State.Status}} {{.State.Health.Status}}' "$1") || return 1
        case $state in
        "running healthy") return 0 ;;
        "running starting") ;;
        *) return 1 ;; # it ended, and perhaps Docker starts it over and over
        esac
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.5
    done
}

nginx() { "${compose[@]}" exec -T nginx "$@" </dev/null; }

# Of its addresses the one at which nginx finds it.
address() {
    local known
    known=$(nginx getent ahostsv4 api | cut -d' ' -f1) || return 1
    docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}' "$1" |
        tr ' ' '\n' | grep --fixed-strings --line-regexp "$known"
}

# nginx has looked, and its new processes answer: one is in, the other is out.
wait_until_switched() {
    local in=$1 out=$2 servers deadline=$((SECONDS + KNOWN_WITHIN))
    while :; do
        servers=" $(nginx wget -q -O - http://127.0.0.1:8081/servers) " || servers=""
        [[ $servers == *" $in "* && $servers != *" $out "* ]] && return 0
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.2
    done
}

# One more container than there are, of `latest`: its id.
start_one() {
    local count=$1 new
    shift
    "${compose[@]}" up --detach --no-deps --no-recreate --scale "api=$((count + 1))" api \
        >/dev/null 2>&1 || true # what is wrong with it is seen later
    new=$(containers | grep --invert-match --line-regexp --fixed-strings "$(printf '%s\n' "$@")") ||
        return 1
    echo "$new"
    [ "$(image_of "$new")" = "$(tagged latest)" ]
}

# Put a new container into the place of an old one. If that fails, the old one stays.
swap() {
    local new=$1 old=$2 in out
    if ! in=$(address "$new") || ! out=$(address "$old"); then
        say "nginx does not find the containers; does it run?" >&2
        return 1
    fi
    nginx sh -c "echo '$in' >'/run/conf/leaving/$out'" || return 1
    if ! wait_until_healthy "$new"; then
        say "it is not healthy; its last lines:" >&2
        docker logs --tail 5 "$new" >&2
    elif ! wait_until_switched "$in" "$out"; then
        say "nginx does not go on to it" >&2
    else
        docker stop --time 40 "$old" >/dev/null
        docker rm "$old" >/dev/null
        nginx rm -f "/run/conf/leaving/$out" # another container may get that address
        return 0
    fi
    nginx rm -f "/run/conf/leaving/$out"
    return 1
}

# Start one more, have nginx ask it instead of an old one, stop that; and so on.
replace() {
    local old new count
    # One that has stopped would be started again, and be taken for a new one.
    "${compose[@]}" rm --force api >/dev/null 2>&1
    mapfile -t old < <(containers)
    count=${#old[@]}
    for one in "${old[@]}"; do
        if ! new=$(start_one "$count" "${old[@]}" "${fresh[@]}") || ! swap "$new" "$one"; then
            [ -z "$new" ] || docker rm --force "$new" >/dev/null
            return 1
        fi
        fresh+=("$new")
        say "replaced ${#fresh[@]} of $count"
    done
}

# Replace what runs by an image; if that fails, `latest` is what it was.
switch_to() {
    local before
    before=$(image_of "$(containers | head -n 1)")
    docker tag "$1" "$image:latest"
    if replace; then
        [ "$before" = "$(tagged latest)" ] || docker tag "$before" "$image:previous"
        return 0
    fi
    docker tag "$before" "$image:latest"
    [ ${#fresh[@]} = 0 ] || fail "only ${#fresh[@]} were replaced; run: make roll"
    fail "it does not become healthy; the old one goes on"
}

# They answer nobody: they end what they do, and new ones go on with the rest.
replace_job_workers() {
    "${compose[@]}" up --detach --wait --no-recreate queue >/dev/null 2>&1 || true # seen below
    "${compose[@]}" up --detach --wait --no-deps "$@" worker scheduler >/dev/null 2>&1 ||
        fail "the service is replaced, but the job workers do not become healthy; see: docker compose" \
            "-f docker-compose.yml logs worker scheduler"
    say "replaced the job workers"
}

deploy() {
    local secret
    while read -r secret; do
        [ -s "$secret" ] || fail "$secret is missing or empty; run: make secrets"
    done < <("${compose[@]}" config | sed -n '/^secrets:/,$ s/^ *file: //p')
    VERSION=$(sed -n 's/^VERSION = "\(.*\)"$/\1/p' app/version.py)
    REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)
    export VERSION REVISION
    say "building"
    TAG=next "${compose[@]}" build --quiet api || fail "the build failed; nothing has changed"
    if [ -z "$(containers)" ]; then
        docker tag "$image:next" "$image:latest"
        "${compose[@]}" up --detach --wait
        return
    fi
    say "migrating"
    TAG=next "${compose[@]}" run --rm --no-deps migrate || fail "the migration failed; what runs goes on"
    switch_to "$image:next"
}

rollback() {
    local previous
    previous=$(tagged previous) || fail "there is no image of before"
    [ "$previous" != "$(image_of "$(containers | head -n 1)")" ] || fail "it is what runs already"
    switch_to "$previous"
}

# Two at once would take each other's new containers for old ones.
exec 9<"$0"
if command -v flock >/dev/null; then flock --nonblock 9 || fail "another one is running"; fi
fresh=()
case ${1:-} in
deploy)
    deploy
    replace_job_workers
    ;;
rollback)
    rollback
    replace_job_workers
    ;;
roll)
    replace || fail "it does not become healthy; what runs goes on"
    replace_job_workers --force-recreate
    ;;
*) fail "which of deploy, rollback, roll?" ;;
esac
say "done"
