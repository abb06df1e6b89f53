#!/bin/sh
# Runs nginx, and updates its list of the service's containers: nginx resolves a name only once.
#
#   start.sh          serve, with a copy of the configuration: an edit takes effect with `reload`
#   start.sh check    whether it would start, in a container of its own
#   start.sh reload   in the container that serves: take the configuration as it is now, if it is right
set -eu
umask 077 # the key of the certificate is copied

PORT=8000
FAILURES=3 # failed checks in a row, after which a container gets no requests while another passes
RESPONSES_SIZE=4000000 # bytes; of the 16 MB that the volume has
source=/etc/edge
conf=/run/conf
responses=/run/responses/log
certificates=/etc/nginx/certificates
acme=/srv/acme # where docker/acme/certificate.py puts that of DOMAIN
mkdir -p "$conf/leaving" "$conf/failures"

addresses() {
    getent ahostsv4 api | cut -d' ' -f1 | sort -u
}

# passes ADDRESS PATH: it responds with 200 within 2 s, without the retries of GNU's wget.
passes() {
    timeout 2 wget -q -O /dev/null "http://$1:$PORT$2" 2>/dev/null
}

# Count the failed checks of the known containers, all at once: a frozen one takes the whole timeout.
check_known() {
    for address in $now; do
        {
            if passes "$address" /health; then
                rm -f "$conf/failures/$address"
            else
                echo >>"$conf/failures/$address"
            fi
        } &
    done
    wait
}

has_failed() {
    [ -e "$conf/failures/$1" ] && [ "$(wc -l <"$conf/failures/$1")" -ge "$FAILURES" ]
}

# The known ones that still exist and pass, or all of them if none does, and new ones that are ready.
# One that docker/deploy.sh is about to stop stays until its successor is ready.
wanted() {
    passing="" failing=""
    for address in $(addresses); do
        successor=$(cat "$conf/leaving/$address" 2>/dev/null || true)
        if [ -n "$successor" ] && passes "$successor" /health/ready; then
            continue
        fi
        if grep -q " $address:" "$conf/upstream.conf"; then
            if has_failed "$address"; then failing="$failing $address"; else passing="$passing $address"; fi
        elif passes "$address" /health/ready; then
            rm -f "$conf/failures/$address"
            passing="$passing $address"
        fi
    done
    # shellcheck disable=SC2086  # one word for each address
    echo ${passing:-$failing}
}

# Idle connections are closed before a stopping container closes them, which it does after 1.5 s.
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

# docker/mtail reads the old file to its end, as long as it has it open.
rotate() {
    if [ "$(stat -c %s "$responses")" -ge "$RESPONSES_SIZE" ]; then
        mv "$responses" "$responses.old" && signal reopen
    fi
}

watch() {
    while sleep 1; do
        rotate
        take_certificate
        check_known
        new=$(wanted)
        if [ -n "$new" ] && [ "$new" != "$now" ]; then
            # shellcheck disable=SC2086  # one word for each address
            write_upstream $new && signal reload && now=$new
        fi
    done
}

# One a line, of a list separated by commas or spaces.
words() { printf '%s\n' "$1" | tr -s ', ' '\n' | sed '/^$/d'; }

refuse() {
    echo "nginx does not start: $1." >&2
    shift
    printf '  %s\n' "$@" "See docs/deploy.md." >&2
    exit 1
}

# require_words NAME LIST PATTERN WHAT...: each word of a setting's list matches.
require_words() {
    name=$1 list=$2 pattern=$3
    shift 3
    if wrong=$(words "$list" | grep -vE "$pattern"); then
        refuse "$name has '$(echo "$wrong" | head -n 1)', $1" "$2"
    fi
}

