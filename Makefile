# Every target does its own set-up; nothing is installed outside of .venv/ and .cache/.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.setup-done
BENCH_STAMP := $(VENV)/.bench-done
DATA   ?= .messagehub
# How many processes run tests, each whole files of them: one more than two cores, as many tests wait.
TESTERS ?= 3

.PHONY: setup run test soak bench bench-smoke check fix proto proto-check lock ci clean

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml clients/python/pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable clients/python --editable .
	touch $(STAMP)

run: setup
	exec $(BIN)/messagehub up --data-dir $(DATA)

test: setup
	$(BIN)/python -m pytest -m "not soak" --numprocesses $(TESTERS) --dist loadfile

soak: setup
	$(BIN)/python -m pytest -m soak --timeout=0 -s

# The systems that are compared with, for `make bench` only.
$(BENCH_STAMP): $(STAMP) requirements-bench.lock
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements-bench.lock
	touch $(BENCH_STAMP)

# About ten minutes; for example `make bench BENCH="--small --results /tmp/results"` only sees that all works.
bench: $(BENCH_STAMP)
	GRPC_VERBOSITY=ERROR $(BIN)/python -m benchmarks.compare $(BENCH)

bench-smoke: setup
	$(BIN)/python -m benchmarks.smoke

check: setup proto-check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf format --diff --exit-code
	$(BIN)/buf lint
	$(BIN)/buf breaking --against protos/released.binpb

fix: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/buf format --write

# The generator has an environment of its own, older than the servers': its version is the floor for clients.
.cache/generator: protos/generator.lock
	rm -rf .cache/generator
	$(PYTHON) -m venv .cache/generator
	.cache/generator/bin/python -m pip install --quiet --require-hashes --requirement protos/generator.lock
	touch .cache/generator

proto: .cache/generator
	.cache/generator/bin/python protos/generate.py

proto-check: .cache/generator
	.cache/generator/bin/python protos/generate.py --check

# Resolves the newest versions that pyproject.toml allows; `uv` is needed only here.
lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --quiet \
	    --no-emit-package messagehub-client --output-file requirements.lock requirements.in pyproject.toml --extra dev
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --quiet \
	    --no-emit-package messagehub-client --constraint requirements.lock --output-file requirements-bench.lock pyproject.toml --extra bench
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --quiet \
	    --output-file protos/generator.lock protos/generator.in

ci: check test

clean:
	rm -rf $(VENV) .cache
