# Everything runs in .venv, made on first use. `make` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin

.PHONY: help install demo test lint format unit report bench tiny pictures clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: .venv/.installed  ## make .venv with the package and its tools

demo: install  ## run the demo grid on the CPU and write its report
	$(BIN)/python -m vlmbench.train -m sweep=demo output=runs/demo && status=0 || status=$$?; \
	$(BIN)/python -m vlmbench.report records=runs/demo output=report/demo title="vlmbench demo"; exit $$status

test: install lint unit  ## lint, then run the tests

lint: install  ## ruff, mypy, and the walls between the packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install  ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

unit: install  ## the tests, with line coverage
	$(BIN)/python -m pytest -n 2 --dist loadgroup --cov --cov-report=term --cov-fail-under=85

report: install  ## report every record under runs/
	$(BIN)/python -m vlmbench.report records=runs output=report

bench: install  ## time ours beside what people use instead, and write docs/benchmarks.md
	$(BIN)/python scripts/bench/benchmarks.py

tiny: install  ## make the shipped tiny checkpoints anew (an hour)
	$(BIN)/python scripts/make_tiny.py

pictures: demo  ## make the pictures of the README from the demo's records
	$(BIN)/python scripts/pictures.py --records runs/demo --out docs

clean:  ## remove .venv and what tools leave behind; keeps runs/ and report/
	rm -rf .venv dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .coverage .coverage.*

# uv, itself a package, installs in half a minute what takes pip several; without it pip does the work. Compiled once
# here, torch and the like are imported twice as fast by every process, also where Python may write no bytecode.
.venv/.installed: export UV_COMPILE_BYTECODE := 1
.venv/.installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "vlmbench needs Python 3.11, 3.12 or 3.13; none is on the PATH (set PYTHON=...)." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv 2>/dev/null || uv venv --seed --python $(PYTHON) .venv
	if command -v uv >/dev/null; then uv pip install --python $(BIN)/python -e '.[dev]'; \
	elif $(BIN)/python -m pip install --quiet uv; then $(BIN)/uv pip install --python $(BIN)/python -e '.[dev]'; \
	else $(BIN)/python -m pip install -e '.[dev]'; fi
	touch $@
