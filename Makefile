PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check figures bench clean

demo: $(VENV)/ready  ## wrap, edit, generate, explain, undo: on the shipped model
	$(BIN)/semedit demo

test: $(VENV)/ready check  ## lint, type-check, run the tests
	$(BIN)/pytest

check: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/ready: pyproject.toml constraints-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints-dev.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints-dev.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
