# The simulator as a program.  `make -f tests/native/sim.mk sim` (fast) or `sim-asan` (address and undefined sanitizers, every
# block of protocol memory a block of malloc); both land in build/sim/.
CC ?= cc
SIM_DIR := $(dir $(lastword $(MAKEFILE_LIST)))
SIM_ROOT := $(SIM_DIR)../..
SIM_BUILD ?= $(SIM_ROOT)/build/sim
SIM_COMMIT := $(shell git -C $(SIM_ROOT) describe --always --dirty 2>/dev/null || echo unknown)
SIM_FLAGS := -std=c11 -g -Wall -Wextra -Wconversion -Wshadow -I$(SIM_ROOT)/csrc -I$(SIM_DIR) -DSIM_COMMIT='"$(SIM_COMMIT)"'
SIM_SOURCES := $(sort $(wildcard $(SIM_DIR)sim*.c))
SIM_INCLUDED := $(addprefix $(SIM_ROOT)/csrc/protocol/page/,diff.c live.c)
SIM_PROTOCOL := $(filter-out $(SIM_INCLUDED),$(wildcard $(SIM_ROOT)/csrc/protocol/*/*.c))
# sim_diff.c and sim_live.c include those that are left out.
SIM_HEADERS := $(wildcard $(SIM_ROOT)/csrc/protocol/*/*.h) $(wildcard $(SIM_DIR)sim*.h) $(SIM_INCLUDED)

.PHONY: sim sim-asan
sim: $(SIM_BUILD)/sim
sim-asan: $(SIM_BUILD)/sim-asan

$(SIM_BUILD)/sim: $(SIM_SOURCES) $(SIM_PROTOCOL) $(SIM_HEADERS)
	mkdir -p $(SIM_BUILD)
	$(CC) -O2 -flto=auto $(SIM_FLAGS) -o $@ $(SIM_SOURCES) $(SIM_PROTOCOL)

$(SIM_BUILD)/sim-asan: $(SIM_SOURCES) $(SIM_DIR)pool_malloc.c $(SIM_PROTOCOL) $(SIM_HEADERS)
	mkdir -p $(SIM_BUILD)
	$(CC) -O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -DSIM_SANITIZE \
	    $(SIM_FLAGS) -o $@ $(SIM_SOURCES) $(SIM_DIR)pool_malloc.c $(filter-out %/pool.c,$(SIM_PROTOCOL))
