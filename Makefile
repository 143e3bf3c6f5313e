# Two commands on a fresh machine: `make demo` and `make test`. Everything goes into .venv here;
# the demo's model goes into the user's cache folder.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check install install-test bench clean

demo: $(VENV)/.installed
	@$(BIN)/pocketglm demo

test: install-test check
	$(BIN)/python -m pytest

check: install-test
	$(BIN)/ruff format --check src tests bench
	$(BIN)/ruff check src tests bench
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $$(git ls-files '*.h' '*.cpp')

install: $(VENV)/.installed

install-test: $(VENV)/.installed-test

# The build needs a C++17 compiler; cmake and ninja come from PyPI where the machine has none.
$(VENV)/.installed: pyproject.toml CMakeLists.txt $(wildcard native/*/*)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=24'
	$(BIN)/python -m pip install --quiet -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -e '.[test]'
	@touch $@

bench: $(VENV)/.installed
	$(BIN)/python bench/quantize.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
