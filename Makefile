# `make demo` shows it, `make test` proves it. Each installs what it needs into .venv on first use, from deploy/requirements/.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(PYTHON) deploy/requirements/install.py
UV := .venv-uv/bin/uv

.PHONY: help demo image test check format stubs freeze bench soak fuzz e2e upgrade compat trainers finetune clean

help: ## say what can be made
	@grep -E '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 10

# One environment: what the demo needs is a part of what development needs, in the same versions.
.venv/demo: deploy/requirements/demo.txt client/pyproject.toml server/pyproject.toml
	@$(INSTALL) .venv demo client server
	@touch $@

.venv/dev: deploy/requirements/dev.txt client/pyproject.toml server/pyproject.toml
	@$(INSTALL) .venv dev client server
	@touch .venv/demo $@

demo: .venv/demo ## train a small policy with uniform and with selected tasks, through a real server
	$(BIN)/bots demo

VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' server/pyproject.toml)
image: .venv/dev ## build the server's image, after its bill of materials (CycloneDX) in out/, which needs no engine
	$(BIN)/python deploy/requirements/sbom.py out/bots-server-$(VERSION).cdx.json
	docker build --tag bots-server:$(VERSION) .

e2e: .venv/dev ## the image and the compose file with a real Docker engine (skipped, and says so, without one)
	TEST_E2E=1 $(BIN)/python -m pytest tests/e2e -rs -s

WORKERS ?= auto
PROFILE ?= quick
test: check ## everything but what needs root; PROFILE=nightly: 100 times the examples, WORKERS=1: one process
	$(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=worksteal --hypothesis-profile=$(PROFILE)

check: .venv/dev ## lint, types, freshness of what is generated
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy client/bots server/bots_server tests proto deploy/grafana deploy/requirements
	$(BIN)/python proto/generate.py --check
	$(BIN)/python deploy/grafana/generate.py --check
	$(BIN)/buf lint proto
	$(BIN)/buf format --diff --exit-code proto
	$(BIN)/buf breaking proto --against proto/image.binpb

format: .venv/dev ## format and mend what can be mended by a tool
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/buf format --write proto

bench: .venv/dev ## measure against plain numpy and say which targets are met (15 minutes, 6 GB)
	$(BIN)/python -m tests.bench

stubs: .venv/dev ## generate the stubs after a change of proto
	$(BIN)/python proto/generate.py

freeze: .venv/dev ## renew the image of the protos that `make check` compares with; only while nothing depends on them
	$(BIN)/buf build proto --output proto/image.binpb

SECONDS ?= 600
FLIPS ?= 5000
soak: .venv/dev ## strike every fault in random order under load for SECONDS=600, flip FLIPS=5000 stored bits, print the figures
	$(BIN)/python -m tests.faults.soak --seconds $(SECONDS)
	$(BIN)/python -m tests.faults.flips --flips $(FLIPS)

.venv/fuzz: .venv/dev deploy/requirements/fuzz.txt
	@$(INSTALL) .venv fuzz
	@touch $@

EXAMPLES ?= 1000000
fuzz: .venv/fuzz ## make EXAMPLES=1000000 calls that follow the code which they reach, damaged bytes too
	$(BIN)/python -m tests.fuzz $(EXAMPLES)

$(UV):
	@$(PYTHON) -m venv .venv-uv
	@.venv-uv/bin/python -m pip install -qq uv

# dev.txt is resolved; the smaller locks are parts of it. No index address, no path of this machine.
COMPILE = $(UV) pip compile --quiet --upgrade --universal --generate-hashes --no-emit-index-url --no-annotate \
	--custom-compile-command 'make upgrade' --no-emit-package bots-client
SERVER := server/pyproject.toml --extra embedded --group build
DEMO := client/pyproject.toml --extra cli --extra features $(SERVER)
upgrade: $(UV) ## lock the newest versions that pyproject.toml and the two distributions allow
	$(COMPILE) --python-version 3.11 $(DEMO) --group dev --output-file deploy/requirements/dev.txt
	$(COMPILE) --python-version 3.11 $(DEMO) --constraint deploy/requirements/dev.txt --output-file deploy/requirements/demo.txt
	$(COMPILE) --python-version 3.11 $(SERVER) --constraint deploy/requirements/dev.txt --output-file deploy/requirements/image.txt
	$(COMPILE) --python-version 3.11 --group fuzz --output-file deploy/requirements/fuzz.txt
	$(COMPILE) --python-version 3.10 --group stubs --output-file deploy/requirements/stubs.txt

compat: $(UV) ## run the client's and the store's tests on the lowest and on the newest versions that are allowed
	@status=0; for versions in lowest-direct highest; do \
	  environment=.venv-compat/$$versions; \
	  $(UV) venv --quiet --clear --seed --python $(PYTHON) $$environment && \
	  $(UV) pip install --quiet --python $$environment --resolution $$versions \
	    --editable 'client[cli,features]' --editable 'server[embedded]' && \
	  $(UV) pip install --quiet --python $$environment --group test && \
	  echo "== $$versions" && $(UV) pip list --quiet --python $$environment | grep -E '^(grpcio|protobuf|numpy|scipy|redis) ' && \
	  $$environment/bin/python -m pytest tests/client tests/store --quiet --numprocesses=$(WORKERS) --dist=worksteal || status=1; \
	done; exit $$status

TRAINERS ?=
trainers: ## install each trainer in an environment of its own and run its adapter on it; TRAINERS="trl torch": these alone; TRAINERS=--measure: what they cost
	$(PYTHON) -m tests.trainers $(TRAINERS)

# The newest that run on one another; without hashes, as torch has other files for each kind of machine.
.venv-finetune/done: deploy/requirements/dev.txt client/pyproject.toml server/pyproject.toml
	@$(INSTALL) .venv-finetune dev client server
	@.venv-finetune/bin/python -m pip install --quiet torch==2.13.0
	@.venv-finetune/bin/python -m pip install --quiet trl==1.16.0
	@touch $@

FINETUNE ?=
finetune: .venv-finetune/done ## finetune a small transformer on selected and on other tasks, an hour; FINETUNE=--quick: 3 minutes
	.venv-finetune/bin/python -m pytest tests/finetune --quiet
	OMP_NUM_THREADS=1 .venv-finetune/bin/python -m tests.finetune $(FINETUNE)

clean: ## remove what can be made again
	rm -rf .venv .venv-uv .venv-compat .venv-proto .venv-trainers .venv-finetune .mypy_cache .ruff_cache .pytest_cache .hypothesis out
