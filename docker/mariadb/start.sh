#!/bin/sh
# The server with the image's own entrypoint; or, with `check`, a test of its configuration.
set -eu
accounts=/run/mysqld/accounts.sql
if [ "${1:-}" = check ]; then
    sh /etc/mysql/conf.d/accounts.sh start "$MARIADB_DATABASE" /run/secrets >/dev/null
    exec mariadbd --verbose --help >/dev/null
fi
(umask 077 && sh /etc/mysql/conf.d/accounts.sh start "$MARIADB_DATABASE" /run/secrets >$accounts)
# docker/reload.sh compares.
cp /etc/mysql/conf.d/server.cnf /run/mysqld/started.conf
cat /run/secrets/database_* | sha256sum >/run/mysqld/started.secrets
# For make restore with UNTIL; as durable as the commits in it. Migrations may make triggers.
if [ "${BINLOG_DAYS:-0}" -gt 0 ]; then
    set -- --log-bin=binlog --binlog-format=ROW --sync-binlog=1 --log-bin-trust-function-creators=ON \
        --binlog-expire-logs-seconds=$((BINLOG_DAYS * 86400)) "$@"
fi
exec docker-entrypoint.sh "$@" --init-file=$accounts
