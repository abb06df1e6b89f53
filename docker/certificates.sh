#!/usr/bin/env bash
# Copy a renewed certificate to the folder of nginx, and reload nginx:
#
#   certbot renew --deploy-hook /path/to/docker/certificates.sh
#   docker/certificates.sh /etc/letsencrypt/live/example.com     the first time
#
# certbot's own files are links out of their folder, and only root may read the key: nginx cannot use them.
# If nginx refuses the new files, the old ones are restored.
set -euo pipefail
from=$(cd "${1:-${RENEWED_LINEAGE:?which folder? docker/certificates.sh /etc/letsencrypt/live/NAME}}" && pwd -P)
# shellcheck source=docker/common.sh
. "$(dirname "$0")/common.sh"

NGINX=101 # its user in docker-compose.yml

lock 600
to=$("${compose[@]}" config | grep -B 1 'target: /etc/nginx/certificates' | sed -n 's/^ *source: //p')
[ -d "$to" ] || mkdir -p "$to"
[ "$from" != "$(cd "$to" && pwd -P)" ] ||
    fail "CERTIFICATES names the folder of certbot; let it name another one, into which this copies"
umask 077
kept=$(mktemp -d)
trap 'rm -rf "$kept" "$to"/*.new' EXIT

# put FOLDER: both files, each at once.
put() {
    local name
    for name in fullchain.pem privkey.pem; do
        cat "$1/$name" >"$to/$name.new"
        chown $NGINX "$to/$name.new"
    done
    for name in fullchain.pem privkey.pem; do mv "$to/$name.new" "$to/$name"; done
}

[ ! -e "$to/privkey.pem" ] || cp -p "$to"/*.pem "$kept"
put "$from"
chmod a+x "$to" # root owns it, and nginx must find its files in it
if [ -z "$(containers nginx)" ]; then
    say "copied to $to; nginx does not run"
elif ! docker/reload.sh; then
    if [ -e "$kept/privkey.pem" ]; then put "$kept"; else rm "$to"/*.pem; fi
    fail "nginx did not take the certificate of $from; it goes on as it was"
fi
