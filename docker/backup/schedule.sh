#!/bin/bash
# A backup each day at BACKUP_AT (UTC). One that was missed, as the machine was off, or that failed is made up
# for: at once, then each quarter of an hour.
set -euo pipefail
# shellcheck source=docker/backup/common.sh
. /etc/backup/common.sh

RETRY=${BACKUP_RETRY:-900} # s
trap 'kill "${child:-}" 2>/dev/null; wait; exit 0' TERM INT

# The last time at which a backup was to be made.
due() {
    local now today
    now=$(date +%s)
    today=$(date -u -d "$(date -u +%Y-%m-%d) $BACKUP_AT" +%s)
    echo $((today <= now ? today : today - 86400))
}

# What a signal can interrupt.
wait_for() {
    "$@" &
    child=$!
    wait $child
}

# Whether a kind of backup has not succeeded since.
lacks() { [ "$(succeeded_at "$1")" -lt "$(due)" ]; }

[[ $BACKUP_AT =~ ^([01][0-9]|2[0-3]):[0-5][0-9]$ ]] ||
    fail "BACKUP_AT=$BACKUP_AT is not a time such as 03:00"
for number in "$BACKUP_DAILY" "$BACKUP_WEEKLY"; do
    [[ $number =~ ^[1-9][0-9]*$ ]] || fail "BACKUP_DAILY and BACKUP_WEEKLY are numbers from 1 on, not $number"
done
write_metrics
say "each day at $BACKUP_AT UTC"
while :; do
    if lacks database; then
        part=""
    elif has_offsite && lacks offsite; then
        part=offsite # without another dump
    else
        wait_for sleep 20
        continue
    fi
    # shellcheck disable=SC2086
    wait_for bash /etc/backup/backup.sh $part || {
        say "the next attempt is in $RETRY s" >&2
        wait_for sleep "$RETRY"
    }
done
