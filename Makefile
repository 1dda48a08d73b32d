# make demo | test | lint | docs | benchmark: each makes .venv and installs what it needs first.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint docs benchmark clean

demo: .venv/installed-examples
	$(BIN)/python examples/plot_dataframe_grid_search.py

# Networks of this size gain nothing from a second thread, so the cores run different tests.
test: .venv/installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4

lint: .venv/installed-lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: .venv/installed-docs
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

benchmark: .venv/installed-benchmark
	$(BIN)/python benchmarks/fit_speed.py

clean:
	rm -rf .venv docs/_build docs/generated docs/auto_examples

# One stamp an extra of pyproject.toml: installed again only when what is to be installed has changed.
.venv/installed-%: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$*]'
	touch $@

$(BIN)/python:
	$(PYTHON) -m venv .venv