check_settings() {
    byte='(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])'
    ipv4="$byte(\.$byte){3}(/([1-9]|[12][0-9]|3[0-2]))?"
    ipv6='[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(/([1-9][0-9]?|1[01][0-9]|12[0-8]))?' # nginx knows the rest
    label='[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?'
    require_words TRUSTED_PROXIES "$TRUSTED_PROXIES" "^($ipv4|$ipv6)\$" \
        "which is no address and no network of proxies (and what is /0 trusts everybody)" \
        "List those of your CDN or load balancer, such as TRUSTED_PROXIES=10.0.3.7,192.0.2.0/24, in .env."
    require_words REAL_IP_HEADER "$REAL_IP_HEADER" '^[A-Za-z][A-Za-z0-9-]*$' "which is no name of a header" \
        "Name the one in which your proxies send a client's address, such as X-Forwarded-For, in .env."
    [ "$(words "$REAL_IP_HEADER" | wc -l)" -eq 1 ] ||
        refuse "REAL_IP_HEADER is '$REAL_IP_HEADER', not one name" "Name one header in .env."
    require_words DOMAIN "$DOMAIN" "^$label(\.$label)+\$" "which is no full name of a host" \
        "List names without scheme, port and wildcard, such as DOMAIN=example.com,www.example.com, in .env."
    require_words ALLOWED_HOSTS "$ALLOWED_HOSTS" "^(\*\.)?$label(\.$label)*\$" "which is no name of a host" \
        "List names without scheme and port, such as ALLOWED_HOSTS=example.com,*.example.com, in .env."
    echo "$HSTS" | grep -qE '^max-age=[0-9]+(; includeSubDomains)?(; preload)?$' ||
        refuse "HSTS is '$HSTS', no value of Strict-Transport-Security" \
            "Set HSTS='max-age=31536000; includeSubDomains', say, or leave it out of .env."
    require_words CORS_ORIGINS "$CORS_ORIGINS" '^(\*|[a-z][a-z0-9+.-]*://[A-Za-z0-9.:[-]+\]?(:[0-9]+)?)$' \
        "which is no origin" "List origins without a path, such as CORS_ORIGINS=https://app.example.com, in .env."
    case $PLAIN_HTTP in "" | yes | no) ;; *)
        refuse "PLAIN_HTTP is '$PLAIN_HTTP'" "Set it to yes, or leave it out of .env."
        ;;
    esac
}

# The pair of DOMAIN once there is one, else that of CERTIFICATES.
find_certificate() {
    folder=$(readlink -f "$acme/served" 2>/dev/null || true)
    if [ -z "$DOMAIN" ] || [ ! -r "$folder/fullchain.pem" ] || [ ! -r "$folder/privkey.pem" ]; then
        folder=$certificates
    fi
}

# Origins whose pages may read what nginx itself responds: as chassis/browsers/cors.py has it.
write_cors() {
    pattern=$(printf %s "$CORS_ORIGIN_PATTERN" | sed 's/\\/\\\\/g; s/"/\\"/g')
    origins=$(words "$CORS_ORIGINS" | sort -u)
    only="" several=""
    case "$(words "$CORS_ORIGINS" | grep -cv '^\*$' || true):$pattern" in
    0: | 1:) only=$origins ;;
    *) several=Origin ;;
    esac
    if words "$CORS_ORIGINS" | grep -q '^\*$'; then only='*' several=""; fi
    echo "map \$http_origin \$cors_origin {"
    echo "    default \"$only\";"
    if [ -n "$several" ]; then
        echo "$origins" | sed '/^$/d; s/.*/    & $http_origin;/'
        [ -z "$pattern" ] || printf '    "~^(?:%s)$" $http_origin;\n' "$pattern"
    fi
    echo "}"
    if [ -n "$origins$pattern" ]; then policy=cross-origin; else policy=same-origin; fi
    case $(echo "$CORS_CREDENTIALS" | tr '[:upper:]' '[:lower:]') in # as the service reads it
    1 | t | true | y | yes | on) credentials=true ;;
    *) credentials="" ;;
    esac
    echo "map '' \$resource_policy { default $policy; }"
    echo "map '' \$cors_vary { default '$several'; }"
    echo "map \$shown_origin \$cors_credentials { '' ''; default '$credentials'; }"
}

