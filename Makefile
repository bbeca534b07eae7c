# Two commands do all the set-up: `make demo` (the main job, on the embedded corpus) and `make test`. `make help`: all.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TORCH_INDEX ?=
DEMO := runs/demo
DEMO_CONDITIONS := dense/rmsnorm,dense/raw,dense/rmsnorm+penalty,terminal/rmsnorm

.PHONY: help install demo test slow quick lint types docs serve picture clean

help: ## what there is to make
	@awk -F':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## the environment in .venv, once

# torch is installed first, at the version of constraints.txt. PyPI has it with 5.8 GB of packages for a GPU; without one:
#     make install TORCH_INDEX=https://download.pytorch.org/whl/cpu
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Loopscope needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch \
		$(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[data,eval,log,onnx,slurm,dev,docs]'
	touch $(STAMP)

demo: $(STAMP) ## train and audit four models, write runs/demo/report.html: minutes
	$(BIN)/loopscope study --size laptop --conditions $(DEMO_CONDITIONS) --seeds 1 --out $(DEMO)
	@ls $(DEMO)/*/seed-*/audit.json >/dev/null 2>&1 || $(BIN)/loopscope audit $(DEMO)
	@printf 'report: ' && $(BIN)/loopscope report $(DEMO)

# The dearest files first, each whole in one worker: see tests/costs.py. Bytecode is kept: dozens of processes start.
PYTEST := env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST_OPTIONS)

test: $(STAMP) ## what the project promises, checked
	$(PYTEST) -m "not slow"

slow: $(STAMP) ## and the tests that take long: processes, compilers, notebooks, benchmarks
	$(PYTEST) -m slow

quick: $(STAMP) ## the inner loop: every test but those that take a sixteenth of a second or more
	$(PYTEST) -m "not slow" --quick

lint: $(STAMP) ## ruff, and the format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## mypy, strict
	$(BIN)/mypy

docs: $(STAMP) ## the site, in build/site: fails at a broken link
	$(BIN)/zensical build --strict

serve: $(STAMP) ## the site while it is written, at localhost:8000
	$(BIN)/zensical serve

picture: demo ## the README's picture, from the demo's results
	cp $(DEMO)/figures/hero.png docs/demo.png

clean: ## all that was made here
	rm -rf $(VENV) runs build .cache *.egg-info
