# The two commands to know are `make run` and `make test`.
PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
WORKERS ?= 1
AGAINST ?= HEAD~1
ARGS ?=
BIN := .venv/bin
PYTEST := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/coverage run -m pytest -q
READY := .venv/.ready

.PHONY: help setup run test lint format bench clean

help: ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(READY) ## Install everything into .venv (part of run, test and lint)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip --constraint constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable . --group dev
	@touch $(READY)

run: $(READY) ## Serve on 127.0.0.1:8000 (PORT=8010, WORKERS=2)
	$(BIN)/monkey-coder serve --host $(HOST) --port $(PORT) --workers $(WORKERS)

# Real processes under load: what fails beside others is tried once more by itself, and both are told. Failing twice is red.
test: $(READY) ## Run all tests with coverage
	scripts/system_packages redis-server prometheus
	$(BIN)/coverage erase
	$(PYTEST) --cache-clear --numprocesses auto --maxprocesses 4 --dist loadfile || { \
		echo "FAILED beside the others. Once more, alone; what passes now depends on luck: mend it."; \
		$(PYTEST) --last-failed --last-failed-no-failures none; }
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

lint: $(READY) ## Check style, types and the floors of the architecture
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY) ## Measure under load beside the previous commit; write docs/results/throughput.md (ARGS=--quick: print only)
	scripts/system_packages wrk
	$(BIN)/python packages/core/tests/benchmarks/bench_http.py --against $(AGAINST) $(ARGS)

clean: ## Remove what the commands made, but not ./var
	rm -rf .venv .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
