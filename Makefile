# SPDX-License-Identifier: BSD-3-Clause
# `make demo` and `make test` are all the set-up there is: the first run makes .venv and builds the
# extension, later runs start at once and compile only what changed. Python edits need no build.
# Another Python or PyTorch: make clean test PYTHON=python3.12 TORCH=torch==2.10.0
PYTHON ?= python3
TORCH ?= torch==2.13.0
# CUDA kernels are built where a driver answers; AUTO, ON and OFF can be asked for.
FLASHMETRIC_CUDA ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo AUTO || echo OFF)
VENV := .venv
BUILT := $(VENV)/.built
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
EDITABLE = FLASHMETRIC_CUDA=$(FLASHMETRIC_CUDA) $(PIP) install --no-build-isolation --editable

demo: $(BUILT)
	$(PY) -m flashmetric demo
test: $(BUILT)
	$(PY) -m pytest -m "not slow and not gpu" $(PYTEST_ARGS)
test-all: $(BUILT)
	$(PY) -m pytest $(PYTEST_ARGS)
peer-tests: $(VENV)/.extra-peers  # compat beside the libraries that it stands in for, file by file
	$(PY) -m pytest -m "not gpu" --by-file tests/test_peers.py tests/test_compat_*.py \
	  tests/test_sentence_transformers_training.py tests/test_examples.py $(PYTEST_ARGS)

bench: $(VENV)/.extra-bench
	$(PY) -m flashmetric bench
	$(PY) -m pytest bench $(PYTEST_ARGS)

tables: $(BUILT)  # of README.md and docs/, from bench/results
	$(PY) bench/tables.py
gpu-test: $(BUILT)  # these three need a driver
	$(PY) -m pytest -m gpu $(PYTEST_ARGS)
gpu-bench: $(VENV)/.extra-bench
	$(PY) bench/gpu.py $(BENCH_ARGS)
gpu-sanitize: $(BUILT)
	.ci/gpu_sanitize $(PYTEST_ARGS)
asan: $(BUILT)  # the tests on an extension with address and undefined-behaviour sanitizers
	.ci/asan $(PYTEST_ARGS)
lint: $(VENV)/.extra-dev  # the one list of checks: CI and pre-commit run this target
	.ci/lint
wheel: $(VENV)/.extra-dev  # dist/: the sdist, and the wheel built from the sdist
	.ci/wheel
docs: $(VENV)/.extra-docs
	$(VENV)/bin/mkdocs build --strict --config-file .ci/mkdocs.yml

clean:
	rm -rf $(VENV) build dist demo_out

.PHONY: demo test test-all peer-tests bench tables gpu-test gpu-bench gpu-sanitize asan lint wheel \
  docs clean

# PyTorch first and alone: what follows finds it installed and leaves it as it is.
$(VENV)/.torch:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install $(TORCH)
	$(PIP) install "scikit-build-core>=0.11" "pybind11>=3.0" "cmake>=3.24" ninja
	touch $@

$(BUILT): $(VENV)/.torch pyproject.toml CMakeLists.txt $(shell find csrc)
	$(EDITABLE) ".[demo,test]" $(if $(wildcard $@),--quiet)
	touch $@

$(VENV)/.extra-%: pyproject.toml | $(BUILT)
	$(EDITABLE) ".[$*]"
	touch $@
