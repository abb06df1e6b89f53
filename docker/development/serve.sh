#!/bin/sh
# The service with reload; it fills an empty database. DEBUGGER=1: debugpy listens.
set -eu
if [ -n "$DEBUGGER" ]; then
    set -- python -X frozen_modules=off -m debugpy --listen 0.0.0.0:5678 -m app serve --reload --no-jobs
else
    set -- python -m app serve --reload --no-jobs
fi
echo "Published at http://127.0.0.1:$HTTP_PORT; the ports below are those of the container"
exec "$@"
