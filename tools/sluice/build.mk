# The command line: an HTTP client with libcurl, and of the server only what its base gives.
SLUICE_SRC := $(wildcard tools/sluice/*.c)
SLUICE_OBJ := $(SLUICE_SRC:%.c=$(O)/%.o)

$(SLUICE_OBJ): CFLAGS += $(shell pkg-config --cflags-only-I libcurl 2>/dev/null)
$(O)/sluice: $(SLUICE_OBJ) $(LIB)
	$(SAY) '  LD $@'; $(CC) $(LDFLAGS) -o $@ $^ $(shell pkg-config --libs libcurl libcjson libisal)

# Its tests run with everybody's, and alone: make unit ONLY="server/base tools/sluice".
SLUICE_TEST := $(O)/tests/unit/tools/sluice/sluice_test
ifneq ($(filter protocols tools/sluice,$(ONLY)),)
UNIT_BINS += $(SLUICE_TEST)
endif
$(SLUICE_TEST): $(SLUICE_TEST).o $(filter-out %/main.o,$(SLUICE_OBJ)) $(LIB)
	$(CC) $(LDFLAGS) -o $@ $^ $(shell pkg-config --libs libcurl libcjson libisal check)

-include $(SLUICE_OBJ:.o=.d)

# The reference of all keys, from the rows of the modules.
docs: $(O)/sluiced
	@$(O)/sluiced --help-config > $(O)/configuration.md
	@mv $(O)/configuration.md docs/configuration.md
check-docs: $(O)/sluiced
	@$(O)/sluiced --help-config | cmp -s - docs/configuration.md || \
	    { echo 'docs/configuration.md is old: make docs' >&2; exit 1; }
.PHONY: docs check-docs
