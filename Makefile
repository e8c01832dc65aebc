# Everything a person does with the source tree. `make demo` and `make test` need only Python >= 3.11, pip and make:
# the environment is made in .venv on the first call and made afresh when pyproject.toml or constraints.txt change.

PYTHON   ?= python3
VENV     ?= .venv
# Where a plain torch would bring gigabytes of GPU libraries that you do not need, take the CPU build:
#   make demo PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PIP_ARGS ?=
TORCH    ?= torch==2.13.0
# Test processes, each with one torch thread.
WORKERS  ?= 2

BIN  := $(VENV)/bin
PIP   = $(BIN)/python -m pip install --disable-pip-version-check $(PIP_ARGS) -c constraints.txt
CORE := $(VENV)/.core-installed
DEV  := $(VENV)/.dev-installed

.DEFAULT_GOAL := help
.PHONY: help demo test slow lint format types docs wheel test-wheel clean distclean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' Makefile

demo: $(CORE)  ## real data in, a trained NARM, an honest number and ten recommendations out
	$(BIN)/foretaste demo

test: $(DEV)  ## every test but the slow ones
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow"

slow: $(DEV)  ## the slow tests
	$(BIN)/python -m pytest -m slow

test-wheel: $(DEV)  ## build the wheel, install it into an empty environment, run its demo
	$(BIN)/python -m pytest -m slow tests/test_wheel.py

lint: $(DEV)  ## rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(DEV)  ## mend what the linter can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(DEV)  ## the strict type checker
	$(BIN)/mypy

docs: $(DEV)  ## the pages, into docs/_build/html; a warning is an error
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

wheel: $(DEV)  ## sdist and wheel, into dist/
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m build

clean:  ## remove what was made, but keep the environment
	rm -rf dist build docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean  ## remove the environment too
	rm -rf $(VENV)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, found " + sys.version.split()[0] + \
	  "; name one with make PYTHON=/path/to/python3.11") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(CORE): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing into $(VENV): about 1 GB, most of it torch; this happens once."
	$(PIP) "$(TORCH)"
	$(PIP) -e .
	@touch $@

$(DEV): $(CORE)
	$(PIP) -e ".[dev]"
	@touch $@
