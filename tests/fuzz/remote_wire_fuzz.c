/* What partitions of other nodes say: the first byte chooses the reader. */
#include "cluster/remote_wire.h"

static void proposals(struct rd r)
{
	struct propose_head h;
	struct propose_item i;

	propose_head_read(&r, &h);
	for (int n = 0; r.err == OK && n < h.count; n++)
		propose_item_read(&r, &i);
}

static void outcomes(struct rd r)
{
	struct propose_answer a;
	struct propose_outcome o;

	propose_answer_read(&r, &a);
	for (int n = 0; r.err == OK && n < a.count; n++)
		propose_outcome_read(&r, &o);
}

static void rows(struct rd r)
{
	struct rows_given g;
	struct row row;

	rows_given_read(&r, &g);
	for (uint32_t n = 0; r.err == OK && n < g.count; n++)
		rows_row_read(&r, &row);
}

static void records(struct rd r, struct slice in)
{
	struct records_given g;
	struct entry *e;

	records_given_read(&r, &g);
	for (int n = 0; r.err == OK && n < g.count; n++) {
		if (records_entry_read(&r, in, 1, &e) != OK)
			return;
		entry_unref(e);
	}
}

static void small(struct bytes in)
{
	struct rows_ask rows_ask;
	struct seek_given seek;
	struct point_given point;
	struct partition_info info;
	struct follow follow;
	struct lead lead;
	struct rd r = rd_over(in);

	(void)(rows_ask_read(in, &rows_ask) == OK);
	(void)(seek_given_read(in, &seek) == OK);
	(void)(point_given_read(in, &point) == OK);
	(void)(info_given_read(in, &info) == OK);
	(void)(follow_read(in, &follow) == OK);
	while (leads_read(&r, &lead))
		;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice s;

	if (size < 1 || slice_copy(bytes_of(data + 1, size - 1), &s) != OK)
		return 0;
	switch (data[0] % 5) {
	case 0: proposals(rd_over(s.bytes)); break;
	case 1: outcomes(rd_over(s.bytes)); break;
	case 2: rows(rd_over(s.bytes)); break;
	case 3: records(rd_over(s.bytes), s); break;
	default: small(s.bytes);
	}
	slice_unref(&s);
	return 0;
}
