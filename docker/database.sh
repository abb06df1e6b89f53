# Functions of backup.sh and restore.sh for MariaDB. A schema holds tables (and sequences), which can be
# renamed into another schema, and objects, which cannot: triggers, views, routines and events.
# shellcheck shell=bash disable=SC2034,SC2119,SC2120,SC2154

database=$(sed -n 's/^name: &name //p' docker-compose.yml)
: "${database:?docker-compose.yml has no line with name: &name}"
identifier="CONCAT('\`', REPLACE(%s, '\`', '\`\`'), '\`')"

# in_mariadb PROGRAM ARGUMENT...
in_mariadb() {
    # shellcheck disable=SC2016  # the shell in the container expands it
    "${compose[@]}" exec -T mariadb sh -c \
        'MYSQL_PWD=$(cat /run/secrets/database_root_password) exec "$@"' sh "$@"
}

# sql [SCHEMA] <STATEMENTS: one session at a time; waits for one that a killed script has left. Waits
# at most 20 s for a table in use.
sql() {
    in_mariadb mariadb --user=root --default-character-set=utf8mb4 --batch --raw --skip-column-names \
        --init-command="SET lock_wait_timeout = 20, @held = GET_LOCK('restore', 60)" "$@"
}

# dump OPTION... SCHEMA [TABLE...]
dump() {
    in_mariadb mariadb-dump --user=root --single-transaction --quick --dump-history "$@" </dev/null
}

# Whether a dump is complete: mariadb-dump ends with this line.
is_whole() { gzip -dc "$1" 2>/dev/null | tail -n 1 | grep -q '^-- Dump completed'; }

# shellcheck disable=SC2059  # %s stands for a column
quoted() { printf "$identifier" "$1"; }

# tables SCHEMA [NAME]
tables() {
    # shellcheck disable=SC2016
    sql <<<"SELECT table_name FROM information_schema.tables WHERE table_schema = '$1'
        AND table_type <> 'VIEW' ${2:+AND table_name = '$2'}"
}

# False where the query fails: what is empty may be dropped.
is_empty() {
    [ "$(sql <<<"SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = '$1'")" = 0 ]
}

# renames FROM TO: the arguments of RENAME TABLE; nothing where there is no table.
renames() {
    sql <<<"SELECT COALESCE(GROUP_CONCAT('$1.', $(quoted table_name), ' TO $2.', $(quoted table_name)), '')
        FROM information_schema.tables WHERE table_schema = '$1' AND table_type <> 'VIEW'"
}

# objects SCHEMA [OPTION]: statements that create its triggers, routines, events and views.
objects() {
    local schema=$1 names name views=()
    shift
    dump --no-data --no-create-info --triggers --routines --events "$@" "$schema" || return 1
    names=$(sql <<<"SELECT table_name FROM information_schema.views WHERE table_schema = '$schema'") ||
        return 1
    while IFS= read -r name; do [ -z "$name" ] || views+=("$name"); done <<<"$names"
    [ ${#views[@]} = 0 ] || dump --no-data --skip-triggers "$@" "$schema" "${views[@]}"
}

# What names the schema in a dump: around an object whose schema had another collation, that of the schema
# is changed and changed back. Locks go, as a default of a sequence would need one on the sequence too.
for_schema() {
    LC_ALL=C sed -E -e "s/^(ALTER DATABASE )\`[^\`]*\`( CHARACTER SET )/\1\`$1\`\2/" \
        -e '/^(LOCK TABLES `.* WRITE|UNLOCK TABLES);$/d'
}

# How mariadb-dump begins an event, up to whether it is enabled.
ticked="\`([^\`]|\`\`)*\`"
times="AT '[^']*'|EVERY ('[^']*'|[0-9]+) [A-Z_]+( STARTS '[^']*')?( ENDS '[^']*')?"
event="/\*!50106 CREATE\*/ (/\*!50117 DEFINER=$ticked(@$ticked)?\*/ )?/\*!50106 EVENT $ticked"
event="$event ON SCHEDULE ($times) ON COMPLETION (NOT )?PRESERVE"

# Events of a dump as a replica has them, where they do not run; and back. Those that were disabled stay so.
asleep() { LC_ALL=C sed -E "s#^($event) ENABLE #\1 DISABLE ON SLAVE #"; }
awake() { LC_ALL=C sed -E "s#^($event) DISABLE ON (SLAVE|REPLICA) #\1 ENABLE #"; }

events_awake() {
    sql <<<"SELECT event_name FROM information_schema.events WHERE event_schema = '$1' AND status = 'ENABLED'"
}

# Drop the objects of a schema.
strip() {
    local drops
    drops=$(
        sql <<<"
        SELECT CONCAT('DROP TRIGGER IF EXISTS $1.', $(quoted trigger_name), ';')
            FROM information_schema.triggers WHERE trigger_schema = '$1';
        SELECT CONCAT('DROP VIEW IF EXISTS $1.', $(quoted table_name), ';')
            FROM information_schema.tables WHERE table_schema = '$1' AND table_type = 'VIEW';
        SELECT CONCAT('DROP ', routine_type, ' IF EXISTS $1.', $(quoted routine_name), ';')
            FROM information_schema.routines WHERE routine_schema = '$1';
        SELECT CONCAT('DROP EVENT IF EXISTS $1.', $(quoted event_name), ';')
            FROM information_schema.events WHERE event_schema = '$1'"
    ) || return 1
    sql <<<"$drops"
}
