# Every target sets up what it needs; `make demo` and `make test` are all a newcomer types.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Hundreds of daemons and clients are started; without this each compiles all its modules anew where
# the environment has this set.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-faults test-systemd check bench-quick bench-plan docs man install uninstall clean

$(STAMP): setup.py pyproject.toml
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "zbeam needs Python 3.11 or newer: make PYTHON=python3.11"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: $(STAMP)
	docs/demo.sh $(BIN)

test: $(STAMP)
	$(BIN)/pytest -q -n 4 --dist worksteal

# Every cell of the fault matrix, and what else takes long; writes the matrix to
# docs/reliability.md. What needs root, iptables or faketime is reported as not run where they are
# missing.
test-faults: $(STAMP)
	ZBEAM_WRITE_RELIABILITY=1 $(BIN)/pytest -q -n 2 --dist worksteal tests/faults -m faults
	$(BIN)/pytest -q -n 2 --dist worksteal -m slow

# Boots a systemd of its own in a container and drives the real units. Needs root and
# systemd-nspawn, and fails where it cannot run: nothing was tested then.
test-systemd: $(STAMP)
	$(BIN)/pytest -q -s tests/systemd -m systemd

# Into /opt/zbeam, with units for systemd: docs/systemd.md. Takes APP, PREFIX, DESTDIR, PYTHON.
install:
	@systemd/install.sh install

uninstall:
	@systemd/install.sh uninstall

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench-quick: $(STAMP)
	$(BIN)/python bench/quick.py

# Loading and planning a content run of 5,000 materials and 7 components.
bench-plan: $(STAMP)
	$(BIN)/python bench/content_plan.py

# The pages of docs/ as a site in build/docs; a warning is an error. What it needs is installed for
# it alone, so that a test run does not wait for it.
DOCS_STAMP := $(VENV)/.docs-installed

$(DOCS_STAMP): $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[docs]'
	touch $@

docs: $(DOCS_STAMP)
	$(BIN)/sphinx-build -n -W --keep-going -E -q docs build/docs
	@echo "build/docs/index.html"

# One man page a command, from what --help says.
man: $(STAMP)
	$(BIN)/python docs/man.py build/man

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
