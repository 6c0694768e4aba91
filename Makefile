# Every target sets up what it needs. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV ?= .venv
TOOLS := .tools
ACCELERATOR ?= cpu
LOCK := $(if $(filter gpu,$(ACCELERATOR)),requirements-gpu.lock,requirements.lock)
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
  command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
UV = $(shell command -v uv || echo $(TOOLS)/bin/uv)
BIN := $(VENV)/bin
ARGS ?=
# Tests run in so many processes, each with one thread for its arithmetic; 0: in one, with all threads.
PROCESSES ?= 2
PYTEST = $(if $(filter 0,$(PROCESSES)),,OMP_NUM_THREADS=1) $(BIN)/python -m pytest -n $(PROCESSES)
export UV_LINK_MODE ?= copy
export TOKENIZERS_PARALLELISM ?= true
# Without cached bytecode every command would start a second later.
unexport PYTHONDONTWRITEBYTECODE

COMPILE = $(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 $(UPGRADE)
EVERYTHING = --extra ui --extra worker --extra weights --extra aws --extra sources --extra train --extra dev

.PHONY: help install light .light demo test test-services soak lint format bench picture lock sbom pin-images clean

help: ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-15s %s\n", $$1, $$2}'

install: $(VENV)/.installed ## Make the whole environment in .venv, with torch (ACCELERATOR=gpu for faiss-gpu).

light: $(VENV)/.light ## Make the environment in .venv that serves, without torch.

$(VENV)/.installed: $(LOCK) pyproject.toml
	$(call environment,$(LOCK))
	@touch $(VENV)/.light $@

$(VENV)/.light: requirements-light.lock pyproject.toml
	@if test -e $(VENV)/.installed; then $(MAKE) --no-print-directory install; else $(MAKE) --no-print-directory .light; fi

.light:
	$(call environment,requirements-light.lock)
	@touch $(VENV)/.light

define environment
@test -n "$(PYTHON)" || { echo "hyblink needs Python 3.11 or newer on the PATH"; exit 1; }
@command -v uv >/dev/null || test -x $(TOOLS)/bin/uv || { \
  $(PYTHON) -m venv $(TOOLS) && $(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check uv; }
@$(UV) venv --quiet --allow-existing --python "$$(command -v $(PYTHON))" $(VENV)
@VIRTUAL_ENV=$(VENV) $(UV) pip sync --quiet --require-hashes $(1)
@VIRTUAL_ENV=$(VENV) $(UV) pip install --quiet --no-deps -e .
endef

demo: light ## Ingest this Python's documentation, serve API and UI (ARGS=--check: one search, then exit).
	$(BIN)/hyblink demo $(ARGS)

test: install ## Run every test that needs no server.
	$(PYTEST) --dist worksteal -m "not services and not soak" $(ARGS)

test-services: install ## Run the tests that need real servers or a browser, at CI size.
	REQUIRE_SERVICES=1 $(PYTEST) --dist loadfile -m "services and not soak" $(ARGS)

soak: install ## Run everything at full counts.
	REQUIRE_SERVICES=1 HYBLINK_SOAK=1 $(BIN)/python -m pytest -m "services or soak" --timeout 7200 $(ARGS)

lint: install ## Format check, lint, types, layers, licences.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.support.licences

format: install ## Format and mend what can be mended.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install ## Measure; needs HYBLINK_DATA for the large corpora. Results go to stdout as JSON and tables.
	$(BIN)/python -m tests.benchmarks $(ARGS)

picture: install ## Make the README's picture anew (needs Chromium).
	HYBLINK_SCREENSHOT=$(CURDIR)/docs/search-page.png REQUIRE_SERVICES=1 $(BIN)/python -m pytest -q tests/e2e/test_browser.py \
	  -k test_a_question_finds_its_answer_with_reasons

lock: ## Resolve the lock files again.
	$(COMPILE) --extra local $(EVERYTHING) pyproject.toml -o requirements.lock
	$(COMPILE) --extra gpu $(EVERYTHING) pyproject.toml -o requirements-gpu.lock
	$(COMPILE) --extra local --extra ui --extra worker --extra weights -c requirements.lock pyproject.toml \
	  -o requirements-light.lock

sbom: install ## List what the production image contains, with versions and licences (CycloneDX): sbom.json.
	@$(UV) venv --quiet --clear --python $(BIN)/python .sbom
	@VIRTUAL_ENV=.sbom $(UV) pip sync --quiet --require-hashes requirements-light.lock
	@VIRTUAL_ENV=.sbom $(UV) pip install --quiet --no-deps .
	@$(UV) tool run --quiet --from 'cyclonedx-bom>=7' cyclonedx-py environment .sbom/bin/python --gather-license-texts \
	  --pyproject pyproject.toml --output-reproducible -o sbom.json
	@rm -rf .sbom
	@$(BIN)/python -c "import json; found = json.load(open('sbom.json'))['components']; \
	  print(f'sbom.json: {len(found)} components, {sum(not c.get(\"licenses\") for c in found)} without a stated licence')"

pin-images: install ## Write the digests of the container images into compose.yaml and the Dockerfiles.
	$(BIN)/python -m tests.support.pin_images $(ARGS)

clean: ## Remove environments and the demo's data.
	rm -rf $(VENV) $(TOOLS) .hyblink
