# One virtual environment for all targets, installed from the lock file.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
INSTALLED := $(VENV)/.installed
BENCH_INSTALLED := $(VENV)/.bench-installed

# Without bytecode on the disk, each process compiles torch again, which takes many seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test coverage bench docs lint check-lint check-format check-contracts check-types
.PHONY: format lock clean

demo: $(INSTALLED)
	$(BIN)/mser demo --out mser-demo

test: $(INSTALLED)
	$(BIN)/pytest -n 2 --dist worksteal

# Which lines and branches the tests reach, in the processes that they start too.
coverage: $(INSTALLED)
	$(BIN)/pytest -n 2 --dist worksteal --cov --cov-report=term:skip-covered --cov-report=html

# The small form of every benchmark, beside other tools, and a page of the results, in under ten
# minutes.
bench: $(BENCH_INSTALLED)
	for name in read extract vision exactness train scale start; do \
		$(BIN)/python benchmarks/$$name.py --small --out bench || exit; done
	$(BIN)/python benchmarks/page.py --results bench --page bench/benchmarks.md

# The documentation as a site in site/; a broken link or name is an error. The links in
# build/package are the package alone, without the environment that lies beside it.
docs: $(INSTALLED)
	mkdir -p build/package/mser
	for name in __init__.py cli.py cache heads pipeline; do \
		ln -sfn ../../../$$name build/package/mser/$$name; done
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# The checks one by one, for the hooks in .pre-commit-config.yaml.
lint: check-lint check-format check-contracts check-types

check-lint: $(INSTALLED)
	$(BIN)/ruff check .

check-format: $(INSTALLED)
	$(BIN)/ruff format --check .

check-contracts: $(INSTALLED)
	$(BIN)/lint-imports

check-types: $(INSTALLED)
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

# A package that is built from source uses the build tools of the lock file: pip downloads no others.
$(BENCH_INSTALLED): $(INSTALLED) benchmarks/requirements.lock
	$(PIP) --no-compile --no-build-isolation --require-hashes -r benchmarks/requirements.lock
	touch $@

# Versions for every platform and for Python 3.11 and later; uv is in the dev extra.
lock: $(INSTALLED)
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
		--generate-hashes --upgrade --no-header -o requirements.lock
	$(BIN)/uv pip compile pyproject.toml --extra dev --extra bench --universal \
		--python-version 3.11 --generate-hashes --no-header -c requirements.lock \
		-o benchmarks/requirements.lock

clean:
	rm -rf $(VENV) build site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis \
		.import_linter_cache .coverage .coverage.* .coverage-html
