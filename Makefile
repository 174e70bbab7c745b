# `make demo` shows it, `make test` proves it. Each makes .venv on first use and installs what it needs by name.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test check format stubs bench soak e2e clean

help: ## say what can be made
	@grep -E '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 10

.venv/installed: client/pyproject.toml server/pyproject.toml pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable 'client[cli]' --editable 'server[embedded]' --group dev
	touch $@

demo: .venv/installed ## train a small policy with uniform and with selected tasks, through a real server
	$(BIN)/bots demo

e2e: .venv/installed ## the image and the compose file with a real Docker engine (skipped, and says so, without one)
	BOTS_E2E=1 $(BIN)/python -m pytest tests/e2e -rs -s

test: check ## everything but what is slow or needs root
	$(BIN)/python -m pytest

check: .venv/installed ## lint, types, freshness of what is generated
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy client/bots server/bots_server tests proto deploy/grafana
	$(BIN)/python proto/generate.py --check
	$(BIN)/python deploy/grafana/generate.py --check
	$(BIN)/buf lint proto
	$(BIN)/buf format --diff --exit-code proto

format: .venv/installed ## format and mend what can be mended by a tool
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/buf format --write proto

bench: .venv/installed ## measure against plain numpy and say which targets are met (15 minutes, 6 GB)
	$(BIN)/python -m tests.bench

stubs: .venv/installed ## generate the stubs after a change of proto
	$(BIN)/python proto/generate.py

SECONDS ?= 600
soak: .venv/installed ## strike every fault in random order and load the service for SECONDS=600, and print the figures
	$(BIN)/python -m tests.faults.soak --seconds $(SECONDS)

clean: ## remove what can be made again
	rm -rf .venv .venv-proto .mypy_cache .ruff_cache .pytest_cache .hypothesis out
