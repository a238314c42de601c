# make demo, make test: both set up everything they need in .venv.

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check
JOBS ?= auto

.PHONY: demo test test-soak test-counterparts test-matrix test-stdlib lint bench clean

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "attribkit needs Python 3.11 or later on the PATH; set PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	@echo "installing attribkit and the demo's libraries into $(VENV) ..."
	@$(PIP) -e '.[demo]'
	@touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/bin/python
	@echo "installing attribkit and the test tools into $(VENV) ..."
	@$(PIP) -e '.[test]'
	@touch $@ $(VENV)/.demo

demo: $(VENV)/.demo
	@$(VENV)/bin/attribkit demo

test: $(VENV)/.test
	$(VENV)/bin/python -m pytest -n $(JOBS) -m 'not counterpart'

test-soak: $(VENV)/.test
	$(VENV)/bin/python tests/soak/soak.py --seconds 60

test-counterparts: $(VENV)/.test
	sh tests/counterparts/install.sh
	sh tests/counterparts/install_large.sh
	$(VENV)/bin/python -m pytest -n $(JOBS) -m counterpart

test-matrix: $(VENV)/.test
	$(VENV)/bin/python tests/matrix/run.py

test-stdlib: $(VENV)/.test
	$(VENV)/bin/python tests/stdlib/run.py

lint: $(VENV)/.test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: $(VENV)/.test
	$(VENV)/bin/python benchmarks/run.py

clean:
	rm -rf $(VENV) build dist .counterparts .matrix
