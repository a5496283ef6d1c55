PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin
STAMP := .venv/.ready
FRIENDS := .venv/.friends

# glibc hands big blocks back to the kernel at every free, and taking them again costs page faults. What keeping them is
# worth: benchmarks/README.md and docs/results/quickstart.md.
ALLOCATOR := GLIBC_TUNABLES=glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=17179869184
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false

# mgsr_parts.py and undo_runs.py take hours and are started by hand; the others that are left out are parts of programs.
PARTS := mgsr_parts.py machine.py record.py pair.py stepping.py gkd_epoch.py
BENCHMARKS := $(filter-out $(addprefix benchmarks/,$(PARTS)) benchmarks/undo_%.py,$(wildcard benchmarks/*.py))

.PHONY: quickstart undo-demo test setup fmt check test-all test-browser setup-browser bench docs

# The main job: a real teacher distilled into a smaller student and scored. ARGS="--fast" takes 2 to 3 minutes.
quickstart: setup
	$(ALLOCATOR) $(BIN)/limbeck quickstart $(ARGS)

# The black-box loop with its controls, from a solver and random weights: no download, under 5 minutes on 2 cores.
undo-demo: setup
	$(ALLOCATOR) $(BIN)/limbeck undo run recipes/undo/demo.yaml $(ARGS)

test: setup
	$(ONE_THREAD) $(BIN)/python -m pytest -n auto -m "not slow and not gpu and not browser"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,docs,lora,gguf]"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt liger-kernel
	touch $(STAMP)

# Programs that a student is handed to, for `make test-all`; without them their tests are skipped.
$(FRIENDS): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[eval,serve]" wandb
	touch $(FRIENDS)

fmt: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

# With the tests that `make test` leaves out for their length, and ten times as many examples of each property.
test-all: setup $(FRIENDS)
	$(ONE_THREAD) $(BIN)/python -m pytest -n auto --hypothesis-profile=thorough -m "not gpu"

# The site, into build/site. Dead links, pages that no menu has and anything loaded from another machine are errors.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# The pages that Limbeck writes, in Chromium: what their controls do, and whether they can be read. Screenshots are kept
# in build/screenshots.
BROWSER_TESTS ?= browser
test-browser: setup-browser
	LIMBECK_BROWSER=required $(ONE_THREAD) $(BIN)/python -m pytest -m "$(BROWSER_TESTS)" tests/browser

# The browser is Debian's; elsewhere the tests are skipped, and say so.
setup-browser: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[browser]"
	test -x /usr/bin/chromium || { test "$$(id -u)" = 0 || as_root=sudo; \
	    $$as_root apt-get update -qq && $$as_root apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; }

# Each program compares with a rival or a naive version in the same run and prints ratios; here in its quick form, which
# only shows that it works. Full runs: benchmarks/README.md.
bench: setup
	for program in $(BENCHMARKS); do echo "== $$program"; $(ALLOCATOR) $(BIN)/python $$program --quick || exit 1; done
