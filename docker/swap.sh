# Functions of restore.sh: swap two databases, and undo it. Their state is in the folder backups/restoring,
# which exists from the stop of the service to the end:
#
#   new.sql, old.sql   the objects of both databases
#   containers         of the service
#   before             the backup of the old database
#   collation          the default of the schema
#   started, serves    when the service was started with the new one, and when it was healthy
# shellcheck shell=bash disable=SC2086,SC2154

staging=${database}_restored
old=${database}_before
rehearsal=${database}_rehearsal

wait_for_database() {
    local deadline=$((SECONDS + 180))
    # shellcheck disable=SC2046
    docker start $("${compose[@]}" ps --all --quiet mariadb) >/dev/null || return 1
    until sql <<<"DO 0" 2>/dev/null; do
        [ $SECONDS -lt $deadline ] || return 1
        sleep 1
    done
}

# False where MariaDB alone was started.
has_service() { [ -s "$restoring/containers" ]; }

stop_service() {
    has_service || return 0
    # shellcheck disable=SC2046  # one word for each container
    docker stop --time 40 $(cat "$restoring/containers") >/dev/null
}

# Does not wait for the job workers, which may fail for other reasons.
start_service() {
    local one
    has_service || return 0
    # nginx has responses of the other database; without its files it fetches them again.
    "${compose[@]}" exec -T nginx sh -c 'rm -rf /run/cache/*' </dev/null >/dev/null 2>&1 || true
    # shellcheck disable=SC2046
    docker start $(cat "$restoring/containers") >/dev/null || return 1
    for one in $("${compose[@]}" ps --all --quiet api); do
        wait_until_healthy "$one" 120 || return 1
    done
}

# raise_epoch SCHEMA OTHER: invalidate what the service has cached from either.
raise_epoch() {
    if [ -n "$(tables "$1" cache_epoch)" ] && [ -n "$(tables "$2" cache_epoch)" ]; then
        sql <<<"UPDATE $1.cache_epoch SET number =
            1 + GREATEST(number, (SELECT COALESCE(MAX(number), 0) FROM $2.cache_epoch))"
    else # rate limits are lost too
        # shellcheck disable=SC2016
        "${compose[@]}" exec -T valkey sh -c 'REDISCLI_AUTH=$(cat /run/secrets/redis_password) valkey-cli FLUSHALL' \
            </dev/null >/dev/null || say "Valkey is away, and will be empty when it is back" >&2
    fi
}

swap() {
    local away here
    strip $database
    raise_epoch $staging $database
    away=$(renames $database $old)
    here=$(renames $staging $database)
    sql <<<"RENAME TABLE ${away:+$away,} $here" # all of them, or none
    sql $database <"$restoring/new.sql"
    keep_default
}

# Works after any part of `swap`, and after an `undo` that was cut off.
undo() {
    local away here
    strip $database || return 1
    if is_empty $staging; then # then its tables were renamed
        raise_epoch $old $database || return 1
        away=$(renames $database $staging) && here=$(renames $old $database) || return 1
        sql <<<"RENAME TABLE $away${here:+, $here}" || return 1
    fi
    sql $database <"$restoring/old.sql" && keep_default
}

# The statements that create objects change the default of the schema, to that of when they were made.
keep_default() {
    [ ! -e "$restoring/collation" ] || sql <<<"ALTER DATABASE $database COLLATE $(cat "$restoring/collation")"
}

# The first backup was made while the service still wrote; this one is complete.
finish() {
    local kept
    kept=$(cat "$restoring/before")
    if is_empty $old; then
        sql <<<"DROP DATABASE IF EXISTS $old"
    elif [ "$kept" != nowhere ] &&
        { dump $old | sed '/^-- Dump completed/d' && cat "$restoring/old.sql"; } | gzip >"$kept.partial" &&
        is_whole "$kept.partial"; then
        mv "$kept.partial" "$kept"
        sql <<<"DROP DATABASE $old"
    else
        kept="the schema $old, which the next restore wants gone"
    fi
    drop_staging
    rm -r "$restoring"
    say "done; what was there is in $kept"
}

drop_staging() {
    if ! sql <<<"DROP DATABASE IF EXISTS $staging; DROP DATABASE IF EXISTS $rehearsal" 2>/dev/null; then
        say "MariaDB does not answer: what was read stays in the schema $staging, unused, until the next" \
            "restore drops it" >&2
        return 1
    fi
}

# Take the old database back, or finish when the new one has served already.
recover() {
    wait_for_database || return 1
    if [ -e "$restoring/serves" ]; then
        finish
        return
    fi
    stop_service && undo && is_empty $old && start_service || return 1
    sql <<<"DROP DATABASE IF EXISTS $old" || return 1
    say "undone: the database of before serves, and its backup is $(cat "$restoring/before")" >&2
    if [ -e "$restoring/started" ]; then
        say "what was restored, with what clients wrote to it meanwhile, is in the schema $staging" >&2
    else
        drop_staging
    fi
    rm -r "$restoring"
}

give_up() {
    say "this could not be undone: the service is stopped, nothing is lost. The old tables are in the" \
        "schema $old, or still in $database. Once MariaDB runs, make restore takes them back" >&2
}
