#!/usr/bin/env bash
# What make does with HOST: the same on a server, over ssh, with an image of a registry by its digest.
#
#   make deploy HOST=user@server REGISTRY=ghcr.io/me/image              build, push, deploy
#   make deploy HOST=user@server RELEASE=ghcr.io/me/image@sha256:...    deploy what is there
#   make rollback HOST=user@server                                      and roll, reload
#
# FOLDER on the server (named as the service, in the home of that user) gets docker-compose.yml and docker/. Its
# .env, production.env, secrets, certificates and backups stay as they are.
set -euo pipefail
# shellcheck source=docker/common.sh
. "$(dirname "$0")/common.sh"

operation=${1:-}
folder=${FOLDER:-$(sed -n 's/^NAME = "\(.*\)"$/\1/p' app/about.py)}
release=${RELEASE:-}

# on_server COMMAND [OPTION...]
on_server() {
    local command=$1
    shift
    ssh -o ConnectTimeout=10 "$@" -- "$HOST" "$command"
}

# fail_there STATUS MESSAGE...: 255 is ssh's own failure.
fail_there() {
    local status=$1
    shift
    [ "$status" -ne 255 ] ||
        fail "the connection to $HOST failed, or was lost; what serves there goes on. See that this works: ssh $HOST"
    [ $# -eq 0 ] || fail "$@"
    exit "$status"
}

check_words() {
    [[ ${HOST:-} =~ ^[A-Za-z0-9] ]] || fail "HOST is '${HOST:-}'; name a server, such as HOST=user@server"
    [[ $folder =~ ^[A-Za-z0-9._/-]+$ ]] || fail "FOLDER is '$folder'; use letters, digits and . _ - / only"
    [ "$operation" = deploy ] || return 0
    [ -n "$release${REGISTRY:-}" ] ||
        fail "from which registry? Add REGISTRY=ghcr.io/me/image to build and push an image," \
            "or RELEASE=ghcr.io/me/image@sha256:... for one that is there"
    [ -z "$release" ] || is_release "$release" ||
        fail "RELEASE is '$release'; name an image by its digest: ghcr.io/me/image@sha256:..."
}

build_and_push() {
    local tag digest
    describe_build
    tag=${VERSION:-unknown}-${REVISION:0:12}
    say "building"
    IMAGE=$REGISTRY TAG=$tag "${compose[@]}" build --quiet api || fail "the build failed; nothing has changed"
    architecture=$(docker image inspect --format '{{.Architecture}}' "$REGISTRY:$tag")
    [ "$architecture" = "$there" ] ||
        fail "the image is for $architecture and $HOST has $there; nothing has changed." \
            "Run it again with DOCKER_DEFAULT_PLATFORM=linux/$there"
    say "pushing to $REGISTRY"
    digest=$(docker push "$REGISTRY:$tag" | sed -n 's/.* digest: \(sha256:[0-9a-f]*\) .*/\1/p') && [ -n "$digest" ] ||
        fail "$REGISTRY does not take the image; nothing has changed. Does this work: docker login ${REGISTRY%%/*}"
    release=$REGISTRY@$digest
}

# All of it is there before any of it is unpacked, and nothing is while another operation runs. tar puts
# new files in the place of old ones, so a script that runs goes on with what it has begun.
send() {
    COPYFILE_DISABLE=1 tar -czf - --exclude 'docker/nginx/certificates/*.pem' --exclude docker/development \
        docker-compose.yml docker | on_server "
        set -e; umask 022; mkdir -p '$folder/var'; cd '$folder'
        cat >var/incoming.part; gzip -t var/incoming.part; mv var/incoming.part var/incoming.tar.gz
        unpack='tar -xzf var/incoming.tar.gz && tar -tzf var/incoming.tar.gz | xargs chmod a+rX'
        if [ -e docker/common.sh ]; then
            bash -c 'set -e; . docker/common.sh; lock; eval \"\$1\"' $operation \"\$unpack\"
        else
            eval \"\$unpack\"
        fi" || fail_there $? "the files did not get to $HOST:$folder; what serves there goes on"
}

prepare() {
    on_server "
        cd '$folder'
        grep -qs '^SECRETS=' .env || { docker/secrets.sh | grep ' made\$'; }
        [ -e .env ]" </dev/null ||
        fail_there $? "$HOST:$folder/.env is missing, which says where HTTPS ends; see docs/deploy.md. For example:" \
            "echo PLAIN_HTTP=yes | ssh $HOST 'cat >$folder/.env'. Then run this again"
}

# With a terminal, of which the end is a signal to what runs there: it takes back what is half done.
run_there() {
    local plain=""
    [ -t 0 ] || exec </dev/null
    [ -t 1 ] || plain="COMPOSE_ANSI=never "
    on_server "cd '$folder' && $plain$1" -tt || fail_there $?
}

check_words
there=$(on_server "docker compose version >/dev/null && docker version --format '{{.Server.Arch}}'" </dev/null) ||
    fail_there $? "$HOST needs Docker with its Compose plugin, and a user that may use it; see docs/deploy.md"
case $operation in
deploy)
    [ -n "$release" ] || build_and_push
    send
    prepare
    say "deploying $release"
    run_there "RELEASE='$release' docker/deploy.sh deploy"
    ;;
rollback | roll) run_there "docker/deploy.sh $operation" ;;
reload)
    send
    run_there docker/reload.sh
    ;;
*) fail "which of deploy, rollback, roll, reload?" ;;
esac
