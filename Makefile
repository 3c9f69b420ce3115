# Every target sets up what it needs: a virtual environment in .venv, and Debian packages where that is possible.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTEST ?=
BENCH ?=

.PHONY: help setup demo test quick lint format proto verify lock packages programs sanity e2e bench bench-pods clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Make the virtual environment

$(READY): requirements/dev.txt pyproject.toml tests/tools/venv.sh
	@tests/tools/venv.sh "$(PYTHON)" $(VENV)
	@touch $@

packages: ## Install the Debian packages that the tests need (root)
	@tests/tools/packages.sh tests/apt-packages.txt

programs: packages ## Build what the tests judge with: csi-sanity, Kubernetes, its sidecars and storage suite (20 minutes once)
	@tests/tools/programs.sh

demo: $(READY) ## Show the main job on this machine: no Kubernetes needed, root not needed
	@$(BIN)/python deploy/demo/demo.py

test: $(READY) packages lint verify programs ## Everything: lint, generated files, all tests, a real Kubernetes, coverage
	@tests/tools/test.sh $(BIN)/python

quick: $(READY) packages ## The tests that take seconds
	@$(BIN)/python -m pytest -m "not slow and not cluster" -n auto $(PYTEST)

lint: $(READY) ## ruff, mypy strict, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

format: $(READY) ## Let ruff rewrite the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

proto: $(READY) ## Generate the protocol stubs
	@proto/generate.sh $(BIN)/python

verify: $(READY) ## Fail when a generated file is stale
	@tests/tools/verify.sh $(BIN)/python

lock: $(READY) ## Write the locked requirements anew from pyproject.toml
	@tests/tools/lock.sh $(BIN)/python

e2e: $(READY) programs ## Real pods on a real one-node Kubernetes, and the upstream storage suite
	@$(BIN)/python -m pytest tests/e2e $(PYTEST)

sanity: $(READY) packages ## csi-sanity against the driver, as one process and split
	@$(BIN)/python -m pytest tests/conformance

bench: $(READY) ## Measure everything on the page docs/benchmarks.md, and write it anew (root, 20 minutes)
	@tests/tools/packages.sh bench/apt-packages.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bench.txt
	@$(BIN)/python bench/run.py --publish $(BENCH)

bench-pods: programs ## The part of that page with real pods on a real one-node Kubernetes (5 minutes)
	@$(MAKE) --no-print-directory bench BENCH="--only pods"

clean: ## Remove everything that was made here
	@rm -rf $(VENV) build dist *.egg-info .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
