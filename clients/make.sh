#!/bin/sh
# `make client`: typed clients of docs/openapi.json in var/clients, with what makes them.
set -eu
cd "$(dirname "$0")/.."

for program in node npm; do
  command -v "$program" >/dev/null || {
    echo "make client needs Node.js 20 or newer with npm, and there is no $program here" >&2
    exit 1
  }
done

target=var/clients
mkdir -p "$target"

# Whether a file is another one than at the last time.
changed() {
  ! cmp -s "$1" "$2"
}

tools=$target/venv
if changed clients/python/requirements.lock "$tools/requirements.lock"; then
  echo "Installing what makes the Python client into $tools ..."
  "${PYTHON:-python3}" -m venv --clear "$tools"
  "$tools/bin/pip" install -qq --disable-pip-version-check --require-hashes -r clients/python/requirements.lock
  cp clients/python/requirements.lock "$tools/"
fi
# It formats what it has written with ruff, which it looks for in PATH.
PATH=$PWD/$tools/bin:$PATH "$tools/bin/openapi-python-client" generate --path docs/openapi.json \
  --config clients/python/config.yaml --meta uv --output-path "$target/python" --overwrite --fail-on-warning >/dev/null

package=$target/typescript
mkdir -p "$package"
cp clients/typescript/.npmrc clients/typescript/*.json clients/typescript/client.ts "$package/"
if changed clients/typescript/package-lock.json "$package/node_modules/locked.json"; then
  echo "Installing what makes the TypeScript client into $package ..."
  (cd "$package" && npm ci --silent)
  cp clients/typescript/package-lock.json "$package/node_modules/locked.json"
fi
bin=$package/node_modules/.bin
"$bin/openapi-typescript" docs/openapi.json --default-non-nullable=false --output "$package/schema.ts" >/dev/null
"$bin/tsc" --project "$package/tsconfig.json"

echo "Python:     $target/python"
echo "TypeScript: $package"
