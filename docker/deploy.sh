#!/usr/bin/env bash
# Replaces the service's containers without failing a request.
#
#   make deploy     build (or pull RELEASE=image@sha256:...), migrate, replace
#   make rollback   replace by the image of before; the schema stays
#   make roll       replace by the same image: for new settings and secrets
#
# Images: `latest` is what Compose starts, `next` the newest build, `previous` what ran before.
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

# The address at which nginx reaches a container.
address() {
    local known
    known=$(nginx getent ahostsv4 api | cut -d' ' -f1) || return 1
    docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}' "$1" |
        tr ' ' '\n' | grep -x -F "$known"
}

# Until nginx's new processes have the one server in their list, and not the other.
wait_until_switched() {
    local in=$1 out=$2 servers deadline=$((SECONDS + KNOWN_WITHIN))
    while :; do
        servers=" $(nginx wget -q -O - http://127.0.0.1:8081/servers) " || servers=""
        [[ $servers == *" $in "* && $servers != *" $out "* ]] && return 0
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.2
    done
}

# Replace an old container by a new one. If that fails, the old one stays.
swap() {
    local new=$1 old=$2 in out
    if ! in=$(address "$new") || ! out=$(address "$old"); then
        say "nginx does not find the containers; does it run, and has the new one not ended? Its last lines:" >&2
        docker logs --tail 5 "$new" >&2
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

# Start one more, let nginx use it instead of an old one, stop that; repeat for each.
replace() {
    local old new count done=0
    # A stopped one would be started again and mistaken for a new one.
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

# No request reaches them: they finish their running jobs, and new ones continue.
replace_job_workers() {
    "${compose[@]}" up --detach --wait --no-recreate queue >/dev/null 2>&1 || true # seen below
    "${compose[@]}" rm --stop --force worker >/dev/null 2>&1 || true
    # Created without --no-deps, as in create_one.
    if ! "${compose[@]}" create --no-recreate worker >/dev/null 2>&1 ||
        ! "${compose[@]}" up --detach --wait --no-deps --no-recreate worker >/dev/null 2>&1; then
        fail "the service is replaced, but the job workers do not become healthy; see: docker compose" \
            "-f docker-compose.yml logs worker"
    fi
    say "replaced the job workers"
}

# What else uses secrets, where it runs: a container keeps the file that it was started with. A backup that
# this ends is made up for.
renew_others() {
    local service
    for service in backup mysqld-exporter redis-exporter; do
        [ -n "$(containers "$service")" ] || continue
        "${compose[@]}" rm --stop --force --volumes "$service" >/dev/null 2>&1 || true # only those without a name
        "${compose[@]}" create --no-recreate "$service" >/dev/null 2>&1 || true # as in create_one
        "${compose[@]}" up --detach --no-deps --no-recreate "$service" >/dev/null 2>&1 ||
            say "$service does not start; see: docker compose -f docker-compose.yml up -d $service" >&2
    done
}

# Before Compose 2.29.3, a plain `up` that replaces a container replaces all that depend on it: `migrate`
# is renewed too. It has nothing to do when it is started.
renew_migrate() {
    "${compose[@]}" rm --force migrate >/dev/null 2>&1 || true
    "${compose[@]}" create --no-recreate migrate >/dev/null 2>&1 ||
        say "run: docker compose -f docker-compose.yml up -d --wait" >&2
}

# Images without a tag and without a container: they were `previous`, or `next`. Those that were built
# here have this project's label, those of a registry have its name and digest.
remove_old_images() {
    local project title id
    project=$("${compose[@]}" config | sed -n 's/^name: //p')
    title=$(docker image inspect --format '{{index .Config.Labels "org.opencontainers.image.title"}}' "$image:latest")
    [ -n "$project" ] && [ -n "$title" ] || return 0
    docker image prune --force --filter "label=com.docker.compose.project=$project" >/dev/null ||
        say "old images could not be removed" >&2
    for id in $(docker image ls --quiet --no-trunc --filter "label=org.opencontainers.image.title=$title"); do
        [ -n "$(docker image inspect --format '{{range .RepoTags}}{{.}}{{end}}' "$id")" ] ||
            docker image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$id" |
            xargs docker image rm >/dev/null 2>&1 || true # a container has it
    done
}

# The image that is about to serve.
get_next() {
    if [ -n "${RELEASE:-}" ]; then
        is_release "$RELEASE" ||
            fail "RELEASE is '$RELEASE'; name an image by its digest: ghcr.io/me/image@sha256:..."
        say "pulling"
        docker image inspect "$RELEASE" >/dev/null 2>&1 || docker pull --quiet "$RELEASE" >/dev/null ||
            fail "$RELEASE cannot be pulled; nothing has changed. On this machine, see that the registry is" \
                "reached, and run: docker login ${RELEASE%%/*}"
        docker tag "$RELEASE" "$image:next"
    else
        describe_build
        say "building"
        TAG=next "${compose[@]}" build --quiet api || fail "the build failed; nothing has changed"
    fi
}

deploy() {
    local secret
    while read -r secret; do
        [ -s "$secret" ] || { [ -e "$secret" ] && [[ " $optional_secrets " == *" ${secret##*/} "* ]]; } ||
            fail "$secret is missing or empty; run: make secrets"
    done < <(secret_files)
    get_next
    if [ -z "$(containers api)" ]; then
        docker tag "$image:next" "$image:latest"
        "${compose[@]}" up --detach --wait ||
            fail "not everything is healthy; see: docker compose -f docker-compose.yml logs. Then, in $PWD, run:" \
                "docker compose -f docker-compose.yml up -d --wait"
        say "done"
        exit
    fi
    say "migrating"
    TAG=next "${compose[@]}" run --rm --no-deps migrate python -m app migrate ||
        fail "the migration failed; what runs goes on. If MariaDB refuses the account: make reload, then deploy"
    switch_to "$image:next"
}

rollback() {
    local previous
    previous=$(tagged previous) || fail "there is no image of before"
    [ "$previous" != "$(image_of "$(containers api | head -n 1)")" ] || fail "it is what runs already"
    switch_to "$previous"
}

# A line in docker-compose.yml overrides production.env.
require_one_place() {
    local name
    for name in $(sed -n 's/^[[:space:]]*\([A-Za-z_][A-Za-z0-9_]*\)=.*/\1/p' production.env 2>/dev/null); do
        ! grep -q "^    $name:" docker-compose.yml ||
            fail "production.env: $name has a line in docker-compose.yml; set it there, or in .env"
    done
    # As a variable it would be in `docker inspect`, or have no effect.
    for name in $(secret_files | sed 's,.*/,,'); do
        ! grep -q -i "^[[:space:]]*$name=." .env production.env 2>/dev/null ||
            fail "$name is a secret: move its value from .env or production.env to ${SECRETS:-secrets}/$name"
    done
}

lock
require_one_place
trap take_back EXIT
case ${1:-} in
deploy) deploy ;;
rollback) rollback ;;
roll) replace || fail "it does not become healthy; what runs goes on" ;;
*) fail "which of deploy, rollback, roll?" ;;
esac
renew_migrate
replace_job_workers
renew_others
remove_old_images
say "done"
