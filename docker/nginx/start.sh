#!/bin/sh
# Keeps nginx told which containers of the service there are: nginx asks for a name only once.
set -eu

PORT=8000
conf=/run/conf
certificates=/etc/nginx/certificates
mkdir -p "$conf/leaving"

addresses() {
    getent ahostsv4 api | cut -d' ' -f1 | sort -u
}

is_ready() {
    wget -q -T 2 -O /dev/null "http://$1:$PORT/health/ready"
}

# Those of before that still exist, and the new ones that are ready. One that docker/deploy.sh is
# about to stop counts until the one that comes for it is ready.
wanted() {
    for address in $(addresses); do
        successor=$(cat "$conf/leaving/$address" 2>/dev/null || true)
        if [ -n "$successor" ] && is_ready "$successor" 2>/dev/null; then
            continue
        fi
        if grep -q " $address:" "$conf/upstream.conf" || is_ready "$address" 2>/dev/null; then
            echo "$address"
        fi
    done
}

# An idle connection ends before a container that stops would end it: it takes 1.5 s for that.
write_upstream() {
    {
        echo "upstream api {"
        echo "    zone api 64k;"
        for address; do echo "    server $address:$PORT max_fails=1 fail_timeout=2s;"; done
        echo "    keepalive 64;"
        echo "    keepalive_timeout 1s;"
        echo "}"
        echo "map '' \$servers { default '$*'; }"
    } >"$conf/upstream.new" &&
        mv "$conf/upstream.new" "$conf/upstream.conf"
}

watch() {
    while sleep 1; do
        new=$(wanted)
        if [ -n "$new" ] && [ "$new" != "$now" ]; then
            # shellcheck disable=SC2086  # one word for each address
            write_upstream $new && nginx -q -s reload && now=$new
        fi
    done
}

if [ "$HTTPS_PORT" = 443 ]; then https_port=""; else https_port=":$HTTPS_PORT"; fi
cat >"$conf/environment.conf" <<END
map "" \$https_port { default "$https_port"; }
limit_req_zone \$client zone=requests:10m rate=${EDGE_RATE}r/s;
limit_conn_zone \$client zone=connections:10m;
limit_req zone=requests burst=$((EDGE_RATE * 2)) nodelay;
limit_conn connections $EDGE_CONNECTIONS;
END
cat >"$conf/uploads.conf" <<END
limit_conn connections $EDGE_CONNECTIONS;
limit_conn uploads 16;
limit_conn uploaders 4;
END

if [ -r "$certificates/fullchain.pem" ] && [ -r "$certificates/privkey.pem" ]; then
    scheme=https
elif [ -n "$CERTIFICATES" ] || [ ! -x "$certificates" ] || [ -e "$certificates/fullchain.pem" ]; then
    echo "fullchain.pem and privkey.pem in ${CERTIFICATES:-docker/nginx/certificates} must be" \
        "files that user $(id -u) can read; nothing is served, as plain HTTP was not asked for" >&2
    exit 1
else
    scheme=http
fi
ln -sf "/etc/nginx/$scheme.conf" "$conf/server.conf"

: >"$conf/upstream.conf"
until now=$(wanted) && [ -n "$now" ]; do
    echo "Waiting for a container of the service that is ready"
    sleep 1
done
# shellcheck disable=SC2086
write_upstream $now

# Known since nginx 1.27.4: a reload does not cut off a client that is just about to ask again.
echo "keepalive_min_timeout 1s;" >"$conf/optional.conf"
nginx -q -t 2>/dev/null || : >"$conf/optional.conf"

# Whatever happens to it, it goes on: nothing else would tell nginx of a new container.
while :; do
    watch || true
    sleep 1
done &
exec nginx -g "daemon off;"
