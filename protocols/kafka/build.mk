# The message structs and tables of Kafka's protocol are made from kafka_schema.txt.
KAFKA_GEN  := $(O)/gen/protocols/kafka
KAFKA_OBJ  := $(filter $(O)/protocols/kafka/%,$(OBJ))
KAFKA_TEST := $(patsubst %.c,$(O)/%.o,$(filter tests/unit/protocols/kafka/%,$(UNIT)))
KAFKA_FUZZ := $(patsubst %.c,$(O)/%.o,$(wildcard tests/fuzz/kafka_*_fuzz.c))

ifneq ($(KAFKA_OBJ),)
OBJ += $(KAFKA_GEN)/kafka_schema.o
endif

# Before the first build there are no .d files to tell who includes the header.
$(KAFKA_OBJ) $(KAFKA_TEST) $(KAFKA_FUZZ): | $(KAFKA_GEN)/kafka_schema.h

$(KAFKA_GEN)/kafka_schema.h $(KAFKA_GEN)/kafka_schema.c &: \
		protocols/kafka/kafka_schema.txt protocols/kafka/gen_schema.py
	@mkdir -p $(KAFKA_GEN)
	$(SAY) '  GEN $<'; $(PY) protocols/kafka/gen_schema.py $< $(KAFKA_GEN)/kafka_schema.h $(KAFKA_GEN)/kafka_schema.c
$(KAFKA_GEN)/kafka_schema.o: $(KAFKA_GEN)/kafka_schema.c $(KAFKA_GEN)/kafka_schema.h $(O)/.flags
	$(SAY) '  CC $<'; $(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<
