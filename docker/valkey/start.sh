#!/bin/sh
# start.sh CONFIGURATION [check]: the password is added to the configuration on the standard input, as
# every process can read arguments.
set -eu
configuration=/etc/valkey/$1

if [ "${2:-}" = check ]; then
    # The server stops at the first wrong line: the one that is added here, if all others are right.
    output=$({ cat "$configuration" && echo && echo "end-of-this-file"; } | valkey-server - 2>&1) || true
    case $output in *"'end-of-this-file'"*) exit 0 ;; esac
    echo "$output" >&2
    exit 1
fi

# docker/reload.sh compares.
cp "$configuration" /tmp/started.conf
sha256sum </run/secrets/redis_password >/tmp/started.secrets
exec valkey-server - <<END
$(cat "$configuration")
requirepass "$(cat /run/secrets/redis_password)"
END
