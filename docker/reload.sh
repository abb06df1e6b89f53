#!/usr/bin/env bash
# make reload: apply changed configuration of nginx, MariaDB, both Valkeys and Prometheus, which Compose
# does not notice. All of it is checked first, in separate containers. nginx and
# Prometheus go on serving; a server whose file has changed is restarted; a container whose settings in
# .env or docker-compose.yml have changed is replaced, and comes back if the new one does not start.
# MariaDB takes new passwords while it runs: the old ones count beside them until the next reload.
set -euo pipefail
# shellcheck source=docker/common.sh
. "$(dirname "$0")/common.sh"
# shellcheck source=docker/database.sh
. docker/database.sh

HEALTHY_WITHIN=120 # s
servers="mariadb valkey queue nginx"

# Each server has a start script that can check its configuration.
check() {
    local output
    output=$("${compose[@]}" run --rm --no-deps -T "$1" check </dev/null 2>&1) && return
    echo "$output" | grep -v '^ [A-Z][a-z]* ' >&2 # without Compose's own lines
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

# Whether a server was started with another file.
has_changed() {
    case $1 in
    nginx) ! inside nginx cmp -s /etc/edge/start.sh /run/conf/started.sh ;;
    mariadb) ! inside mariadb cmp -s /etc/mysql/conf.d/server.cnf /run/mysqld/started.conf ;;
    valkey) ! inside valkey cmp -s /etc/valkey/valkey.conf /tmp/started.conf || has_new_secrets valkey ;;
    queue) ! inside queue cmp -s /etc/valkey/queue.conf /tmp/started.conf || has_new_secrets queue ;;
    esac
}

# Whether the secrets of a server are others than it was started with.
has_new_secrets() {
    local files digest=/tmp/started.secrets
    case $1 in
    mariadb) files=$(secret_files 'database_[a-z_]*' | sort) digest=/run/mysqld/started.secrets ;;
    valkey) files=$(secret_files redis_password) ;;
    queue) files=$(secret_files jobs_password) ;;
    esac
    echo "$files" | tr '\n' '\0' | xargs -0 cat |
        "${compose[@]}" exec -T "$1" sh -c "sha256sum >$digest.new && ! cmp -s $digest.new $digest"
}

# accounts MODE: see docker/mariadb/accounts.sh
accounts() {
    sh docker/mariadb/accounts.sh "$1" "$database" "$(dirname "$(secret_files database_password)")" |
        in_mariadb mariadb --user=root ||
        fail "mariadb does not take the passwords; to restart it with them:" \
            "docker compose -f docker-compose.yml restart mariadb"
}

change_passwords() {
    if has_new_secrets mariadb; then
        accounts change
        inside mariadb sh -c 'cd /run/mysqld && mv started.secrets.new started.secrets && touch old-passwords'
        say "mariadb: has the new passwords; the old ones count until the next make reload"
    elif inside mariadb test -e /run/mysqld/old-passwords; then
        accounts end
        inside mariadb rm /run/mysqld/old-passwords
        say "mariadb: the old passwords have ended"
    fi
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
alertmanager=$(containers alertmanager)
[ -z "$alertmanager" ] || inside alertmanager sh /etc/alertmanager/start.sh check ||
    fail "the configuration of alertmanager is wrong; nothing has changed"

for service in $running; do
    container=$(containers "$service")
    if is_outdated "$service" "$container"; then
        replace "$service" "$container"
    elif has_changed "$service"; then
        restart "$service" "$container"
    elif [ "$service" = mariadb ]; then
        change_passwords
    elif [ "$service" = nginx ]; then
        inside nginx sh /etc/edge/start.sh reload || fail "nginx goes on as it was"
    fi
done
[ -z "$prometheus" ] || docker kill --signal HUP "$prometheus" >/dev/null
[ -z "$alertmanager" ] || inside alertmanager sh /etc/alertmanager/start.sh reload ||
    fail "alertmanager goes on as it was"
say "done"
