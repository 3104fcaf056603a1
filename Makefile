# Two commands do everything: `make demo` and `make test`. Both set themselves up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What is measured runs on the system's Python where that is new enough: distributions build theirs
# with profile-guided optimisation, as the image's is; one that lacks it takes half as long again.
BENCH_PYTHON ?= $(shell /usr/bin/python3 -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' \
	2>/dev/null && echo /usr/bin/python3 || echo $(PYTHON))
export PYTHONDONTWRITEBYTECODE := 1

.PHONY: demo test soak lint bench bench-here bench-strategies fuzz audit lock clean help

help:  ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/'

demo: $(VENV)/.run  ## run the gateway on a pretend cluster, with lines to paste
	@$(BIN)/python -m simulator.demo

test: $(VENV)/.dev lint audit  ## every check and test there is
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile

soak: $(VENV)/.dev  ## minutes of traffic, changes and faults, told in soak-report.md: 10 minutes
	$(BIN)/python -m pytest tests/soak

lint: $(VENV)/.dev  ## style, types and import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench:  ## compare with nginx, a Rust router and bare WSGI: 24 minutes, BENCH=--help says more
	@$(MAKE) --no-print-directory bench-here VENV=.venv-measured PYTHON=$(BENCH_PYTHON)

bench-here: $(VENV)/.run
	@failed=0; $(BIN)/python -m bench.micro || failed=1; \
		$(BIN)/python -m bench $(BENCH) || failed=1; exit $$failed

bench-strategies: $(VENV)/.run  ## simulate the strategies behind 1 to 8 gateways: 6 minutes
	$(BIN)/python -m bench.strategies $(BENCH)

fuzz: $(VENV)/.run  ## search for input that breaks a parser: 3 minutes, FUZZ_SECONDS=60 for each
	@$(BIN)/python -m fuzz

audit: $(VENV)/.run $(VENV)-audit/.complete  ## look up vulnerabilities and licences, write an SBOM into audit/
	@$(BIN)/python -m tools.audit

lock: $(VENV)/.dev  ## compile the locks from the .in files
	for lock in requirements requirements-tracing requirements-dev requirements-fuzz requirements-audit; do \
		$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
			--no-header --quiet --output-file $$lock.txt $$lock.in || exit; \
	done

clean:  ## remove what was set up
	rm -rf $(VENV) $(VENV)-bench $(VENV)-measured $(VENV)-fuzz $(VENV)-audit audit .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; this is $$($(PYTHON) -V). Set PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements.txt | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt requirements-tracing.txt $(VENV)/.run
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes \
		-r requirements-tracing.txt -r requirements-dev.txt
	@touch $@

$(VENV)-audit/.complete: requirements-audit.txt | $(BIN)/python
	$(BIN)/python -m venv --clear $(VENV)-audit
	@$(VENV)-audit/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-audit.txt \
		&& touch $@ || echo "audit: its tools can't be installed from this index" >&2
