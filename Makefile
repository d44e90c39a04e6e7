# Sets everything up on a fresh machine: `make demo` and `make test` need nothing but Python 3.11 to 3.13.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test install check faults clean

demo: $(VENV)/.installed
	$(BIN)/simtui demo

install: $(VENV)/.installed

test: check
	$(BIN)/pytest -n auto --dist worksteal

# The long sweeps: kills, full disks, flipped bits, hostile files (about half an hour on 2 cores; as root, with a tmpfs).
faults: $(VENV)/.installed-test
	SIMTUI_SWEEP=full $(BIN)/pytest -n auto --dist worksteal -rP tests/faults tests/hostile tests/simtui/test_endurance.py tests/engine/finetune/test_recipes.py tests/engine/finetune/test_team.py tests/engine/jobs/test_team.py

check: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[test]"
	touch $@

clean:
	rm -rf $(VENV) demo_study .pytest_cache .mypy_cache .ruff_cache .hypothesis
