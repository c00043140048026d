# Everything starts here. Needs only make and Python >= 3.11; `make help` lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash
MAKEFLAGS += --no-print-directory

# The first Python that is new enough; name another one with `make PYTHON=/path/to/python3.12`.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo "$$p"; break; }; done)
# Test files that run at once: one more than cores, as many tests wait for a process, a server or a broker.
JOBS ?= $(shell echo $$(( $$(getconf _NPROCESSORS_ONLN) + 1 )))
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UV_VERSION := >=0.5,<1
# uv from the environment where it runs, else the one that pip brought into the venv.
UV = $(shell if [ -x $(BIN)/uv ]; then echo $(BIN)/uv; elif uv --version >/dev/null 2>&1; then echo uv; else echo $(BIN)/uv; fi)
COMPILE = $(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
	--python-version 3.11 --extra demo --extra test --extra build --custom-compile-command "make lock" pyproject.toml

# Two cores are shared by server, trainer and client: a thread pool per library would only fight.
export OMP_NUM_THREADS ?= 1
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
export MLFLOW_DISABLE_TELEMETRY ?= true
export DO_NOT_TRACK ?= 1
# Tests start hundreds of processes; without its compiled modules each would compile Mulle anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install demo test check lint types layers lock lock-check chaos bench docs clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

install: $(STAMP) ## make .venv from requirements.lock, hashes checked

$(BIN)/python:
	@[ -n "$(PYTHON)" ] || { echo "Mulle needs Python 3.11 or newer; none was found. Name one: make PYTHON=/path/to/python3" >&2; exit 2; }
	@echo "making $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV) || { echo "the venv module failed (on Debian and Ubuntu: apt install python3-venv)" >&2; rm -rf $(VENV); exit 2; }

$(STAMP): pyproject.toml requirements.lock | $(BIN)/python
	@$(UV) --version >/dev/null 2>&1 || $(BIN)/python -m pip install --quiet --disable-pip-version-check "uv$(UV_VERSION)"
	@echo "installing from requirements.lock (the first time takes a minute or two)"
	@$(UV) pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.lock
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP) ## the whole loop on the flights of 2013, in ./mulle-demo
	@$(BIN)/mulle demo

test: $(STAMP) ## the tests: unit, contract, e2e, docs and doctests
	@$(BIN)/python -m pytest tests src/mulle --doctest-modules --ignore-glob='*/migrations/*' --ignore=tests/chaos --ignore=tests/long \
		--numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder $(PYTEST)

check: $(STAMP) lint types layers lock-check ## everything that needs no run: style, types, layers, budgets, lock
	@$(BIN)/python -m pytest tests/test_architecture.py

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(STAMP)
	@$(BIN)/mypy

layers: $(STAMP)
	@$(BIN)/lint-imports --no-logo

lock: $(STAMP) ## write requirements.lock anew (versions stay where they fit; add UPGRADE=1 for the newest)
	@$(COMPILE) $(if $(UPGRADE),--upgrade) -o requirements.lock

# The lock is compiled again with itself as preference: any difference means that pyproject.toml moved on without it.
# Comments are left out of the comparison, because their layout differs between versions of uv.
lock-check: $(STAMP)
	@new=$$(mktemp) && trap 'rm -f "$$new" "$$new.err"' EXIT && cp requirements.lock "$$new" && \
	if ! $(COMPILE) -o "$$new" >/dev/null 2>"$$new.err" && ! $(COMPILE) --offline -o "$$new" >/dev/null 2>>"$$new.err"; then \
		cat "$$new.err" >&2; echo "requirements.lock could not be compiled again" >&2; exit 1; fi && \
	if diff <(grep -vE '^ *(#|$$)' requirements.lock) <(grep -vE '^ *(#|$$)' "$$new"); then echo "requirements.lock is current"; \
	else echo "requirements.lock is out of date: run make lock and commit it" >&2; exit 1; fi

chaos: $(STAMP) ## the longer round: processes killed at every step, long benchmarks (ROUNDS=50 for more, AWAY=60 for longer outages)
	@$(BIN)/python -m pytest tests/chaos tests/long --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder $(PYTEST)

bench: $(STAMP) ## each claim of speed beside its limit and its peers (BENCH="checks --no-peers" for a part)
	@$(BIN)/python -m benchmarks $(BENCH)

docs: $(STAMP) ## write the pages that are generated (command line)
	@$(BIN)/python docs/generate.py

clean: ## remove the environment, caches and the demo
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist build mulle-demo
