# Functions of restore.sh, drill.sh and snapshots.sh: the repository of backups (docker/backup), and a
# scratch server of MariaDB beside the one that serves (the service `drill`).
# shellcheck shell=bash disable=SC2154

export REPOSITORY=local
[ -z "${OFFSITE:-}" ] || REPOSITORY=offsite

# in_backup COMMAND...: see docker/backup/start.sh. Does not need a running `backup`.
in_backup() {
    "${compose[@]}" --progress quiet run --rm --no-deps -T -e REPOSITORY backup "$@"
}

# The full identity of a backup, which may be `latest`.
identify() {
    in_backup snapshot "$1" </dev/null ||
        fail "there is no backup $1 in the $REPOSITORY repository; make snapshots lists them"
}

# database_of ID: its dump.
database_of() { in_backup restic dump --quiet "$1" /var/lib/backup/next/database.sql </dev/null; }

figures_of() { in_backup restic dump --quiet "$1" /var/lib/backup/next/figures </dev/null; }

# folder_of ID: where the files are in a backup; nothing if it has none.
folder_of() { in_backup files "$1" </dev/null; }

# files_of ID FOLDER: their paths in it.
files_of() { in_backup restic ls --quiet --recursive "$1" "$2" </dev/null | sed -n "s#^$2/##p"; }

# archive_of ID FOLDER: as a tar. restic verifies all that it reads.
archive_of() { in_backup restic dump --quiet "$1:$2" / </dev/null; }

# Files never change, so those that are there stay. The service deletes, after an hour, what no row of the
# restored database names.
put_files_back() {
    local folder
    folder=$(folder_of "$1")
    [ -n "$folder" ] || return 0
    if in_backup has-bucket </dev/null; then
        in_backup return "$1" </dev/null
    else
        archive_of "$1" "$folder" |
            "${compose[@]}" --progress quiet run --rm --no-deps -T --entrypoint sh api -c \
                'mkdir -p /srv/files/objects && exec tar --extract --directory /srv/files/objects --skip-old-files'
    fi
}

in_scratch() {
    # shellcheck disable=SC2016  # the shell in the container expands it
    "${compose[@]}" --profile drill exec -T drill sh -c \
        'MYSQL_PWD=$(cat /run/secrets/database_root_password) exec "$@"' sh "$@"
}

# `up` would show its progress.
start_scratch() {
    stop_scratch # of a drill that was killed
    "${compose[@]}" --progress quiet --profile drill up --detach --no-deps --wait drill ||
        fail "the scratch server does not start; docker compose -f docker-compose.yml logs drill"
}

stop_scratch() {
    "${compose[@]}" --progress quiet --profile drill rm --force --stop --volumes drill >/dev/null 2>&1 || true
}
