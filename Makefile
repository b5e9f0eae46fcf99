# Bare `make` lists the targets. Each says what it does while it does it.
SHELL = /bin/sh
.SHELLFLAGS = -euc
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory --no-builtin-rules
.NOTPARALLEL:

BIN := .venv/bin
OPA = $$(tools/install-opa)
# The least share of the policies' lines that their own tests must reach, in percent. (Python's is in pyproject.toml.)
REGO_COVERAGE := 90
IMAGE ?= taskgrant:dev

.PHONY: help setup opa lint format typecheck test test-rego test-python bench image demo clean

help: ## list the targets
	@printf 'usage: make TARGET\n\n'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' Makefile | while IFS='|' read -r name what; do \
		printf '%-14s %s\n' "$$name" "$$what"; done

setup: ## make .venv from requirements/, every package checked against its hash
	@tools/setup

opa: ## find an OPA that is new enough, or build the pinned one once (needs Go)
	@opa=$(OPA); echo "taskgrant: OPA is $$opa"

lint: setup opa ## check style, imports and policies; changes nothing
	@echo 'taskgrant: ruff'
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@echo 'taskgrant: import-linter'
	@$(BIN)/lint-imports --no-logo
	@echo 'taskgrant: opa fmt, opa check'
	@$(OPA) fmt --fail --list rego
	@$(OPA) check --bundle --strict --schema rego/schemas rego

format: setup opa ## put Python and Rego into their standard form
	@$(BIN)/ruff check --fix-only
	@$(BIN)/ruff format
	@$(OPA) fmt --write rego

typecheck: setup ## check the types, strictly
	@echo 'taskgrant: mypy'
	@$(BIN)/mypy

test: test-rego test-python ## run every test, of the policies and of the code, each with its coverage floor

test-rego: opa ## run the policies' own tests
	@echo 'taskgrant: opa test (coverage at least $(REGO_COVERAGE) %)'
	@$(OPA) test --bundle rego
	@$(OPA) test --bundle rego --coverage --threshold $(REGO_COVERAGE) >/dev/null

test-python: setup opa ## run the code's tests
	@echo 'taskgrant: pytest, a process a core (coverage floor in pyproject.toml)'
	@TASKGRANT_OPA=$(OPA) $(BIN)/pytest --numprocesses=auto --dist=loadgroup --cov --cov-report=term $(PYTEST)

bench: setup opa ## measure: direct against through the sidecar
	@TASKGRANT_OPA=$(OPA) $(BIN)/python -m bench

image: ## build the container image with podman, buildah or docker
	@tools/build-image $(IMAGE)

demo: setup opa ## watch an agent be given access for one task, use it, overstep, and lose it
	@TASKGRANT_OPA=$(OPA) $(BIN)/taskgrant demo

clean: ## remove .venv and everything that was made here (not the cached OPA)
	@echo 'taskgrant: removing .venv, caches and coverage data'
	@rm -rf .venv build dist htmlcov .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find sidecar tests -type d -name __pycache__ -prune -exec rm -rf {} +
