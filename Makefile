# Everything installs itself into $(VENV) first; `make demo` and `make test` are all that a new machine needs.
VENV   ?= .venv
PYTHON ?= python3
BIN    := $(VENV)/bin
ROOMS  := train export runtime demo

.PHONY: demo test test-slow test-gpu check bench clean

demo: $(VENV)/installed
	$(BIN)/edgeprefix demo --out demo-report --force

test: $(VENV)/installed
	$(BIN)/python -m pytest

test-slow: $(VENV)/installed
	$(BIN)/python -m pytest -m slow

test-gpu: $(VENV)/installed
	$(BIN)/python -m pytest -m gpu

check: $(VENV)/installed $(VENV)/typecheck
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=$(VENV)/typecheck $(BIN)/mypy $(addprefix -p edgeprefix.,$(ROOMS))

bench: $(VENV)/installed
	$(BIN)/python benchmarks/e2e.py

clean:
	rm -rf $(VENV) build demo-report *.egg-info

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

# mypy does not follow the editable install's folder mapping, so it is shown the same package as a tree of links.
$(VENV)/typecheck:
	mkdir -p $@/edgeprefix
	$(foreach room,$(ROOMS),ln -sfn $(CURDIR)/$(room) $@/edgeprefix/$(room);)
