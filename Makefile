# Every command that a user of anna needs; `make` alone lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VLLM := .venv-vllm
# Stages run `python -m stages.<name>`: that of the virtual environment.
export PATH := $(CURDIR)/$(BIN):$(PATH)
# One process per CPU and at most four, a thread and whole files of tests for each.
PYTEST := OMP_NUM_THREADS=1 pytest --numprocesses logical --maxprocesses 4 --dist loadfile
# Which of presets/ replaces params.yaml; empty: params.yaml as it is.
PRESET ?=

.DEFAULT_GOAL := help
.PHONY: help install test test-all test-gpu vllm check repro preset smoke reproduce clean

help: ## List these commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

install: $(VENV)/installed ## Make the virtual environment and install the pinned dependencies (3 to 5 minutes)

$(VENV)/installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "anna needs Python 3.11 or newer, this is " + sys.version)'
	@echo "Installing the pinned dependencies into $(VENV) (3 to 5 minutes, longer with CUDA packages: see README.md)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@DS_BUILD_OPS=0 $(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

repro: preset install ## Install, run the pipeline (10 to 15 minutes on two cores), print the results and where the report lies
	anna check
	dvc repro
	@echo && cat reports/results.txt && echo && echo "report: $(CURDIR)/reports/index.html"

# What is committed, or is a preset as it stands, can be had again; edits are nowhere else.
preset: ## Copy presets/$PRESET.yaml over params.yaml: make preset PRESET=smoke
ifeq ($(PRESET),)
ifneq ($(filter preset,$(MAKECMDGOALS)),)
	@echo "name one: make preset PRESET=<name>, of: $(basename $(notdir $(wildcard presets/*.yaml)))" >&2; exit 1
endif
else
	@test -f presets/$(PRESET).yaml || { \
		echo "presets/$(PRESET).yaml does not exist; choose of: $(basename $(notdir $(wildcard presets/*.yaml)))" >&2; exit 1; }
	@for known in presets/*.yaml; do ! cmp -s $$known params.yaml || exit 0; done; \
		test ! -e params.yaml || git rev-parse --verify --quiet HEAD > /dev/null 2>&1 || { \
		echo "presets/$(PRESET).yaml would replace params.yaml, which no commit keeps: run git init, git add . and" \
			"git commit first, or, to run with it, leave PRESET out: make repro" >&2; exit 1; }; \
		test ! -e params.yaml || git diff --quiet HEAD -- params.yaml || { \
		echo "params.yaml has edits that presets/$(PRESET).yaml would replace: commit them first (git commit params.yaml)," \
			"or, to run with them, leave PRESET out: make repro" >&2; exit 1; }
	@cmp -s presets/$(PRESET).yaml params.yaml || { \
		cp presets/$(PRESET).yaml params.yaml && echo "params.yaml is now presets/$(PRESET).yaml"; }
endif

test: install ## Run the fast tests
	$(PYTEST)

test-all: install ## Run all tests, the slow ones too
	$(PYTEST) -m "not gpu"

test-gpu: install ## Run the tests that need an NVIDIA GPU
	pytest -m gpu

vllm: $(VLLM)/installed ## Install vLLM for CPUs, which one slow test runs, beside the rest (3.4 GB)

# It needs no torchvision and the like; what pip picks of them may be for CUDA, and then cannot be loaded.
$(VLLM)/installed: tests/vllm.txt
	@test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	@$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@$(VLLM)/bin/python -m pip uninstall --quiet --disable-pip-version-check --yes torchvision torchaudio torchcodec
	@touch $@

check: install ## Lint and check types
	ruff check .
	ruff format --check .
	mypy

smoke: install ## Run the pipeline on presets/smoke.yaml in a copy, and compare its metrics with the committed ones
	python -m tests.smoke

reproduce: install ## Run the default pipeline in a copy, from nothing, and compare its metrics with the committed ones
	python -m tests.smoke --default

clean: ## Remove what can be made again: caches of teachers, inputs, checkpoints, temporary files (not DVC's cache)
	rm -rf runs dvclive dvc_plots .pytest_cache .mypy_cache .ruff_cache
	find data metrics models reports -name '.*.tmp' -prune -exec rm -rf {} +
