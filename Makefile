# Everything that a person or CI runs. `make help` lists it; each target sets up what it needs.

PYTHON ?= python3
BIN := .venv/bin
BUF := node_modules/.bin/buf
export PATH := $(CURDIR)/$(BIN):$(CURDIR)/node_modules/.bin:$(CURDIR)/.tools:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup run clean test test-unit test-integration test-e2e chaos lint format generate breaking lock grpcurl

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

setup: .venv/ready node_modules/ready ## Install everything: Python into .venv, buf and Swagger UI into node_modules

.venv/ready: requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "Python 3.11 or newer is needed: set PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "Installing Python packages into .venv"
	@$(PYTHON) -m venv .venv \
	  || { echo "python3 cannot make a virtual environment: on Debian, apt-get install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

node_modules/ready: package-lock.json
	@command -v npm >/dev/null || { echo "npm is needed for buf and Swagger UI: install Node.js 20 or newer" >&2; exit 1; }
	@echo "Installing buf and Swagger UI into node_modules"
	@npm ci --silent --no-audit --no-fund
	@touch $@

run: setup ## Run the whole system on this machine until Ctrl-C
	@exec $(BIN)/python -m devstack up

clean: ## Remove the data of `make run`
	@[ ! -x $(BIN)/python ] || $(BIN)/python -m devstack clean

test: setup ## Run every test
	$(BIN)/pytest

test-unit test-integration test-e2e: test-%: setup ## Run one suite
	$(BIN)/pytest tests/$*

chaos: setup ## Break the running system again and again, for some ten minutes
	CHAOS_ROUNDS=$${CHAOS_ROUNDS:-5} $(BIN)/pytest tests/chaos --timeout 1800

.PHONY: bench bench-docs
bench: setup ## Measure it beside its peers, for about half an hour; QUICK=1 takes five minutes
	@PYTHONPATH=$(CURDIR):$(CURDIR)/generated $(BIN)/python -m tests.perf $(if $(QUICK),--quick)

bench-docs: ## Put the figures of the last `make bench` into docs/performance.md
	@sed -i -e '/<!-- run -->/,/<!-- end -->/{//!d}' -e '/<!-- run -->/r .bench/latest.md' docs/performance.md
	@cp .bench/latest.svg docs/performance.svg

lint: setup ## Check contract, drift of generated files, formats, lint, types, import rules
	$(BUF) lint
	$(BUF) format --diff --exit-code protos
	@rm -rf .build/drift
	@$(MAKE) --no-print-directory generated-into OUT=.build/drift
	diff -r --exclude=__pycache__ .build/drift/generated generated
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: setup ## Format protos and Python, fix what can be fixed
	$(BUF) format --write protos
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

generate: setup ## Generate stubs, Envoy's descriptor set and the OpenAPI document from the contract
	@rm -rf generated
	@$(MAKE) --no-print-directory generated-into OUT=.

.PHONY: generated-into
generated-into:
	@mkdir -p .build
	@$(BUF) generate --output $(OUT) >.build/generate.log 2>&1 || { cat .build/generate.log >&2; exit 1; }
	@$(BUF) build --exclude-source-info --as-file-descriptor-set --output $(OUT)/generated/shop.binpb
	@$(BUF) build --as-file-descriptor-set --output - \
	  | PYTHONPATH=$(OUT)/generated:. $(BIN)/python -m protos.codegen.openapi > $(OUT)/generated/openapi.json
	@touch $(OUT)/generated/shop/py.typed $(OUT)/generated/buf/py.typed

# The previous commit that touched the contract; REV=main compares with another one.
REV ?= $(shell git log -2 --format=%H -- protos/shop | tail -n 1)
breaking: setup ## Check that the contract breaks no caller since REV
	$(BUF) breaking --against '.git#ref=$(REV)'

lock: setup ## Compile requirements/*.in into hash-pinned requirements/*.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-emit-index-url --no-emit-find-links requirements/service.in --output-file requirements/service.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-emit-index-url --no-emit-find-links requirements/dev.in --output-file requirements/dev.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-emit-index-url --no-emit-find-links requirements/bench.in --output-file requirements/bench.txt

grpcurl: .tools/grpcurl ## Build grpcurl with Go, for the tests and for you

.tools/grpcurl:
	GOBIN=$(CURDIR)/.tools go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3
