# make run | test | check | bench | train-captioner      each sets up what it needs, and only what is missing

PORT ?= 4200
PYTHON ?= python3
DATA ?= ../shared/data/flickr8k
APT := $(if $(filter 0,$(shell id -u)),,sudo )apt-get
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# TORCH=cpu takes PyTorch's own wheels without CUDA, at the same pins.
TORCH ?=
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH_PINS := $(shell grep -oE '^torch(vision)?==[0-9.]+' requirements.txt | sed 's/$$/+cpu/')
TORCH_FIRST = $(if $(filter cpu,$(TORCH)),$(PIP) --index-url $(TORCH_INDEX) $(TORCH_PINS))

# A stamp carries the hash of what it stands for: nothing is installed again until a pin changes.
RUN_HASH := $(shell (cat requirements.txt constraints.txt; echo "$(TORCH)") | sha256sum | cut -c1-16)
DEV_HASH := $(shell (cat requirements*.txt constraints.txt; echo "$(TORCH)") | sha256sum | cut -c1-16)
INSTALLED := .venv/.stamps/run-$(RUN_HASH)
TESTABLE := .venv/.stamps/dev-$(DEV_HASH)
RIVAL := .venv/.stamps/gradio-$(shell sha256sum bench/gradio.txt | cut -c1-16)
HELD := .venv/.stamps/embedded-$(shell (cat models/store.py; echo "$$SEEWHY_CACHE") | sha256sum | cut -c1-16)

.PHONY: run test check bench train-captioner browser embedded

run: $(INSTALLED) embedded
	$(BIN)/python app.py --port $(PORT) $(ARGS)

test: $(TESTABLE) embedded browser check
	$(BIN)/python -m pytest

check: $(TESTABLE)
	$(BIN)/ruff check .
	$(BIN)/mypy .

bench: $(TESTABLE) $(RIVAL) embedded browser
	$(BIN)/python -m bench $(ARGS)

train-captioner: $(TESTABLE) embedded
	$(BIN)/python -m training.captioner.train --data $(DATA) $(ARGS)

embedded: $(INSTALLED)
	@test -s $(HELD) && sed 's/^[^ ]* //' $(HELD) | while read -r file; do test -f "$$file" || exit 1; done \
	  || { $(BIN)/python app.py fetch > $(HELD).new && cat $(HELD).new && mv $(HELD).new $(HELD); }

browser:
	@for name in chromium chromium-browser google-chrome; do \
	  command -v $$name >/dev/null && exit 0; done; \
	  echo "Chromium is missing; installing it with apt-get"; \
	  $(APT) update -qq && $(APT) install -y -qq chromium

.venv/bin/python:
	$(PYTHON) -m venv .venv

$(INSTALLED): | .venv/bin/python
	@echo "Installing requirements.txt, some gigabytes the first time"
	$(TORCH_FIRST)
	$(PIP) -r requirements.txt
	@mkdir -p $(@D) && rm -f $(@D)/run-* && touch $@

# Gradio wants other versions of what we use, so it is kept apart.
$(RIVAL): $(INSTALLED)
	$(PYTHON) -m venv .venv/gradio
	.venv/gradio/bin/python -m pip install --quiet --disable-pip-version-check -r bench/gradio.txt
	@mkdir -p $(@D) && rm -f $(@D)/gradio-* && touch $@

$(TESTABLE): $(INSTALLED)
	$(PIP) -r requirements-dev.txt
	$(PIP) --no-deps -r requirements-dev-nodeps.txt
	@mkdir -p $(@D) && rm -f $(@D)/dev-* && touch $@
