#!/bin/sh
# The server with the image's own entrypoint; or, with `check`, whether it understands its configuration.
set -eu
if [ "${1:-}" = check ]; then exec mariadbd --verbose --help >/dev/null; fi
cp /etc/mysql/conf.d/server.cnf /run/mysqld/started.conf # docker/reload.sh compares
exec docker-entrypoint.sh "$@"
