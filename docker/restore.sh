#!/usr/bin/env bash
# make restore FILE=backups/X.sql.gz: put that into the place of the database as it is now.
# The service stops meanwhile; what is there now is kept in another backup.
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

sql() {
    "${compose[@]}" exec -T mariadb sh -c \
        'MYSQL_PWD=$(cat /run/secrets/database_root_password) exec mariadb --user=root "$@"' sh "$@"
}

"${compose[@]}" stop api
docker/backup.sh "backups/$(date -u +%Y%m%dT%H%M%SZ)-before-restore.sql.gz"
sql --execute 'DROP DATABASE books; CREATE DATABASE books CHARACTER SET utf8mb4'
gzip -dc "$file" | sql books
# What the cache holds is about the database of before.
"${compose[@]}" exec -T valkey sh -c \
    'REDISCLI_AUTH=$(cat /run/secrets/redis_password) valkey-cli FLUSHALL' >/dev/null
"${compose[@]}" run --rm migrate
"${compose[@]}" start api
"${compose[@]}" up --detach --wait --no-recreate
echo "restore: done, from $file"
