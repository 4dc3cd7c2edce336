PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check

# Where nano is trained, and for how long.
NANO := .cache/nano
HOURS := 3.5

# What tests the newest release of every dependency but torch, whose build for it is 3 GB.
NEWEST ?= python3.13
NEWEST_VENV ?= .venv-newest

.PHONY: demo test test-newest check docs nano clean

demo: $(VENV)/.ready
	$(BIN)/omniqa ask sample_media/hello.mp4 "Which coloured shape is shown while you hear the voice?" \
		-Q "What does the voice say?" -Q "Is a yellow star shown?" --model nano

test: check $(VENV)/.reference
	$(BIN)/pytest -n 2
	PYTHONPATH=$(VENV)/transformers-5.17 $(BIN)/pytest -n 2 tests/models tests/runtime

# A test that comes to need torch is skipped; those that run the whole program are left out. The last lines say how many
# ran. pip looks for releases every time.
test-newest:
	test -x $(NEWEST_VENV)/bin/python || $(NEWEST) -m venv $(NEWEST_VENV)
	$(NEWEST_VENV)/bin/python -c "import tomllib; print('\n'.join(x for x in \
		tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'] if not x.startswith('torch')))" \
		> $(NEWEST_VENV)/requirements.txt
	$(NEWEST_VENV)/bin/pip --disable-pip-version-check install -q --upgrade --upgrade-strategy eager \
		-r $(NEWEST_VENV)/requirements.txt pytest pytest-xdist hypothesis pillow matplotlib
	$(NEWEST_VENV)/bin/pip --disable-pip-version-check install -q --no-deps -e .
	$(NEWEST_VENV)/bin/pip --disable-pip-version-check list
	$(NEWEST_VENV)/bin/pytest -n 2 --ignore=tests/cli --ignore=tests/test_docs.py

check: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What docs/cli.md says is what the app says.
docs: $(VENV)/.ready
	$(BIN)/python -m omniqa.cli.reference > docs/cli.md

# Trains nano; goes on with a run that was ended: make nano HOURS=3.5 NANO=.cache/nano
nano: $(VENV)/.ready
	$(BIN)/python -m training.nano.train --out $(NANO) --hours $(HOURS) $$(test -f $(NANO)/training/state.pt && echo --resume)

clean:
	rm -rf $(VENV) $(NEWEST_VENV) .cache

# torch first: what depends on it must find it, and take no other build.
$(VENV)/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt torch numpy
	$(PIP) install -q -c constraints.txt -e '.[dev]'
	touch $@

# What tests and benchmarks compare with, beside the environment and not in it: torchvision, which transformers' video
# processor wants and whose wheels do not go with every build of torch; what Qwen's own examples preprocess with; and the
# older transformers that must work as well.
$(VENV)/.reference: $(VENV)/.ready
	$(PIP) install -q --no-deps --upgrade --target $(VENV)/torchvision -c constraints.txt \
		torchvision qwen-omni-utils decord imageio-ffmpeg
	$(PIP) install -q --no-deps --upgrade --target $(VENV)/transformers-5.17 \
		transformers==5.17.0 huggingface-hub==1.33.0 httpx==0.28.1 httpcore==1.0.9
	touch $@
