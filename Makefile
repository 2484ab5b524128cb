# `make` alone explains every target. `make demo` and `make test` each work as the first command.

.DEFAULT_GOAL := help
SHELL := /bin/sh
BIN := .venv/bin
READY := .venv/.ready
CLIENTS := .cache/clients/.ready
LOCKS := $(wildcard requirements/*.txt) requirements/node/package-lock.json
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate
SERVICES := intake worker mcp-broker artifacts costs webhooks

.PHONY: FORCE help setup demo up down status logs test check bench soak scale chaos schemas fmt \
	lint types migrate requirements test-compose chaos-compose

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) $(CLIENTS) ## Install everything into .venv and .cache; does nothing when nothing changed

# Without its Node packages a set-up is not whole, whatever the stamp says.
$(READY): $(LOCKS) pyproject.toml infra/local/setup.sh $(if $(wildcard .cache/node/node_modules),,FORCE)
	@sh infra/local/setup.sh
	@touch $@

$(CLIENTS): $(wildcard requirements/clients/*) infra/local/setup_clients.sh \
		$(if $(wildcard .cache/clients/node/node_modules),,FORCE) | $(READY)
	@sh infra/local/setup_clients.sh
	@touch $@

demo: $(READY) ## Ask a real model through the whole system and keep serving; ONCE=1 ends after it
	@$(BIN)/antiphon demo $(if $(ONCE),--once)

up: $(READY) ## Start the local stack in the background
	@$(BIN)/antiphon up --detach

down: $(READY) ## Stop the local stack
	@$(BIN)/antiphon down

status: $(READY) ## Show every part of the local stack
	@$(BIN)/antiphon status || test $$? -eq 3

logs: $(READY) ## Follow the logs; PART=worker shows one
	@$(BIN)/antiphon logs $(PART) --follow

test: $(READY) $(CLIENTS) ## Run all tests against real servers and the real local model
	@$(BIN)/pytest tests/unit tests/contract tests/integration tests/e2e

check: $(READY) ## Lint, formatting, types, import rules, generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m infra.schemas --check
	$(BIN)/python -m infra.openapi --check

bench: $(READY) ## Measure throughput and added latency, beside other gateways; PEERS=none without
	@$(BIN)/python -m tests.load

soak: $(READY) ## Hold 10,000 queued responses and 1,000 streams for SECONDS=600 and watch memory
	@$(BIN)/python -m tests.load.soak

scale: $(READY) ## Measure with 1, 2 and 4 intakes and workers, and what a response leaves behind
	@$(BIN)/python -m tests.load.scale

chaos: $(READY) ## Let faults happen under load, then check the books; SECONDS=600 SEED=n FAULTS=a,b BROKERS=3
	@SECONDS=$(or $(SECONDS),600) SEED=$(SEED) FAULTS=$(FAULTS) BROKERS=$(BROKERS) RATE=$(RATE) \
		$(BIN)/python -m tests.chaos

schemas: $(READY) ## Generate JSON Schemas, AsyncAPI, OpenAPI and the table of topics
	$(BIN)/python -m infra.schemas
	$(BIN)/python -m infra.openapi

fmt: $(READY) ## Format the code and mend what ruff can mend
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

lint: $(READY) ## Lint and check the import rules
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: $(READY) ## Check types
	$(BIN)/mypy

migrate: $(READY) ## Bring the database that DATABASE_URL names up to date
	$(BIN)/python -m services.kit.migrate upgrade

requirements: $(READY) ## Lock all dependencies anew: Python, Node and Java
	$(COMPILE) --all-extras pyproject.toml -o requirements/all.txt
	$(foreach service,$(SERVICES),$(COMPILE) --extra $(service) pyproject.toml \
		-o requirements/$(service).txt &&) true
	$(COMPILE) requirements/bootstrap.in -o requirements/bootstrap.txt
	$(COMPILE) pyproject.toml -o requirements/jobs.txt
	$(COMPILE) --no-deps requirements/model.in -o requirements/model.txt
	$(COMPILE) --no-deps -c requirements/all.txt requirements/mcp-servers.in \
		-o requirements/mcp-servers.txt
	$(COMPILE) --no-deps -c requirements/all.txt requirements/node.in -o requirements/node.txt
	$(COMPILE) requirements/clients/python.in -o requirements/clients/python.txt
	$(foreach peer,smg litellm,$(COMPILE) requirements/peers/$(peer).in \
		-o requirements/peers/$(peer).txt &&) true
	for folder in node clients; do (cd requirements/$$folder && PATH="$(CURDIR)/$(BIN):$$PATH" \
		npm install --package-lock-only --ignore-scripts --omit-lockfile-registry-resolved \
		--no-audit --no-fund --loglevel=error) || exit 1; done
	$(BIN)/python -m infra.local.jars_lock

test-compose: $(READY) ## Build the images, run the core of the e2e tests in containers, clean up
	@$(BIN)/python -m tests.compose

chaos-compose: $(READY) ## The same in containers, with networks that part and three brokers
	@$(BIN)/python -m tests.chaos.compose
