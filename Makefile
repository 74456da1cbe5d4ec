# Everything a person or a machine does with this project. Needs make and Python 3.11 or newer; `make help` lists it all.

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

# ------------------------------------------------------------------------------------------------ what you may set
# PYTHON=python3.12     the interpreter for .venv (found by itself otherwise)
# RUNTIME=gpu           inference on an NVIDIA GPU instead of the CPU (setup, demo, run)
# EXTRAS="drift triton" more of serving: drift reports, a remote Triton server (setup)
# ARGS="-k audit -x"    passed on to pytest, or to the benchmarks
RUNTIME ?= cpu
EXTRAS ?=
CONFIG ?=
DATA ?=
MODEL ?=
IMAGES ?=
KEEP ?=
KILLS ?= 50
OBJECTS ?= 2000
PDUS ?= 500
ARGS ?=

# Every wheel is there for CPython 3.11 to 3.13; a newer one is taken only where there is none of these (it may need a compiler).
PYTHON ?= $(shell for below in 3,14 9,0; do for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c "import sys; sys.exit(not (3, 11) <= sys.version_info < ($$below))" >/dev/null 2>&1 && echo $$p && exit; done; done)

# What pip was told about where packages lie holds for uv as well.
comma := ,
empty :=
space := $(empty) $(empty)
ifneq ($(strip $(PIP_FIND_LINKS)),)
export UV_FIND_LINKS ?= $(subst $(space),$(comma),$(strip $(PIP_FIND_LINKS)))
endif
ifneq ($(strip $(PIP_INDEX_URL)),)
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif
ifneq ($(strip $(PIP_CERT)),)
export SSL_CERT_FILE ?= $(PIP_CERT)
endif

# ----------------------------------------------------------------------------------------------------------- names
VENV := .venv
BIN := $(VENV)/bin
DONE := $(VENV)/.done
STEP := .ci/step
INSTALL = $(BIN)/uv pip install --quiet --python $(BIN)/python
LOCKED = $(INSTALL) --no-deps --require-hashes
COMPILE = $(BIN)/uv pip compile --quiet $(if $(UPGRADE),--upgrade) --universal --python-version 3.11 --generate-hashes --no-header \
	--no-annotate --no-emit-index-url --excludes requirements/torch.in

ROOMS := cds_service dicom_listener fhir_adapters models audit monitoring dermoscopy
# Unit tests hand wrong types over on purpose; what other tests build on is checked like the code.
TYPED = $(patsubst %/__init__.py,%,$(wildcard $(ROOMS:%=%/__init__.py))) \
	$(wildcard benchmarks tests/acceptance tests/contracts tests/peers tests/fuzz tests/service.py tests/findings.py)
LOCK := requirements/$(if $(filter gpu,$(RUNTIME)),serve-gpu,serve).txt
SERVE := $(DONE)/serve-$(RUNTIME)
TORCH_BACKEND ?= cpu

# Each step runs, whatever the one before it found: one run shows everything that is wrong.
CHECKS = status=0; \
	$(STEP) 'Format (ruff format)' $(BIN)/ruff format --check --quiet . || status=1; \
	$(STEP) 'Lint (ruff)' $(BIN)/ruff check --quiet . || status=1; \
	$(STEP) 'Types (mypy)' $(BIN)/mypy $(TYPED) || status=1; \
	$(STEP) 'Floors and rooms (import-linter)' $(BIN)/lint-imports --no-logo || status=1

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^##@ / {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Use it

.PHONY: setup
setup: $(SERVE) $(EXTRAS:%=$(DONE)/extra-%) ## Make .venv with everything that serving needs (RUNTIME=gpu, EXTRAS="drift triton")
	@echo "Ready: try make demo, or $(BIN)/cds --help"

.PHONY: demo
demo: setup ## See one image go all the way through, on this machine (IMAGES=folder, KEEP=1 leaves it running)
	@$(BIN)/cds demo $(if $(IMAGES),--images "$(IMAGES)") $(if $(KEEP),--keep)

