#!/usr/bin/env bash
# make reload: let nginx, MariaDB, the two Valkeys and Prometheus take changed configuration, which Compose
# does not notice. All of it is checked, in containers of their own, before anything is touched. nginx and
# Prometheus go on serving; a server whose file has changed is restarted; a container whose settings in
# .env or docker-compose.yml have changed is replaced, and comes back if the new one does not start.
set -euo pipefail
# shellcheck source=docker/common.sh
. "$(dirname "$0")/common.sh"

HEALTHY_WITHIN=120 # s
servers="mariadb valkey queue nginx"

# Each has a start script that can say whether it would start.
check() {
    local output
    output=$("${compose[@]}" run --rm --no-deps -T "$1" check </dev/null 2>&1) && return
    echo "$output" | grep -v '^ [A-Z][a-z]* ' >&2 # but not what Compose says of its containers
    return 1
}

inside() {
    local service=$1
    shift
    "${compose[@]}" exec -T "$service" "$@" </dev/null
}

# Whether Compose would replace a container.
is_outdated() {
    local label
    label=$(docker inspect --format '{{index .Config.Labels "com.docker.compose.config-hash"}}' "$2")
    [ "$label" != "$("${compose[@]}" config --hash "$1" | cut -d' ' -f2)" ]
}

# Whether a server began with another file than is there now.
has_changed() {
    case $1 in
    nginx) ! inside nginx cmp -s /etc/edge/start.sh /run/conf/started.sh ;;
    mariadb) ! inside mariadb cmp -s /etc/mysql/conf.d/server.cnf /run/mysqld/started.conf ;;
    valkey) ! inside valkey cmp -s /etc/valkey/valkey.conf /tmp/started.conf ;;
    queue) ! inside queue cmp -s /etc/valkey/queue.conf /tmp/started.conf ;;
    esac
}

restart() {
    "${compose[@]}" restart "$1" >/dev/null 2>&1 || true # seen below
    wait_until_healthy "$2" $HEALTHY_WITHIN || {
        docker logs --tail 5 "$2" >&2
        fail "$1 does not become healthy with this configuration: correct it, and run make reload again"
    }
    say "$1: restarted"
}

replace() {
    local service=$1 old=$2
    create_one "$service" 1 "$old" || fail "$service: no container can be made; the old one goes on"
    docker stop "$old" >/dev/null
    if docker start "$created" >/dev/null && wait_until_healthy "$created" $HEALTHY_WITHIN; then
        docker rm "$old" >/dev/null
        say "$service: replaced"
        return
    fi
    docker logs --tail 5 "$created" >&2 || true
    docker rm --force "$created" >/dev/null
    docker start "$old" >/dev/null
    fail "$service: the new container does not become healthy; the old one is back"
}

lock 600 # certificates are renewed at any time
"${compose[@]}" config --quiet || fail "nothing has changed"
running=""
for service in $servers; do
    [ -z "$(containers "$service")" ] || running="$running $service"
done
[ -n "$running" ] || fail "nothing runs; start it: docker compose -f docker-compose.yml up -d --wait"
for service in $running; do
    check "$service" || fail "the configuration of $service is wrong; nothing has changed"
done
prometheus=$(containers prometheus)
[ -z "$prometheus" ] || inside prometheus promtool check config /etc/prometheus/compose.yml >/dev/null ||
    fail "the configuration of prometheus is wrong; nothing has changed"

for service in $running; do
    container=$(containers "$service")
    if is_outdated "$service" "$container"; then
        replace "$service" "$container"
    elif has_changed "$service"; then
        restart "$service" "$container"
    elif [ "$service" = nginx ]; then
        inside nginx sh /etc/edge/start.sh reload || fail "nginx goes on as it was"
    fi
done
[ -z "$prometheus" ] || docker kill --signal HUP "$prometheus" >/dev/null
say "done"
