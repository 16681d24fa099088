# Everything is set up in .venv; `make demo` and `make test` are all that a fresh clone needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Workers of pytest; each runs PyTorch on one thread.
JOBS ?= auto

.PHONY: help setup demo test lint format types pytest test-slow test-gpu fashion-mnist clean

help:
	@echo "make demo           train and compare the schemes on embedded data, a minute or two"
	@echo "make test           lint, type check and the default tests"
	@echo "make test-slow      the tests that take minutes"
	@echo "make test-gpu       the tests that need a CUDA device"
	@echo "make fashion-mnist  put Fashion-MNIST into data/ (from Debian's package, without root)"
	@echo "make format         format the code"
	@echo "make clean          remove the environment and what the tools have cached"

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(READY)

demo: $(READY)
	$(BIN)/python examples/demo.py

test: lint types pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

pytest: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n $(JOBS)

test-slow: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n $(JOBS) -m slow

test-gpu: $(READY)
	$(BIN)/pytest -q -m gpu

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

fashion-mnist:
	sh scripts/get_fashion_mnist.sh data/fashion-mnist

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
