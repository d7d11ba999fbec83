# The programs of bev-teacher-cache. `make help` lists them; README.md tells the story.
#
# Variables, read from make's command line only, never from the environment:
#   RECIPE= DATA= VERSION= SPLIT= CHECKPOINT= CACHE= OUT=   passed on as --recipe, --data, ...
#   ARGS="..."       any further options of the command, e.g. ARGS="--scenes scene-0001 --max-steps 20"
#   PIP_ARGS="..."   options for pip during the set-up, e.g. PIP_ARGS="--index-url ..."
#   PYTHON=...       the interpreter that makes the environment (3.11 or 3.12; python3.11 is preferred)
#   VENV=...         its folder
# A variable of another name is refused: an option that was meant would be lost without a word.

SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON = $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

quoted = '$(subst ','\'',$($(1)))'
given = $(filter command,$(origin $(1)))
option = $(if $(call given,$(1)),--$(2) $(call quoted,$(1)))
OPTIONS = $(strip $(call option,RECIPE,recipe) $(call option,DATA,data) $(call option,VERSION,version) \
  $(call option,SPLIT,split) $(call option,CHECKPOINT,checkpoint) $(call option,CACHE,cache) $(call option,OUT,out) \
  $(if $(call given,ARGS),$(ARGS)))

VARIABLES := RECIPE DATA VERSION SPLIT CHECKPOINT CACHE OUT ARGS PYTHON PIP_ARGS VENV
$(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),$(if $(filter $(VARIABLES),$(name)),,\
  $(error there is no variable $(name). Expected: $(VARIABLES); options go into ARGS="--option value"))))

PROGRAMS := cache-teacher train-student evaluate plan verify-cache repair-cache view-cache make-scenes demo-teacher gains

.PHONY: help setup $(PROGRAMS) demo test test-slow check format bench kill-test clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z][a-z -]*:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## make the virtual environment .venv with everything the project needs, from PyPI

$(READY): pyproject.toml
	@"$(PYTHON)" -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v < (3, 13) or sys.exit("bev-teacher-cache needs Python 3.11 or 3.12, found %d.%d; name one with PYTHON=/path/to/python3.11" % v)'
	"$(PYTHON)" -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(call given,PIP_ARGS),$(PIP_ARGS)) --editable '.[dev]'
	@touch $@

cache-teacher: ## run the teacher once over every scene and write the cache
train-student: ## train a student from the cache and its undistilled twin, and score both
evaluate: ## score a detector with the official nuScenes evaluation
plan: ## tell what a cache will cost before it is made: bytes, files, disk, hours
verify-cache: ## check every file and every frame of a cache; damage is named
repair-cache: ## drop exactly the damaged scenes of a cache, to be made again
view-cache: ## show what a cache holds, as tables and pictures
make-scenes: ## write the synthetic driving world in nuScenes form
demo-teacher: ## train the teacher that the demo comes with
gains: ## measure what each distiller gains over several seeds; writes docs/results.md

$(PROGRAMS): $(READY)
	@$(BIN)/python -m pipeline $@ $(OPTIONS)

demo: $(READY) ## the whole flow on the embedded default: scenes, teacher, cache, student, score
	@$(BIN)/python -m pipeline cache-teacher
	@$(BIN)/python -m pipeline train-student

test: $(READY) ## the test suite
	$(BIN)/python -m pytest -q -n 2 $(if $(call given,ARGS),$(ARGS))

test-slow: $(READY) ## the tests that take minutes
	$(BIN)/python -m pytest -q -m slow $(if $(call given,ARGS),$(ARGS))

check: $(READY) ## format, lint, types and import directions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## rewrite the sources in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

kill-test: $(READY) ## kill real writers at random instants, hundreds of times, and check every byte they left
	$(BIN)/python -m benchmarks.kill_test $(if $(call given,ARGS),$(ARGS))

bench: $(READY) ## the measurements of docs/benchmarks.md; peers come with .venv/bin/pip install -e '.[bench]'
	$(BIN)/python -m benchmarks.all $(if $(call given,ARGS),$(ARGS))

clean: ## remove the environment and the tools' caches (never out/)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
