# Every command that CI, the README and developers run. `make` lists them.
PYTHON ?= python3
BIN := .venv/bin
SOURCE ?=

.DEFAULT_GOAL := help
.PHONY: help setup dev-setup sdk node demo test torture check bench format lock reference clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: .venv/.setup ## make .venv with everything pinned; afterwards .venv/bin/headwater is the command line

demo: .venv/.setup ## start Headwater on a fresh data directory, sync SOURCE (or sample files), keep serving
	$(BIN)/headwater demo $(if $(SOURCE),"$(SOURCE)") $(DEMO_ARGS)

test: dev-setup sdk node ## run every test, real servers included
	tools/packages.sh
	$(BIN)/python -m pytest $(TEST_ARGS)

torture: dev-setup ## random histories of syncs with faults in between, for TORTURE_MINUTES (60); see docs/reference/torture.md
	$(BIN)/python -m tests.torture

check: dev-setup sdk ## lint, format, types, layers, generated pages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	tools/check-locks.sh
	.venv-sdk/bin/python tools/compatibility.py --check
	$(BIN)/python tools/permissions.py --check

bench: dev-setup ## print one JSON line per figure, each with a ratio to a floor measured in the same run
	$(BIN)/python -m bench

format: dev-setup ## format and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

reference: dev-setup sdk ## write the generated pages of docs/ anew
	.venv-sdk/bin/python tools/compatibility.py
	$(BIN)/python tools/permissions.py

lock: dev-setup ## resolve the pinned versions anew
	tools/lock.sh

clean: ## remove the virtual environments
	rm -rf .venv .venv-sdk tests/node/node_modules

dev-setup: .venv/.dev
sdk: .venv-sdk/.setup
node: tests/node/node_modules/.setup

.venv/.uv: requirements-uv.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Headwater needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Say which one: make setup PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "$(PYTHON) cannot make a virtual environment. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
	@touch $@

.venv/.setup: .venv/.uv requirements.lock pyproject.toml
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

.venv/.dev: .venv/.setup requirements-dev.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements-dev.lock
	@touch $@

# The SDK lives in an environment of its own, as it does at its users.
.venv-sdk/.setup: .venv/.uv requirements-sdk.lock
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-sdk
	$(BIN)/uv pip install --quiet --python .venv-sdk/bin/python --require-hashes -r requirements-sdk.lock
	@touch $@

# Servers for tests that are written in JavaScript; node itself comes with the development requirements.
tests/node/node_modules/.setup: .venv/.dev tests/node/package.json tests/node/package-lock.json
	cd tests/node && ../../$(BIN)/python ../../tools/npm.py ci --ignore-scripts --silent
	@touch $@
