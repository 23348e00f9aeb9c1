# Every target installs what it needs into .venv by itself.
PYTHON ?= python3
BIN := .venv/bin
THREEDB := .venv-threedb
BRIDGES := .venv-bridges
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test check system faults soak threedb bridges bench run clean lock

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv with everything pinned in requirements.lock

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "millpond needs Python 3.11 or later")'
	$(PYTHON) -m venv .venv
	$(BIN)/python $(PIP_INSTALL) --require-hashes --only-binary :all: -r requirements.lock
	$(BIN)/python $(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

demo: $(STAMP) ## Render 200 small pictures and log them as CSV, JSON and PNG
	$(BIN)/python examples/demo.py

test: $(STAMP) ## Run every test, but for the fault suite
	$(BIN)/python -m pytest --ignore tests/faults

check: $(STAMP) ## Format, lint, types, tidiness and unit tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q --ignore tests/system --ignore tests/docs --ignore tests/faults

system: $(STAMP) ## Run the tests with real daemons, loggers and renderers
	$(BIN)/python -m pytest tests/system tests/docs tests/faults/test_soak.py

faults: $(STAMP) ## Every fault that must be survived, some minutes; again: make faults SEED=4711
	$(BIN)/python -m pytest tests/faults --ignore tests/faults/test_soak.py $(if $(SEED),--seed $(SEED))

soak: $(STAMP) ## A random mix of faults for 600 s; again: make soak SEED=4711 SECONDS=60
	$(BIN)/python -m pytest tests/faults/test_soak.py --seconds $(or $(SECONDS),600) $(if $(SEED),--seed $(SEED))

threedb: ## 3DB's own scheduler and loggers with ours, in an environment of its own; gets torch
	$(PYTHON) -m venv $(THREEDB)
	$(THREEDB)/bin/python $(PIP_INSTALL) torch==2.13.0
	$(THREEDB)/bin/python $(PIP_INSTALL) --no-deps threedb-preview
	$(THREEDB)/bin/python $(PIP_INSTALL) "typeguard<3" pandas tqdm pyzmq opencv-python-headless \
	  pytest pytest-asyncio hypothesis --editable .
	$(THREEDB)/bin/python -m pytest tests/threedb tests/service/compat \
	  tests/loggers/process/test_torch_results.py tests/loggers/process/test_threedb_loggers.py

bridges: ## The MLflow and W&B loggers and 3DB's dashboard, in an environment of their own
	$(PYTHON) -m venv $(BRIDGES)
	$(BRIDGES)/bin/python $(PIP_INSTALL) pytest pytest-asyncio hypothesis tqdm --editable ".[mlflow,wandb,image]"
	$(BRIDGES)/bin/python $(PIP_INSTALL) --no-deps threedboard
	$(BRIDGES)/bin/python -m pytest tests/loggers/test_mlflow_logger.py tests/loggers/test_wandb_logger.py \
	  tests/loggers/points/test_wandb_file.py tests/loggers/test_threedboard.py \
	  tests/loggers/conformance/test_mlflow.py tests/loggers/conformance/test_wandb.py

bench: $(STAMP) ## Measure the result path on this machine
	$(BIN)/python benchmarks/result_path.py

run: $(STAMP) ## Run the daemon in the foreground: make run CONFIG=my.yaml
	$(BIN)/millpond run $(or $(CONFIG),config.example.yaml)

lock: $(STAMP) ## Resolve requirements.lock again from pyproject.toml
	$(BIN)/python -m pip install --quiet pip-tools
	$(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-annotate --no-header \
	  --extra image --extra exr --extra tensorboard --extra parquet --extra hdf5 --extra video \
	  --extra dev --output-file requirements.lock pyproject.toml
	sed -i '/^--/d' requirements.lock # Where packages come from is each machine's own matter.

clean: ## Remove .venv, caches and runs/
	rm -rf .venv $(THREEDB) $(BRIDGES) runs dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
