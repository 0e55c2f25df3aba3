# foleypref: everything in one command. `make setup` once, then `make demo` or `make check`.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: setup demo test test-all lint types docs check clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet -e '.[dev]' -c constraints.txt
	$(PIP) install --quiet -e '.[pesq]' -c constraints.txt || \
		echo 'setup: pesq did not build (it needs a C compiler); its scorer stays unscored'
	touch $(STAMP)

demo: setup
	$(BIN)/foleypref demo

test: setup
	$(BIN)/python -m pytest

test-all: setup
	$(PIP) install --quiet -e '.[ray]' -c constraints.txt
	$(BIN)/python -m pytest -m ''

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: setup
	$(BIN)/mypy

docs: setup
	$(BIN)/sphinx-build -q -n -W --keep-going -b html docs build/docs
	@echo build/docs/index.html

check: lint types test

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache
