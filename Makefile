# `make` lists the targets. All of them work from a fresh clone; the first one builds .venv.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.quarterdeck-installed
QUICKSTART := notebooks/01_quickstart.ipynb
AS_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)
ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo lab test check bench bench-peers clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(STAMP) ## build .venv (Python 3.11 or newer) with all that development needs

$(STAMP): pyproject.toml constraints.txt
	@for python in python3.11 python3; do \
		if $$python -c '$(ENOUGH)' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$${found:-}" ]; then \
		echo "quarterdeck needs Python 3.11 or newer, and neither python3.11 nor python3 is one."; \
		echo "Install it (Debian, Ubuntu: apt-get install python3.11 python3.11-venv), then run make again."; \
		exit 1; \
	fi >&2; \
	if ! $(BIN)/python -c 'import pip; $(ENOUGH)' 2>/dev/null && ! $$found -m venv --clear $(VENV); then \
		echo "$$found cannot make a virtual environment."; \
		echo "Debian, Ubuntu: apt-get install $$found-venv, then run make again."; \
		exit 1; \
	fi >&2
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup ## run the quickstart notebook in a real kernel on 2 workers
	$(BIN)/python notebooks/run_quickstart.py

lab: setup ## open the quickstart notebook in JupyterLab
	$(BIN)/jupyter lab $(AS_ROOT) $(QUICKSTART)

test: setup ## run all tests
	$(BIN)/python -m pytest

check: setup ## ruff, strict types and import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup ## measure quarterdeck (see benchmarks/README.md)
	$(BIN)/python -m benchmarks

bench-peers: setup ## measure quarterdeck beside three other tools (see benchmarks/peers/README.md)
	$(BIN)/python -m benchmarks.peers

clean: ## remove what the other targets made, .venv included
	rm -rf $(VENV) .peers build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find . -name __pycache__ -not -path './.git/*' -type d -prune -exec rm -rf {} +
