#!/usr/bin/env bash
# make backup: a consistent dump of the database, in a new file of backups/.
set -euo pipefail
# shellcheck source=docker/common.sh
. "$(dirname "$0")/common.sh"
# shellcheck source=docker/database.sh
. docker/database.sh
umask 077 # it holds everything

lock 600 # a deployment may be changing the schema
file=${1:-backups/$(date -u +%Y%m%dT%H%M%SZ).sql.gz}
mkdir -p backups
trap 'rm -f "$file.partial"' EXIT
options=(--triggers --routines --events)
# From where the binary log goes on, for make restore with UNTIL.
[ "$(sql <<<"SELECT @@log_bin")" = 0 ] || options+=(--master-data=2 --gtid)
dump "${options[@]}" "$database" | gzip >"$file.partial" ||
    fail "it could not be written; is the disk full, or MariaDB away?"
is_whole "$file.partial" || fail "the dump is not complete"
# An empty dump must not replace a backup.
[ -n "$(gzip -dc "$file.partial" | grep -a -m 1 '^CREATE TABLE' || true)" ] ||
    fail "the database has no table"
mv "$file.partial" "$file"
say "$file, $(du -h "$file" | cut -f1)"
