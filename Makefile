# make run and make test need Python >= 3.11, and no server, no Docker, no root.

# The first that is new enough; PYTHON=/path/to/python3 chooses another.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)
BIN := .venv/bin

# AGAIN=yes, as in CI: files with a failure run once more, alone, because a machine that others use can keep a process
# waiting for seconds. Both results are shown, and a file that fails twice fails.
pytest = $(BIN)/python -m pytest $(1)$(if $(filter yes,$(AGAIN)), || { test $$? = 1 \
	&& echo "Once more and alone: the files of what failed" \
	&& $(BIN)/python -m pytest $(1) -n 0 --dist no --failed-files; })

.DEFAULT_GOAL := help
.PHONY: help run dev mail test drill test-browser fuzz lint openapi client test-client kubernetes format \
	bench bench-parts bench-growth bench-scaling bench-overhead bench-overload bench-login bench-enumeration bench-jobs bench-offers bench-covers bench-input load \
	migration resource upgrade profile secrets deploy rollback roll reload backup snapshot snapshots restore restore-drill \
	test-compose ci audit check lock clean

help: ## Show these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

# mine: begin
.PHONY: mine
mine: | python ## Make the service yours, and remove this command (NAME=orders, TITLE="Orders API", SAMPLE=no)
	@$(PYTHON) -m make_mine "$(NAME)" --title "$(TITLE)" --sample "$(SAMPLE)"
# mine: end

run: .venv/$(if $(TRACING),tracing,run) ## Run the service and its servers (PORT=, BIND=, MARIADB=1, TRACING=1)
	@exec $(BIN)/python -m app serve $(if $(MARIADB),--mariadb)

dev: .venv/dev ## The same, and restart when the source changes
	@exec $(BIN)/python -m app serve --reload $(if $(MARIADB),--mariadb)

mail: | python ## Show the last mails that `make run` wrote to var/mail (COUNT=5)
	@$(PYTHON) -m chassis.development.mail_folder $(if $(COUNT),--count $(COUNT))

test: .venv/dev ## Run the tests, on MariaDB and on SQLite (ONLY=tests/app/test_accounts.py)
	@$(call pytest,$(if $(ONLY),-n 0 --dist no $(ONLY)))

drill: .venv/dev ## Run the tests that take long: killed servers and workers, load, greedy clients
	@$(call pytest,-m drill --dist loadfile)

test-browser: .venv/dev ## Open the pages in headless Chromium, which must be installed
	@$(BIN)/python -m pytest --override-ini=addopts=-ra tests/browser

fuzz: .venv/dev ## Send generated requests to the service, for some minutes (COUNT=, SEED=)
	@$(BIN)/python -m benchmarks.fuzz

lint: .venv/dev ## Check format, lint, types, the direction of imports, migrations and the contract
	@$(BIN)/ruff format --check --quiet . || { echo "Run: make format"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python -m chassis.development.lint_migrations
	@$(BIN)/python -m app lint-openapi

openapi: .venv/dev ## Write docs/openapi.json, the contract that clients are made from (WHY= it may break them)
	@$(BIN)/python -m app openapi --why "$(WHY)"

client: ## Make a Python and a TypeScript client of docs/openapi.json in var/clients (needs node and npm)
	@PYTHON=$(PYTHON) clients/make.sh

test-client: .venv/dev client ## Check the types of both clients, and use them with the service
	@$(BIN)/python -m pytest --override-ini=addopts=-ra tests/clients

kubernetes: .venv/dev ## Write the alerts of deploy/kubernetes, render it into var/kubernetes, and check it
	@$(BIN)/python -m chassis.development.prometheus_rule
	@mkdir -p var/kubernetes
	@for size in small large; do \
	$(BIN)/kubectl kustomize deploy/kubernetes/overlays/$$size --output var/kubernetes/$$size.yaml || exit 1; done
	@$(BIN)/python -m pytest --override-ini=addopts=-ra -q tests/project/test_kubernetes.py

format: .venv/dev ## Format the code and fix what can be fixed
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format --quiet .

bench: .venv/dev ## Compare this service with others, for ten minutes: docs/performance.md (QUICK=1, GOODBOOKS=file.csv)
	@$(BIN)/python -m benchmarks.comparison

bench-parts: .venv/dev ## Measure what each technique buys, for five minutes (QUICK=1, GOODBOOKS=file.csv)
	@$(BIN)/python -m benchmarks.comparison.parts

bench-growth: .venv/dev ## Measure how costs grow with books, routes, connections, for half an hour (ONLY=tables,depth, COUNT=, QUICK=1)
	@$(BIN)/python -m benchmarks.growth

bench-scaling: .venv/dev ## Compare one worker and two with a queueing model, and say what rates take, for five minutes: docs/scaling.md
	@$(BIN)/python -m benchmarks.scaling

bench-overhead: .venv/dev ## Compare the CPU time of /health and of a cached response with bare FastAPI; a drill too
	@$(BIN)/python -m benchmarks.overhead

bench-overload: .venv/dev ## Measure a worker at and above its capacity, for two minutes
	@$(BIN)/python -m benchmarks.overload

bench-login: .venv/dev ## Measure the effect of fifty simultaneous logins on other requests
	@$(BIN)/python -m benchmarks.login

bench-enumeration: .venv/dev ## Compare responses to known and unknown addresses: status, body, size, time
	@$(BIN)/python -m benchmarks.enumeration

bench-jobs: .venv/dev ## Measure how soon a job begins after its commit, and how many a worker runs per second
	@$(BIN)/python -m benchmarks.jobs

bench-offers: .venv/dev ## Measure the response time of offers while sellers are slow, hang or are down
	@$(BIN)/python -m benchmarks.offers

bench-covers: .venv/dev ## Measure the effect of two hundred simultaneous uploads on other requests
	@$(BIN)/python -m benchmarks.covers

bench-input: .venv/dev ## Measure how long the worst requests of a megabyte block the event loop
	@$(BIN)/python -m benchmarks.worst_input

load: .venv/dev var/load/venv/ready ## Load the service as users do, in stages: docs/load-testing.md (SOAK=minutes, QUICK=1)
	@$(BIN)/python -m benchmarks.load

var/load/venv/ready: requirements-load.lock | python
	@$(PYTHON) -m venv var/load/venv && var/load/venv/bin/pip install -qq --require-hashes -r $<
	@touch $@

migration: .venv/dev ## Write a migration of what has changed in the models (NAME=orders, EMPTY=1)
	@$(BIN)/python -m app make-migration $(if $(EMPTY),--empty) -- "$(NAME)"

resource: .venv/dev ## Write a resource (NAME=order FIELDS="number:str:50:unique total:money", PLURAL=, OWNED=yes, REMOVE=yes)
	@$(BIN)/python -m app make-resource "$(NAME)" --plural "$(PLURAL)" --fields "$(FIELDS)" \
	$(if $(filter yes,$(OWNED)),--owned) $(if $(filter yes,$(REMOVE)),--remove)

upgrade: | python ## Take in a newer template (FROM=checkout or address, TO=tag, BASE=, MERGE=yes)
	@$(PYTHON) -m chassis.development.upgrade "$(FROM)" $(if $(TO),--to "$(TO)") $(if $(BASE),--base "$(BASE)") \
	$(if $(filter yes,$(MERGE)),--merge)

profile: .venv/dev ## Record a flame graph of a worker under load: var/profile.svg
	@$(BIN)/python -m benchmarks.profile

secrets: ## Make the passwords of production, in secrets/
	@docker/secrets.sh

# Some shells export HOST too.
REMOTE := $(findstring command,$(origin HOST))

deploy: ## Build, migrate, replace containers one by one (on a server: HOST=user@server REGISTRY=ghcr.io/me/name)
	@docker/$(if $(REMOTE),remote,deploy).sh deploy

rollback: ## Replace the running containers by those of the previous deployment (HOST=)
	@docker/$(if $(REMOTE),remote,deploy).sh rollback

roll: ## Replace the running containers by new ones of the same image (HOST=)
	@docker/$(if $(REMOTE),remote,deploy).sh roll

reload: ## Check and take in changed configuration of nginx, MariaDB, Valkey and Prometheus (HOST=)
	@docker/$(if $(REMOTE),remote.sh reload,reload.sh)

backup: ## Write the production database to a new file in backups/
	@docker/backup.sh

snapshot: ## Back up the production database and files now, as is done each day
	@docker/snapshots.sh snapshot

snapshots: ## List these backups (OFFSITE=1: of the copy)
	@docker/snapshots.sh snapshots

restore: ## Replace the production database by FILE=backups/..., or by that and the files of FILE=latest (OFFSITE=1, UNTIL=)
	@docker/restore.sh $(FILE)

restore-drill: ## Restore the newest backup beside the production database, and compare (FILE=, OFFSITE=1)
	@docker/drill.sh $(FILE)

test-compose: .venv/dev ## Start both stacks with Docker, make parts fail, check from outside (ONLY=tests/compose/test_edge.py)
	@$(call pytest,--override-ini=addopts=-ra $(or $(ONLY),tests/compose))

ci: AGAIN = yes
ci: lint test drill ## What CI runs: lint, tests, drills; the clients, the browser and the stacks where they can run (STACKS=files)
	@if command -v node >/dev/null && command -v npm >/dev/null; then $(MAKE) test-client; \
	else echo "No Node.js with npm here: the generated clients are not tested"; fi
	@if command -v chromium chromium-browser google-chrome >/dev/null; then $(MAKE) test-browser; \
	else echo "No Chromium here: the pages are not tested"; fi
	@if docker compose version >/dev/null 2>&1 && docker info >/dev/null 2>&1; then $(MAKE) test-compose AGAIN=yes ONLY="$(STACKS)"; \
	else echo "No Docker engine here: the stacks are not tested"; fi

audit: ## Look for known vulnerabilities in the locked packages (installs pip-audit below var/)
	@test -x var/audit/bin/pip-audit || { $(PYTHON) -m venv var/audit && var/audit/bin/pip install -qq pip-audit; }
	@for name in requirements requirements-dev requirements-debug requirements-load clients/python/requirements; do \
	var/audit/bin/pip-audit --disable-pip --require-hashes --progress-spinner off -r $$name.lock || exit 1; done

check: .venv/run ## Verify settings, servers, schema and connection budget
	@$(BIN)/python -m app check

lock: ## Pin the newest versions that fit requirements*.in; KEEP=1: change only what no longer fits (needs uv)
	@for name in requirements requirements-embedded requirements-tracing requirements-sentry requirements-debug requirements-dev requirements-load clients/python/requirements; do \
	uv pip compile --quiet $(if $(KEEP),,--upgrade) --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	--no-annotate $$name.in --output-file $$name.lock; done

clean: ## Remove .venv and var, embedded data included
	@rm -rf .venv var

.venv/run: requirements-embedded.lock | python
	@$(PYTHON) make_venv.py $^
	@touch $@

.venv/tracing: requirements-embedded.lock requirements-tracing.lock | python
	@$(PYTHON) make_venv.py $^
	@touch .venv/run $@

.venv/dev: requirements-dev.lock | python
	@$(PYTHON) make_venv.py $^
	@touch .venv/run .venv/tracing $@

.PHONY: python
python:
	@$(or $(PYTHON),false) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	echo "Python 3.11 or newer is needed, and $(or $(PYTHON),python3) is $$($(or $(PYTHON),python3) -V 2>&1)." \
	"Install it, or name one: make run PYTHON=/path/to/python3" >&2; exit 1; }
