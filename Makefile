# `make demo` and `make test` need Python >= 3.11 and nothing else; both install first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test lint bench train-tiny clean

setup: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev,bench]'
	touch $@

demo: setup
	@rm -rf outputs/demo
	$(BIN)/embedgrad optimize output_dir=outputs/demo

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	$(BIN)/python scripts/bench_step.py

train-tiny: setup
	$(BIN)/python scripts/train_tiny.py

clean:
	rm -rf .venv outputs multirun dist build
