# `make` lists the targets. All of them work from a fresh clone; the first one builds .venv.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.quarterdeck-installed
QUICKSTART := notebooks/01_quickstart.ipynb
BUNDLE := src/quarterdeck/views/static/run_view.js
NODE_STAMP := labextension/node_modules/.quarterdeck-installed
AS_ADMIN := $(if $(filter 0,$(shell id -u)),,sudo)
AS_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)
ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.DEFAULT_GOAL := help
.PHONY: help setup pinned constraints newest demo lab test test-slow test-versions check lint check-view view sentences \
	browser bench bench-peers clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(STAMP) ## build .venv (Python 3.11 or newer) with all that development needs

# $(1): the Python of an environment, $(2): options of pip. What builds quarterdeck is installed first, with the same pins:
# left alone, pip would build in an environment of its own, with the newest that it finds.
define install
$(1) -m pip install --quiet $(2) hatchling editables && \
$(1) -m pip install --quiet $(2) --no-build-isolation -e '.[dev]'
endef
# Else a package that comes with a new environment, as setuptools does, would stay as old as it is there.
THE_NEWEST := --upgrade --upgrade-strategy eager

$(STAMP): pyproject.toml constraints.txt constraints.in
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
	pins=$$($(BIN)/python .ci/pins.py file) && $(call install,$(BIN)/python,-c $$pins)
	@touch $@

# Not part of `make check`: in your own .venv you may have installed what you like. CI's is fresh.
pinned: setup ## that .venv holds exactly what constraints.txt pins
	@$(BIN)/python .ci/pins.py check

constraints: ## write constraints.txt anew with the newest versions, but for constraints.in (minutes, downloads)
	@python3.11 -c '' || { echo "constraints.txt is for Python 3.11: install it, then run make again." >&2; exit 1; }
	@mkdir -p build; trap 'rm -rf build/constraints' EXIT; \
	python3.11 -m venv --clear build/constraints && \
	$(call install,build/constraints/bin/python,-c constraints.in $(THE_NEWEST)) && \
	build/constraints/bin/python .ci/pins.py write

newest: BIN := build/newest/bin
newest: browser ## the tests with the newest of everything, torch too, and what has drifted (long; downloads gigabytes)
	@for python in python3.11 python3; do \
		if $$python -c '$(ENOUGH)' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	mkdir -p build && $${found:-python3.11} -m venv --clear build/newest
	$(call install,$(BIN)/python,$(THE_NEWEST))
	@$(BIN)/python .ci/pins.py drift
	@$(call run-tests,newest,tests)

demo: setup ## run the quickstart notebook in a real kernel on 2 workers
	$(BIN)/python notebooks/run_quickstart.py

lab: setup ## open the quickstart notebook in JupyterLab
	$(BIN)/jupyter lab $(AS_ROOT) $(QUICKSTART)

# The end-to-end tests that go with the unit tests, so that the two halves are of about one length.
BESIDE := $(addprefix tests/e2e/test_,after_a_repair.py checkpoints_of_ranks.py imports.py lost_ranks.py default_modes.py \
	run_scripts.py shown_as_the_users.py sources.py given_back.py resume_loads.py older_stores.py)

test: setup browser ## run the tests, some of them in a real browser; two halves side by side
	@mkdir -p build; rm -rf build/tests-*; \
	$(call run-tests,beside,tests/unit tests/contract tests/browser $(BESIDE)) >build/half-of-the-tests.log 2>&1 & half=$$!; \
	trap 'kill $$half' INT TERM; \
	$(call run-tests,e2e,tests/e2e $(addprefix --ignore=,$(BESIDE))); ended=$$?; \
	wait $$half; beside=$$?; cat build/half-of-the-tests.log; exit $$((ended | beside))

# Real kernels have deadlines, which a busy machine may miss. What failed is run once more, alone: what fails then, fails.
define run-tests
{ $(BIN)/python -m pytest -m "not slow" -o cache_dir=build/tests-$(1) $(2) || { \
	echo "Once more, what failed:"; \
	$(BIN)/python -m pytest -m "not slow" -o cache_dir=build/tests-$(1) --last-failed --last-failed-no-failures none $(2); }; }
endef

test-slow: setup browser ## the tests that `make test` has only a case of: ranks that are lost, browsers, repairs
	$(BIN)/python -m pytest -m slow

test-versions: setup ## what depends on cloudpickle, with the oldest and other versions of it that matter
	@for version in 3.0.0 3.1.2; do \
		folder=$(CURDIR)/build/cloudpickle-$$version; \
		$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $$folder cloudpickle==$$version || exit 1; \
		echo "cloudpickle $$version"; \
		PYTHONPATH=$$folder $(BIN)/python -m pytest tests/unit/transfer/test_pickler.py tests/unit/transfer/test_pickle_diagnosis.py \
			tests/e2e/test_sources.py tests/e2e/test_travel.py tests/e2e/test_function_values.py || exit 1; \
	done

browser:
	@command -v chromium >/dev/null || { \
		echo "The tests in a browser need chromium; installing it with apt-get."; \
		$(AS_ADMIN) apt-get update -qq && $(AS_ADMIN) apt-get install -y -qq --no-install-recommends \
			chromium fonts-dejavu-core >/dev/null; \
	}

check: lint check-view ## what CI checks, and pre-commit too: the two below

lint: setup ## ruff, strict types, import layers, generated files (seconds)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python labextension/make_protocol.py --check
	$(BIN)/python docs/make_sentences.py --check

check-view: $(NODE_STAMP) ## the browser's half: strict TypeScript, its tests, and that the built file is up to date
	cd labextension && npm run --silent check && npm run --silent test
	cd labextension && npm run --silent build -- node_modules/.built.js
	cmp labextension/node_modules/.built.js $(BUNDLE) || { echo "$(BUNDLE) is stale: make view" >&2; exit 1; }

view: setup $(NODE_STAMP) ## build the browser's half of the run view
	$(BIN)/python labextension/make_protocol.py
	cd labextension && npm run --silent build

sentences: setup ## write docs/sentences.md, all texts that users may meet, to be read through
	$(BIN)/python docs/make_sentences.py

$(NODE_STAMP): labextension/package-lock.json
	cd labextension && npm ci --silent --no-fund --no-audit
	@touch $@

bench: setup ## measure quarterdeck (see benchmarks/README.md)
	$(BIN)/python -m benchmarks

bench-peers: setup ## measure quarterdeck beside three other tools (see benchmarks/peers/README.md)
	$(BIN)/python -m benchmarks.peers

clean: ## remove what the other targets made, .venv included
	rm -rf $(VENV) labextension/node_modules .peers build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find . -name __pycache__ -not -path './.git/*' -type d -prune -exec rm -rf {} +
