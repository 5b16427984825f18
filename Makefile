# Everything sets up .venv by itself. The two commands that matter: make demo, make test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
NODE_READY := node_modules/.ready

.PHONY: demo test check style types imports scripts coverage gpu bench bench-gpu clean

demo: $(READY)
	@$(BIN)/starling demo

test: $(READY)
	$(BIN)/python -m pytest -q

check: style types imports scripts

style: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

imports: $(READY)
	$(BIN)/lint-imports

# The page itself needs no node; what checks its style and its types does.
scripts: $(NODE_READY)
	npm run --silent style
	npm run --silent types

coverage: $(READY)
	$(BIN)/python -m coverage run -m pytest -q
	$(BIN)/python -m coverage report

# On a machine with a CUDA device: what the CPU tests cannot show. Each file in a process of its
# own: what breaks the device for one leaves the others alone, and kernels are compiled side by
# side. A library's warning about this machine is no failure. What was measured is printed (-rP).
gpu: $(READY)
	@ls tests/gpu/test_*.py | xargs -P 4 -n 1 \
		$(BIN)/python -m pytest -q -rP -W default -p no:cacheprovider -m gpu

bench: $(READY)
	$(BIN)/starling bench redecode --model embedded
	$(BIN)/starling bench throughput --model embedded

# On a machine with a CUDA device; eight minutes, random weights (docs/gpu.md).
bench-gpu: $(READY)
	$(BIN)/starling bench gpu --output gpu-bench.json

# constraints.txt holds the versions that were tested together; pyproject.toml holds the ranges.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[dev,bench]'
	touch $@

# Exactly what package-lock.json says, and nothing of it runs while it is installed.
$(NODE_READY): package-lock.json
	npm ci --ignore-scripts --no-audit --no-fund
	touch $@

clean:
	rm -rf $(VENV) node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage
