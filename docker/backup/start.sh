#!/bin/bash
# The service `backup`, and what `docker compose run backup` can do beside it:
#
#   (nothing)       a backup each day at BACKUP_AT
#   now             a backup
#   restic ...      restic on the repository, or with REPOSITORY=offsite on the other one
#   snapshot ID     the full identity of a backup (ID may be latest)
#   files ID        the folder of the files in a backup; nothing if it has none
#   has-bucket      whether the service has its files in a bucket
#   return ID       put the files of a backup into the bucket
#   figures         rows and checksum of each table in a dump on stdin
#   succeeded KIND  note the time for the metrics
set -euo pipefail
# shellcheck source=docker/backup/common.sh
. /etc/backup/common.sh

case ${1:-} in
"") exec bash /etc/backup/schedule.sh ;;
now) exec bash /etc/backup/backup.sh ;;
restic)
    shift
    on_repository "${REPOSITORY:-local}" "$@"
    ;;
snapshot)
    on_repository "${REPOSITORY:-local}" snapshots --json --host "$NAME" --tag backup "$2" | newest
    ;;
files) on_repository "${REPOSITORY:-local}" dump --quiet "$2" $volume/next/files ;;
has-bucket) has_bucket ;;
return)
    folder=$(on_repository "${REPOSITORY:-local}" dump --quiet "$2" $volume/next/files)
    rm -rf $volume/returning
    on_repository "${REPOSITORY:-local}" restore --quiet "$2:$folder" --target $volume/returning
    on_bucket copy --ignore-existing $volume/returning bucket:
    rm -rf $volume/returning
    ;;
figures) figures ;;
succeeded) succeeded "$2" ;;
*) fail "unknown command: $1" ;;
esac
