#!/bin/bash
# One backup, or with `offsite` only its last part: a dump of the database, then a snapshot of it and of the files, then a copy off-site.
#
# The database comes first: files get a new name at each upload, and are deleted an hour after the last
# row that names them, so whatever the dump names is there to be read for an hour.
# Killed at any point, it leaves the earlier backups as they were; the next one starts anew.
set -euo pipefail
# shellcheck source=docker/backup/common.sh
. /etc/backup/common.sh
umask 077

FILES_KEPT=3000 # s; files that no row names stay for an hour
next=$volume/next
step="starting"

ended() {
    local status=$?
    trap - EXIT
    rm -rf "$next" || true
    [ $status = 0 ] || say "failed while $step; earlier backups are as they were. $help" >&2
    echo $((status != 0)) >"$volume/succeeded/failed" || true
    write_metrics
    exit $status
}

help="Look at the lines above"
mkdir -p "$volume/succeeded" "$TMPDIR"
exec 8>>"$volume/lock"
flock --nonblock 8 || fail "a backup is running already; docker compose logs backup shows it"
trap ended EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

dump_database() {
    step="waiting for a deployment or a restore to end"
    help="See what it does; then: make snapshot"
    exec 7</run/operation/operation.lock
    flock --timeout 600 7
    step="dumping the database"
    help="Does MariaDB run (docker compose ps), is the disk full (df)? Then: make snapshot"
    rm -rf "$next"
    mkdir "$next"
    began=$SECONDS
    local options=(--single-transaction --quick --dump-history --triggers --routines --events)
    export MYSQL_PWD
    MYSQL_PWD=$(cat /run/secrets/database_backup_password)
    # The position from which the binary log goes on, where there is one.
    [ "$(mariadb --host=mariadb --user=backup --skip-column-names -e 'SELECT @@log_bin')" = 0 ] ||
        options+=(--master-data=2 --gtid)
    mariadb-dump --host=mariadb --user=backup "${options[@]}" "$NAME" >"$next/database.sql"
    exec 7<&-
    tail -n 1 "$next/database.sql" | grep -q '^-- Dump completed'
    help="The database has no table. If it should have: make restore"
    grep -q -m 1 '^CREATE TABLE' "$next/database.sql"
    figures "$next/database.sql" >"$next/figures"
}

open_repository() {
    step="opening the repository"
    help="Is the volume writable, the disk full (df)?"
    if [ ! -e "$volume/repository/config" ]; then
        if [ -n "$(ls -A "$volume/repository/snapshots" 2>/dev/null)" ]; then
            help="repository/config is gone: move that folder away, or bring back the file from the copy off-site"
            return 1
        fi
        rm -rf "$volume/repository" # what a killed `init` has left
        on_repository local init --quiet
    fi
    # Nobody else uses it, and this script has the lock: others are of killed ones.
    on_repository local unlock --quiet --remove-all
}

copy_bucket() {
    step="copying the files of the bucket"
    help="Check FILES_ENDPOINT and its key, and whether the disk is full (df); then: make snapshot"
    mkdir -p "$files"
    on_bucket sync bucket: "$files"
}

snapshot() {
    local summary
    if has_bucket; then copy_bucket || return 1; fi
    step="writing the snapshot"
    help="Is the disk full (df)? docs/backups.md#when-the-disk-is-full; then: make snapshot"
    # 3 is a file that was deleted while it was read: once more.
    summary=$(take) || { [ $? = 3 ] && summary=$(take); } || return 1
    if [ $((SECONDS - began)) -ge $FILES_KEPT ]; then return 75; fi
    echo "$summary" | grep -o '"total_bytes_processed":[0-9]*' | cut -d: -f2 >"$volume/succeeded/size"
}

take() {
    local paths=("$next")
    : >"$next/files"
    if [ -d $files ]; then
        paths+=($files)
        echo $files >"$next/files"
    fi
    on_repository local backup --quiet --json --host "$NAME" --tag backup --group-by host "${paths[@]}"
}

# forget local|offsite: what is beyond the retention.
forget() {
    step="removing old backups of the $1 repository"
    help="Nothing is lost; the next backup tries again"
    on_repository "$1" forget --quiet --host "$NAME" --tag backup --group-by host --keep-within 2d \
        --keep-daily "$BACKUP_DAILY" --keep-weekly "$BACKUP_WEEKLY" --prune
}

copy_offsite() {
    step="copying to $offsite"
    help="The local backup is complete. Check BACKUP_OFFSITE, its key and the network; then: make snapshot"
    local status=0
    # restic itself would try for a quarter of an hour.
    LIMIT=60 on_repository offsite cat config --no-lock >/dev/null 2>"$TMPDIR/reason" || status=$?
    if [ $status = 10 ]; then
        on_repository offsite init --quiet --from-repo "$volume/repository" --copy-chunker-params
    elif [ $status != 0 ]; then
        cat "$TMPDIR/reason" >&2
        return $status
    fi
    on_repository offsite unlock --quiet --remove-all
    on_repository offsite copy --quiet --from-repo "$volume/repository" --host "$NAME" --tag backup
    forget offsite
    on_repository offsite check --quiet
}

back_up() {
    local status=0
    dump_database
    open_repository
    snapshot || status=$?
    if [ $status = 75 ]; then
        say "this took longer than files are kept: once more, as only what is new has to be read"
        dump_database
        status=0
        snapshot || status=$?
    fi
    [ $status = 0 ]
    rm -rf "$next"
    succeeded database
    say "database and files are in the repository, $(cat "$volume/succeeded/size") bytes"
    forget local
    step="checking the repository"
    help="Repair it: docs/backups.md#a-damaged-repository"
    # All data is read once a week.
    on_repository local check --quiet --read-data-subset "$(date -u +%u)/7"
}

[ "${1:-}" = offsite ] || back_up
if has_offsite; then
    copy_offsite
    succeeded offsite
    say "copied to $offsite"
elif [ -z "$offsite" ]; then
    say "there is no copy off-site: set BACKUP_OFFSITE, or BACKUP_OFFSITE=none if another program copies them"
fi
