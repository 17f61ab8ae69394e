# Two commands to know: `make demo` and `make test`. Needs Python 3.11 or newer; the rest is installed into .venv.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
SETUP := $(PYTHON) scripts/setup_env.py --venv $(VENV)

.PHONY: help setup develop demo test thorough lint format bench simulate powercuts mutants clean

help:
	@echo "make demo     run a control plane, an agent and a job in this process"
	@echo "make test     run every check"
	@echo "make thorough run the tests with ten times the examples and seeds (some ten minutes)"
	@echo "make lint     run the checks that run no tests"
	@echo "make format   lay out the code and fix what can be fixed"
	@echo "make bench    run the benchmarks (make bench NAME=latency: only that one)"
	@echo "make simulate run the deterministic simulation (make simulate FROM=1 SEEDS=400)"
	@echo "make mutants  plant bugs, and count the seeds that the simulation needs to find them"
	@echo "make powercuts cut the power at every write of ten operations (a minute)"
	@echo "make clean    remove everything that was made here"

setup:
	@$(SETUP)

develop:
	@$(SETUP) --group test --group lint

demo: setup
	@$(VENV)/bin/python -m khonsu.examples.single_node

test: develop
	@$(VENV)/bin/python scripts/check.py

thorough: develop
	@$(VENV)/bin/python -m pytest -q --effort full --timeout 900

lint: develop
	@$(VENV)/bin/python scripts/check.py --only format --only ruff --only imports --only mypy --only public

format: develop
	@$(VENV)/bin/ruff check --fix-only --quiet .
	@$(VENV)/bin/ruff format .

bench: setup
	@for name in $${NAME:-$$($(VENV)/bin/python -m khonsu.bench --list)}; do $(VENV)/bin/python -m khonsu.bench $$name; done

simulate: develop
	@$(VENV)/bin/python -m khonsu.testing.simulation --from $${FROM:-1} --seeds $${SEEDS:-100}

mutants: develop
	@$(VENV)/bin/python -m tests.simulation.mutants $${NAMES:-}

powercuts: develop
	@$(VENV)/bin/python -m pytest -q tests/simulation/test_every_write.py --effort full

clean:
	rm -rf .venv .venv-* .venv.lock build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
