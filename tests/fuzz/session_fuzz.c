/* Any bytes as a session's row, a cursor, a will, or what a table answers: the first byte says as
 * which. What is taken can be walked through, and a row comes back as it was. */
#include <stdlib.h>
#include "server/broker/session_ask.h"
#include "server/broker/will.h"

static void need(bool holds)
{
	if (!holds)
		abort();
}

static void walk_row(struct bytes in)
{
	struct session_row row, head;
	struct session_row_sub sub;
	struct buf again;
	uint32_t count = 0;
	if (session_row_read(in, &row) != OK)
		return;
	need(session_row_head(in, &head) == OK && head.epoch == row.epoch);
	for (uint32_t i = 0; i < row.group_count; i++)
		(void)session_row_group(&row, i);
	struct bytes rest = row.subscriptions;
	for (; session_row_next(&rest, &sub); count++)
		for (uint32_t i = 0; i < sub.start_count; i++)
			(void)session_row_start(&sub, i);
	need(count == row.subscription_count);
	buf_init(&again, 1 << 20);
	session_row_again(&again, &row);
	need(again.err == OK && session_row_read(buf_bytes(&again), &head) == OK);
	need(in.at[0] != 3 || bytes_equal(in, buf_bytes(&again))); /* 2: an older form */
	buf_fini(&again);
}

static void walk_cursor(struct bytes in)
{
	struct cursor_row row;
	if (cursor_row_read(in, &row) != OK)
		return;
	for (uint32_t i = 0; i < row.position_count; i++)
		(void)cursor_row_position_at(&row, i);
	for (uint32_t i = 0; i < row.inflight_count; i++)
		(void)cursor_row_inflight_at(&row, i);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct session_claim_reply reply;
	struct bytes groups, will;
	struct will w;
	uint32_t count;
	if (size == 0)
		return 0;
	struct bytes in = bytes_of(data + 1, size - 1);
	switch (data[0] % 5) {
	case 0: walk_row(in); break;
	case 1: walk_cursor(in); break;
	case 2: need(will_read(in, &w) != OK || w.batch.len < in.len); break;
	case 3:
		if (session_claim_reply_read(in, &reply) == OK)
			walk_row(reply.row);
		break;
	case 4:
		if (session_taken_read(in, &count, &groups, &will) == OK)
			need(groups.len == (size_t)count * 8);
		break;
	}
	return 0;
}
