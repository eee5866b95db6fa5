# `make` lists the targets. Each sets up what it needs; a fresh machine needs only Python 3.11+, make and a package index.
PYTHON ?= python3
BIN := .venv/bin
DONE := .venv/.done
# processes of tests, each with its share of the cores: make test JOBS=8
JOBS ?= 2
# damaged files of each kind that `make fuzz` tries; `make test` tries the first 60 of them
GEOOVSEG_FUZZ ?= 2000
# kills of each command, and disks, that `make trials` tries
GEOOVSEG_TRIALS ?= 40

.DEFAULT_GOAL := help
.PHONY: help venv demo test fuzz trials test-lowest style check docs bench qgis-plugin clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 13

venv: $(DONE) ## create .venv with the package and everything for development

$(DONE): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "geoovseg needs Python 3.11 or newer; say which: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(DONE) ## draw a scene, segment it, compare it with its ground truth
	$(BIN)/geoovseg demo demo

test: $(DONE) ## run the tests: no network, no GPU, no downloaded weights
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

fuzz: $(DONE) ## try 2,000 damaged files of each kind that is read; GEOOVSEG_FUZZ says how many
	GEOOVSEG_FUZZ=$(GEOOVSEG_FUZZ) $(BIN)/python -m pytest tests/test_fuzz.py -n $(JOBS) --dist worksteal

trials: $(DONE) ## kill commands and fill disks 40 times each (GEOOVSEG_TRIALS), and run the tests that take long
	GEOOVSEG_TRIALS=$(GEOOVSEG_TRIALS) $(BIN)/python -m pytest tests/test_trials.py tests/test_pretend.py
	GEOOVSEG_TRIALS=$(GEOOVSEG_TRIALS) $(BIN)/python -m pytest -m trial --ignore tests/test_pretend.py -n $(JOBS) --dist loadgroup

LOWEST := .venv-lowest
test-lowest: $(LOWEST)/.done ## run the tests with the lowest versions the package asks for (constraints-lowest.txt)
	$(LOWEST)/bin/python -m pytest -n $(JOBS) --dist worksteal

$(LOWEST)/.done: pyproject.toml constraints-lowest.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo "the lowest versions are those for Python 3.11; say where it is: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/pip install --quiet --disable-pip-version-check -c constraints-lowest.txt -e '.[dev]'
	@touch $@

style: $(DONE) ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: style test ## style, types and tests

docs: $(DONE) ## write the generated parts of the README and docs
	$(BIN)/python docs/generate.py

# The tables of docs/benchmarks.md, the quick ones first: make bench BENCHMARKS="start towers"
BENCHMARKS ?= start towers backends reading rest strides speed floors vectorize jbu workers cluster ask_again context memory full_size demo_scenes
bench: $(DONE) ## measure speed and memory, some hours; prints the tables of docs/benchmarks.md
	@for name in $(BENCHMARKS); do printf '\n## %s\n\n' $$name && $(BIN)/python benchmarks/$$name.py || exit 1; done

qgis-plugin: ## pack the QGIS plugin as geoovseg_qgis.zip
	$(PYTHON) qgis/zip.py geoovseg_qgis.zip

clean: ## remove .venv, .venv-lowest and what the demo wrote
	rm -rf .venv $(LOWEST) demo
