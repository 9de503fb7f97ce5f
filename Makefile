# Two commands do everything: `make serve` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install
DEMO ?= build/demo
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-header --no-annotate --no-emit-index-url --no-emit-find-links

.PHONY: build serve test check bench bench-pull bench-export torture lock clean
.DEFAULT_GOAL := build

# The program, at .venv/bin/mailkeep, with what it needs to run and nothing else.
build: $(VENV)/.built

$(VENV)/.built: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Mailkeep needs Python 3.11 or newer; '$(PYTHON)' is older. Try: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "Installing python3-venv"; apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null; \
	  else echo "Python's venv module is missing. As root: apt-get install python3-venv" >&2; exit 1; fi; }
	@echo "Building $(BIN)/mailkeep"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --require-hashes -r requirements.lock
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

# What the tests and checks need as well.
$(VENV)/.dev: requirements-dev.lock $(VENV)/.built
	@echo "Adding what the tests need"
	@$(PIP) --require-hashes -r requirements-dev.lock
	@touch $@

# A server on loopback with a demo account and sample mail; prints what to type into a mail client.
serve: build
	@mkdir -p $(dir $(DEMO))
	@exec $(BIN)/mailkeep serve --demo --data $(DEMO)

# Everything that CI runs.
test: $(VENV)/.dev
	@$(BIN)/python -m tests.programs
	@$(BIN)/python -m tests.courier
	@$(BIN)/python -m tests.packages
	@$(BIN)/python -m pytest

# Format, lint, types, tidy: seconds.
check: $(VENV)/.dev
	@$(BIN)/python -m pytest tests/tidy tests/docs

# Mailkeep against Dovecot, side by side. `make bench BENCH_ONLY=noop,fetch BENCH_MESSAGES=5000` for a part.
bench: $(VENV)/.dev
	@$(BIN)/python -m tests.programs dovecot
	@$(BIN)/python -m bench

# Pulling mail: Mailkeep against mbsync, offlineimap and getmail, from Dovecot, near and far.
bench-pull: $(VENV)/.dev
	@$(BIN)/python -m tests.programs dovecot mbsync offlineimap getmail
	@$(BIN)/python -m bench.pull

# Exporting mail: every format, in messages a second and memory. `$(BIN)/python -m bench.export --large` for big PSTs.
bench-export: $(VENV)/.dev
	@$(BIN)/python -m tests.programs dovecot chromium soffice
	@$(BIN)/python -m bench.export

# The long forms of what `make test` runs briefly: kills, bad input, fuzzing, very large outputs.
torture: $(VENV)/.dev
	@$(BIN)/python -m tests.programs
	@$(BIN)/python -m tests.packages
	@MAILKEEP_TORTURE=full $(BIN)/python -m pytest -o faulthandler_timeout=7200 tests/system/torture tests/system/test_differential_random.py tests/fuzz \
	  tests/export/pst/test_large.py tests/export/test_html_browser.py

# Write the lock files again, from pyproject.toml.
lock: $(VENV)/.dev
	@$(COMPILE) --upgrade --group pyproject.toml:build pyproject.toml -o requirements.lock
	@$(COMPILE) --upgrade --group pyproject.toml:dev --constraint requirements.lock pyproject.toml -o requirements-dev.lock

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
