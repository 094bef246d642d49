# make            build/release/sluiced and build/release/sluice (and the load generator)
# make run        one node in the foreground, data in ./data
# make test       everything: check, unit tests, fuzzing, real clients, faults, sanitizers
# make check      layers, sizes, format
# make bench      the measured table of README.md
# make unit       unit tests only;  make fuzz  short fuzz runs;  make proto  real clients
# MODE=release|asan|tsan   BUILD=dir   ONLY="folders" (compile and unit-test a part)
MODE  ?= release
BUILD ?= build
O     := $(BUILD)/$(MODE)
ONLY  ?= server storage cluster protocols
PREFIX ?= /usr/local
CC    ?= cc
PY    := /usr/bin/python3

PKGS  := libevent libevent_pthreads raft wolfssl zlib liblz4 libzstd libisal libcjson
WARN  := -Wall -Wextra -Wconversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla \
         -Wimplicit-fallthrough -Wswitch-enum -Wpointer-arith -Wwrite-strings -Wcast-qual \
         -Wundef -Wdouble-promotion -Wformat=2 -Wnull-dereference -Werror
FLAGS.release := -O2 -D_FORTIFY_SOURCE=2 -fstack-protector-strong
FLAGS.asan    := -O1 -fsanitize=address,undefined -fno-sanitize-recover=all
FLAGS.tsan    := -O1 -fsanitize=thread
# wolfSSL and snappy-c come without usable pkg-config lines for C; llhttp is built from source.
CFLAGS += -std=c11 -D_GNU_SOURCE -g -fno-omit-frame-pointer -pthread $(WARN) $(FLAGS.$(MODE)) \
          -I. -I$(O)/gen $(shell pkg-config --cflags-only-I $(PKGS) 2>/dev/null | sed 's/-I/-isystem /g')
LDFLAGS += -pthread $(filter -fsanitize%,$(FLAGS.$(MODE)))
LDLIBS += $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lrocksdb -lsnappy -lm

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
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)
$(O)/%.o: %.c $(O)/.flags
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<
$(O)/tests/unit/%: $(O)/tests/unit/%.o $(LIB)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS) $(shell pkg-config --libs check)

# What is built depends on the flags as well as on the files.
$(O)/.flags: FORCE
	@mkdir -p $(@D); echo '$(CC) $(CFLAGS)' | cmp -s - $@ || echo '$(CC) $(CFLAGS)' > $@

unit: $(UNIT_BINS)
	@set -e; for t in $(UNIT_BINS); do CK_VERBOSITY=minimal $$t; done
clean:
	rm -rf $(BUILD)
FORCE:
.PHONY: all unit clean FORCE
.SECONDARY:
.DELETE_ON_ERROR:
-include $(OBJ:.o=.d) $(O)/server/main.d $(UNIT_BINS:=.d)
