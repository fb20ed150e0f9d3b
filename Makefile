# Everything a developer or a newcomer runs. The virtual environment makes itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= demo

.PHONY: demo paper test test-fast test-families test-ranks test-runtimes test-faults test-paper soak check pilot clean

demo: $(VENV)/core
	$(BIN)/ropewalk run --to 1024,2048 --steps 180,90 --learning-rate 1e-3,6e-4 --out $(DEMO) --resume

# Every figure and table of the paper on the pilot, and paper/results/index.html; goes on where it stopped.
paper: $(VENV)/ready
	$(BIN)/python paper/make.py

# A process a core, at most four, of one thread each; the tests of one file stay together.
test: $(VENV)/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

test-fast: $(VENV)/ready
	$(BIN)/python -m pytest -m "not model and not gpu and not families and not clients and not faults and not ranks and not paper"

# Every model type of transformers with every method: about a quarter of an hour.
test-families: $(VENV)/ready
	$(BIN)/python -m pytest -q tests/families -m "families or not families"

# Every stage of `make paper` with a few steps each, killed and gone on with.
test-paper: $(VENV)/ready
	$(BIN)/python -m pytest -q tests/paper -m "paper or not paper"

# Kills at every write, failing disks, hostile files and fuzzed inputs; the full count is FUZZ=1000000.
FUZZ ?= 100000
test-faults: $(VENV)/ready
	$(BIN)/python -m pytest -q tests/faults -m "faults or not faults" --fuzz $(FUZZ)

# An hour of one process and an hour of random kills, side by side; logs, figures and the picture go to build/soak.
soak: $(VENV)/ready
	$(BIN)/python -W ignore -m tests.faults.soak --out build/soak

# Runs of several processes that are killed and go on, checkpoints of a gigabyte: about a quarter of an hour.
test-ranks: $(VENV)/ready
	$(BIN)/python -m pytest -q -s tests/ranks -m "ranks or not ranks"

# Real serving runtimes, each in an environment of its own; llama.cpp is built from source, which takes minutes.
CLIENTS := build/clients
test-runtimes: $(VENV)/ready $(CLIENTS)/transformers4/ready $(CLIENTS)/mlx/ready $(CLIENTS)/llama_cpp/ready
	$(BIN)/python -m pytest -q tests/clients -m clients

$(CLIENTS)/transformers4/ready: PACKAGES := torch==2.13.0 transformers==4.57.6
$(CLIENTS)/mlx/ready: PACKAGES := mlx[cpu]==0.32.4 mlx-lm==0.32.2
$(CLIENTS)/llama_cpp/ready: PACKAGES := llama-cpp-python==0.3.36
$(CLIENTS)/%/ready:
	$(PYTHON) -m venv $(CLIENTS)/$*
	$(CLIENTS)/$*/bin/python -m pip install --quiet --disable-pip-version-check '$(firstword $(PACKAGES))' $(foreach p,$(wordlist 2,9,$(PACKAGES)),'$(p)')
	touch $@

check: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --level error
	$(BIN)/python -m pytest -q tests/test_imports.py

# Trains the checkpoint that ships with the package from scratch, into build/pilot; about two hours on two cores.
pilot: $(VENV)/ready
	$(BIN)/python -m ropewalk.pilot.pretrain --out build/pilot

clean:
	rm -rf $(VENV) build demo .pytest_cache .ruff_cache .hypothesis

# What a user needs; a demo waits for no more than that.
$(VENV)/core: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/ready: $(VENV)/core
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@
