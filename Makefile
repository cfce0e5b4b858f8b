# One command for each wish; `make` alone lists them. Everything bootstraps itself into .venv:
# a bare machine needs Python 3.11-3.13, git and make, no root and no Docker.

SHELL := /bin/sh
.DEFAULT_GOAL := help

PYTHON ?=
VENV ?= .venv
ARGS ?=
RUN := "$(VENV)/bin/python"
COMPILE := "$(VENV)/bin/uv" pip compile --quiet --universal --generate-hashes \
	--python-version 3.11 --custom-compile-command "make lock"

.PHONY: help setup demo demo-real broker test lint fix docs bench science sbom audit lock clean

help: ## show this list
	@printf 'usage: make TARGET [ARGS="..."] [PYTHON=/path/to/python3.12]\n\n'
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1\t\2/p' Makefile | expand -t 14

setup: ## make or refresh .venv from the lock file, and find or unpack a broker
	@PYTHON="$(PYTHON)" VENV="$(VENV)" sh tools/bootstrap.sh

demo: setup ## a simulated fleet, end to end, results in runs/demo (ARGS="--vehicles 5 --trips 40")
	@$(RUN) -m demo $(ARGS)

demo-real: setup ## the same loop on measured cells and a measured car, results in runs/demo-real
	@$(RUN) -m demo.real $(ARGS)

broker: setup ## a private broker on 127.0.0.1 until Ctrl-C (ARGS="1883")
	@$(RUN) -m demo.broker $(or $(ARGS),1883)

test: setup ## all tests (ARGS="-n0 -x tests/test_broker.py")
	@$(RUN) -m pytest -n 2 --dist loadgroup $(ARGS)

lint: setup ## ruff, mypy --strict, import-linter; changes nothing
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy
	@"$(VENV)/bin/lint-imports" --no-logo

fix: setup ## let ruff mend and format what it can
	@$(RUN) -m ruff check --fix .
	@$(RUN) -m ruff format .

docs: setup ## write docs/reference.md from the code
	@$(RUN) tools/write_reference.py

bench: setup ## measure what the docs promise, some seven minutes (ARGS="--quick": one)
	@$(RUN) -m bench $(ARGS)

science: setup ## the calibration against peers and truth, runs/science (ARGS="--quick": a minute)
	@$(RUN) -m bench.science $(ARGS)

sbom: setup ## what the software is made of, with licences: build/sbom.cdx.json, build/licences.csv
	@$(RUN) tools/sbom.py build

audit: setup ## ask a vulnerability service about everything that is locked (needs a network)
	@$(RUN) tools/audit.py

lock: setup ## resolve the lock files again (ARGS="--upgrade" for newer versions)
	@$(COMPILE) --constraints requirements/constraints.in --extra dev $(ARGS) pyproject.toml \
		-o requirements/dev.lock
	@$(COMPILE) --constraints requirements/dev.lock requirements/bootstrap.in \
		-o requirements/bootstrap.lock
	@$(COMPILE) --constraints requirements/dev.lock requirements/build.in \
		-o requirements/build.lock
	@$(COMPILE) --constraints requirements/dev.lock --extra edge pyproject.toml \
		-o requirements/edge.lock
	@$(COMPILE) --constraints requirements/edge.lock --extra edge --extra can pyproject.toml \
		-o requirements/edge-can.lock

clean: ## remove .venv, .broker, builds and caches; runs/ stays
	@rm -rf "$(VENV)" .broker build dist .pytest_cache .ruff_cache .mypy_cache \
		.import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