# A client's address and scheme, as trusted proxies give them, and the hosts that are served.
write_environment() {
    # shellcheck disable=SC2153
    if [ "$HTTPS_PORT" = 443 ] || [ "$scheme" = http ]; then port=""; else port=":$HTTPS_PORT"; fi
    if [ "$scheme" = http ] && [ "$PLAIN_HTTP" = yes ]; then plain=yes; else plain=""; fi
    echo "geo \$realip_remote_addr \$from_proxy {"
    echo "    default 0;"
    words "$TRUSTED_PROXIES" | sort -u | sed 's/.*/    & 1;/'
    echo "}"
    words "$TRUSTED_PROXIES" | sort -u | sed 's/.*/set_real_ip_from &;/'
    echo "map \$host \$known_host {"
    echo "    hostnames;"
    if [ -n "$(words "$ALLOWED_HOSTS")" ]; then echo "    default 0;"; else echo "    default 1;"; fi
    words "$ALLOWED_HOSTS" | tr '[:upper:]' '[:lower:]' | sort -u | sed 's/.*/    & 1;/'
    echo "}"
    write_cors
    cat <<END
real_ip_header $REAL_IP_HEADER;
real_ip_recursive on;
map \$from_proxy \$https_port {
    0 "$port";
}
map "" \$plain_http { default "$plain"; }
map "" \$hsts { default "$HSTS"; }
limit_req_zone \$client zone=requests:10m rate=${EDGE_RATE}r/s;
limit_conn_zone \$client zone=connections:10m;
limit_req zone=requests burst=$((EDGE_RATE * 2)) nodelay;
limit_conn connections $EDGE_CONNECTIONS;
limit_conn bodies 512;
limit_conn senders $(((EDGE_CONNECTIONS + 3) / 4));
END
}

