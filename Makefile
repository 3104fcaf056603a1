# Two commands do everything: `make demo` and `make test`. Both set themselves up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PYTHONDONTWRITEBYTECODE := 1

.PHONY: demo test soak lint bench lock clean help

help:  ## what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/'

demo: $(VENV)/.run  ## run the gateway on a pretend cluster, with lines to paste
	@$(BIN)/python -m simulator.demo

test: $(VENV)/.dev lint  ## every check and test there is
	$(BIN)/python -m pytest

soak: $(VENV)/.dev  ## minutes of traffic, changes and faults, told in soak-report.md: 10 minutes
	$(BIN)/python -m pytest tests/soak

lint: $(VENV)/.dev  ## style, types and import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.run  ## compare with nginx, a Rust router and bare WSGI: 12 minutes, BENCH=--help says more
	$(BIN)/python -m bench.micro
	$(BIN)/python -m bench $(BENCH)

lock: $(VENV)/.dev  ## compile the locks from the .in files
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-header --quiet --output-file requirements.txt requirements.in
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-header --quiet --output-file requirements-dev.txt requirements-dev.in

clean:  ## remove what was set up
	rm -rf $(VENV) .venv-bench .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; this is $$($(PYTHON) -V). Set PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements.txt | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.run
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@
