# Everything a newcomer types. Each target installs what it needs into .venv first; nothing else is touched.
# PYTHON=python3.12 make test: another interpreter for a new .venv.   VENV=/tmp/v make run: another place.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 3
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help run check test test-slurm lint benchmark gallery clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: $(VENV)/.installed  ## install, train the nano model on tables, evaluate it, print the result table
	$(BIN)/python -m vlmreason train task=table_readout supervision=align_mix_plus

check: $(VENV)/.installed-dev  ## install, run the tests that are not slow, ruff and mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -m "not slow"
	@$(MAKE) --no-print-directory lint

test: $(VENV)/.installed-dev  ## install, run all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

test-slurm: $(VENV)/.installed-dev  ## sweeps on a real SLURM of one node (root; apt-get install slurm-wlm munge)
	OMP_NUM_THREADS=1 VLMREASON_SLURM=1 $(BIN)/python -m pytest -rs tests/slurm

lint: $(VENV)/.installed-dev  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy src benchmarks

benchmark: $(VENV)/.installed-dev  ## speed and memory of data, training and generation
	$(PIP) -q -e ".[benchmark]"
	@set -e; for file in benchmarks/[a-z]*.py; do echo "== $$file"; $(BIN)/python "$$file"; done

gallery: $(VENV)/.installed  ## one HTML page with examples of every task
	$(BIN)/python -m vlmreason gallery

clean:  ## remove .venv and caches; runs in outputs/ stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis

# A stamp is written after a whole installation only, so one that was broken off is made again.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/pip
	$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/pip
	$(PIP) -e ".[dev]"
	@touch $(VENV)/.installed $@

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "vlmreason needs Python 3.11 or newer, '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || true);" \
	       "name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "'$(PYTHON) -m venv' failed; on Debian and Ubuntu it is in the package python3-venv" >&2; exit 1; }
