# Two commands on a fresh machine with Python 3.11 to 3.13 and make: `make demo`, `make test`.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: help demo test newest check docs docs-serve docs-check learn compare cost pages bench clean

help:  ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

demo: $(READY)  ## install, train for a minute or two on drawings, and show what was learned
	$(BIN)/nearfar demo

# Two processes of one thread each: the networks are tiny, and threads would wait for each other.
test: $(READY)  ## run all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

# The same tests with the newest versions of everything, beside those of constraints.txt.
newest: $(READY)  ## run all tests with the newest versions of everything
	@UV=$$(command -v uv || echo $(BIN)/uv); \
	  $$UV venv --quiet --clear --python $(BIN)/python .newest-venv && \
	  $$UV pip install --quiet --upgrade --python .newest-venv/bin/python -e '.[dev]'
	OMP_NUM_THREADS=1 .newest-venv/bin/python -m pytest -n 2 --dist worksteal

check: $(READY)  ## formatter, linter, types and import rules
	$(BIN)/ruff check src tests examples benchmarks
	$(BIN)/ruff format --check src tests examples benchmarks
	$(BIN)/pyright
	$(BIN)/python -m pytest -q tests/test_layout.py

# Strict: a link, an anchor or a page that is not there is an error. The pages stand in site/, and open from there without a server.
docs: .venv/.docs  ## build the documentation into site/
	PYTHONPATH=. NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-serve: .venv/.docs  ## serve the documentation, and build it again when a page changes
	PYTHONPATH=. NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

docs-check: docs  ## run every block of code of the pages, the long ones too, and open the site in a browser
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.test_pages
	$(BIN)/python -m pytest -q -n 0 tests/test_site.py

.venv/.docs: $(READY)
	@UV=$$(command -v uv || echo $(BIN)/uv); \
	  $$UV pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[dev,docs]'
	@touch $@

learn: $(READY)  ## train every method on drawings, a minute each
	$(BIN)/python -m benchmarks.learn

compare: $(READY)  ## six methods on CIFAR-10 at equal budget
	$(BIN)/python -m benchmarks.compare

cost: $(READY)  ## time and memory of a step of each method
	$(BIN)/python -m benchmarks.cost

pages: $(READY)  ## write the pages of the methods and the commands
	$(BIN)/python -m benchmarks.pages
	$(BIN)/python -m benchmarks.commands

# The other libraries live in an environment of their own. make bench ARGS="losses --threads 1 --quick"
bench: .bench-venv/.ready  ## measure speed and memory beside other libraries
	.bench-venv/bin/python -m benchmarks.bench $(ARGS)

.bench-venv/.ready: $(READY) benchmarks/bench/peers.txt
	@echo "Installing the libraries to measure against into .bench-venv ..."
	@UV=$$(command -v uv || echo $(BIN)/uv); \
	  $$UV venv --quiet --clear --python $(BIN)/python .bench-venv && \
	  $$UV pip install --quiet --python .bench-venv/bin/python -e '.[fast]' -r benchmarks/bench/peers.txt
	@touch $@

# uv where it is on the path, else a copy of it inside the environment; done again only when pyproject.toml or the versions
# that were tested change.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
	  { echo "nearfar needs Python 3.11 to 3.13, and '$(PYTHON)' is `$(PYTHON) --version 2>&1`: run make PYTHON=python3.12 ..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@command -v uv >/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@echo "Installing nearfar and what it needs into .venv (torch is large; this is done once) ..."
	@UV=$$(command -v uv || echo $(BIN)/uv); \
	  $$UV pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[dev]'
	@touch $(READY)

clean:  ## remove what was installed and built
	rm -rf site .venv .newest-venv build dist .ruff_cache .hypothesis
