# Every command of the project. `make test` and `make demo` set up all they need.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin

# A local build for work on the C++ side: no isolated build environment, so only what changed is
# compiled again. The headers are the ones pyproject.toml pins.
XLA_HEADERS := build/xla_headers
dev: $(XLA_HEADERS)
	$(BIN)/pip install -q --no-build-isolation --no-deps -e . \
	  -Ccmake.define.PAGEDKV_XLA_FFI_INCLUDE=$(abspath $(XLA_HEADERS))/jaxlib/include

$(XLA_HEADERS):
	$(BIN)/pip install -q --no-deps --target $@ jaxlib==0.9.2

.PHONY: dev
