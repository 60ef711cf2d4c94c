# The real runtime under ThreadSanitizer (tests/native/race.h).
#
#   make -f tests/native/race.mk race                   build/race/race
#   make -f tests/native/race.mk node                   build/race/node: two processes at one node (race_node.c)
#   make -f tests/native/race.mk run SECONDS=60         with and without collections, chaos, and each way of progress
#
# Where the kernel places a program at addresses that ThreadSanitizer does not know ("unexpected memory mapping"),
# RUN='setarch -R' does without random addresses.
CC ?= cc
RACE_DIR := $(dir $(lastword $(MAKEFILE_LIST)))
RACE_ROOT := $(RACE_DIR)../..
RACE_BUILD ?= $(RACE_ROOT)/build/race
RACE_CSRC ?= $(RACE_ROOT)/csrc
SECONDS ?= 60
SEED ?= 1
RUN ?=

# All but what is made of MPI (race_transport.c is in its place), and what is a library of its own.
RACE_WITHOUT := communicator sends receives parts transport mpi_process mpi_identity preload
RACE_RUNTIME := $(filter-out $(addprefix %/,$(addsuffix .c,$(RACE_WITHOUT))),$(wildcard $(RACE_CSRC)/*/*.c $(RACE_CSRC)/*/*/*.c)) \
    $(RACE_DIR)race_transport.c
RACE_SOURCES := $(RACE_RUNTIME) $(RACE_DIR)race_main.c
RACE_HEADERS := $(wildcard $(RACE_CSRC)/*.h $(RACE_CSRC)/*/*.h $(RACE_CSRC)/*/*/*.h) $(RACE_DIR)race.h
RACE_FLAGS := -std=gnu11 -g -O1 -fno-omit-frame-pointer -Wall -Wextra -Wconversion -Wshadow -Wno-tsan -pthread \
    -I$(RACE_CSRC) -I$(RACE_DIR)
SHARE = $(shell echo $$(( ($(SECONDS) + 4) / 5 )))

.PHONY: race node run
race: $(RACE_BUILD)/race
node: $(RACE_BUILD)/node

$(RACE_BUILD)/race: $(RACE_SOURCES) $(RACE_HEADERS)
	mkdir -p $(RACE_BUILD)
	$(CC) -fsanitize=thread $(RACE_FLAGS) -Wl,--wrap=memory_candidate -o $@ $(RACE_SOURCES)

$(RACE_BUILD)/node: $(RACE_RUNTIME) $(RACE_DIR)race_node.c $(RACE_HEADERS)
	mkdir -p $(RACE_BUILD)
	$(CC) $(filter-out -Wno-tsan,$(RACE_FLAGS)) -o $@ $(RACE_RUNTIME) $(RACE_DIR)race_node.c -ldl

run: race
	$(RUN) $(RACE_BUILD)/race --seed=$(SEED) --seconds=$(SHARE)
	$(RUN) $(RACE_BUILD)/race --seed=$(SEED) --seconds=$(SHARE) --budget=1
	$(RUN) $(RACE_BUILD)/race --seed=$(SEED) --seconds=$(SHARE) --chaos=$(SEED) --ranks=3
	$(RUN) $(RACE_BUILD)/race --seed=$(SEED) --seconds=$(SHARE) --progress=1
	$(RUN) $(RACE_BUILD)/race --seed=$(SEED) --seconds=$(SHARE) --progress=2 --budget=20000
