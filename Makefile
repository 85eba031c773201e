# -P keeps files that were fetched to this directory from being imported.
#
# make demo    see it work: a server and three clients chat and swap files (needs Python 3.11 and make)
# make test    set up, then check style, types and behaviour
# make test-matrix  the tests with each Python that is installed, and with the oldest libraries; half an hour
# make slow    the tests that take minutes
# make fuzz    two million cases in all, for the parsers and for both ends of the conversations; some minutes
# make soak    ten minutes of members and transfers that come and go, many of them hostile
# make chaos   a hundred rounds of faults on servers and on Redis while users chat; a quarter of an hour; it prints its seed
# make clean   remove what these made

PYTHON ?= python3

.PHONY: demo test test-matrix slow fuzz soak chaos clean

demo: .venv/run
	@.venv/bin/python -P demo.py

test: .venv/dev
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/python -m pytest -n auto

test-matrix: .venv/dev
	.venv/bin/nox

slow: .venv/dev
	.venv/bin/python -m pytest -m slow

fuzz: .venv/fuzz
	.venv/bin/python tests/fuzz/run.py

soak: .venv/dev
	.venv/bin/python -m pytest -m soak -s

chaos: .venv/dev
	.venv/bin/python tests/chaos/run.py --world disk --rounds 20
	.venv/bin/python tests/chaos/run.py --world loopback --rounds 30
	.venv/bin/python tests/chaos/run.py

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "greenchat needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -P -m venv .venv

.venv/run: .venv/bin/python pyproject.toml
	@echo "setting up .venv, once"
	@.venv/bin/python -P -m pip install --quiet --disable-pip-version-check --editable '.[secure]'
	@.venv/bin/python -P -m compileall -q greenchat
	@touch $@

.venv/dev: .venv/bin/python pyproject.toml
	@echo "setting up .venv for development, once"
	@.venv/bin/python -P -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@.venv/bin/python -P -m compileall -q greenchat
	@touch $@ .venv/run

.venv/fuzz: .venv/dev
	@.venv/bin/python -P -m pip install --quiet --disable-pip-version-check --editable '.[dev,fuzz]'
	@touch $@

clean:
	rm -rf .venv .nox *.egg-info build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
