/* Any bytes as what a table keeps of groups: the group's row, its members, a committed offset. The
 * first byte says as which. Members that are taken make a group that can be written again, and is
 * the same. */
#include <stdlib.h>
#include "server/base/mem.h"
#include "server/broker/group_state.h"
#include "server/broker/group_store.h"

static const struct group_conf conf = {
	.session_ms_min = 1,
	.session_ms_max = 1800000,
	.initial_delay_ms = 10,
	.members_max = 20,
	.bytes_max = 1 << 20,
	.groups_max = 100,
};

static void need(bool holds)
{
	if (!holds)
		abort();
}

static void kept(struct group *g)
{
	(void)g;
}

static enum err members(struct bytes in, struct buf *out)
{
	struct group g;
	group_init(&g, &conf, 7);
	g.store = kept;
	enum err e = group_state_read(&g, in, 1000);
	need(e == OK ? group_size(&g) > 0 : group_size(&g) == 0);
	if (e == OK)
		group_state_write(&g, out);
	group_fini(&g, GROUP_UNAVAILABLE);
	return e;
}

static void walk_members(struct bytes in)
{
	struct buf first, again;
	buf_init(&first, GROUP_STATE_BYTES_MAX);
	buf_init(&again, GROUP_STATE_BYTES_MAX);
	if (members(in, &first) == OK && first.err == OK) {
		need(members(buf_bytes(&first), &again) == OK);
		need(bytes_equal(buf_bytes(&first), buf_bytes(&again)));
	}
	buf_fini(&first);
	buf_fini(&again);
}

static void walk_row(struct bytes in)
{
	struct group_row row;
	struct buf again;
	if (group_row_read(in, &row) != OK)
		return;
	buf_init(&again, 1 << 20);
	group_row_write(&again, &row);
	need(bytes_equal(buf_bytes(&again), in));
	buf_fini(&again);
}

/* The first byte of what is left: how long the key is. */
static void walk_offset(struct bytes in)
{
	struct offsets_found found;
	size_t key = in.len > 0 && in.at[0] < in.len ? in.at[0] : 0;
	if (in.len > key + 1 &&
		group_offset_read(bytes_of(in.at + 1, key),
			bytes_of(in.at + 1 + key, in.len - 1 - key), &found) == OK)
		slice_unref(&found.metadata);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct group_state_row row;
	if (size == 0)
		return 0;
	struct bytes in = bytes_of(data + 1, size - 1);
	switch (data[0] % 4) {
	case 0: walk_row(in); break;
	case 1: walk_members(in); break;
	case 2: walk_offset(in); break;
	default:
		if (group_state_row_read(in, &row) == OK)
			walk_members(row.state);
	}
	return 0;
}
