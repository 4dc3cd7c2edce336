PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check

# A small random checkpoint, until one that really answers comes with omniqa.
DEMO_MODEL := .cache/random-checkpoint

# Where nano is trained, and for how long.
NANO := .cache/nano
HOURS := 6

.PHONY: demo test check nano clean

demo: $(VENV)/.ready $(DEMO_MODEL)/config.json
	@echo "The model is a small one of RANDOM weights, made on the spot: it shows the work, its answer means nothing."
	$(BIN)/omniqa ask sample_media/shapes.mp4 "What moves, and what is heard?" --model $(DEMO_MODEL) --max-new-tokens 32

test: check $(VENV)/.reference
	$(BIN)/pytest -n 2
	PYTHONPATH=$(VENV)/transformers-5.17 $(BIN)/pytest -n 2 tests/model tests/sequence

check: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Trains nano; goes on with a run that was ended: make nano HOURS=6 NANO=.cache/nano
nano: $(VENV)/.ready
	$(BIN)/python -m omniqa.nano.train --out $(NANO) --hours $(HOURS) $$(test -f $(NANO)/training/state.pt && echo --resume)

clean:
	rm -rf $(VENV) .cache

$(DEMO_MODEL)/config.json: $(VENV)/.ready
	$(BIN)/python benchmarks/make_checkpoint.py small $(DEMO_MODEL)

# torch first: what depends on it must find it, and take no other build.
$(VENV)/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt torch numpy
	$(PIP) install -q -c constraints.txt -e '.[dev]'
	touch $@

# What the tests compare with, beside the environment and not in it: torchvision, which transformers' video processor
# wants and whose wheels do not go with every build of torch; and the older transformers that must work as well.
$(VENV)/.reference: $(VENV)/.ready
	$(PIP) install -q --no-deps --upgrade --target $(VENV)/torchvision -c constraints.txt torchvision
	$(PIP) install -q --no-deps --upgrade --target $(VENV)/transformers-5.17 \
		transformers==5.17.0 huggingface-hub==1.33.0 httpx==0.28.1 httpcore==1.0.9
	touch $@
