# make demo: set up, trace the embedded model on local Ray, rank, edit, name the report of it all.
# make test: set up, lint, types, layout contracts, tests; ARGS=tests/engine for one layer.
# make docs: the documentation's site, in site/.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN ?= demo
STAMP := $(VENV)/.installed

ARGS ?=
# make setup PIP_ARGS='--index-url URL': where pip takes torch from, such as the index of its CPU build.
PIP_ARGS ?=
# tests/conftest.py says which tests a process takes.
PROCESSES := --numprocesses 3 --no-loadscope-reorder
# Tests start some hundred processes, which need not compile the sources each time.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo setup check fix test test-all coverage docs bench reference-model clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_ARGS) torch torchvision
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	rm -rf edits/$(RUN)
	$(BIN)/dqf trace submit --steps 8 --run $(RUN)
	$(BIN)/dqf edit-batch docs/examples/concepts.csv --from-run $(RUN) --out edits/$(RUN) > /dev/null
	@echo
	$(BIN)/dqf rank $(RUN) --quiet --top 1
	@echo
	@echo "Images before and after the edit: edits/$(RUN)/before_after.png"
	@echo "Report, which any browser opens:"
	@$(BIN)/dqf report $(RUN) --edit edits/$(RUN)

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q --no-header -p no:cacheprovider tests/test_words.py
	$(BIN)/deptry .

fix: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: check
	$(BIN)/python -m pytest $(PROCESSES) $(ARGS)

test-all: check
	$(BIN)/python -m pytest -m 'slow or not slow' $(PROCESSES) $(ARGS)

coverage: setup
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered $(ARGS)

docs: setup
	$(BIN)/python -m docs.reference
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Documentation: site/index.html, from disk"

bench: setup
	$(BIN)/python -m bench.tracing --rows 32
	$(BIN)/python -m bench.tracing --model sd1-random --components 24 --rows 30 --traces all text
	$(BIN)/python -m bench.tracing --model pixart-random --rows 24 --each-components 4
	$(BIN)/python -m bench.tracing --model sd3-random --rows 24 --each-components 4
	$(BIN)/python -m bench.tracing.efficiency --rows 32
	$(BIN)/python -m bench.tracing.efficiency --model pixart-random --windows all
	$(BIN)/python -m bench.tracing.efficiency --model sd3-random --windows all
	$(BIN)/python -m bench.tracing.memory
	$(BIN)/python -m bench.opening
	$(BIN)/python -m bench.opening --model sd3
	$(BIN)/python -m bench.tracing.precision
	$(BIN)/python -m bench.scale.through_ray
	$(BIN)/python -m bench.editing.batch
	$(BIN)/python -m bench.editing.speed
	$(BIN)/python -m bench.editing.transformer
	$(BIN)/python -m bench.families
	$(BIN)/python -m bench.one_gpu
	$(BIN)/python -m bench.first_score
	$(BIN)/python -m bench.scale
	$(BIN)/python -m bench.scale.simulate
	$(BIN)/python -m bench.statistics --rows 1000000 10000000

reference-model: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,reference]'
	$(BIN)/python -m engine.reference.train --stage all
	$(BIN)/python -m engine.reference.evaluate

clean:
	rm -rf $(VENV) .build .pytest_cache .ruff_cache site
