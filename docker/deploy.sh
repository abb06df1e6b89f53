#!/usr/bin/env bash
# How the service's containers are replaced while it serves.
#
#   make deploy     build, migrate, replace
#   make rollback   replace by the image of before; the schema stays
#   make roll       replace by the same image: for new settings and secrets
set -euo pipefail
cd "$(dirname "$0")/.."

compose=(docker compose -f docker-compose.yml)
image=$("${compose[@]}" config --images api | grep ':latest$' | head -n 1)
image=${image%:*}
HEALTHY_WITHIN=120 # s
KNOWN_WITHIN=30    # s

say() { echo "deploy: $*"; }
fail() {
    say "$*" >&2
    exit 1
}

containers() { "${compose[@]}" ps --quiet api; }

health() { docker inspect --format '{{.State.Status}} {{.State.Health.Status}}' "$1"; }

wait_until_healthy() {
    local state deadline=$((SECONDS + HEALTHY_WITHIN))
    while state=$(health "$1") && [ "$state" != "running healthy" ]; do
        case $state in
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
    docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}' "$1" |
        tr ' ' '\n' | grep --fixed-strings --line-regexp "$(nginx getent ahostsv4 api | cut -d' ' -f1)"
}

# nginx has looked, and its new processes answer: one is in, the other is out.
wait_until_switched() {
    local in=$1 out=$2 servers deadline=$((SECONDS + KNOWN_WITHIN))
    while servers=" $(nginx wget -q -O - http://127.0.0.1:8081/servers) "; do
        [[ $servers == *" $in "* && $servers != *" $out "* ]] && return
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.2
    done
}

# Start one more, have nginx ask it instead of an old one, stop that; and so on.
replace() {
    local old new count in out
    mapfile -t old < <(containers)
    count=${#old[@]}
    for one in "${old[@]}"; do
        "${compose[@]}" up --detach --no-deps --no-recreate --scale api=$((count + 1)) api \
            >/dev/null 2>&1 || true # what is wrong with it is seen below
        new=$(containers | grep --invert-match --line-regexp --fixed-strings \
            "$(printf '%s\n' "${old[@]}" "${fresh[@]}")") || return 1
        in=$(address "$new") out=$(address "$one")
        nginx sh -c "echo '$in' >'/tmp/conf/leaving/$out'"
        if ! wait_until_healthy "$new"; then
            docker logs --tail 5 "$new" >&2
            docker rm --force "$new" >/dev/null
            nginx rm -f "/tmp/conf/leaving/$out"
            return 1
        fi
        fresh+=("$new")
        wait_until_switched "$in" "$out" || say "nginx does not go on to $in" >&2
        docker stop --time 40 "$one" >/dev/null
        docker rm "$one" >/dev/null
        nginx rm -f "/tmp/conf/leaving/$out" # another container may get that address
        say "replaced ${#fresh[@]} of $count"
    done
}

has() { docker image inspect "$image:$1" >/dev/null 2>&1; }

deploy() {
    local secret
    while read -r secret; do
        [ -s "$secret" ] || fail "$secret is missing or empty; run: make secrets"
    done < <("${compose[@]}" config | sed -n '/^secrets:/,$ s/^ *file: //p')
    export REVISION=${REVISION:-$(git rev-parse HEAD 2>/dev/null || echo unknown)}
    say "building"
    TAG=next "${compose[@]}" build --quiet api || fail "the build failed; nothing has changed"
    say "migrating"
    TAG=next "${compose[@]}" run --rm --quiet-pull migrate || fail "the migration failed; what runs goes on"
    if has latest; then docker tag "$image:latest" "$image:previous"; fi
    docker tag "$image:next" "$image:latest"
    if [ -z "$(containers)" ]; then
        "${compose[@]}" up --detach --wait
        return
    fi
    if ! replace; then
        docker tag "$image:previous" "$image:latest"
        [ ${#fresh[@]} = 0 ] || fail "a new container does not become healthy; run: make roll"
        fail "the new version does not become healthy; the old one goes on"
    fi
}

rollback() {
    has previous || fail "there is no image of before"
    docker tag "$image:latest" "$image:next"
    docker tag "$image:previous" "$image:latest"
    docker tag "$image:next" "$image:previous"
    replace || fail "the image of before does not become healthy"
}

fresh=()
case ${1:-} in
deploy) deploy ;;
rollback) rollback ;;
roll) replace || fail "a new container does not become healthy; what runs goes on" ;;
*) fail "which of deploy, rollback, roll?" ;;
esac
say "done"
