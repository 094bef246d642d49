# llhttp comes as C sources (package node-llhttp), compiled here with its strict mode on and
# without our warnings, which are not its own.
LLHTTP     := /usr/share/llhttp
LLHTTP_OBJ := $(patsubst %,$(O)/llhttp/%.o,api http llhttp)
HTTP_OBJ   := $(filter $(O)/protocols/http/%,$(OBJ))
HTTP_TEST  := $(patsubst %.c,$(O)/%.o,$(filter tests/unit/protocols/http/%,$(UNIT)) \
              $(wildcard tests/fuzz/http_*_fuzz.c))
LLHTTP_INC := -isystem /usr/share/include/llhttp -DLLHTTP_STRICT_MODE=1

ifneq ($(HTTP_OBJ),)
OBJ += $(LLHTTP_OBJ)
endif

$(HTTP_OBJ) $(HTTP_TEST): CFLAGS += $(LLHTTP_INC)
$(LLHTTP_OBJ): $(O)/llhttp/%.o: $(LLHTTP)/%.c $(O)/.flags
	@mkdir -p $(@D)
	$(SAY) '  CC $<'; $(CC) $(filter-out -W%,$(CFLAGS)) $(LLHTTP_INC) -w -c -o $@ $<
