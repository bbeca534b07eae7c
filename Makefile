# Two commands do all the set-up: `make demo` (the main job, on the embedded corpus) and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := runs/demo
DEMO_CONDITIONS := dense/rmsnorm,dense/raw,dense/rmsnorm+penalty,terminal/rmsnorm

.PHONY: install demo test lint types picture clean

install: $(STAMP)

# torch is installed first and pinned: a plain `torch` would pull gigabytes of GPU packages.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Loopscope needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[data,dev]'
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/loopscope study --size laptop --conditions $(DEMO_CONDITIONS) --seeds 1 --out $(DEMO)
	@ls $(DEMO)/*/seed-*/audit.json >/dev/null 2>&1 || $(BIN)/loopscope audit $(DEMO)
	@printf 'report: ' && $(BIN)/loopscope report $(DEMO)

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

# The README's picture, from the demo's results.
picture: demo
	cp $(DEMO)/figures/hero.png docs/demo.png

clean:
	rm -rf $(VENV) runs build *.egg-info
