# Lineament: `make demo` runs the whole lineage, `make test` all tests. Both set everything up first; nothing is
# installed twice. Needs python3 (3.11 or newer), git and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DAGSTER_HOME := $(CURDIR)/.dagster
export ANNY_CACHE_DIR ?= $(CURDIR)/.cache/anny

.DEFAULT_GOAL := help
.PHONY: help setup demo test ui bench lint clean

help:  ## show this help
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 10

setup: $(READY)  ## install everything into .venv (done by the other targets when needed)

$(READY): pyproject.toml constraints.txt setup.sh
	PYTHON="$(PYTHON)" bash setup.sh $(VENV)
	@touch $@

demo: $(READY)  ## run the whole lineage on the studio's pictures, then say where the report is
	$(BIN)/lineament demo

test: $(READY)  ## run all tests
	$(BIN)/python -m pytest -n 2 --dist loadfile

# From DAGSTER_HOME, whose dagster.yaml counts: beside the project's own Dagster warns that it does not.
ui: $(READY)  ## open the Dagster UI on http://127.0.0.1:3000
	@$(BIN)/lineament instance
	@cd $(DAGSTER_HOME) && PYTHONPATH=$(CURDIR) PYTHONWARNINGS='ignore:Function `dev_command`' \
		dagster dev --workspace $(CURDIR)/workspace.yaml --host 127.0.0.1 --port 3000

bench: $(READY)  ## run the benchmarks: a table, and metrics/bench.json
	$(BIN)/python -m benchmarks

lint: $(READY)  ## style and types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

clean:  ## remove the environment and the caches, not the data
	rm -rf $(VENV) .cache .pytest_cache .mypy_cache .ruff_cache
