# Everything a developer or a newcomer runs. The virtual environment makes itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= demo

.PHONY: demo test test-fast check pilot clean

demo: $(VENV)/ready
	$(BIN)/ropewalk run --to 1024,2048 --out $(DEMO) --resume

test: $(VENV)/ready
	$(BIN)/python -m pytest

test-fast: $(VENV)/ready
	$(BIN)/python -m pytest -m "not model and not gpu"

check: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --level error
	$(BIN)/python -m pytest -q tests/test_imports.py

# Trains the checkpoint that ships with the package from scratch, into build/pilot; about an hour on two cores.
pilot: $(VENV)/ready
	$(BIN)/python -m ropewalk.pilot.pretrain --out build/pilot

clean:
	rm -rf $(VENV) build demo .pytest_cache .ruff_cache .hypothesis

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@
