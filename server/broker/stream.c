/* Reading for doors that pass stored batches on. A read asks the partition for entries, and the
 * batches in them become slices of the entries' chunks: nothing is copied, and the chunks live
 * until the last socket has taken them. Neighbouring batches of one chunk become one slice. */
#include "server/broker/stream.h"
#include "server/base/mem.h"
#include "storage/change.h"

enum { SLICES_FIRST = 8 };

struct gather {
	struct stream_read *r;
	uint32_t room;
	bool full;
};

static enum err add_batch(struct gather *g, const struct batch *b, const struct slice *holder)
{
	struct stream_read *r = g->r;
	struct slice *last = r->count > 0 ? &r->slices[r->count - 1] : NULL;
	r->bytes += b->all.len;
	r->next_offset = b->base_offset + b->last_offset_delta + 1;
	if (last && last->chunk == holder->chunk && last->bytes.at + last->bytes.len == b->all.at) {
		last->bytes.len += b->all.len;
		return OK;
	}
	if (r->count == g->room) {
		uint32_t room = g->room ? g->room * 2 : SLICES_FIRST;
		struct slice *more = mem_resize(r->slices, room * sizeof *more);
		if (more == NULL)
			return ERR_NOMEM;
		r->slices = more;
		g->room = room;
	}
	r->slices[r->count++] = slice_of(holder->chunk, b->all);
	return OK;
}

static enum err add_entry(struct gather *g, const struct entry *e)
{
	struct change_batches walk;
	struct batch b;
	const struct slice *holder;
	enum err err;
	change_batches_init(&walk, e);
	while (!g->full && (err = change_batches_next(&walk, &b, &holder)) == OK) {
		if (b.base_offset + b.last_offset_delta < g->r->offset)
			continue;
		if (b.base_offset >= g->r->high_watermark ||
			(g->r->count > 0 && g->r->bytes + b.all.len > g->r->bytes_max)) {
			g->full = true;
			return OK;
		}
		err = add_batch(g, &b, holder);
		if (err != OK)
			return err;
	}
	return g->full || err == ERR_NOTFOUND ? OK : ERR_CORRUPT;
}

static void read_on(struct stream_read *r);

/* Compaction may have emptied all that was read: then what follows is the answer. */
static void on_read(struct record_read *rr)
{
	struct stream_read *r = list_entry(rr, struct stream_read, read);
	struct gather g = {.r = r};
	r->err = rr->err;
	r->first_offset = rr->first_offset;
	r->high_watermark = rr->high_watermark;
	for (int i = 0; i < rr->count && r->err == OK && !g.full; i++)
		r->err = add_entry(&g, rr->entries[i]);
	if (r->err != OK)
		stream_read_fini(r);
	bool empty = r->err == OK && r->count == 0 && rr->count > 0;
	int64_t end = empty ? entry_next_offset(&rr->entries[rr->count - 1]->head) : 0;
	record_read_fini(rr);
	if (empty && end > r->next_offset) {
		r->next_offset = end;
		read_on(r);
		return;
	}
	r->done(r);
}

static void read_on(struct stream_read *r)
{
	r->read = (struct record_read){.from = r->from,
		.offset = r->next_offset,
		.bytes_max = r->bytes_max,
		.done = on_read};
	partition_read_records(&r->read);
}

void stream_read(struct stream_read *r)
{
	r->slices = NULL;
	r->count = 0;
	r->bytes = 0;
	r->next_offset = r->offset;
	read_on(r);
}

void stream_read_fini(struct stream_read *r)
{
	for (uint32_t i = 0; i < r->count; i++)
		slice_unref(&r->slices[i]);
	mem_free(r->slices);
	r->slices = NULL;
	r->count = 0;
}

const char *stream_setting(const struct stream *s, const char *key)
{
	for (int i = 0; i < s->setting_count; i++)
		if (strcmp(s->settings[i].key, key) == 0)
			return s->settings[i].value;
	return NULL;
}

int64_t stream_bytes_max(const struct stream *s, const struct broker_conf *conf)
{
	int64_t max = conf->message_bytes_max;
	return s->message_bytes_max > 0 && s->message_bytes_max < max ? s->message_bytes_max : max;
}

bool stream_append_time(const struct stream *s)
{
	const char *type = stream_setting(s, "message.timestamp.type");
	return type != NULL && strcmp(type, "LogAppendTime") == 0;
}

struct partition *stream_partition(const struct stream *s, int64_t index)
{
	return index >= 0 && index < s->partition_count ? s->partitions[index] : NULL;
}
