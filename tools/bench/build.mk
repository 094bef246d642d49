# The load generator. It shares nothing with the server but the bounded reader and writer of
# server/base, so that a mistake in one cannot hide the same mistake in the other.
BENCH_SRC := $(filter-out %_test.c,$(wildcard tools/bench/*.c))
BENCH_OBJ := $(BENCH_SRC:%.c=$(O)/%.o)

$(O)/sluice-bench: $(BENCH_OBJ) $(LIB)
	$(SAY) '  LD $@'; $(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

# Its tests run with everybody's, and alone: make unit ONLY="server/base tools/bench".
ifneq ($(filter protocols tools/bench,$(ONLY)),)
UNIT_BINS += $(O)/tools/bench/bench_test
endif
$(O)/tools/bench/bench_test: $(O)/tools/bench/bench_test.o \
		$(filter-out %/main.o,$(BENCH_OBJ)) $(LIB)
	$(SAY) '  LD $@'; $(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS) $(shell pkg-config --libs check)

-include $(BENCH_OBJ:.o=.d)
