# make demo   a guided tour: three nodes on this machine share work, lose an agent, lose a host, and leave no trace
# make test   all checks (ruff, mypy) and all tests
# make test-guest   the tests of containers again, on an emulated machine with pure cgroup v2 (qemu; about half an hour)
# All set up what they need first: a virtual environment in .venv and, as root on Debian or Ubuntu, LXC and friends from apt.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
PYTEST_ARGUMENTS ?= -n auto --dist loadgroup

.PHONY: setup demo test test-guest check requirements clean

setup: $(STAMP)
	@tools/prepare-host

$(STAMP): requirements/development.txt pyproject.toml tools/make-venv
	@tools/make-venv $(VENV)
	@touch $@

demo: setup
	@$(BIN)/fofoca lab demo

test: check
	@tools/prepare-host test
	@$(BIN)/python -m pytest $(PYTEST_ARGUMENTS)

test-guest: setup
	@tools/guest-v2 ready
	@FOFOCA_GUEST_ALL=1 $(BIN)/python -m pytest -n0 -m guest

check: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

# Pins every dependency with the hashes of its files; the output must not name a registry, and a test sees to it.
requirements: setup
	@tools/pin-requirements

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
