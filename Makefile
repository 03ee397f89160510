# Every target makes .venv by itself: a fresh machine needs only Python 3.11 or newer.
#
#   make demo         train, export, check and serve a digit classifier
#   make test         the tests (all but the comparison with PyTorch)
#   make conformance  the comparison with PyTorch (installs it into .venv)
#   make bench        the benchmarks against PyTorch
#   make lint         ruff and mypy
#   make wheel        build dist/facula-*-py3-none-any.whl
#   make clean        remove .venv and what was built

# The first interpreter that is new enough; PYTHON=... overrides.
PYTHON ?= $(shell for p in python3 python python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --quiet
# Not a second torch: this one is what the figures in benchmarks/ are measured against.
TORCH := torch==2.13.0
# Two processes: the tests are many and small, and most use one thread.
PYTEST_ARGS ?= -q -n 2

.PHONY: demo test conformance bench lint wheel clean
.DELETE_ON_ERROR:

demo: $(VENV)/.demo
	@$(BIN)/facula demo $(DEMO_ARGS)

test: $(VENV)/.test
	@$(BIN)/python -m pytest -m "not conformance" $(PYTEST_ARGS)

conformance: $(VENV)/.torch
	@$(BIN)/python -m pytest -m conformance $(PYTEST_ARGS)

bench: $(VENV)/.torch
	@$(BIN)/python -m benchmarks $(BENCH_ARGS)

lint: $(VENV)/.lint
	@$(BIN)/ruff check .
	@$(BIN)/mypy

wheel: $(VENV)/bin/python
	@$(BIN)/python -m pip --disable-pip-version-check wheel --quiet --no-deps --wheel-dir dist .
	@ls dist/facula-*-py3-none-any.whl

clean:
	rm -rf $(VENV) build dist

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "facula needs Python 3.11 or newer; set PYTHON=..." >&2; exit 1; }
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

# A stamp an extra: pip runs again only if pyproject.toml changed.
$(VENV)/.demo $(VENV)/.test $(VENV)/.lint: $(VENV)/.%: pyproject.toml | $(VENV)/bin/python
	@echo "installing facula[$*] into $(VENV)"
	@$(PIP) --editable '.[$*]'
	@touch $@

$(VENV)/.torch: $(VENV)/.test
	@echo "installing $(TORCH) into $(VENV)"
	@$(PIP) '$(TORCH)' || { echo "$(TORCH) cannot be had for this Python: no conformance run" >&2; exit 1; }
	@touch $@
