# Everything is set up in .venv; `make demo` and `make test` are all that a fresh clone needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Workers of pytest; each runs PyTorch on one thread.
JOBS ?= auto

.PHONY: help setup demo test lint format types pytest test-slow test-gpu check-page docs same-bits fashion-mnist clean

help:
	@echo "make demo           train and compare the schemes on embedded data, a minute or two"
	@echo "make test           lint, type check and the default tests"
	@echo "make test-slow      the tests that take minutes"
	@echo "make test-gpu       the tests that need a CUDA device"
	@echo "make docs           build the documentation into site/; a broken link or reference is an error"
	@echo "make fashion-mnist  put Fashion-MNIST into data/ (from Debian's package, without root)"
	@echo "make check-page     open the demo's page in headless Chromium (PAGE=…, SHOTS=… for others)"
	@echo "make same-bits      tell whether any number differs from those of a commit (BASE=main)"
	@echo "make format         format the code"
	@echo "make clean          remove the environment and what the tools have cached"

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(READY)

# Finished runs are not repeated: a second `make demo` shows the table at once.
demo: $(READY)
	$(BIN)/ibp compare --schemes e2e,local,pairwise,3wise,pairwise-sum --components 6 --seeds 4 \
	    --data digits --epochs 10 --batch-size 32 --lr 0.05 --device cpu --out runs/demo

test: lint types pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

types: $(READY)
	$(BIN)/mypy

pytest: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n $(JOBS)

test-slow: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n $(JOBS) -m slow

test-gpu: $(READY)
	$(BIN)/pytest -q -m gpu

# PAGE: the page; SHOTS: the folder for screenshots.
PAGE ?= runs/demo/report.html
SHOTS ?= runs/screenshots
check-page: $(READY)
	$(BIN)/python scripts/check_page.py $(PAGE) --screenshots $(SHOTS)

docs: $(VENV)/.docs
	$(BIN)/zensical build --strict --clean

$(VENV)/.docs: $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

# BASE: the commit that numbers are compared with.
BASE ?= main
same-bits: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python scripts/same_bits.py against $(BASE)

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

fashion-mnist:
	sh scripts/get_fashion_mnist.sh data/fashion-mnist

clean:
	rm -rf $(VENV) site .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
