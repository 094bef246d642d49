/* Any bytes as a change of one part: both walks end, and give nothing from outside of it. */
#include <stdlib.h>
#include "storage/change.h"

static void inside(struct bytes part, const uint8_t *data, size_t size)
{
	if (part.len > 0 && (part.at < data || part.at + part.len > data + size))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice part = {NULL, bytes_of(data, size)};
	struct entry *e = entry_new(&part, 1);
	struct change_batches batches;
	const struct slice *holder;
	struct change_rows rows;
	struct row_change row;
	struct batch batch;

	if (change_rows_init(&rows, e) == OK) {
		while (change_rows_next(&rows, &row) == OK) {
			inside(row.key, data, size);
			inside(row.value, data, size);
		}
	}
	change_batches_init(&batches, e);
	while (change_batches_next(&batches, &batch, &holder) == OK)
		inside(batch.all, data, size);
	entry_unref(e);
	return 0;
}
