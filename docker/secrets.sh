#!/usr/bin/env bash
# make secrets: a strong password into every file of secrets/ that is not there yet.
set -euo pipefail
cd "$(dirname "$0")/.."

secrets=${SECRETS:-secrets}
mkdir -p "$secrets"
# The folder keeps others on this machine out; the files are read by the users in the containers.
chmod 700 "$secrets"
for name in database_password database_root_password files_secret_access_key grafana_password \
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
