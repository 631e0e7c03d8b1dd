# Each target sets up what it needs in .venv; a second run finds it there.
#   PIP_ARGS  passes through to pip, for example a folder of wheels: PIP_ARGS="--find-links wheels"
#   PYTHON    the interpreter that .venv is made with, 3.11 or newer

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint clean

VENV := .venv
BIN := $(VENV)/bin
PIP_ARGS ?=
NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))'
PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$name $(NEW_ENOUGH) 2>/dev/null && echo $$name && break; done)
PIP = $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt $(PIP_ARGS)

help:
	@echo "make setup   install trajlm with what its commands need into .venv"
	@echo "make demo    collect, train, evaluate, plan, report: a half-cheetah, in 15 minutes at most"
	@echo "make test    run the tests"
	@echo "make lint    check style (ruff) and types (mypy)"
	@echo "make clean   remove .venv and caches; runs/ stays"

setup: $(VENV)/runtime.stamp
	@echo "ready: $(BIN)/trajlm --help"

demo: $(VENV)/runtime.stamp
	$(BIN)/trajlm demo

test: $(VENV)/development.stamp
	$(BIN)/python -m pytest

lint: $(VENV)/development.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis

$(BIN)/python:
	@$(or $(PYTHON),false) $(NEW_ENOUGH) 2>/dev/null || \
		{ echo "trajlm needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/runtime.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[mujoco,data,video,report,tensorboard]'
	@touch $@

$(VENV)/development.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[dev]'
	@touch $(VENV)/runtime.stamp $@
