# Functions of the scripts in this folder; each sources it first.
# shellcheck shell=bash

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
export TAG=latest
compose=(docker compose -f docker-compose.yml)
operation=$(basename "$0" .sh)
# Their files may be empty.
optional_secrets="alert_pages_url alert_smtp_password alert_tickets_url alert_watchdog_url backup_offsite_key"
optional_secrets="$optional_secrets mail_password tokens_old_keys"
restoring=backups/restoring # exists from the swap of two databases to its end

say() { echo "$operation: $*"; }
fail() {
    say "$@" >&2
    exit 1
}

# bash ends a script on a signal without its EXIT trap in some versions; `exit` always runs it.
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

# macOS has no flock, but perl. The lock belongs to the open file: it outlives perl, and is held until
# the last process with descriptor 9 ends.
try_lock() {
    if command -v flock >/dev/null; then
        flock --nonblock 9
    else
        perl -e 'use Fcntl ":flock"; open(my $file, ">>&=", 9) or exit 1; exit !flock($file, LOCK_EX | LOCK_NB)'
    fi
}

# lock_file FILE: until this script and what it started have ended.
lock_file() {
    mkdir -p var
    exec 9>>"$1"
    try_lock
}

# lock [SECONDS]: one operation at a time; waits at most so long for another to end. Two deployments
# would mistake each other's containers; a backup during a restore would hold half of each database.
lock() {
    local running process deadline=$((SECONDS + ${1:-0}))
    [ -z "${OPERATION_LOCKED:-}" ] || return 0 # by the script that called this one
    until lock_file var/operation.lock; do
        if [ $SECONDS -ge $deadline ]; then
            running=$(cat var/operation.lock)
            # The container of the scheduled backup has the lock without writing its name.
            process=$(echo "$running" | tr -dc 0-9)
            kill -0 "$process" 2>/dev/null || ps -p "$process" >/dev/null 2>&1 || running="the scheduled backup"
            fail "$running is running; try again when it has ended"
        fi
        sleep 0.5
    done
    export OPERATION_LOCKED=1
    echo "$operation (process $$)" >var/operation.lock
    [ "$operation" = restore ] || [ ! -e "$restoring" ] ||
        fail "a restore was cut off; run: make restore, which takes the old database back"
}

# The files of the secrets on this machine, or of one.
secret_files() {
    "${compose[@]}" config | sed -n '/^secrets:/,$ s/^ *file: //p' | grep "/${1:-[a-z_]*}\$"
}

# What an image says of itself: for a build.
describe_build() {
    VERSION=$(sed -n 's/^VERSION = "\(.*\)"$/\1/p' app/about.py)
    REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)
    export VERSION REVISION
}

# An image of a registry that no push can change.
is_release() { [[ $1 =~ ^[A-Za-z0-9./:_-]+@sha256:[0-9a-f]{64}$ ]]; }

containers() { "${compose[@]}" ps --quiet "$1"; }

# wait_until_healthy CONTAINER SECONDS
wait_until_healthy() {
    local state deadline=$((SECONDS + $2))
    while :; do
        state=$(docker inspect --format '{{.State.Status}} {{.State.Health.Status}}' "$1") || return 1
        case $state in
        "running healthy") return 0 ;;
        "running starting") ;;
        *) return 1 ;; # it ended, and perhaps Docker starts it over and over
        esac
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.5
    done
}

# create_one SERVICE COUNT KNOWN...: create a container beside the COUNT that run, with the hash that a
# plain `up` gives it: `up --no-deps` gives another one before Compose 2.29.3, and the next plain `up`
# would replace all of them at once. Sets `created`, which stays empty if that fails.
create_one() {
    local service=$1 count=$2
    shift 2
    "${compose[@]}" create --no-recreate --scale "$service=$((count + 1))" "$service" >/dev/null 2>&1 || true
    created=$("${compose[@]}" ps --all --quiet "$service" |
        grep -v -x -F "$(printf '%s\n' "$@")" | head -n 1) || true
    [ -n "$created" ]
}
