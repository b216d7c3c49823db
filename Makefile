.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
PORT ?= 8000
STATE ?= .darkroom
ENGINE ?= yes
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
LOCK := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
	--python-version 3.11 --custom-compile-command "make lock" setup.cfg
# PyTorch and what only it brings: which build it is depends on where pip finds it, so requirements-torch.txt pins its
# version alone. Left out of the hashed lock by these names.
TORCH := torch triton cuda-bindings cuda-pathfinder cuda-toolkit $(addprefix nvidia-,cublas cuda-cupti cuda-nvrtc \
	cuda-runtime cudnn-cu13 cufft cufile curand cusolver cusparse cusparselt-cu13 nccl-cu13 nvjitlink nvshmem-cu13 nvtx)

.PHONY: help demo up gpu test lint format faults bench coverage lock clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "Variables: PORT=$(PORT) STATE=$(STATE) PYTHON=$(PYTHON) ENGINE=$(ENGINE) (no: tests without PyTorch)"

demo: $(VENV)/.runtime ## Draw two pictures on embedded real servers, from a fresh clone
	@$(BIN)/darkroom demo --state "$(STATE)" --output demo-output

up: $(VENV)/.runtime ## Serve on 127.0.0.1:$(PORT) until Ctrl-C
	@$(BIN)/darkroom up --state "$(STATE)" --port $(PORT)

gpu: $(VENV)/.engine ## Install the engine for GPUs of your own: PyTorch and diffusers, some GB
	@echo "The GPU engine is installed. What it can draw, and how to get weights: $(BIN)/darkroom models list"

# One thread each for the engine's tests: two processes on two cores whose threads wait for each other take minutes.
test: $(VENV)/.dev $(if $(filter yes,$(ENGINE)),$(VENV)/.engine) ## Run all tests, in two processes with servers of their own
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

lint: $(VENV)/.dev ## Check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --config setup.cfg --no-cache

format: $(VENV)/.dev ## Format the code
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

faults: $(VENV)/.dev ## Run the long fault tests: many kills under load
	@$(BIN)/python -m pytest tests/faults --long $(ARGS)

bench: $(VENV)/.dev ## Measure speed as ratios against bare baselines in the same minute
	@$(BIN)/python -m bench $(ARGS)

coverage: $(VENV)/.dev ## Run the tests and show which lines no test reached
	@$(BIN)/coverage run -m pytest $(ARGS) && $(BIN)/coverage report

lock: $(VENV)/.dev ## Resolve the newest versions that go together, with hashes
	$(LOCK) --upgrade --extra embedded --output-file requirements.lock
	$(LOCK) --upgrade --extra dev --constraint requirements.lock --output-file requirements-dev.lock
	$(LOCK) --upgrade --extra gpu --constraint requirements.lock --constraint requirements-dev.lock \
		--constraint requirements-torch.txt $(addprefix --no-emit-package ,$(TORCH)) --output-file requirements-gpu.lock

clean: ## Delete what the other targets made, the state folder with all jobs and pictures included
	@if [ -x $(BIN)/darkroom ]; then $(BIN)/darkroom discard --state "$(STATE)" --yes; fi
	rm -rf $(VENV) build demo-output *.egg-info .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find app workers migrations tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Darkroom needs Python 3.11 or newer; name one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@echo "Setting up $(VENV) ..."
	@$(PYTHON) -m venv $(VENV) \
		|| { echo "Python's venv module is missing; on Debian: apt-get install python3-venv"; exit 1; }

$(VENV)/.runtime: requirements.lock setup.cfg pyproject.toml | $(VENV)/bin/python
	@echo "Installing what Darkroom needs (about half a minute) ..."
	@$(INSTALL) --require-hashes -r requirements.lock
	@$(INSTALL) --no-deps --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	@echo "Installing what its tests need ..."
	@$(INSTALL) --require-hashes -r requirements-dev.lock
	@touch $@

$(VENV)/.engine: requirements-gpu.lock requirements-torch.txt $(VENV)/.runtime
	@echo "Installing the GPU engine: PyTorch and diffusers (1.6 GB without CUDA, several GB with it) ..."
	@$(INSTALL) --no-deps --require-hashes -r requirements-gpu.lock
	@$(INSTALL) -r requirements-torch.txt
	@touch $@
