# Functions of the scripts in this folder; each sources it first. The volume holds
#
#   repository/   all backups, encrypted and deduplicated by restic
#   next/         the dump that is being backed up
#   bucket/       a copy of the files, where they are in a bucket
#   succeeded/    when each kind of backup last succeeded
#   cache/, tmp/  restic's own
# shellcheck shell=bash

volume=/var/lib/backup
password=/run/secrets/backup_password
key=/run/secrets/backup_offsite_key
metrics=/var/lib/node-exporter/backup.prom
export RESTIC_PASSWORD_FILE=$password RESTIC_FROM_PASSWORD_FILE=$password
export RESTIC_CACHE_DIR=$volume/cache TMPDIR=$volume/tmp
AWS_ACCESS_KEY_ID=${BACKUP_OFFSITE_KEY_ID:-}
AWS_SECRET_ACCESS_KEY=$(cat $key)
export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY
export AWS_DEFAULT_REGION=${BACKUP_OFFSITE_REGION:-}

say() { echo "$(date -u +%Y-%m-%dT%H:%M:%SZ) backup: $*"; }
fail() {
    say "$@" >&2
    exit 1
}

# The repository of each kind. `none` is a choice too.
offsite=${BACKUP_OFFSITE:-}
has_offsite() { [ -n "$offsite" ] && [ "$offsite" != none ]; }

# on_repository local|offsite ARGUMENT...: restic, which says why it fails; then what to do.
on_repository() {
    local where=$1 repository=$volume/repository status=0 options=()
    shift
    if [ "$where" = offsite ]; then
        has_offsite || fail "there is no off-site repository: set BACKUP_OFFSITE"
        repository=$offsite
        if [ ! -s $key ] && [[ $AWS_ACCESS_KEY_ID != "" || $offsite == sftp:* ]]; then
            say "secrets/backup_offsite_key is empty: write the key into it, then: make roll" >&2
            return 1
        fi
        case $repository in sftp:*) prepare_ssh && options=(-o "sftp.args=$ssh_options") ;; esac
    fi
    mkdir -p "$TMPDIR"
    # Whoever reads it meanwhile, as a drill does, is waited for.
    ${LIMIT:+timeout "$LIMIT"} restic --retry-lock 5m --repo "$repository" \
        ${options[@]+"${options[@]}"} "$@" || status=$?
    case $status in
    124) say "the $where repository $repository cannot be reached, or its bucket does not exist" >&2 ;;
    10) say "the $where repository $repository does not exist: wrong address, or no backup yet" >&2 ;;
    11) say "another process works on the $where repository; wait for it to end" >&2 ;;
    12) say "secrets/backup_password is not the password of the $where repository: bring back the file" \
        "with which it was made" >&2 ;;
    esac
    return $status
}

# The folder of the files in a snapshot.
files=/srv/files/objects
bucket=${FILES_URL#s3://}
case ${FILES_URL:-} in s3://*) files=$volume/bucket ;; esac

has_bucket() { [ $files = $volume/bucket ]; }

# on_bucket COMMAND...: rclone, to which `bucket:` is where the service has its files.
on_bucket() {
    local provider=Other authenticate=false secret=""
    [ -n "$FILES_ENDPOINT" ] || provider=AWS
    if [ -n "$FILES_ACCESS_KEY_ID" ]; then
        secret=$(cat /run/secrets/files_secret_access_key)
    else
        authenticate=true # the role of the machine
    fi
    RCLONE_CONFIG_BUCKET_TYPE=alias RCLONE_CONFIG_BUCKET_REMOTE="store:$bucket" \
        RCLONE_CONFIG_STORE_TYPE=s3 RCLONE_CONFIG_STORE_PROVIDER=$provider \
        RCLONE_CONFIG_STORE_ENV_AUTH=$authenticate RCLONE_CONFIG_STORE_ACCESS_KEY_ID=$FILES_ACCESS_KEY_ID \
        RCLONE_CONFIG_STORE_SECRET_ACCESS_KEY=$secret RCLONE_CONFIG_STORE_ENDPOINT=$FILES_ENDPOINT \
        RCLONE_CONFIG_STORE_REGION=$FILES_REGION rclone --config /dev/null --quiet "$@"
}

# ssh refuses a key that is not its own.
prepare_ssh() {
    ssh_options="-i /tmp/key -o BatchMode=yes -o ConnectTimeout=20 -o UserKnownHostsFile=/tmp/known_hosts"
    (umask 077 && cp $key /tmp/key)
    echo "${BACKUP_OFFSITE_HOST_KEY:-}" >/tmp/known_hosts
}

# figures [FILE]: a line for each table of a dump.
figures() { awk -f /etc/backup/figures.awk "$@" | sed 's/  -$//'; }

# The last identity in restic's JSON.
newest() { grep -o '"id":"[0-9a-f]*"' | tail -n 1 | cut -d'"' -f4 | grep .; }

# succeeded_at KIND: seconds since 1970; 0 where it never has.
succeeded_at() { cat "$volume/succeeded/$1" 2>/dev/null || echo 0; }

succeeded() {
    mkdir -p "$volume/succeeded"
    date +%s >"$volume/succeeded/$1.new"
    mv "$volume/succeeded/$1.new" "$volume/succeeded/$1"
    write_metrics
}

write_metrics() { render_metrics || say "the metrics cannot be written to $metrics" >&2; }

render_metrics() {
    local kind
    {
        echo "# HELP backup_last_success_timestamp_seconds When a backup, its copy off-site or a drill last succeeded; 0 is never"
        echo "# TYPE backup_last_success_timestamp_seconds gauge"
        for kind in database offsite drill; do
            [ "$kind $offsite" = "offsite none" ] ||
                echo "backup_last_success_timestamp_seconds{kind=\"$kind\"} $(succeeded_at $kind)"
        done
        echo "# HELP backup_size_bytes Size of the database's dump and the files in the last backup"
        echo "# TYPE backup_size_bytes gauge"
        echo "backup_size_bytes $(cat "$volume/succeeded/size" 2>/dev/null || echo 0)"
        echo "# HELP backup_last_attempt_failed Whether the last attempt failed"
        echo "# TYPE backup_last_attempt_failed gauge"
        echo "backup_last_attempt_failed $(cat "$volume/succeeded/failed" 2>/dev/null || echo 0)"
    } >"$metrics.new" && chmod 644 "$metrics.new" && mv "$metrics.new" "$metrics"
}
