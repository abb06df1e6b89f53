# What the scripts of this folder share; each sources it first.
# shellcheck shell=bash

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
export TAG=latest
compose=(docker compose -f docker-compose.yml)
operation=$(basename "$0" .sh)
restoring=backups/restoring # is there from the swap of two databases to its end

say() { echo "$operation: $*"; }
fail() {
    say "$@" >&2
    exit 1
}

# bash ends a script on a signal without its EXIT trap in some versions; `exit` always runs it.
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

# Where flock is missing, as on macOS, perl is there. A lock belongs to the open file: it stays when
# perl ends, and until the last process ends that has inherited descriptor 9.
try_lock() {
    if command -v flock >/dev/null; then
        flock --nonblock 9
    else
        perl -e 'use Fcntl ":flock"; open(my $file, ">>&=", 9) or exit 1; exit !flock($file, LOCK_EX | LOCK_NB)'
    fi
}

# lock [SECONDS]: one operation at a time, waiting so long for another to end. A deployment would take
# the containers of another for its own; a backup during a restore would hold half of each database.
lock() {
    local deadline=$((SECONDS + ${1:-0}))
    [ -z "${OPERATION_LOCKED:-}" ] || return 0 # by the script that called this one
    mkdir -p var
    exec 9>>var/operation.lock
    until try_lock; do
        [ $SECONDS -lt $deadline ] || fail "$(cat var/operation.lock) is running; try again when it has ended"
        sleep 0.5
    done
    export OPERATION_LOCKED=1
    echo "$operation (process $$)" >var/operation.lock
    [ "$operation" = restore ] || [ ! -e "$restoring" ] ||
        fail "a restore was cut off; run: make restore, which takes the old database back"
}

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
