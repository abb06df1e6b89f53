#!/usr/bin/env bash
# make secrets: a random password in every file of secrets/ that does not exist yet, and an empty file
# for each that is optional.
set -euo pipefail
# shellcheck source=docker/common.sh
. "$(dirname "$0")/common.sh"

secrets=${SECRETS:-secrets}
mkdir -p "$secrets" var
: >>var/operation.lock # the container of the backup reads it
# The folder keeps others on this machine out; the files are read by the users in the containers.
chmod 700 "$secrets"
for name in backup_password database_backup_password database_migrate_password \
    database_observe_password database_password database_root_password files_secret_access_key grafana_password \
    jobs_password redis_password tokens_key; do
    file=$secrets/$name
    if [ -e "$file" ]; then
        echo "$file is there already"
        continue
    fi
    (umask 022 && head -c 30 /dev/urandom | base64 | tr '+/' '-_' | tr -d '\n' >"$file.new")
    mv "$file.new" "$file"
    echo "$file made"
done

for name in $optional_secrets; do
    [ -e "$secrets/$name" ] || (umask 022 && : >"$secrets/$name")
done
