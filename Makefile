# Two commands are enough: `make run` and `make test`. Both set up what they need, in .venv, once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PORT ?= 8000

export PYTHONDONTWRITEBYTECODE :=  # else each of the many processes of a test run compiles all that it imports

.PHONY: help run test check docs format bench soak fuzz coverage clean

help:
	@echo "make run     set up and serve the examples on http://127.0.0.1:$(PORT)"
	@echo "make test    set up and run the tests"
	@echo "make check   lint, format check and types"
	@echo "make docs    the documentation as a site, in site/"
	@echo "make bench   the side-by-side benchmarks (QUICK=1 for a quick run, ONLY=io for one part)"
	@echo "make soak    ten minutes of everything at once (SECONDS=60 for one);  make fuzz  a minute of any bytes"
	@echo "make format  let ruff format the code;  make coverage  the tests with coverage;  make clean"

run: $(READY)
	@echo "serving the examples; stop with Ctrl-C"
	@exec $(BIN)/python -m tinysvc examples --port $(PORT)

test: $(READY)
	@echo "running the tests"
	@$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(READY)
	@echo "checking lint, format and types"
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

docs: $(VENV)/.docs
	@echo "building the site"
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet && echo "it is in site/: open site/index.html (to search in it: $(PYTHON) -m http.server -d site)"

$(VENV)/.docs: $(READY)
	@echo "setting up what builds the site"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

format: $(READY)
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

coverage: $(READY)
	@$(BIN)/coverage erase && $(BIN)/coverage run -m pytest $(ARGS) && $(BIN)/coverage combine -q && $(BIN)/coverage report

bench: $(READY)
	@$(PYTHON) benchmarks/run.py $(if $(QUICK),--quick) $(addprefix --only=,$(ONLY))

soak: $(READY)
	@$(BIN)/python benchmarks/soak.py --seconds $(or $(SECONDS),600)

fuzz: $(READY)
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check atheris
	@$(BIN)/python tests/fuzz/fuzz_http.py --seconds $(or $(SECONDS),60)

$(READY): pyproject.toml
	@echo "setting up $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tinysvc needs Python 3.11 or newer; name one with: make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --editable '.[examples,test,dev]'
	@touch $@

clean:
	rm -rf $(VENV) site .venv-bench .pytest_cache .mypy_cache .ruff_cache dist .coverage* .hypothesis
