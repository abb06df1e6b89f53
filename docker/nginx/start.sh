#!/bin/sh
# Keeps nginx told which containers of the service there are: nginx asks for a name only once.
#
#   start.sh          serve, with a copy of the configuration: an edit takes effect with `reload`
#   start.sh check    whether it would start, in a container of its own
#   start.sh reload   in the container that serves: take the configuration as it is now, if it is right
set -eu
umask 077 # the key of the certificate is copied

PORT=8000
source=/etc/edge
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

signal() { nginx -q -c "$conf/current/nginx.conf" -s "$1"; }

watch() {
    while sleep 1; do
        new=$(wanted)
        if [ -n "$new" ] && [ "$new" != "$now" ]; then
            # shellcheck disable=SC2086  # one word for each address
            write_upstream $new && signal reload && now=$new
        fi
    done
}

# Copy what nginx reads, certificates included, to a folder whose name is a digest of it all.
configure() {
    rm -rf "$conf/new"
    mkdir "$conf/new"
    cp "$source"/*.conf "$conf/new"
    # shellcheck disable=SC2153
    if [ "$HTTPS_PORT" = 443 ]; then https_port=""; else https_port=":$HTTPS_PORT"; fi
    cat >"$conf/new/environment.conf" <<END
map "" \$https_port { default "$https_port"; }
limit_req_zone \$client zone=requests:10m rate=${EDGE_RATE}r/s;
limit_conn_zone \$client zone=connections:10m;
limit_req zone=requests burst=$((EDGE_RATE * 2)) nodelay;
limit_conn connections $EDGE_CONNECTIONS;
END
    cat >"$conf/new/uploads.conf" <<END
limit_conn connections $EDGE_CONNECTIONS;
limit_conn uploads 16;
limit_conn uploaders 4;
END
    scheme=http
    if [ -r "$certificates/fullchain.pem" ] && [ -r "$certificates/privkey.pem" ]; then
        scheme=https
        cp "$certificates/fullchain.pem" "$certificates/privkey.pem" "$conf/new"
    elif [ -n "$CERTIFICATES" ] || [ ! -x "$certificates" ] || [ -e "$certificates/fullchain.pem" ] ||
        [ -L "$certificates/fullchain.pem" ]; then
        echo "fullchain.pem and privkey.pem in ${CERTIFICATES:-docker/nginx/certificates} must be" \
            "files that user $(id -u) can read; nothing is served, as plain HTTP was not asked for." \
            "Those of certbot are copied by: docker/certificates.sh" >&2
        return 1
    fi
    mv "$conf/new/$scheme.conf" "$conf/new/server.conf"
    digest=$(cat "$conf/new"/* | sha256sum | cut -c 1-16)
    echo "map '' \$configuration { default $digest; }" >"$conf/new/digest.conf"
}

# Known since nginx 1.27.4: a reload does not cut off a client that is just about to ask again.
probe_options() {
    echo "keepalive_min_timeout 1s;" >"$conf/optional.conf"
    nginx -q -t -c "$conf/new/nginx.conf" 2>/dev/null || : >"$conf/optional.conf"
}

switch() {
    rm -rf "${conf:?}/$digest"
    mv "$conf/new" "$conf/$digest"
    ln -sfn "$digest" "$conf/current"
}

# A new zone of another kind is only refused when nginx takes the configuration, not by -t.
wait_until_taken() {
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        [ "$(wget -q -O - http://127.0.0.1:8081/configuration)" != "$digest" ] || return 0
        sleep 0.5
    done
    return 1
}

reload() {
    before=$(readlink "$conf/current")
    configure
    if [ "$digest" = "$before" ]; then
        echo "nginx: has this configuration already"
        exit
    fi
    nginx -q -t -c "$conf/new/nginx.conf" || exit 1
    switch
    if ! { signal reload && wait_until_taken; }; then
        ln -sfn "$before" "$conf/current"
        rm -rf "${conf:?}/$digest"
        echo "nginx: did not take it, and goes on with that of before; its log says why" >&2
        exit 1
    fi
    rm -rf "${conf:?}/$before"
    echo "nginx: reloaded"
}

case ${1:-} in
check)
    write_upstream 127.0.0.1
    : >"$conf/optional.conf"
    configure
    exec nginx -q -t -c "$conf/new/nginx.conf"
    ;;
reload)
    reload
    exit
    ;;
esac

cp "$0" "$conf/started.sh" # docker/reload.sh compares
configure
: >"$conf/upstream.conf"
until now=$(wanted) && [ -n "$now" ]; do
    echo "Waiting for a container of the service that is ready"
    sleep 1
done
# shellcheck disable=SC2086
write_upstream $now
probe_options
switch

# Whatever happens to it, it goes on: nothing else would tell nginx of a new container.
while :; do
    watch || true
    sleep 1
done &
exec nginx -c "$conf/current/nginx.conf" -g "daemon off;"