.PHONY: run
run: setup ## Start the service: API, DICOM listener and worker
	@$(BIN)/cds serve

.PHONY: migrate
migrate: setup ## Bring the database to this version's tables
	@$(BIN)/cds migrate

##@ Check it

.PHONY: test
test: $(DONE)/test $(DONE)/train $(DONE)/torch $(DONE)/peers ## Check everything: style, types, floors, documents, and the whole test suite
	@$(CHECKS); $(STEP) 'Documents' $(BIN)/python .ci/links.py || status=1; \
	$(BIN)/python .ci/tests.py $(ARGS) || status=1; \
	if [ $$status -ne 0 ]; then echo "make test: something failed. Each FAILED above says where."; fi; exit $$status

.PHONY: check
check: $(DONE)/test ## Style, lint, types and import floors, without tests
	@$(CHECKS); exit $$status

.PHONY: format
format: $(DONE)/test ## Put the code into the project's format and fix what can be fixed by itself
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

.PHONY: unit
unit: $(DONE)/test $(DONE)/train $(DONE)/torch ## Unit tests only (minutes)
	@$(BIN)/python -m pytest tests/unit -n 2 $(ARGS)

.PHONY: integration
integration: $(DONE)/test $(DONE)/peers ## Tests across rooms and against real counterparts
	@$(BIN)/python -m pytest tests/integration $(ARGS)

.PHONY: acceptance
acceptance: $(DONE)/test $(DONE)/peers ## The promises of the README, one test each
	@$(BIN)/python -m pytest tests/acceptance $(ARGS)

.PHONY: crash
crash: $(DONE)/test ## Kill processes in mid-work KILLS=50 times: nothing lost, nothing doubled
	@CDS_CRASH_KILLS=$(KILLS) $(BIN)/python -m pytest tests -m crash --timeout 1800 $(ARGS)

.PHONY: fuzz
fuzz: $(DONE)/test ## Throw OBJECTS=2000 broken DICOM objects and PDUS=500 broken conversations at the listener
	@$(BIN)/python -m tests.fuzz --objects $(OBJECTS) --pdus $(PDUS) $(ARGS)

.PHONY: bench
bench: $(DONE)/test ## Measure latency and throughput on this machine
	@$(BIN)/python -m benchmarks $(ARGS)

.PHONY: docs
docs: $(DONE)/uv ## Check the documents: every link between them leads somewhere
	@$(STEP) 'Documents' $(BIN)/python .ci/links.py

##@ Change it

.PHONY: golden
golden: $(DONE)/test ## Write tests/golden anew; read the difference before you commit it
	@CDS_UPDATE_GOLDEN=1 $(BIN)/python -m pytest tests -m golden $(ARGS)

.PHONY: train
train: $(SERVE) $(DONE)/train $(DONE)/torch ## Train, evaluate and package a model (CONFIG=file.yaml DATA=folder)
	@test -n "$(CONFIG)" && test -n "$(DATA)" || { echo "Say what and on which data: make train CONFIG=models/training/configs/<name>.yaml DATA=<folder>"; exit 2; }
	@$(BIN)/cds train "$(CONFIG)" --data "$(DATA)" $(ARGS)

.PHONY: evaluate
evaluate: setup ## Measure a model on labelled images (MODEL=name==version DATA=folder)
	@test -n "$(DATA)" || { echo "Say on which images: make evaluate DATA=<folder> MODEL=<name==version> (the champion if not given)"; exit 2; }
	@$(BIN)/cds evaluate "$(or $(MODEL),champion)" "$(DATA)" $(ARGS)

