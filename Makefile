# `make` lists what there is. Every target sets up .venv first, if need be; see setup/install.py.

PYTHON ?= python3
BIN := .venv/bin
PYTEST_ARGS ?=
PYTEST_JOBS ?= 2
SEEDS ?= 20000
FIRST ?= 2000
ROUNDS ?= 200
SEED ?=
SERVERS ?=
ONLY ?=
AGAIN ?=

.DEFAULT_GOAL := help
.PHONY: help up down servers servers-down setup setup-dev test test-servers lint sim faults bench lock clean

# Run one step under its name; when it fails say which, and pass its exit status on.
define step
@printf '== %s\n' '$(1)'; $(2) || { status=$$?; printf '== %s FAILED (exit status %d)\n' '$(1)' "$$status" >&2; exit "$$status"; }
endef

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22

# With SERVERS=1 a command has the settings of the real servers, and nothing else is different.
on_servers = $(if $(SERVERS),set -e; settings="$$($(BIN)/tessera servers env)"; eval "$$settings";)

up: setup $(if $(SERVERS),servers) ## Start everything here, ingest examples, ask questions; SERVERS=1 on the real servers
	@$(on_servers) $(BIN)/tessera up --demo
	@$(if $(SERVERS),printf '\nOn the real servers: first eval "$$(%s servers env)". To stop: make down SERVERS=1\n' $(BIN)/tessera)

down: setup ## Drain and stop what `make up` started; the documents stay (SERVERS=1: what `make up SERVERS=1` did)
	@$(on_servers) $(BIN)/tessera down

servers: setup ## Fetch and start Postgres, Redis, Milvus, OpenSearch, S3, vLLM; ONLY='milvus s3' for some
	@$(BIN)/tessera servers up $(ONLY)

servers-down: setup ## End these servers; their data stay
	@$(BIN)/tessera servers down

setup: ## Install the locked packages into .venv (the other targets do so by themselves)
	@$(PYTHON) setup/install.py

setup-dev:
	@$(PYTHON) setup/install.py --dev

test: lint ## Check and test everything that starts at once; PYTEST_ARGS='-k name' for some tests, PYTEST_JOBS=0 for one process
	$(call step,pytest,$(BIN)/pytest -n $(PYTEST_JOBS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS))

test-servers: setup-dev ## The suites of every protocol and the tests of the stack on the real servers, none left out; AGAIN=1 runs once more what fails
	$(call step,test-servers,$(BIN)/python -m tests.on_servers $(if $(AGAIN),--again) $(PYTEST_ARGS))

lint: setup-dev ## Style, types and the order of packages
	$(call step,ruff check,$(BIN)/ruff check .)
	$(call step,ruff format --check,$(BIN)/ruff format --check .)
	$(call step,mypy,$(BIN)/mypy)
	$(call step,import-linter,$(BIN)/lint-imports)

sim: setup-dev ## Simulate the upkeep of cells under crashes: SEEDS=20000, FIRST=0
	@$(BIN)/python -m tests.shards.simulation --seeds $(SEEDS) --first $(FIRST)

faults: setup-dev ## Kill every process under load, check that nothing is lost or undead: ROUNDS=200, SEED=7
	@$(BIN)/python -m tests.faults --rounds $(ROUNDS) $(if $(SEED),--seed $(SEED))

bench: setup ## Measure, beside the running stack; DATA=folder that holds squad_dev and mtrag
	@if [ -z '$(DATA)' ]; then echo 'make bench needs DATA=<folder that holds squad_dev and mtrag>' >&2; exit 2; fi
	@$(BIN)/python -m bench.memory
	@$(BIN)/python -m bench.stores
	@$(BIN)/python -m bench.embedder --data '$(DATA)'
	@$(BIN)/python -m bench.search --data '$(DATA)'
	@$(BIN)/python -m bench.ingestion --data '$(DATA)'

lock: setup-dev ## Lock the dependencies again; UPGRADE=1 takes the newest versions
	@$(BIN)/python setup/lock.py $(if $(UPGRADE),--upgrade)

clean: ## Remove .venv and caches; the data in .tessera stays
	@if [ -x $(BIN)/tessera ]; then $(BIN)/tessera down; fi
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
	@find . -name __pycache__ -type d -not -path './.tessera/*' -prune -exec rm -rf {} +
