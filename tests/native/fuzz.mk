# Fuzzing what comes from the wire (tests/native/fuzz.h says what an input is and what a failure).
#
#   make -f tests/native/fuzz.mk fuzz RUNS=10000000     all kinds of messages, RUNS inputs in all: libFuzzer where clang has
#                                                       it, else the driver that needs a C compiler only
#   make -f tests/native/fuzz.mk fuzz-plain RUNS=...    that driver in any case; SEED= other inputs
#   make -f tests/native/fuzz.mk corpus                 the seeds: real messages of small jobs, in build/fuzz/corpus/KIND/
#   make -f tests/native/fuzz.mk coverage               what of the protocol the corpora reach (clang, llvm-cov)
#
# build/fuzz/fuzz FILE replays what libFuzzer wrote to build/fuzz/artifacts.
CC ?= cc
CLANG ?= clang
FUZZ_DIR := $(dir $(lastword $(MAKEFILE_LIST)))
FUZZ_ROOT := $(FUZZ_DIR)../..
FUZZ_BUILD ?= $(FUZZ_ROOT)/build/fuzz
FUZZ_PROTOCOL_DIR ?= $(FUZZ_ROOT)/csrc
RUNS ?= 1000000
SEED ?= 1
KINDS := fetch reply acquire pass grant busy withdraw withdrawn arrive depart add sum request_collection collect
COUNT := $(words $(KINDS))

FUZZ_PROTOCOL := $(filter-out %/pool.c,$(wildcard $(FUZZ_PROTOCOL_DIR)/protocol/*/*.c))
FUZZ_SHARED := $(addprefix $(FUZZ_DIR),fuzz_node.c fuzz_states.c fuzz_target.c pool_malloc.c)
FUZZ_HEADERS := $(wildcard $(FUZZ_PROTOCOL_DIR)/protocol/*/*.h) $(FUZZ_DIR)fuzz.h
FUZZ_FLAGS := -std=gnu11 -g -O1 -fno-omit-frame-pointer -Wall -Wextra -Wconversion -Wshadow -I$(FUZZ_PROTOCOL_DIR) -I$(FUZZ_DIR)
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=undefined
# A directory that only a clang with libFuzzer makes.
HAS_LIBFUZZER := $(shell echo 'int LLVMFuzzerTestOneInput(const char *d, long n) { return 0 * (d[0] + n); }' | \
    $(CLANG) -fsanitize=fuzzer -x c - -o /dev/null 2>/dev/null && echo yes)

SHELL := /bin/bash -o pipefail

.PHONY: fuzz fuzz-plain fuzz-libfuzzer corpus coverage build-plain

fuzz: $(if $(HAS_LIBFUZZER),fuzz-libfuzzer,fuzz-plain)

build-plain: $(FUZZ_BUILD)/fuzz

$(FUZZ_BUILD)/fuzz: $(FUZZ_SHARED) $(FUZZ_DIR)fuzz_main.c $(FUZZ_PROTOCOL) $(FUZZ_HEADERS)
	mkdir -p $(FUZZ_BUILD)
	$(CC) $(FUZZ_FLAGS) $(SANITIZE) -o $@ $(FUZZ_SHARED) $(FUZZ_DIR)fuzz_main.c $(FUZZ_PROTOCOL)

$(FUZZ_BUILD)/fuzz-libfuzzer: $(FUZZ_SHARED) $(FUZZ_DIR)fuzz_libfuzzer.c $(FUZZ_PROTOCOL) $(FUZZ_HEADERS)
	mkdir -p $(FUZZ_BUILD)
	$(CLANG) $(FUZZ_FLAGS) -fsanitize=fuzzer $(SANITIZE) -o $@ $(FUZZ_SHARED) $(FUZZ_DIR)fuzz_libfuzzer.c \
	    $(FUZZ_PROTOCOL)

fuzz-plain: $(FUZZ_BUILD)/fuzz
	@echo "the plain driver, $(CC): seeded mutations without the guidance of coverage"
	$(FUZZ_BUILD)/fuzz --seed=$(SEED) --runs=$(RUNS)

corpus: $(FUZZ_BUILD)/fuzz
	$(FUZZ_BUILD)/fuzz --corpus=$(FUZZ_BUILD)/corpus

fuzz-libfuzzer: $(FUZZ_BUILD)/fuzz-libfuzzer corpus
	@echo "libFuzzer of $$($(CLANG) --version | head -1)"
	mkdir -p $(FUZZ_BUILD)/artifacts
	set -e; for kind in $(KINDS); do echo "== $$kind"; DSM_FUZZ_KIND=$$kind $(FUZZ_BUILD)/fuzz-libfuzzer -seed=$(SEED) \
	    -runs=$$(( ($(RUNS) + $(COUNT) - 1) / $(COUNT) )) -max_len=4096 -timeout=20 -rss_limit_mb=2048 -reload=0 -verbosity=1 \
	    -artifact_prefix=$(FUZZ_BUILD)/artifacts/$$kind- $(FUZZ_BUILD)/corpus/$$kind \
	    2>&1 | grep -v -E '	(NEW|REDUCE|RELOAD|pulse)' ; done

$(FUZZ_BUILD)/fuzz-coverage: $(FUZZ_SHARED) $(FUZZ_DIR)fuzz_main.c $(FUZZ_PROTOCOL) $(FUZZ_HEADERS)
	mkdir -p $(FUZZ_BUILD)
	$(CLANG) $(FUZZ_FLAGS) -fsanitize=address -fprofile-instr-generate -fcoverage-mapping -o $@ $(FUZZ_SHARED) \
	    $(FUZZ_DIR)fuzz_main.c $(FUZZ_PROTOCOL)

coverage: $(FUZZ_BUILD)/fuzz-coverage
	find $(FUZZ_BUILD)/corpus -type f -print0 | LLVM_PROFILE_FILE=$(FUZZ_BUILD)/part-%p.profraw xargs -0 $(FUZZ_BUILD)/fuzz-coverage
	llvm-profdata merge -o $(FUZZ_BUILD)/all.profdata $(FUZZ_BUILD)/part-*.profraw
	rm $(FUZZ_BUILD)/part-*.profraw
	llvm-cov report $(FUZZ_BUILD)/fuzz-coverage -instr-profile=$(FUZZ_BUILD)/all.profdata $(FUZZ_PROTOCOL)