# Copy what nginx reads, certificates included, to a folder whose name is a digest of it all.
configure() {
    check_settings
    rm -rf "$conf/new"
    mkdir "$conf/new"
    cp "$source"/*.conf "$conf/new"
    cat >"$conf/new/uploads.conf" <<END
limit_conn connections $EDGE_CONNECTIONS;
limit_conn uploads 16;
limit_conn uploaders 4;
END
    complete
}

# What depends on the certificate.
complete() {
    scheme=http
    find_certificate
    if [ -r "$folder/fullchain.pem" ] && [ -r "$folder/privkey.pem" ]; then
        scheme=https
        cp "$folder/fullchain.pem" "$folder/privkey.pem" "$conf/new" || return 1
    elif [ -n "$CERTIFICATES" ] || [ ! -x "$certificates" ] || [ -e "$certificates/fullchain.pem" ] ||
        [ -L "$certificates/fullchain.pem" ]; then
        echo "fullchain.pem and privkey.pem in ${CERTIFICATES:-docker/nginx/certificates} must be" \
            "files that user $(id -u) can read; nothing is served, as plain HTTP was not asked for." \
            "Those of certbot are copied by: docker/certificates.sh" >&2
        return 1
    elif [ -n "$DOMAIN" ]; then
        scheme=waiting
    elif [ "$PLAIN_HTTP" != yes ] && [ -z "$(words "$TRUSTED_PROXIES")" ]; then
        refuse "it has no certificate, and plain HTTP was not chosen" "Do one of these, then run the command again:" \
            "- HTTPS here, with a certificate of Let's Encrypt: DOMAIN=the name of this machine and" \
            "  COMPOSE_PROFILES=https in .env" \
            "- HTTPS here, with another: fullchain.pem and privkey.pem in docker/nginx/certificates" \
            "  (docker/certificates.sh copies those of certbot), or CERTIFICATES=/folder/with/them in .env" \
            "- HTTPS at a CDN or load balancer in front: TRUSTED_PROXIES=its addresses in .env" \
            "- no HTTPS, to try it out or in a private network: PLAIN_HTTP=yes in .env"
    fi
    cp "$conf/new/$scheme.conf" "$conf/new/server.conf"
    [ -e /proc/net/if_inet6 ] || sed -i '/listen \[::\]/d' "$conf/new/server.conf" # a kernel without IPv6
    write_environment >"$conf/new/environment.conf"
    rm -f "$conf/new/digest.conf"
    digest=$(cat "$conf/new"/* | sha256sum | cut -c 1-16)
    echo "map '' \$configuration { default $digest; }" >"$conf/new/digest.conf"
}

# Since nginx 1.27.4: a reload does not cut off a client that is about to send the next request.
probe_options() {
    echo "keepalive_min_timeout 1s;" >"$conf/optional.conf"
    nginx -q -t -c "$conf/new/nginx.conf" 2>/dev/null || : >"$conf/optional.conf"
}

switch() {
    rm -rf "${conf:?}/$digest"
    mv "$conf/new" "$conf/$digest"
    ln -sfn "$digest" "$conf/current"
}

# -t does not notice a zone that has changed its kind; nginx refuses it at the reload.
wait_until_taken() {
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        [ "$(wget -q -O - http://127.0.0.1:8081/configuration)" != "$digest" ] || return 0
        sleep 0.5
    done
    return 1
}

# Serve with what is in the folder `new`, or go on with that of before.
apply() {
    before=$(readlink "$conf/current")
    nginx -q -t -c "$conf/new/nginx.conf" || return 1
    switch
    if ! { signal reload && wait_until_taken; }; then
        ln -sfn "$before" "$conf/current"
        rm -rf "${conf:?}/$digest"
        return 1
    fi
    rm -rf "${conf:?}/$before"
}

reload() {
    exec 8>>"$conf/lock"
    flock 8 # against take_certificate
    configure
    if [ "$digest" = "$(readlink "$conf/current")" ]; then
        echo "nginx: has this configuration already"
    elif apply; then
        echo "nginx: reloaded"
    else
        echo "nginx: did not take it, and goes on with that of before; its log says why" >&2
        exit 1
    fi
}

# A new certificate of DOMAIN, with the configuration that serves: an edit that nobody has
# asked for is not taken.
take_certificate() {
    [ -n "$DOMAIN" ] || return 0
    find_certificate
    [ "$folder" != "$certificates" ] && [ "$folder" != "${refused:-}" ] || return 0
    cmp -s "$folder/fullchain.pem" "$conf/current/fullchain.pem" &&
        cmp -s "$folder/privkey.pem" "$conf/current/privkey.pem" && return 0
    exec 8>>"$conf/lock"
    flock 8
    rm -rf "$conf/new"
    if cp -R "$conf/current/" "$conf/new" && complete && apply; then
        echo "nginx: serves the new certificate of $DOMAIN"
    else
        refused=$folder
        echo "nginx: did not take the new certificate of $DOMAIN, and goes on as it was; the lines above say why." \
            "When that is corrected, run: make reload" >&2
    fi
    exec 8>&-
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
[ "$scheme" != waiting ] ||
    echo "nginx: 503 until there is a certificate of $DOMAIN; the container acme gets it (COMPOSE_PROFILES=https in .env)"
: >"$conf/upstream.conf"
until now=$(wanted) && [ -n "$now" ]; do
    echo "Waiting for a container of the service that is ready"
    sleep 1
done
# shellcheck disable=SC2086
write_upstream $now
probe_options
switch

# Restarted if it ends: nothing else tells nginx of a new container.
while :; do
    watch || true
    sleep 1
done &
exec nginx -c "$conf/current/nginx.conf" -g "daemon off;"
