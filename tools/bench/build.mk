# The load generator. It shares nothing with the server but the bounded reader and writer of
# server/base, so that a mistake in one cannot hide the same mistake in the other.
BENCH_SRC := $(filter-out %_test.c,$(wildcard tools/bench/*.c))
BENCH_OBJ := $(BENCH_SRC:%.c=$(O)/%.o)

$(O)/sluice-bench: $(BENCH_OBJ) $(LIB)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

-include $(BENCH_OBJ:.o=.d)
