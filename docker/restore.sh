#!/usr/bin/env bash
# make restore FILE=backups/X.sql.gz: put that into the place of the database as it is now.
# The file is read beside it first; the service stops only while the two change places.
set -euo pipefail
cd "$(dirname "$0")/.."

file=${1:-}
compose=(docker compose -f docker-compose.yml)
fail() {
    echo "restore: $*" >&2
    exit 1
}
[ -r "$file" ] || fail "which file? make restore FILE=backups/..."
gzip -dc "$file" 2>/dev/null | tail -n 1 | grep -q '^-- Dump completed' ||
    fail "$file is not complete; nothing has changed"

# shellcheck disable=SC2016  # the shell in the container shall expand it
sql() {
    "${compose[@]}" exec -T mariadb sh -c \
        'MYSQL_PWD=$(cat /run/secrets/database_root_password) exec mariadb --user=root "$@"' sh "$@"
}

before="backups/$(date -u +%Y%m%dT%H%M%SZ)-before-restore.sql.gz"
if ! docker/backup.sh "$before"; then
    before="nowhere"
    [ -n "${FORCE:-}" ] || fail "what is there now cannot be backed up, so nothing has changed;" \
        "to give it up: make restore FILE=$file FORCE=1"
fi

sql --execute 'DROP DATABASE IF EXISTS restored; CREATE DATABASE restored CHARACTER SET utf8mb4'
gzip -dc "$file" | sql restored || fail "$file could not be read; nothing has changed"

trap 'fail "the service is stopped; what was there is in $before. Try again"' ERR
"${compose[@]}" stop api worker scheduler
tables=$(sql --skip-column-names --execute "SELECT GROUP_CONCAT('restored.', table_name, ' TO books.',
    table_name) FROM information_schema.tables WHERE table_schema = 'restored'")
sql --execute "DROP DATABASE IF EXISTS books; CREATE DATABASE books CHARACTER SET utf8mb4;
    RENAME TABLE $tables; DROP DATABASE restored"
# What the cache holds is about the database of before. Away, it comes back empty.
# shellcheck disable=SC2016
"${compose[@]}" exec -T valkey sh -c \
    'REDISCLI_AUTH=$(cat /run/secrets/redis_password) valkey-cli FLUSHALL' >/dev/null ||
    echo "restore: Valkey is away, and will be empty when it is back" >&2
"${compose[@]}" run --rm --no-deps migrate
"${compose[@]}" start api worker scheduler
"${compose[@]}" up --detach --wait --no-deps --no-recreate api worker scheduler
echo "restore: done, from $file; what was there is in $before"
