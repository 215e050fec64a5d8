# Each target sets up its own virtual environment in .venv, given python >= 3.10, a C++ compiler and make.
#   make test    the tests of every day, and make lint; the C++ extension must build. Continuous integration runs this
#                and sanitize
#   make test-long  the tests that take minutes each, and thousands of fuzzed cases; CASES=... says how many
#   make demo    trains, scores and plots on the digits that come with scikit-learn; results in demo-output/
#   make bench   the benchmarks
#   make docs    the pages as a site, in docs/_build/docs/index.html; a warning is an error
#   make lint    ruff, mypy and clang-format alone
#   make sanitize  the op tests over a build with the address and undefined-behaviour sanitizers
#   make clean   removes what the others made
# PYTHON=... names another interpreter.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What an installed tree was made from: a change to any of it installs (and compiles) again.
SOURCES := pyproject.toml setup.py constraints.txt $(shell find csrc -type f -not -path '*/__pycache__/*')
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt
INSTALLED := $(VENV)/.installed
INSTALLED_STRICT := $(VENV)/.installed-strict

.PHONY: test test-long demo docs bench lint sanitize clean
.NOTPARALLEL:

# Over all cores; then what wants the machine for itself: it measures, forks, or races threads.
PYTEST := $(BIN)/python -m pytest -q --durations=25
CASES ?= 3000

test: lint
	$(PYTEST) -n auto --dist worksteal -m "not alone and not long"
	$(PYTEST) -m "alone and not long"

test-long: $(INSTALLED_STRICT)
	$(PYTEST) -m long
	$(BIN)/python -m tests.fuzz 0 $(CASES)

demo: $(INSTALLED)
	$(BIN)/adgan-fast demo --out demo-output

docs: $(INSTALLED_STRICT)
	$(BIN)/python -m sphinx -q -W --keep-going -b html -c docs . docs/_build
	@echo docs/_build/docs/index.html

bench: $(INSTALLED_STRICT)
	$(BIN)/python -m pytest bench/

lint: $(INSTALLED_STRICT)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $$(find csrc tests/csrc -name '*.cpp' -o -name '*.h' -o -name '*.inl')

sanitize: $(INSTALLED_STRICT)
	$(BIN)/python tests/csrc/sanitize.py

# torch first, with the pin of constraints.txt: the extension is compiled against it, hence no build isolation.
$(INSTALLED): $(SOURCES) | $(BIN)/pip
	$(PIP_INSTALL) torch
	$(PIP_INSTALL) "setuptools>=77" wheel ninja numpy
	$(PIP_INSTALL) --no-build-isolation -e ".[demo]"
	@touch $@

# Where the extension was left out by the rule above, this one compiles it or fails; a warning is an error.
$(INSTALLED_STRICT): $(SOURCES) | $(BIN)/pip
	$(PIP_INSTALL) torch
	$(PIP_INSTALL) "setuptools>=77" wheel ninja numpy
	ADGAN_FAST_BUILD_EXT=1 CFLAGS="$(CFLAGS) -Werror" $(PIP_INSTALL) --no-build-isolation -e ".[test,triton]"
	@touch $(INSTALLED) $@

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Python 3.10 or newer is needed, but $(PYTHON) is " + sys.version.split()[0] + "; name another one: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) build dist *.egg-info demo-output gpu-output docs/_build docs/tutorial-output .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	rm -f adgan_fast/_C.*
