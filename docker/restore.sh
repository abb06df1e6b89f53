#!/usr/bin/env bash
# make restore FILE=backups/X.sql.gz: replace the database by a backup.
# make restore FILE=ID [OFFSITE=1]: by one of the repository (make snapshots), which may be `latest`; the files
#     that the volume lacks come back too.
# make restore FILE=... UNTIL='2026-11-27 03:00:00': and by what the binary log has from then up to that
#     time (UTC).
#
# 1. While the service serves: back up what is there, read the file into the schema *_restored and
#    migrate it, take the objects out of both that cannot be renamed, and try to put them back.
# 2. Stop the service, swap the tables of both in one statement, put the objects back.
# 3. Start the service. When it is healthy, drop the old tables.
#
# A failure, a signal or kill -9 before the service is healthy takes the old database back.
set -euo pipefail
# shellcheck source=docker/common.sh
. "$(dirname "$0")/common.sh"
# shellcheck source=docker/database.sh
. docker/database.sh
# shellcheck source=docker/repository.sh
. docker/repository.sh
# shellcheck source=docker/rewind.sh
. docker/rewind.sh
# shellcheck source=docker/swap.sh
. docker/swap.sh
umask 077

file=${1:-}
id="" # in the repository
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
            drop_staging
            say "nothing has changed" >&2
        fi
    fi
    kill -KILL -- "-$guard" 2>/dev/null
    drop_fetched
    exit $status
}

# The repository has it.
drop_fetched() { [ -z "$id" ] || rm -f "backups/${id:0:8}.sql.gz"*; }

# A process in a group of its own, which does the work of `ended` if this one is killed.
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
if [ ! -e "$file" ] && [[ $file =~ ^(latest|[0-9a-f]{8,64})$ ]]; then
    id=$(identify "$file")
    trap drop_fetched EXIT
    file=backups/${id:0:8}.sql.gz
    if ! database_of "$id" | gzip >"$file.partial"; then
        fail "backup ${id:0:8} cannot be read; is the disk full, or the repository damaged? make restore-drill" \
            "FILE=$id says more; nothing has changed"
    fi
    mv "$file.partial" "$file"
fi
[ -r "$file" ] || fail "which file? make restore FILE=backups/..., or FILE=latest; make snapshots lists others"
is_whole "$file" || fail "$file is not complete; nothing has changed"
# With such a line the statements after it would go to another schema.
[ -z "$(gzip -dc "$file" | LC_ALL=C grep -a -m 1 -E '^(USE `|CREATE DATABASE|DROP DATABASE)' || true)" ] ||
    fail "$file names a schema of its own; make it with make backup, or mariadb-dump without --databases;" \
        "nothing has changed"
sql <<<"DO 0" || fail "MariaDB does not answer; nothing has changed"
[ -z "${UNTIL:-}" ] || rewind "$file" "$UNTIL" # sets file
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
sql <<<"DROP DATABASE IF EXISTS $staging" # of another restore
size=$(($(gzip -dc "$file" | wc -c) / 1024))
free=$(in_mariadb df -Pk /var/lib/mysql </dev/null | awk 'NR == 2 {print $4}')
[ "$size" -lt "$free" ] || fail "it needs more than $size KiB, and the disk of MariaDB has $free KiB"
sql <<<"CREATE DATABASE IF NOT EXISTS $database"
collation=$(sql <<<"SELECT default_collation_name FROM information_schema.schemata WHERE schema_name = '$database'")
sql <<<"CREATE DATABASE $staging COLLATE $collation"
# A default that uses a sequence names its final schema, where the sequence must exist already.
# shellcheck disable=SC2016
gzip -dc "$file" | LC_ALL=C sed -n 's/^CREATE SEQUENCE `/CREATE SEQUENCE IF NOT EXISTS `/p' | sql $database
gzip -dc "$file" | for_schema $staging | asleep | sql $staging
# Around its objects a dump changes the default of the schema, and then back to that of its own time.
sql <<<"ALTER DATABASE $staging COLLATE $collation"
[ -n "$(tables $staging)" ] || fail "$file has no table"
awake=$(events_awake $staging)
[ -z "$awake" ] || fail "$file has events that mariadb-dump did not write, and would run too early: $awake"

step="migrating it"
"${compose[@]}" run --rm --no-deps -T -e "SCHEMA=$staging" migrate \
    python -m app migrate </dev/null
# Sessions of an old backup may have been ended since: nobody stays logged in.
sessions=$(tables $staging user_sessions)
[ -z "$sessions" ] || sql <<<"DELETE FROM $staging.user_sessions"

step="taking out what cannot be renamed (triggers, views, routines, events), and putting it back"
rm -rf "$restoring.new"
mkdir "$restoring.new"
objects $staging | for_schema $database | awake >"$restoring.new/new.sql"
strip $staging
for_schema $staging <"$restoring.new/new.sql" | asleep | sql $staging
strip $staging
if [ "$before" = nowhere ]; then
    objects $database --force >"$restoring.new/old.sql" || true
else
    objects $database >"$restoring.new/old.sql"
    sql <<<"DROP DATABASE IF EXISTS $rehearsal; CREATE DATABASE $rehearsal"
    sql $rehearsal <<<"$(sql <<<"SELECT CONCAT('CREATE TABLE ', $(quoted table_name), ' LIKE $database.',
        $(quoted table_name), ';') FROM information_schema.tables
        WHERE table_schema = '$database' AND table_type <> 'VIEW'")"
    for_schema $rehearsal <"$restoring.new/old.sql" | asleep | sql $rehearsal
    sql <<<"DROP DATABASE $rehearsal"
fi
sql <<<"CREATE DATABASE IF NOT EXISTS $old"
"${compose[@]}" ps --all --quiet api worker >"$restoring.new/containers"
echo "$before" >"$restoring.new/before"
echo "$collation" >"$restoring.new/collation"

if [ -n "$id" ]; then
    step="putting files back"
    put_files_back "$id"
fi

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
