#!/bin/sh
# The service with reload; it loads sample data into an empty database. DEBUGGER=1: debugpy listens.
set -eu
if [ -n "$DEBUGGER" ]; then
    set -- python -X frozen_modules=off -m debugpy --listen 0.0.0.0:5678 -m app serve --reload --no-jobs
else
    set -- python -m app serve --reload --no-jobs
fi
exec "$@"
