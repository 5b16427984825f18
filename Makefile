# Everything sets up .venv by itself. The two commands that matter: make demo, make test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check style types imports coverage gpu bench clean

demo: $(READY)
	@$(BIN)/starling demo

test: $(READY)
	$(BIN)/python -m pytest -q

check: style types imports

style: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

imports: $(READY)
	$(BIN)/lint-imports

coverage: $(READY)
	$(BIN)/python -m coverage run -m pytest -q
	$(BIN)/python -m coverage report

# On a machine with a CUDA device: what the CPU tests cannot show.
gpu: $(READY)
	$(BIN)/python -m pytest -q -m gpu tests/gpu

bench: $(READY)
	$(BIN)/starling bench redecode --model embedded
	$(BIN)/starling bench throughput --model embedded

# constraints.txt holds the versions that were tested together; pyproject.toml holds the ranges.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[dev,bench]'
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage
