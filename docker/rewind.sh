# A function of restore.sh: a backup, and what came after it up to a moment.
# shellcheck shell=bash disable=SC2034,SC2154

# rewind FILE TIME: sets `file` to a new backup. It is made by a scratch server, which replays the binary log:
# the database that serves is read only.
rewind() {
    local start first position gtid known logs made replaced
    [[ $2 =~ ^[0-9]{4}-[0-9]{2}-[0-9]{2}\ [0-9]{2}:[0-9]{2}:[0-9]{2}$ ]] ||
        fail "UNTIL='$2' is not a time (UTC) such as '2026-11-27 03:00:00'"
    made=$(gzip -dc "$1" | tail -n 1 | sed 's/^-- Dump completed on //')
    [[ ! $2 < $made ]] || fail "that backup was made at $made, after UNTIL: choose an older one"
    start=$(gzip -dc "$1" | LC_ALL=C sed -n \
        "s/^-- CHANGE MASTER TO MASTER_LOG_FILE='\([^']*\)', MASTER_LOG_POS=\([0-9]*\);\$/\1 \2/p; /^CREATE /q" || true)
    [ -n "$start" ] || fail "$1 was made without the binary log: set DATABASE_BINLOG_DAYS before the next backup"
    first=${start% *} position=${start#* }
    logs=$(sql <<<"SHOW BINARY LOGS" | cut -f1 | sed -n "/^$first\$/,\$p")
    [ -n "$logs" ] || fail "the server no longer has $first, from where that backup goes on: choose a newer backup"
    gtid=$(gzip -dc "$1" | LC_ALL=C sed -n "s/^-- SET GLOBAL gtid_slave_pos='\(.*\)';\$/\1/p" | tail -n 1)
    known=$(sql <<<"SELECT BINLOG_GTID_POS('$first', $position)")
    [ "$gtid" = "$known" ] || fail "the binary log is not that of $1, but of another server"

    # shellcheck disable=SC2086  # one word for each file
    set -- "$1" "$2" --start-position="$position" --stop-datetime="$2" $logs
    replaced=$(binary_log "${@:3}" | LC_ALL=C grep -a -m 1 "^RENAME TABLE .*${database}_restored\." || true)
    [ -z "$replaced" ] || fail "another database was restored between that backup and UNTIL: choose a backup made" \
        "after it, or an earlier UNTIL"

    say "replaying the binary log up to $2 in a scratch server"
    start_scratch
    trap 'stop_scratch; drop_fetched' EXIT
    gzip -dc "$1" | in_scratch mariadb --user=root --default-character-set=utf8mb4 "$database"
    binary_log --database="$database" "${@:3}" |
        in_scratch mariadb --user=root --binary-mode "$database" ||
        fail "the binary log cannot be replayed; an earlier UNTIL may work. Nothing has changed"
    file=backups/$(date -u +%Y%m%dT%H%M%SZ)-until-$(echo "$2" | tr -dc 0-9).sql.gz
    in_scratch mariadb-dump --user=root --single-transaction --quick --dump-history --triggers --routines --events \
        "$database" </dev/null | gzip >"$file.partial" && is_whole "$file.partial" || {
        rm -f "$file.partial"
        fail "the result cannot be written; is the disk full? Nothing has changed"
    }
    mv "$file.partial" "$file"
    stop_scratch
    trap drop_fetched EXIT
}

# binary_log OPTION... FILE...
binary_log() {
    # shellcheck disable=SC2016
    in_mariadb sh -c 'cd /var/lib/mysql && TZ=UTC exec mariadb-binlog "$@"' sh "$@" </dev/null
}
