# One virtual environment for everything, filled from the lock file.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
INSTALLED := $(VENV)/.installed

# Where no bytecode may be written, each process that starts compiles torch again, for many seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint format lock clean

demo: $(INSTALLED)
	$(BIN)/mser demo --out mser-demo

test: $(INSTALLED)
	$(BIN)/pytest -n 2

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	@# mypy finds the package by its name through a link, since the repository's root is the package.
	ln -sfn "$(CURDIR)" $(VENV)/mser
	MYPYPATH=$(VENV) $(BIN)/mypy -p mser

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(INSTALLED): requirements.lock pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP) --no-compile --require-hashes -r requirements.lock
	$(PIP) --no-deps --no-build-isolation -e .
	touch $@

# Versions for every platform and Python from 3.11 on; uv stands in the dev extra.
lock: $(INSTALLED)
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
		--generate-hashes --upgrade --no-header -o requirements.lock

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
