#!/usr/bin/env bash
# make backup: the database as it is at one moment, in a new file of backups/.
set -euo pipefail
umask 077 # it holds everything
cd "$(dirname "$0")/.."

file=${1:-backups/$(date -u +%Y%m%dT%H%M%SZ).sql.gz}
mkdir -p backups
trap 'rm -f "$file.partial"' EXIT
docker compose -f docker-compose.yml exec -T mariadb sh -c '
    MYSQL_PWD=$(cat /run/secrets/database_root_password) exec \
    mariadb-dump --user=root --single-transaction --quick --triggers --routines books
' | gzip >"$file.partial"
# mariadb-dump writes that when it has written all.
gzip -dc "$file.partial" | tail -n 1 | grep -q '^-- Dump completed' || {
    echo "backup: the dump is not complete" >&2
    exit 1
}
mv "$file.partial" "$file"
echo "backup: $file, $(du -h "$file" | cut -f1)"
