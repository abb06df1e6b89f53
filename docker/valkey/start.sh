#!/bin/sh
# start.sh CONFIGURATION [check]: the password goes in with the configuration: among the arguments every
# process could read it.
set -eu
configuration=/etc/valkey/$1

if [ "${2:-}" = check ]; then
    # The server stops at the first line that is wrong, which must be the one that is added here.
    output=$({ cat "$configuration" && echo && echo "end-of-this-file"; } | valkey-server - 2>&1) || true
    case $output in *"'end-of-this-file'"*) exit 0 ;; esac
    echo "$output" >&2
    exit 1
fi

cp "$configuration" /tmp/started.conf # docker/reload.sh compares
exec valkey-server - <<END
$(cat "$configuration")
requirepass "$(cat /run/secrets/redis_password)"
END
