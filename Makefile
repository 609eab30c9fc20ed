# make setup  a virtual environment in .venv; `. .venv/bin/activate` then puts ht-bench on the PATH
# make demo   set up, evaluate twelve methods on three streams of digits, print the ranked table
# make test   set up, run the tests
# make lint   set up, run the linters and the type checker
# make board  set up, verify changed submissions, prove the committed ranking from the committed curves
# make page   render the leaderboard's site and its ranking
# make bench   what the package costs and gains, every figure beside a peer's (docs/performance.md)
# make test-gpu   the tests that need a CUDA device; skipped without one
# make page-load   how long a board of 50 submissions × 20 tasks × 20 seeds takes to render
# make overhead   what Hare & Tortoise costs DQN, in turns with the stock policy (minutes)
# make verification   how often verifying on another machine refuses honest and forged work (half an hour)
# make acting   what acting as the tortoise costs DQN, PPO, SAC and TD3, in turns with the stock policies
# make sb3-suite   stable-baselines3's own tests with these policies in place of its own (half an hour)
# make faults   200 rounds of kills, full disks, damaged files, two runners, a clock set back (40 minutes)
# make hostile   10,000 mutated submissions, none of which may be called valid (minutes)
# make fuzz   10,000 mutated files of every reader: a sentence or success, whatever they hold
# make evidence   the long checks (kills at many instants, a Ray cluster, everything twice); see docs/evidence.md

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
export HT_BENCH_DATA ?= $(abspath $(wildcard ../shared/data))

.PHONY: demo test test-gpu lint bench board page page-load overhead acting sb3-suite verification evidence faults fuzz hostile setup clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "ht-bench needs Python 3.11 or newer; name one: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[data,contrib,atari,minatar,mujoco,dev]'
	touch $@

# The methods of the first board.
TWELVE := none,full-reset,hare-tortoise,ema,head-reset,shrink-perturb,l2,l2-init,self-distillation,early-stop,layer-norm,crelu

demo: setup
	$(BIN)/ht-bench run --suite suite-core-v1 --method $(TWELVE) --out runs/demo --jobs $(JOBS)
	$(BIN)/ht-bench compare runs/demo --figures runs/demo/figures

test: setup
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

test-gpu: setup
	$(BIN)/python -m pytest -ra tests/cuda

bench: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

board: setup
	PATH="$(abspath $(BIN)):$$PATH" .ci/submissions

page: setup
	$(BIN)/ht-bench page leaderboard

page-load: setup
	$(BIN)/python docs/page_load.py

overhead: setup
	$(BIN)/python -m benchmarks.agents --only stock,hare-tortoise

acting: setup
	$(BIN)/python docs/acting.py

# The sdist of the installed release holds its tests; the package beside them is left out.
sb3-suite: setup
	rm -rf runs/sb3-suite && mkdir -p runs/sb3-suite
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: -d runs/sb3-suite \
		"stable-baselines3==$$($(BIN)/python -c 'import stable_baselines3 as s; print(s.__version__)')"
	tar -xzf runs/sb3-suite/*.tar.gz -C runs/sb3-suite --strip-components 1
	rm -r runs/sb3-suite/stable_baselines3
	cd runs/sb3-suite && for method in none hare-tortoise; do \
		PYTHONPATH=$(CURDIR)/tests/sb3 $(abspath $(BIN))/python -m pytest -q -n $(JOBS) --dist loadfile \
			-p stock_suite_plugin --plastic $$method tests || exit 1; done

evidence: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[ray]'
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal --evidence tests

verification: setup
	$(BIN)/python docs/verification.py --jobs $(JOBS)

hostile: setup
	$(BIN)/python -m pytest --evidence tests/leaderboard/test_hostile.py

fuzz: setup
	$(BIN)/python -m tests.fuzz.run --jobs $(JOBS)

faults: setup
	$(BIN)/python -m tests.faults.run --rounds 200 --jobs $(JOBS)

clean:
	rm -rf $(VENV)
