# `make demo` and `make test` need Python >= 3.11 and nothing else; both install first.
PYTHON ?= python3
BIN := .venv/bin

SERVING := .venv-serving

.PHONY: setup demo lab compare-methods test test-serving lint bench train-tiny clean

setup: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev,bench]'
	touch $@

demo: setup
	@rm -rf outputs/demo
	$(BIN)/embedgrad optimize output_dir=outputs/demo

# Three embedded tasks x three placements x three trust regions; the same command again goes on where it stopped.
lab: setup
	$(BIN)/embedgrad optimize --multirun output_dir=outputs/lab log_level=warning \
	  experiment=lab/word-problems,lab/reviews,lab/causes template=system,before-query,after-query \
	  'trust_region={kind: none},{radius: 0.25},{radius: 0.5}'
	$(BIN)/embedgrad compare outputs/lab --mixed

# Peers on the same tasks, rows, batches and learning-rate sweeps (about half an hour).
compare-methods: setup
	$(BIN)/python scripts/compare_methods.py --out outputs/methods --markdown outputs/methods/table.md

test: setup
	$(BIN)/python -m pytest

# The exports in vLLM, transformers and PEFT. vLLM has an environment of its own, because it pins its dependencies; if
# your package index has only CUDA builds of torch, name one with CPU builds in PIP_EXTRA_INDEX_URL.
test-serving: setup $(SERVING)/.installed
	$(BIN)/python scripts/serve_check.py --serving-python $(SERVING)/bin/python

$(SERVING)/.installed: constraints-serving.txt
	$(PYTHON) -m venv $(SERVING)
	$(SERVING)/bin/pip install --quiet --no-deps -r constraints-serving.txt
	touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	$(BIN)/python scripts/bench_step.py

# make train-tiny SST2=DIR, with train.tsv and validation.tsv
train-tiny: setup
	$(BIN)/python scripts/train_tiny.py --out src/embedgrad_cli/assets --sst2 $(SST2)

clean:
	rm -rf .venv $(SERVING) outputs multirun dist build
