#!/usr/bin/env bash
# make snapshot: back up database and files now, as the service `backup` does each day.
# make snapshots [OFFSITE=1]: list the backups.
set -euo pipefail
# shellcheck source=docker/common.sh
. "$(dirname "$0")/common.sh"
# shellcheck source=docker/repository.sh
. docker/repository.sh

case $1 in
snapshot) in_backup now </dev/null ;;
snapshots) in_backup restic snapshots --no-lock --tag backup </dev/null ;;
esac
