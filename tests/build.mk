# Fuzz targets, the tests with real clients, the tests of crashes and of faults.

# Each tests/fuzz/X_fuzz.c is a libFuzzer target over the library built by clang with its
# sanitizers; what it starts from is tests/fuzz/corpus/X.
FUZZ      := $(wildcard tests/fuzz/*_fuzz.c)
FUZZ_BINS := $(FUZZ:%.c=$(O)/%)
FUZZ_SECONDS ?= 8

$(O)/tests/fuzz/%_fuzz: $(O)/tests/fuzz/%_fuzz.o $(LIB)
	$(SAY) '  LD $@'; $(CC) $(LDFLAGS) -fsanitize=fuzzer -o $@ $^ $(LDLIBS)
fuzz-bins: $(FUZZ_BINS)
list-fuzz-bins:
	@printf '%s\n' $(FUZZ_BINS)
fuzz:
	@$(MAKE) --no-print-directory MODE=fuzz -j$(JOBS) fuzz-bins
	@for f in $$($(MAKE) -s --no-print-directory MODE=fuzz list-fuzz-bins); do \
		tests/fuzz/run $$f $(FUZZ_SECONDS) || exit 1; done

proto:
	@$(MAKE) --no-print-directory MODE=release -j$(JOBS) all
	@SLUICE_BIN=$(BUILD)/release $(PY) -m pytest -q -p no:cacheprovider tests/proto $(ARGS)

# The file system that forgets what was never synced.
FORGETFS := $(O)/tests/crash/forgetfs
$(O)/tests/crash/forgetfs.o: CFLAGS += $(shell pkg-config --cflags fuse3 2>/dev/null)
$(FORGETFS): $(O)/tests/crash/forgetfs.o
	$(SAY) '  LD $@'; $(CC) $(LDFLAGS) -o $@ $^ $(shell pkg-config --libs fuse3)
forgetfs: $(FORGETFS)
crash:
	@$(MAKE) --no-print-directory MODE=release -j$(JOBS) all forgetfs
	@SLUICE_BIN=$(BUILD)/release $(PY) -m pytest -q -p no:cacheprovider tests/crash $(ARGS)

faults:
	@$(MAKE) --no-print-directory MODE=release -j$(JOBS) all forgetfs
	@SLUICE_BIN=$(BUILD)/release $(PY) -m pytest -q -p no:cacheprovider tests/faults $(ARGS)

# Several processes as one cluster, one test after the other; PHASES=cluster tools/test runs them
# side by side.
cluster:
	@$(MAKE) --no-print-directory MODE=release -j$(JOBS) all forgetfs
	@SLUICE_BIN=$(BUILD)/release $(PY) -m pytest -q -p no:cacheprovider tests/cluster $(ARGS)

.PHONY: fuzz fuzz-bins list-fuzz-bins proto crash faults cluster forgetfs
-include $(FUZZ_BINS:=.d) $(FORGETFS).d

# The simulator: whole clusters on virtual time. Its own loop, worker, pulse and log come before
# the library's, so that the linker takes no threads from there.
SIM     := $(O)/tests/sim/sim
SIM_OBJ := $(patsubst %.c,$(O)/%.o,$(wildcard tests/sim/*.c))
SIM_WRAP := consensus_open consensus_barrier plog_mark_term_vote partition_propose \
            proposal_kind_find group_may_commit model_held shard_publish_claimed retained_overtaken
$(SIM): $(SIM_OBJ) $(LIB)
	$(SAY) '  LD $@'; $(CC) $(LDFLAGS) $(SIM_WRAP:%=-Wl,--wrap=%) -o $@ $^ $(LDLIBS)
sim-bin: $(SIM)
SEEDS ?= 1..20
sim:
	@$(MAKE) --no-print-directory MODE=release -j$(JOBS) sim-bin
	@SIM_JOBS=$(JOBS) $(BUILD)/release/tests/sim/sim $(SEEDS)
# Each planted bug must be found: BUG:AIM, the kind of seeds (tests/sim/sim_aim.h) that finds it soon.
SIM_PLANTS := sync:0 duplicate:0 guard-1:3 vote:1 fence:2 read:4 commit:0 held:0 will:2 retained:0
sim-plants:
	@$(MAKE) --no-print-directory MODE=release -j$(JOBS) sim-bin
	@set -e; for p in $(SIM_PLANTS); do printf '%s: ' $$p; \
		SIM_PLANT=$${p%:*} SIM_AIM=$${p#*:} SIM_JOBS=$(JOBS) $(BUILD)/release/tests/sim/sim 1..200 >$(O)/sim-plant.log || \
		{ cat $(O)/sim-plant.log; exit 1; }; grep -m1 FAILED $(O)/sim-plant.log; done
.PHONY: sim sim-bin sim-plants
-include $(SIM_OBJ:.o=.d)
