#!/usr/bin/env bash
# make restore-drill [FILE=ID] [OFFSITE=1]: restore a backup, the newest one if none is named, into a server
# of its own beside the one that serves; compare it with what was noted when it was made; migrate it.
set -euo pipefail
# shellcheck source=docker/common.sh
. "$(dirname "$0")/common.sh"
# shellcheck source=docker/database.sh
. docker/database.sh
# shellcheck source=docker/repository.sh
. docker/repository.sh

operation=restore-drill
step="checking the repository"
scratch=""

ended() {
    local status=$?
    trap - EXIT
    rm -rf "$work"
    [ -z "$scratch" ] || stop_scratch
    [ $status = 0 ] || say "failed while $step: see docs/backups.md#a-damaged-repository. The service is as it was" >&2
    exit $status
}

lock_file var/drill.lock || fail "another drill is running"
work=$(mktemp -d)
trap ended EXIT
id=$(identify "${1:-latest}")
say "backup ${id:0:8} of the $REPOSITORY repository"
in_backup restic check --quiet </dev/null

step="starting the scratch server"
scratch=started
start_scratch
step="restoring the database into the scratch server"
database_of "$id" | in_scratch mariadb --user=root --default-character-set=utf8mb4 "$database"

step="comparing the database with the figures of the backup"
figures_of "$id" >"$work/noted"
[ -s "$work/noted" ] || fail "the backup has no figures"
in_scratch mariadb-dump --user=root --single-transaction --quick --dump-history "$database" </dev/null |
    in_backup figures >"$work/found"
diff "$work/noted" "$work/found" >&2 || fail "rows or checksums differ (< noted at the backup, > restored)"
say "$(awk '{rows += $(NF - 1)} END {print NR " tables with " rows + 0 " rows"}' "$work/found") are as they were"

step="reading the files"
folder=$(folder_of "$id")
: >"$work/files"
if [ -n "$folder" ]; then
    archive_of "$id" "$folder" >/dev/null
    files_of "$id" "$folder" >"$work/files"
fi
say "the files can be read"
# sample: begin
# A cover is named by what its files begin with.
in_scratch mariadb --user=root --skip-column-names "$database" \
    <<<"SELECT \`key\` FROM covers" >"$work/covers"
missing=$(while IFS= read -r key; do
    grep -q -F "$key" "$work/files" || echo "$key"
done <"$work/covers")
[ -z "$missing" ] || fail "rows name files that the backup lacks: $missing"
say "those of all $(wc -l <"$work/covers" | tr -d ' ') covers are there"
# sample: end

step="migrating the scratch database"
"${compose[@]}" --progress quiet run --rm --no-deps -T --entrypoint python \
    -e "DATABASE_URL=mariadb+asyncmy://${database}_migrate@drill/$database" migrate -m app migrate </dev/null

in_backup succeeded drill </dev/null
say "done: backup ${id:0:8} can be restored"
