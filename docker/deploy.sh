#!/usr/bin/env bash
# How the service's containers are replaced while it serves.
#
#   make deploy     build, migrate, replace
#   make rollback   replace by the image of before; the schema stays
#   make roll       replace by the same image: for new settings and secrets
#
# Images: `latest` is what Compose starts, `next` what was built last, `previous` what ran before.
set -euo pipefail
# shellcheck source=docker/common.sh
. "$(dirname "$0")/common.sh"

HEALTHY_WITHIN=120 # s
KNOWN_WITHIN=30    # s
image=$("${compose[@]}" config --images api | grep ':latest$' | sort -u)
image=${image%:latest}
fresh=""   # containers that have replaced one
created="" # the container that is about to
before=""  # the image that `latest` was, until all are replaced

image_of() { docker inspect --format '{{.Image}}' "$1"; }

tagged() { docker image inspect --format '{{.Id}}' "$image:$1" 2>/dev/null; }

nginx() { "${compose[@]}" exec -T nginx "$@" </dev/null; }

# Of its addresses the one at which nginx finds it.
address() {
    local known
    known=$(nginx getent ahostsv4 api | cut -d' ' -f1) || return 1
    docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}' "$1" |
        tr ' ' '\n' | grep -x -F "$known"
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

# Put a new container into the place of an old one. If that fails, the old one stays.
swap() {
    local new=$1 old=$2 in out
    if ! in=$(address "$new") || ! out=$(address "$old"); then
        say "nginx does not find the containers; does it run?" >&2
        return 1
    fi
    nginx sh -c "echo '$in' >'/run/conf/leaving/$out'" || return 1
    if ! wait_until_healthy "$new" $HEALTHY_WITHIN; then
        say "it is not healthy; its last lines:" >&2
        docker logs --tail 5 "$new" >&2
    elif ! wait_until_switched "$in" "$out"; then
        say "nginx does not go on to it" >&2
    else
        created="" # from here on it is what serves
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
    local old new count done=0
    # One that has stopped would be started again, and be taken for a new one.
    "${compose[@]}" rm --force api >/dev/null 2>&1
    old=$(containers api)
    count=$(echo "$old" | grep -c .)
    for one in $old; do
        # shellcheck disable=SC2086  # one word for each container
        create_one api "$count" $old $fresh || return 1
        new=$created
        docker start "$new" >/dev/null || return 1
        [ "$(image_of "$new")" = "$(tagged latest)" ] || return 1
        swap "$new" "$one" || return 1
        fresh="$fresh $new"
        done=$((done + 1))
        say "replaced $done of $count"
    done
}

# After a failure or a signal: no container is left half-started, and `latest` is what it was.
take_back() {
    local status=$?
    trap '' INT TERM HUP
    if [ -n "$created" ]; then
        docker rm --force "$created" >/dev/null
        nginx sh -c 'rm -f /run/conf/leaving/*' || true
    fi
    if [ -n "$before" ]; then
        docker tag "$before" "$image:latest"
        [ -z "$fresh" ] || say "some containers were replaced, others not; run: make roll" >&2
    fi
    exit "$status"
}

# Replace what runs by an image.
switch_to() {
    local running
    running=$(image_of "$(containers api | head -n 1)")
    before=$running
    docker tag "$1" "$image:latest"
    replace || fail "it does not become healthy; the old one goes on"
    before=""
    [ "$running" = "$(tagged latest)" ] || docker tag "$running" "$image:previous"
}

# No request reaches them: they end what they do, and new ones go on with the rest.
replace_job_workers() {
    "${compose[@]}" up --detach --wait --no-recreate queue >/dev/null 2>&1 || true # seen below
    "${compose[@]}" rm --stop --force worker scheduler >/dev/null 2>&1 || true
    # Created without --no-deps, as in create_one.
    if ! "${compose[@]}" create --no-recreate worker scheduler >/dev/null 2>&1 ||
        ! "${compose[@]}" up --detach --wait --no-deps --no-recreate worker scheduler >/dev/null 2>&1; then
        fail "the service is replaced, but the job workers do not become healthy; see: docker compose" \
            "-f docker-compose.yml logs worker scheduler"
    fi
    say "replaced the job workers"
}

# Before Compose 2.29.3, a plain `up` that replaces a container replaces all that depend on it. So the
# container of `migrate` is one of today's as well; it has nothing to do when it is started.
renew_migrate() {
    "${compose[@]}" rm --force migrate >/dev/null 2>&1 || true
    "${compose[@]}" create --no-recreate migrate >/dev/null 2>&1 ||
        say "run: docker compose -f docker-compose.yml up -d --wait" >&2
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
    if [ -z "$(containers api)" ]; then
        docker tag "$image:next" "$image:latest"
        "${compose[@]}" up --detach --wait
        say "done"
        exit
    fi
    say "migrating"
    TAG=next "${compose[@]}" run --rm --no-deps migrate || fail "the migration failed; what runs goes on"
    switch_to "$image:next"
}

rollback() {
    local previous
    previous=$(tagged previous) || fail "there is no image of before"
    [ "$previous" != "$(image_of "$(containers api | head -n 1)")" ] || fail "it is what runs already"
    switch_to "$previous"
}

lock
trap take_back EXIT
case ${1:-} in
deploy) deploy ;;
rollback) rollback ;;
roll) replace || fail "it does not become healthy; what runs goes on" ;;
*) fail "which of deploy, rollback, roll?" ;;
esac
renew_migrate
replace_job_workers
say "done"
