# `make run` starts the dashboard; `make test` and `make test-slow` together run every test that
# needs neither GPU nor network.
# Only Python 3.11+ and make are needed; everything else goes into .venv.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PORT ?= 8501
# A package index for torch, such as https://download.pytorch.org/whl/cpu (empty: pip's default).
TORCH_INDEX ?=

VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime
DEV := $(VENV)/.dev
export PYTHONPATH := $(CURDIR)

# Tests of one file stay together, so that they share what the file makes once; the longest files
# come first (tests/conftest.py), so that no worker ends alone with one of them.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations=15

.PHONY: help install dev run test test-slow lint benchmarks audit chromium clean

help:
	@echo "make run         start the dashboard and a job worker on precomputed/ (PORT=$(PORT))"
	@echo "make test        what every change must pass, a few minutes (WORKERS=$(WORKERS))"
	@echo "make test-slow   the rest: kills, Ray, coverage of intervals, benchmarks, tutorial"
	@echo "make lint        ruff and mypy"
	@echo "make benchmarks  print what is fast, as ratios against the plain way"
	@echo "make audit       known vulnerabilities of the pinned packages (needs the internet)"
	@echo "make clean       remove the virtual environment and caches"

$(RUNTIME): requirements.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: install it and run make again."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; $(PYTHON) is older. Try: make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(BIN)/python -m pip install --quiet --index-url $(TORCH_INDEX) $(shell grep '^torch==' requirements.txt))
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(DEV): requirements-dev.txt $(RUNTIME)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

install: $(RUNTIME)

dev: $(DEV)

run: $(RUNTIME)
	$(BIN)/python -m backend serve --port $(PORT)

test: $(DEV) chromium
	$(PYTEST) -m 'not gpu and not network and not slow'

test-slow: $(DEV) chromium
	$(PYTEST) -m 'slow and not gpu and not network'

# Every worker has one core; threads of their own would only wait for one another.
test test-slow: export OMP_NUM_THREADS := 1
test test-slow: export OPENBLAS_NUM_THREADS := 1
test test-slow: export MKL_NUM_THREADS := 1
test test-slow: export NUMBA_NUM_THREADS := 1

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

benchmarks: $(DEV)
	for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

audit: $(RUNTIME)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/pip-audit --requirement requirements.txt --no-deps --disable-pip

chromium:
	@command -v chromium chromium-browser google-chrome >/dev/null 2>&1 || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && apt-get install -y -qq chromium; \
	  else \
	    echo "The browser tests need Chromium. On Debian or Ubuntu: sudo apt-get install chromium"; exit 1; \
	  fi; }

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
