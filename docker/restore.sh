#!/usr/bin/env bash
# make restore FILE=backups/X.sql.gz: put that into the place of the database as it is now.
#
# 1. While the service serves: back up what is there, read the file into the schema books_restored and
#    migrate it, take the objects out of both that cannot be renamed, and try to put them back.
# 2. Stop the service, let the tables of both change places in one statement, put the objects back.
# 3. Start the service. When it is healthy, drop the old tables.
#
# A failure, a signal or kill -9 before the service is healthy takes the old database back.
set -euo pipefail
# shellcheck source=docker/common.sh
. "$(dirname "$0")/common.sh"
# shellcheck source=docker/database.sh
. docker/database.sh
# shellcheck source=docker/swap.sh
. docker/swap.sh
umask 077

file=${1:-}
before="backups/$(date -u +%Y%m%dT%H%M%SZ)-before-restore.sql.gz"
step="checking"

ended() {
    local status=$?
    set +e
    trap - EXIT
    trap '' INT TERM HUP
    if [ $status != 0 ]; then
        say "failed while $step" >&2
        if [ -d "$restoring" ]; then
            recover || give_up
        else
            drop_staging 2>/dev/null
            say "nothing has changed" >&2
        fi
    fi
    kill -KILL -- "-$guard" 2>/dev/null
    exit $status
}

# A process of its own group, which does what `ended` would when this one was killed.
start_guard() {
    set -m
    (
        trap '' INT TERM HUP
        trap - EXIT
        set +e
        while kill -0 $$ 2>/dev/null; do sleep 1; done
        say "the script was killed while restoring"
        if [ -d "$restoring" ]; then recover || give_up; else drop_staging; fi
    ) </dev/null >>backups/restore.log 2>&1 &
    guard=$!
    disown
    set +m
}

lock
mkdir -p backups
if [ -d "$restoring" ]; then
    say "the last restore was cut off"
    recover || { give_up && exit 1; }
fi
[ -r "$file" ] || fail "which file? make restore FILE=backups/..."
is_whole "$file" || fail "$file is not complete; nothing has changed"
# Such a line, and the rest goes elsewhere than where it is put.
[ -z "$(gzip -dc "$file" | LC_ALL=C grep -a -m 1 -E '^(USE `|CREATE DATABASE|DROP DATABASE)' || true)" ] ||
    fail "$file names a schema of its own; make it with make backup, or mariadb-dump without --databases;" \
        "nothing has changed"
sql <<<"DO 0" || fail "MariaDB does not answer; nothing has changed"
is_empty $old || fail "what an earlier restore could not back up is in the schema $old: save or" \
    "drop it first; nothing has changed"
start_guard
trap ended EXIT

step="backing up what is there"
if ! docker/backup.sh "$before"; then
    [ -n "${FORCE:-}" ] || fail "what is there now cannot be backed up;" \
        "to go on without: make restore FILE=$file FORCE=1"
    before="nowhere"
fi

step="reading $file into the schema $staging"
size=$(($(gzip -dc "$file" | wc -c) / 1024))
free=$(in_mariadb df -Pk /var/lib/mysql </dev/null | awk 'NR == 2 {print $4}')
[ "$size" -lt "$free" ] || fail "it needs more than $size KiB, and the disk of MariaDB has $free KiB"
collation=$(sql <<<"SELECT default_collation_name FROM information_schema.schemata WHERE schema_name = '$database'")
sql <<<"DROP DATABASE IF EXISTS $staging; CREATE DATABASE $staging ${collation:+COLLATE $collation};
    CREATE DATABASE IF NOT EXISTS $database"
# A default of a sequence names its schema, the one where it will be again; it must be there already.
# shellcheck disable=SC2016
gzip -dc "$file" | LC_ALL=C sed -n 's/^CREATE SEQUENCE `/CREATE SEQUENCE IF NOT EXISTS `/p' | sql $database
gzip -dc "$file" | for_schema $staging | sql $staging
[ -n "$(tables $staging)" ] || fail "$file has no table"

step="migrating it"
sql <<<"GRANT ALL ON \`$database\\_restored\`.* TO $database"
"${compose[@]}" run --rm --no-deps -T -e "DATABASE_URL=mariadb+asyncmy://books@mariadb/$staging" migrate \
    </dev/null
# Nobody is logged in by what an old backup says: it may have been ended since.
sessions=$(tables $staging user_sessions)
[ -z "$sessions" ] || sql <<<"DELETE FROM $staging.user_sessions"

step="taking out what cannot be renamed (triggers, views, routines, events), and putting it back"
rm -rf "$restoring.new"
mkdir "$restoring.new"
objects $staging | for_schema $database >"$restoring.new/new.sql"
strip $staging
for_schema $staging <"$restoring.new/new.sql" | sql $staging
strip $staging
if [ "$before" = nowhere ]; then
    objects $database --force >"$restoring.new/old.sql" || true
else
    objects $database >"$restoring.new/old.sql"
    sql <<<"DROP DATABASE IF EXISTS $rehearsal; CREATE DATABASE $rehearsal"
    sql $rehearsal <<<"$(sql <<<"SELECT CONCAT('CREATE TABLE ', $(quoted table_name), ' LIKE $database.',
        $(quoted table_name), ';') FROM information_schema.tables
        WHERE table_schema = '$database' AND table_type <> 'VIEW'")"
    for_schema $rehearsal <"$restoring.new/old.sql" | sql $rehearsal
    sql <<<"DROP DATABASE $rehearsal"
fi
sql <<<"CREATE DATABASE IF NOT EXISTS $old"
"${compose[@]}" ps --all --quiet api worker scheduler >"$restoring.new/containers"
echo "$before" >"$restoring.new/before"

step="stopping the service"
mv "$restoring.new" "$restoring" # from here on a failure is undone
stop_service
step="letting the databases change places"
swap
step="starting the service with what was restored"
touch "$restoring/started"
start_service || {
    docker logs --tail 5 "$("${compose[@]}" ps --all --quiet api | head -n 1)" >&2
    fail "it does not become healthy"
}
touch "$restoring/serves"
step="backing up the old database"
finish