.PHONY: lock
lock: $(DONE)/uv ## Resolve requirements/*.in into the hashed locks beside them (UPGRADE=1 takes newer versions)
	$(COMPILE) requirements/uv.in -o requirements/uv.txt
	$(COMPILE) requirements/serve.in requirements/cpu.in -o requirements/serve.txt
	$(COMPILE) requirements/serve.in requirements/gpu.in -c requirements/serve.txt -o requirements/serve-gpu.txt
	$(COMPILE) requirements/drift.in -c requirements/serve.txt -o requirements/drift.txt
	$(COMPILE) requirements/triton.in -c requirements/serve.txt -o requirements/triton.txt
	$(COMPILE) requirements/test.in -c requirements/serve.txt -c requirements/drift.txt -o requirements/test.txt
	$(COMPILE) requirements/train.in -c requirements/serve.txt -c requirements/drift.txt -c requirements/test.txt -o requirements/train.txt

.PHONY: clean
clean: ## Remove .venv and every cache
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ------------------------------------------------------------------------- what is installed, once: a stamp per part

$(DONE)/uv: requirements/uv.txt
	@test -n "$(PYTHON)" || { echo "This needs Python 3.11 or newer, and found none. Name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3"; exit 1; }
	@echo "== Making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { echo "Python has no venv module. On Debian or Ubuntu: apt-get install python3-venv"; rm -rf $(VENV); exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@mkdir -p $(DONE) && touch $@

# cpu and gpu share a folder in site-packages: taking one puts the other away.
$(SERVE): $(DONE)/uv $(LOCK) pyproject.toml
	@echo "== Installing what serving needs ($(RUNTIME))"
	@$(BIN)/uv pip uninstall --quiet --python $(BIN)/python $(if $(filter gpu,$(RUNTIME)),onnxruntime,onnxruntime-gpu) 2>/dev/null || true
	@$(LOCKED) -r $(LOCK)
	@$(INSTALL) --no-deps --config-settings editable_mode=compat --editable .
	@rm -f $(DONE)/serve-* && touch $@

$(DONE)/extra-%: $(SERVE) requirements/%.txt
	@echo "== Installing $*"
	@$(LOCKED) -r requirements/$*.txt
	@touch $@

$(DONE)/test: $(SERVE) $(DONE)/extra-drift requirements/test.txt
	@echo "== Installing what the tests need"
	@$(LOCKED) -r requirements/test.txt
	@touch $@

$(DONE)/train: $(SERVE) requirements/train.txt
	@echo "== Installing what training needs"
	@$(LOCKED) -r requirements/train.txt
	@touch $@

# torch's build differs by machine, so it is not in the hashed locks. A wheel in a find-links folder comes first, then the
# CPU build (for training on a GPU: TORCH_BACKEND=auto). Without torch the training tests are skipped, except in CI, where
# the registry's big default build is taken rather than none.
TORCH_WHEEL = $(firstword $(wildcard $(foreach d,$(subst $(comma),$(space),$(UV_FIND_LINKS)),$(d)/torch-*.whl)))
TORCH = -r requirements/torch.in

$(DONE)/torch: $(DONE)/uv requirements/torch.in
	@echo "== Installing torch ($(if $(TORCH_WHEEL),$(notdir $(TORCH_WHEEL)),$(TORCH_BACKEND)))"
	@if $(INSTALL) $(TORCH) $(if $(TORCH_WHEEL),,--torch-backend $(TORCH_BACKEND)); then touch $@; \
	elif [ -n "$(CI)" ]; then $(INSTALL) $(TORCH) && touch $@; \
	else echo "   torch could not be installed here: the training tests will be skipped."; fi

# Counterparts that a package manager of the system does not carry (npm, wheels of their own).
$(DONE)/peers: $(DONE)/uv $(wildcard tests/peers/install.sh tests/peers/package-lock.json tests/peers/*.txt)
	@if [ ! -f tests/peers/install.sh ]; then exit 0; \
	elif $(STEP) 'Real counterparts (tests/peers/install.sh)' env UV=$(abspath $(BIN)/uv) bash tests/peers/install.sh; then touch $@; \
	elif [ -n "$(CDS_REQUIRE_PEERS)" ]; then exit 1; \
	else echo "   Not all of them could be installed: their tests will be skipped."; fi
