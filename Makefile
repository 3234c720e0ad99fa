# Two commands are all a fresh machine needs (python3 >= 3.11, git, make): `make demo` and `make test`.
# Each sets up its own virtual environment first; `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# processes that share the suite's files
WORKERS ?= 2
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# DeepSpeed's operators are compiled when they are first used, never at install
export DS_BUILD_OPS := 0
export PYTHONUNBUFFERED := 1

.PHONY: help venv demo test lint types bench clean

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z]+):.*## /  make \1\t/'

venv: $(STAMP) ## the virtual environment alone, with the tested versions

demo: $(STAMP) ## the main job on real data, on a CPU; then open runs/demo/report.html
	$(BIN)/vinnow demo

test: $(STAMP) ## the whole suite (ARGS="-k less" narrows it, WORKERS=4 for more cores)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(STAMP) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## pyright
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(STAMP) ## every benchmark; each writes its row to benchmarks/results/
	@for script in benchmarks/[!_]*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

clean: ## remove the environment and what tools left; runs/ stays
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch goes first and alone: where an index or a wheel folder offers a CPU build of the pinned version, pip takes that
# one, and nothing later asks for another.
$(STAMP): constraints.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "vinnow needs Python 3.11 or newer: apt install python3 python3-venv, or make PYTHON=/path/to/python3" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "vinnow needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments here. Run: apt install python3-venv" >&2; exit 2; }
	@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@echo "installing into $(VENV) (a few minutes the first time)"
	$(PIP) install -c constraints.txt setuptools wheel
	$(PIP) install -c constraints.txt torch
	$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@
