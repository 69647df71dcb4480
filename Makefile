# One command each, from a fresh clone: all set-up happens by itself, once.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup bench test lint types pytest fuzz fuzz-sanitized peers tables wheel clean

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TYPES := build/types/sparsebench
# What an editable install does not see by itself: new dependencies, entry points, and compiled sources.
SOURCES := pyproject.toml constraints.txt $(shell find CMakeLists.txt kernels -path '*/fuzz*' -prune -o \
	\( -name CMakeLists.txt -o -name '*.pyx' -o -name '*.pxd' -o -name '*.c' -o -name '*.cpp' -o -name '*.h' \) -print | \
	LC_ALL=C sort)
# Relative, because pip splits this variable at blanks; pip from 25.3 on reads the second one for build environments.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

help: ## what there is (the default)
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 24

bench: $(INSTALLED) ## set up, then the main comparison: sparsebench run suite-cpu
	$(BIN)/sparsebench run suite-cpu

test: lint types pytest ## set up, then everything that is checked: ruff, mypy, pytest

setup: $(INSTALLED) ## a virtual environment in .venv with sparsebench, the plain peers and the developer's tools

lint: $(INSTALLED) ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy does not follow the import hook of an editable install, so it gets the package laid out as a wheel lays it out.
types: $(INSTALLED) ## mypy over the package as it is installed, from another folder
	@rm -rf $(TYPES) && mkdir -p $(TYPES)
	@ln -s "$(CURDIR)"/sparsebench/* $(TYPES)/
	@ln -s "$(CURDIR)/plugins" $(TYPES)/builtin && ln -s "$(CURDIR)/kernels" "$(CURDIR)/suites" $(TYPES)/
	cd build/types && "$(CURDIR)/$(BIN)/mypy" --config-file "$(CURDIR)/pyproject.toml" -p sparsebench

# One thread in each process, or two of them would wait for each other's cores.
pytest: $(INSTALLED) ## the tests alone: several at a time, then those that need the machine for themselves
	@failed=0; \
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not alone" --numprocesses $$(nproc) --maxprocesses 4 --dist loadfile \
		--benchmark-disable || failed=$$?; \
	$(BIN)/pytest -m alone || failed=$$?; \
	exit $$failed

# Only a C++ compiler is needed: no Python, no torch.
fuzz: ## random problems against a naive oracle on every instruction set of this CPU: PROBLEMS=20000 SEED=1
	$(MAKE) -s -C kernels/cpp/fuzz run OUT="$(CURDIR)/build/fuzz"

fuzz-sanitized: ## the same under AddressSanitizer and UndefinedBehaviorSanitizer
	$(MAKE) -s -C kernels/cpp/fuzz run SANITIZE=1 OUT="$(CURDIR)/build/fuzz-sanitized"

# sparseprop's setup.py calls whatever `pip` is first on PATH, from another folder, and builds with -march=native. So: our
# PATH, no build isolation, no constraints file named relative to this folder, and no cached wheel of another CPU.
peers: $(INSTALLED) ## add sparseprop, the peer that does not install plainly
	$(BIN)/pip install --quiet "setuptools>=70.1" pybind11
	@env -u PIP_CONSTRAINT -u PIP_BUILD_CONSTRAINT PATH="$(CURDIR)/$(BIN):$$PATH" \
		$(BIN)/pip install --quiet --no-cache-dir --no-build-isolation --no-deps sparseprop==0.1.14 || \
		echo "sparseprop did not build (reason above); the other peers are installed, its rows will be skipped" >&2
	$(BIN)/sparsebench list backends

tables: $(INSTALLED) ## write the tables of docs/methods.md anew, from the plugins
	$(BIN)/python docs/tables.py

wheel: $(INSTALLED) ## the wheel, in dist/
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .

clean: ## remove everything that was made here but the runs
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than 3.11: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): $(SOURCES) | $(VENV)/bin/python
	@echo "installing into $(VENV): minutes the first time (torch is large), then never again"
	$(BIN)/pip install --quiet --editable '.[peers,test,lint]'
	@touch $@
