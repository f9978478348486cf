# Everything installs itself into $(VENV) first; `make demo` and `make test` are all that a new machine needs.
VENV   ?= .venv
PYTHON ?= python3
BIN    := $(VENV)/bin
PACKAGES := base train export runtime cli page demo bench

.PHONY: demo test test-slow test-gpu test-optimum test-hostile fuzz check docs bench clean

demo: $(VENV)/installed
	$(BIN)/edgeprefix demo --out demo-report --force

# Tests run beside each other, each on one thread: two processes on two cores take half the time of one with two threads.
test: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4

test-slow: $(VENV)/installed
	$(BIN)/python -m pytest -m slow

test-gpu: $(VENV)/installed
	$(BIN)/python -m pytest -m gpu

# 10,000 prefix files, 2,000 manifests and 2,000 tokenizers of somebody who means harm; RESULT=FILE keeps the counts.
test-hostile: $(VENV)/installed
	$(BIN)/python tests/hostile/trial.py $(if $(RESULT),--json $(RESULT))

# libFuzzer over the readers of manifest, prefix file, rows and templates, in an environment of its own. SECONDS of the
# processor for each of TARGETS; RESULT=FILE keeps the counts, and the next run goes on from them.
SECONDS ?= 60
fuzz: $(VENV)-fuzz/installed
	$(VENV)-fuzz/bin/python tests/fuzz/fuzz.py $(TARGETS) --seconds $(SECONDS) $(if $(RESULT),--result $(RESULT))

# 500 kills and a full disk at every operation on files; half an hour. RESULT=FILE keeps the counts.
test-faults: $(VENV)/installed
	$(BIN)/python tests/faults/kills.py --kills 500 $(if $(RESULT),--out $(RESULT))

# Optimum wants transformers 4, so it has an environment of its own beside $(VENV).
test-optimum: $(VENV)-optimum/installed
	$(VENV)-optimum/bin/python -m pytest -m optimum tests/export/test_optimum*.py

check: $(VENV)/installed $(VENV)/typecheck
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=$(VENV)/typecheck $(BIN)/mypy $(addprefix -p edgeprefix.,$(PACKAGES))

# Strict: a warning is an error, a broken link within the pages too; fresh, so that none is overlooked.
docs: $(VENV)/installed
	$(BIN)/python -m sphinx --quiet --fresh-env --fail-on-warning --keep-going docs docs/_build

bench: $(VENV)/installed
	$(BIN)/python benchmarks/e2e.py

clean:
	rm -rf $(VENV) $(VENV)-optimum $(VENV)-fuzz build demo-report docs/_build *.egg-info

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

$(VENV)-optimum/installed: pyproject.toml tests/export/optimum_environment.py
	$(PYTHON) tests/export/optimum_environment.py $(VENV)-optimum
	touch $@

$(VENV)-fuzz/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)-fuzz
	$(VENV)-fuzz/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[fuzz]'
	touch $@

# mypy does not follow the editable install's folder mapping, so it is shown the same package as a tree of links.
$(VENV)/typecheck:
	mkdir -p $@/edgeprefix
	$(foreach package,$(filter-out bench,$(PACKAGES)),ln -sfn $(CURDIR)/$(package) $@/edgeprefix/$(package);)
	ln -sfn $(CURDIR)/benchmarks/bench $@/edgeprefix/bench
