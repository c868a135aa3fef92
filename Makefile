# The README's commands. PYTHON makes .venv; PHOTO and PROMPT change the portrait; PHOTOS is a folder to train on or to evaluate with.
PYTHON ?= python3
TORCH_OPTIONS ?=
PHOTO ?= examples/photos/synthetic-woman.jpg
PROMPT ?= a portrait photo of a smiling woman, blue background
SHEET ?= out/portraits.png
PHOTOS ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
.DEFAULT_GOAL := help
.PHONY: help setup portrait test lint format types docs package evaluate train-embedded clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 18

setup: .venv/.setup  ## make .venv with everything that portrait, test and train-embedded need

.venv/.setup: pyproject.toml constraints.txt Makefile
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make setup PYTHON=python3.11")'
	$(PIP) install --quiet -c constraints.txt $(TORCH_OPTIONS) torch==2.13.0
	$(PIP) install --quiet -c constraints.txt -e '.[data,train,eval,weighting,web,serve-scale,safety,dev]'
	@touch $@

.venv/.docs: .venv/.setup
	$(PIP) install --quiet -c constraints.txt -e '.[docs]'
	@touch $@

portrait: setup  ## four portraits of the person in a sample photo, on one sheet
	$(BIN)/consistentid generate "$(PHOTO)" "$(PROMPT)" --num-images 4 --out out/portraits --sheet "$(SHEET)"
	@echo "Look at $(SHEET): the photo, its regions, and the portraits."

test: setup  ## the default test suite, offline, on two cores
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: setup  ## style, formatting, import rules, declared dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/hadolint Dockerfile

format: setup  ## format and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: setup  ## mypy, strict
	$(BIN)/mypy
	$(BIN)/mypy benchmarks scripts

docs: .venv/.docs  ## the documentation site, into site/
	$(BIN)/zensical build --clean --strict

package: setup  ## build wheel and sdist, install the wheel without extras in a new environment, use it
	$(BIN)/python scripts/try_package.py --torch-options="$(TORCH_OPTIONS)"

evaluate: setup  ## score the embedded model on held-out people: make evaluate PHOTOS=folder
	@test -n "$(PHOTOS)" || { echo "Say whose photos: make evaluate PHOTOS=folder"; exit 2; }
	$(BIN)/consistentid evaluate configs/evaluate.yaml --photos "$(PHOTOS)"

train-embedded: setup  ## train the embedded model: make train-embedded PHOTOS=folder
	@test -n "$(PHOTOS)" || { echo "Say which photos: make train-embedded PHOTOS=folder"; exit 2; }
	$(BIN)/consistentid train configs/embedded.yaml --photos "$(PHOTOS)"

clean:  ## remove what was built (not .venv, out/ or runs/)
	rm -rf site dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
