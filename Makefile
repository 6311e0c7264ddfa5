# Each target makes its own .venv first; a machine with Python 3.11 or later is enough.

VENV ?= .venv
PYTEST_ARGS ?=
# Processes that share the tests. Some files alone are done sooner without.
WORKERS ?= $(if $(filter tests/%,$(PYTEST_ARGS)),0,auto)
MINUTES ?= 1
SEEDS ?= 100
MESSAGES ?= 1000000

RUN := $(VENV)/.installed-run
DEV := $(VENV)/.installed-dev
# The systems that the benchmarks compare with are nobody's dependency: they have an environment of their own.
BENCH := $(VENV)-bench

# Variables of make are not commands' business, but these two are tools/venv.sh's.
export VENV PYTHON

.PHONY: help demo test pytest again simulate lint types format bench fuzz conformance soak reliability-report security-report clean
.DEFAULT_GOAL := help

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(RUN) ## several nodes on this machine, sharing its telemetry (Ctrl-C ends it)
	@if [ -t 1 ]; then exec $(VENV)/bin/mesh demo; else exec $(VENV)/bin/mesh demo --seconds 10; fi

test: lint types pytest ## everything CI asks: lint, types, tests with coverage

pytest: $(DEV) ## the tests alone, with coverage (PYTEST_ARGS=… for more, WORKERS=0 for one after the other)
	@$(VENV)/bin/python -m pytest -q -n $(WORKERS) --cov --cov-report=term $(PYTEST_ARGS)

again: $(DEV) ## what failed in the last run of the tests, once more and alone
	@$(VENV)/bin/python -m pytest -q -n 0 --last-failed --last-failed-no-failures none $(PYTEST_ARGS)

simulate: $(DEV) ## whole meshes in trouble, on a virtual network with a virtual clock (SEEDS=100)
	@$(VENV)/bin/python -m tests.simulation --seeds $(SEEDS)

lint: $(DEV) ## ruff: rules and format
	@$(VENV)/bin/ruff check --quiet .
	@$(VENV)/bin/ruff format --quiet --check .

types: $(DEV) ## mypy, strict, over mesh and bridges
	@$(VENV)/bin/mypy

format: $(DEV) ## let ruff write the format
	@$(VENV)/bin/ruff check --quiet --fix .
	@$(VENV)/bin/ruff format --quiet .

bench: $(BENCH)/.installed-bench ## measure rate and round trip beside other systems: which goals hold (under ten minutes)
	@$(BENCH)/bin/python -m benchmarks --goals

fuzz: $(DEV) ## feed broken bytes to every parser (MINUTES=1)
	@$(VENV)/bin/python tools/fuzz.py $(MINUTES)

conformance: $(DEV) ## the Autobahn|Testsuite's cases against the gateway's WebSocket, the large ones too
	@$(VENV)/bin/python -m tests.bridges.web.conformance

soak: $(DEV) ## many reliable messages, with flat memory and descriptors (MESSAGES=1000000)
	@$(VENV)/bin/python -m tests.chaos.soak $(MESSAGES)

reliability-report: $(DEV) ## harm real processes on hosts of their own, and write docs/reliability-report.md (root)
	@$(VENV)/bin/python tools/reliability_report.py --write

security-report: $(DEV) ## attack a node, and write docs/security-report.md
	@$(VENV)/bin/python tools/security_report.py --write

clean: ## remove the environment, caches and reports
	rm -rf $(VENV) $(BENCH) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.* htmlcov build dist
	find mesh bridges tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(RUN): pyproject.toml tools/venv.sh
	@sh tools/venv.sh run

$(DEV): pyproject.toml tools/venv.sh
	@sh tools/venv.sh dev

$(BENCH)/.installed-bench: pyproject.toml tools/venv.sh
	@VENV=$(BENCH) sh tools/venv.sh bench
