# make install: .venv with all that is needed; make demo: the main job on drawn parts; make check: form,
# types and the tests that compile nothing; make test: form, types and the tests; make docs: the site of
# docs/ in site/, links checked. All set up .venv by themselves; make install-onnx: .venv-onnx, which
# exports to ONNX.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
ONNX := .venv-onnx
# Processes that share the tests.
WORKERS ?= 2
QUICK := not real and not slow and not long and not onnx
TESTS := -m pytest -n $(WORKERS) --durations=20
# The order of the files is that of tests/conftest.py.
BY_FILE := --dist loadfile --no-loadscope-reorder
DEMO := demo

.PHONY: install install-onnx demo docs lint check test test-real test-long clean

define CHECK_PYTHON
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
endef

$(VENV)/.installed: setup.cfg pyproject.toml
	$(CHECK_PYTHON)
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[demo,dev]'
	touch $@

$(ONNX)/.installed: requirements-onnx.txt setup.cfg pyproject.toml
	$(CHECK_PYTHON)
	test -x $(ONNX)/bin/python || $(PYTHON) -m venv $(ONNX)
	$(ONNX)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-onnx.txt
	$(ONNX)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	touch $@

install: $(VENV)/.installed

install-onnx: $(ONNX)/.installed

demo: $(VENV)/.installed
	$(VENV)/bin/imvad demo --out=$(DEMO)

docs: $(VENV)/.installed-docs
	$(RUN) -m experiments.document --check
	@# The switch silences an advertisement of mkdocs-material.
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --site-dir site
	@echo "the site: site/index.html"

lint: $(VENV)/.installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m basedpyright --pythonpath $(RUN)

check: lint
	$(RUN) $(TESTS) $(BY_FILE) --no-compilation -m '$(QUICK)'

test: lint
	@# A file is one worker's, so that its tests share compiled programs.
	$(RUN) $(TESTS) $(BY_FILE) -m '$(QUICK)'

test-real: $(VENV)/.installed $(ONNX)/.installed
	@# Most of these start programs of their own: whoever is idle takes the next.
	$(RUN) $(TESTS) --dist worksteal -m 'real or slow'
	@# Exports to ONNX are made where jax2onnx is.
	$(ONNX)/bin/python $(TESTS) -m onnx tests/experiments/test_export_formats.py

test-long: $(VENV)/.installed
	$(RUN) -m pytest -s -m long --durations=20

clean:
	rm -rf $(VENV) $(ONNX) $(DEMO) site
