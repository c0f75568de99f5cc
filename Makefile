# Everything a fresh checkout needs: `make demo` shows it, `make test` proves it. Both work twice in a row.

PYTHON := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help demo test check bench setup install clean

help:  ## show these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/.runtime  ## run the quickstart to the end: deploy, status, use it, stop
	@scripts/demo

test: setup check  ## set up everything, then check and run all tests
	@scripts/run-tests

check: .venv/.dev  ## lint, format, types, import rules
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy
	.venv/bin/lint-imports --no-logo

bench: setup  ## measure, and write docs/benchmarks.md
	$(PYTHON) bench/run.py

setup: .venv/.dev  ## the environment and the real servers that tests need
	@scripts/system-packages

install: .venv/.runtime  ## only the program itself, as .venv/bin/deploy-code

clean:  ## remove what these targets made
	rm -rf .venv .bench .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# The stamps lie inside the environment, so that removing it is enough to start anew.
.venv/.runtime: pyproject.toml scripts/setup
	@scripts/setup runtime

.venv/.dev: pyproject.toml scripts/setup
	@scripts/setup dev
