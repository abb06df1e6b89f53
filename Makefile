# make run and make test need Python >= 3.11, and no server, no Docker, no root.

# The first one that is new enough; PYTHON=/path/to/python3 takes another.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help run dev test test-browser fuzz lint format bench-overhead bench-cache bench-overload bench-login \
	bench-offers bench-covers bench-input \
	migration profile secrets deploy rollback roll reload backup restore test-compose check lock clean

help: ## Show these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: .venv/$(if $(TRACING),tracing,run) ## Run the service with all it needs (PORT=, BIND=, MARIADB=1, TRACING=1)
	@exec $(BIN)/python -m app serve $(if $(MARIADB),--mariadb)

dev: .venv/dev ## The same, and restart when the source changes
	@exec $(BIN)/python -m app serve --reload $(if $(MARIADB),--mariadb)

test: .venv/dev ## Run all tests, on MariaDB and on SQLite
	@$(BIN)/python -m pytest

test-browser: .venv/dev ## Look at /docs with headless Chromium, which must be installed
	@$(BIN)/python -m pytest --override-ini=addopts=-ra tests/browser

fuzz: .venv/dev ## Try the service with generated requests, for some minutes (COUNT=, SEED=)
	@$(BIN)/python -m benchmarks.fuzz

lint: .venv/dev ## Check format, lint, types and the direction of imports
	@$(BIN)/ruff format --check --quiet . || { echo "Run: make format"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

format: .venv/dev ## Format the code and fix what can be fixed
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format --quiet .

bench-overhead: .venv/dev ## Compare the cost of a request with bare FastAPI (CPU time)
	@$(BIN)/python -m benchmarks.overhead

bench-cache: .venv/dev ## Compare the cost of a cached answer with its limit and the usual way
	@$(BIN)/python -m benchmarks.cache

bench-overload: .venv/dev ## Ask for five times what a worker can take, for a minute
	@$(BIN)/python -m benchmarks.overload

bench-login: .venv/dev ## See what fifty logins at once do to everybody else
	@$(BIN)/python -m benchmarks.login

bench-offers: .venv/dev ## See how long offers take while sellers are slow, hang or are down
	@$(BIN)/python -m benchmarks.offers

bench-covers: .venv/dev ## See what two hundred uploads at once do to everybody else
	@$(BIN)/python -m benchmarks.covers

bench-input: .venv/dev ## Send the worst requests of a megabyte and see how long they block a worker
	@$(BIN)/python -m benchmarks.worst_input

migration: .venv/dev ## Write a migration of what has changed in the models (NAME=orders, EMPTY=1)
	@$(BIN)/python -m app make-migration $(if $(EMPTY),--empty) -- "$(NAME)"

profile: .venv/dev ## Record a flame graph of a worker under load: var/profile.svg
	@$(BIN)/python -m benchmarks.profile

secrets: ## Make the passwords that production needs, below secrets/
	@docker/secrets.sh

deploy: ## Build, migrate and replace the running containers one by one
	@docker/deploy.sh deploy

rollback: ## Replace the running containers by those of the deployment before
	@docker/deploy.sh rollback

roll: ## Replace the running containers by new ones of the same image
	@docker/deploy.sh roll

reload: ## Check and take in changed configuration of nginx, MariaDB, Valkey and Prometheus
	@docker/reload.sh

backup: ## Write the database of production into a new file of backups/
	@docker/backup.sh

restore: ## Put FILE=backups/... into the place of the database of production
	@docker/restore.sh $(FILE)

test-compose: .venv/dev ## Bring both stacks up with Docker and look at them from outside
	@$(BIN)/python -m pytest --override-ini=addopts=-ra tests/compose

check: .venv/run ## Verify settings, servers, schema and connection budget
	@$(BIN)/python -m app check

lock: ## Pin the newest versions that fit requirements*.in (needs uv)
	@for name in requirements requirements-tracing requirements-debug requirements-dev; do uv pip compile --quiet \
	--upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	--no-annotate $$name.in --output-file $$name.lock; done

clean: ## Remove .venv and var, the data of the embedded servers included
	@rm -rf .venv var

.venv/run: requirements.lock | python
	@$(PYTHON) make_venv.py $<
	@touch $@

.venv/tracing: requirements-tracing.lock requirements.lock | python
	@$(PYTHON) make_venv.py $<
	@touch .venv/run $@

.venv/dev: requirements-dev.lock requirements-tracing.lock requirements.lock | python
	@$(PYTHON) make_venv.py $<
	@touch .venv/run .venv/tracing $@

.PHONY: python
python:
	@$(or $(PYTHON),false) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	echo "Python 3.11 or newer is needed, and $(or $(PYTHON),python3) is $$($(or $(PYTHON),python3) -V 2>&1)." \
	"Install it, or name one: make run PYTHON=/path/to/python3" >&2; exit 1; }
