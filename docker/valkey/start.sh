#!/bin/sh
# The password goes in with the configuration: among the arguments every process could read it.
set -eu
exec valkey-server - <<END
$(cat /etc/valkey/valkey.conf)
requirepass "$(cat /run/secrets/redis_password)"
END
