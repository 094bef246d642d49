# make            build/release/sluiced and build/release/sluice (and the load generator)
# make run        one node in the foreground, data in ./data
# make test       everything: check, unit tests, fuzzing, real clients, faults, sanitizers
# make check      layers, sizes, format
# make demo       three nodes: publish, read through other doors, kill the leader, nothing lost
# make bench      the measured table of README.md
# make unit       unit tests only;  make fuzz  short fuzz runs;  make proto  real clients
# make crash      kill -9 and dropped writes under load;  make faults  disks, damage, memory
# make cluster    three processes and more: kills, pauses, cuts, restarts, joins
# make sim        clusters on virtual time: SEEDS=FIRST..LAST SIM_TRACE=1
# make install    DESTDIR= PREFIX=
# V=1 shows the commands.  MODE=release|asan|tsan|fuzz   BUILD=dir   ONLY="folders" (compile and unit-test a part)
MODE  ?= release
BUILD ?= build
O     := $(BUILD)/$(MODE)
ONLY  ?= server storage cluster protocols
PREFIX ?= /usr/local
CC    ?= cc
PY    := /usr/bin/python3
JOBS  ?= $(shell nproc)

PKGS  := libevent libevent_pthreads raft wolfssl zlib liblz4 libzstd libisal libcjson nettle
WARN  := -Wall -Wextra -Wconversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla \
         -Wimplicit-fallthrough -Wswitch-enum -Wpointer-arith -Wwrite-strings -Wcast-qual \
         -Wundef -Wdouble-promotion -Wformat=2 -Wnull-dereference -Werror
FLAGS.release := -O2 -D_FORTIFY_SOURCE=2 -fstack-protector-strong
FLAGS.asan    := -g1 -O1 -fsanitize=address,undefined -fno-sanitize-recover=all
FLAGS.tsan    := -g1 -O1 -fsanitize=thread
# One short line per step; V=1: the commands themselves.
SAY := $(if $(V),,@)echo
# libFuzzer is clang's; the other modes are where warnings are judged.
FLAGS.fuzz    := -O1 -fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=all -w
ifeq ($(MODE),fuzz)
CC    := clang
endif
# wolfSSL and snappy-c come without usable pkg-config lines for C; llhttp is built from source.
CFLAGS += -std=c11 -D_GNU_SOURCE -g -fno-omit-frame-pointer -pthread $(WARN) $(FLAGS.$(MODE)) \
          -I. -I$(O)/gen $(shell pkg-config --cflags-only-I $(PKGS) 2>/dev/null | sed 's/-I/-isystem /g')
LDFLAGS += -pthread $(filter -fsanitize%,$(FLAGS.$(MODE)))
LDLIBS += $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lrocksdb -lsnappy -lcrypt -lm

SRC   := $(filter-out server/main.c,$(shell find $(ONLY) -name '*.c' 2>/dev/null))
OBJ   := $(SRC:%.c=$(O)/%.o)
LIB   := $(O)/libsluice.a
UNIT  := $(foreach d,$(ONLY),$(shell find tests/unit/$(d) -name '*_test.c' 2>/dev/null))
UNIT_BINS := $(UNIT:%.c=$(O)/%)

all: $(O)/sluiced $(O)/sluice $(O)/sluice-bench

include $(wildcard protocols/*/build.mk tests/build.mk tools/*/build.mk)

$(LIB): $(OBJ)
	@rm -f $@; ar rcs $@ $^
$(O)/sluiced: $(O)/server/main.o $(LIB)
	$(SAY) '  LD $@'; $(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)
$(O)/%.o: %.c $(O)/.flags
	@mkdir -p $(@D)
	$(SAY) '  CC $<'; $(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<
$(O)/tests/unit/%: $(O)/tests/unit/%.o $(LIB)
	$(SAY) '  LD $@'; $(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS) $(shell pkg-config --libs check)

# What is built depends on the flags as well as on the files: on everybody's, not on those that the
# first who asks for this one has of its own.
BUILT_WITH := $(CC) $(CFLAGS)
$(O)/.flags: FORCE
	@mkdir -p $(@D); echo '$(BUILT_WITH)' | cmp -s - $@ || echo '$(BUILT_WITH)' > $@

unit: $(UNIT_BINS)
	@set -e; for t in $(UNIT_BINS); do CK_VERBOSITY=minimal $$t; done
unit-bins: $(UNIT_BINS)
list-unit-bins:
	@printf '%s\n' $(UNIT_BINS)

run:
	@tools/setup
	@$(MAKE) --no-print-directory -j$(JOBS) MODE=release all
	@SLUICE_BIN=$(BUILD)/release tools/run $(ARGS)
demo:
	@tools/setup
	@$(MAKE) --no-print-directory -j$(JOBS) MODE=release all
	@SLUICE_BIN=$(BUILD)/release tools/demo $(ARGS)
test:
	@SLUICE_SETUP=test tools/setup
	@BUILD=$(BUILD) JOBS=$(JOBS) tools/test
check:
	@tools/check
bench:
	@tools/setup
	@$(MAKE) --no-print-directory -j$(JOBS) MODE=release all
	@$(MAKE) --no-print-directory -s forgetfs >/dev/null 2>&1 || : # without fuse one line lacks
	@tools/bench/run $(ARGS)
install: all
	install -d $(addprefix $(DESTDIR),$(PREFIX)/bin /etc/sluice $(PREFIX)/lib/systemd/system)
	install -m 755 $(O)/sluiced $(O)/sluice $(DESTDIR)$(PREFIX)/bin/
	install -d $(DESTDIR)$(PREFIX)/share/doc/sluice/docs
	install -m 644 README.md CHANGELOG.md $(DESTDIR)$(PREFIX)/share/doc/sluice/
	install -m 644 docs/*.md $(DESTDIR)$(PREFIX)/share/doc/sluice/docs/
	sed 's,@PREFIX@,$(PREFIX),g' deploy/sluiced.service \
	    > $(DESTDIR)$(PREFIX)/lib/systemd/system/sluiced.service
	[ -e $(DESTDIR)/etc/sluice/sluice.conf ] || \
	    deploy/sample-config $(O)/sluiced > $(DESTDIR)/etc/sluice/sluice.conf
clean:
	rm -rf $(BUILD)
FORCE:
.PHONY: all unit unit-bins list-unit-bins run demo test check bench install clean FORCE
.SECONDARY:
.DELETE_ON_ERROR:
-include $(OBJ:.o=.d) $(O)/server/main.d $(UNIT_BINS:=.d)
