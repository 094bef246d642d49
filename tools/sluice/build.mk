# The command line: an HTTP client with libcurl, and of the server only what its base gives.
SLUICE_SRC := $(wildcard tools/sluice/*.c)
SLUICE_OBJ := $(SLUICE_SRC:%.c=$(O)/%.o)

$(SLUICE_OBJ): CFLAGS += $(shell pkg-config --cflags-only-I libcurl 2>/dev/null)
$(O)/sluice: $(SLUICE_OBJ) $(LIB)
	$(CC) $(LDFLAGS) -o $@ $^ $(shell pkg-config --libs libcurl libcjson libisal)

-include $(SLUICE_OBJ:.o=.d)
