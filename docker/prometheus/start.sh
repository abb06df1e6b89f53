#!/bin/sh
# start.sh ARGUMENTS...: rules cannot read the environment, so the numbers of containers become a rule.
set -eu
cat >/tmp/replicas.yml <<END
groups:
  - name: replicas
    rules:
      - record: replicas:wanted
        labels: {job: api}
        expr: vector($API_REPLICAS)
      - record: replicas:wanted
        labels: {job: jobs}
        expr: vector($WORKER_REPLICAS)
END
exec prometheus "$@"
