/* Changes of the catalogue as bytes, so that the leader of the meta group can decide them on any
 * node. Pure; checked like a peer's input.
 *
 *	change    version 1, kind 1, flags 1 (1 check only, 2 force, 4 limits), name, partitions 8,
 *	          replicas 8, settings 2 {key, has 1, value}, node 4, state 1,
 *	          places 2 {group 8, voters 1, nodes 1 {node 4}}, has node 1 {node row: length 4}
 *	          only of kind META_DOCS: none, documents 2 {key, only 1, flags 1 (1 has a value,
 *	          2 has a before), value, before}
 *	          limits, if said: 1 {of 1, most 8, prefix, what}
 *	founding  version 1, cluster row {length 4}, node 4, node row {length 4}
 *	joined    cluster 16, replica 8
 *
 * A name, key or value is {length 4, text}. */
#include "cluster/meta.h"
#include "server/base/mem.h"

enum {
	VERSION = 1,
	FLAG_CHECK = 1,
	FLAG_FORCE = 2,
	FLAG_LIMITS = 4,
	FLAG_VALUE = 1,
	FLAG_BEFORE = 2,
	VALUE_BYTES_MAX = 64 << 10,
	DOC_BYTES_MIN = 14,
	LIMIT_BYTES_MIN = 17,
	LIMIT_WORD_MAX = 32,
	LIMITS_BYTES_MAX = 1 +
		META_LIMITS_MAX * (LIMIT_BYTES_MIN + LIMIT_WORD_MAX + CATALOG_DOC_KEY_MAX)
};

static void add_text(struct buf *out, const char *text)
{
	struct bytes b = bytes_text(text != NULL ? text : "");

	buf_add_u32be(out, (uint32_t)b.len);
	buf_add(out, b);
}

static char *read_text(struct rd *r)
{
	struct bytes b = rd_take(r, rd_u32be(r));

	if (r->err == OK && (b.len > VALUE_BYTES_MAX || (b.len > 0 && memchr(b.at, 0, b.len))))
		rd_fail(r, ERR_MALFORMED);
	return r->err == OK ? mem_text(b.at, b.len) : NULL;
}

/* A row inside: its length is filled in when it is there. */
static void add_row(struct buf *out, struct buf *row)
{
	if (row->err != OK && out->err == OK)
		out->err = row->err;
	buf_add_u32be(out, (uint32_t)buf_len(row));
	buf_add(out, buf_bytes(row));
	buf_clear(row);
}

static void add_node_row(struct buf *out, const struct meta_node *n)
{
	struct buf row;

	buf_init(&row, 1 << 20);
	meta_node_encode(n, &row);
	add_row(out, &row);
	buf_fini(&row);
}

static void add_docs(struct buf *out, const struct meta_request *q)
{
	buf_add_bytes32(out, q->docs_none);
	buf_add_u16be(out, (uint16_t)q->doc_count);
	for (int i = 0; i < q->doc_count; i++) {
		const struct meta_doc *d = &q->docs[i];

		buf_add_bytes32(out, d->key);
		buf_add_u8(out, (uint8_t)d->only);
		buf_add_u8(out,
			(uint8_t)((d->value.at != NULL ? FLAG_VALUE : 0) |
				(d->before.at != NULL ? FLAG_BEFORE : 0)));
		buf_add_bytes32(out, d->value);
		buf_add_bytes32(out, d->before);
	}
}

static void add_limits(struct buf *out, const struct meta_request *q)
{
	buf_add_u8(out, (uint8_t)q->limit_count);
	for (int i = 0; i < q->limit_count; i++) {
		buf_add_u8(out, (uint8_t)q->limits[i].of);
		buf_add_u64be(out, (uint64_t)q->limits[i].most);
		buf_add_bytes32(out, q->limits[i].prefix);
		buf_add_bytes32(out, q->limits[i].what);
	}
}

void meta_request_encode(const struct meta_request *q, struct buf *out)
{
	buf_add_u8(out, VERSION);
	buf_add_u8(out, (uint8_t)q->kind);
	buf_add_u8(out,
		(uint8_t)((q->check_only ? FLAG_CHECK : 0) | (q->force ? FLAG_FORCE : 0) |
			(q->limit_count > 0 ? FLAG_LIMITS : 0)));
	add_text(out, q->name);
	buf_add_u64be(out, (uint64_t)q->partitions);
	buf_add_u64be(out, (uint64_t)q->replicas);
	buf_add_u16be(out, (uint16_t)q->setting_count);
	for (int i = 0; i < q->setting_count; i++) {
		add_text(out, q->settings[i].key);
		buf_add_u8(out, q->settings[i].value != NULL);
		add_text(out, q->settings[i].value);
	}
	buf_add_u32be(out, q->node_id);
	buf_add_u8(out, (uint8_t)q->node_state);
	buf_add_u16be(out, (uint16_t)q->place_count);
	for (int i = 0; i < q->place_count; i++) {
		const struct meta_asked_place *p = &q->places[i];

		buf_add_u64be(out, p->group);
		buf_add_u8(out, (uint8_t)p->voters);
		buf_add_u8(out, (uint8_t)p->count);
		for (int k = 0; k < p->count; k++)
			buf_add_u32be(out, p->nodes[k]);
	}
	buf_add_u8(out, q->node != NULL);
	if (q->node != NULL)
		add_node_row(out, q->node);
	if (q->kind == META_DOCS)
		add_docs(out, q);
	if (q->limit_count > 0)
		add_limits(out, q);
}

static void read_settings(struct rd *r, struct meta_request *q)
{
	uint32_t count = rd_count(r, rd_u16be(r), 9);

	if (count > META_SETTINGS_MAX)
		rd_fail(r, ERR_MALFORMED);
	if (r->err != OK)
		return;
	q->settings = mem_new((count + 1) * sizeof *q->settings);
	for (uint32_t i = 0; i < count && r->err == OK; i++) {
		struct stream_setting *s = &q->settings[q->setting_count++];
		bool has;

		s->key = read_text(r);
		has = rd_u8(r) != 0;
		s->value = read_text(r);
		if (!has) {
			mem_free((void *)(uintptr_t)s->value);
			s->value = NULL;
		}
	}
}

static void read_places(struct rd *r, struct meta_request *q)
{
	uint32_t count = rd_count(r, rd_u16be(r), 10);

	if (count > META_PLACES_MAX)
		rd_fail(r, ERR_MALFORMED);
	if (r->err != OK)
		return;
	q->places = mem_new((count + 1) * sizeof *q->places);
	for (uint32_t i = 0; i < count && r->err == OK; i++) {
		struct meta_asked_place *p = &q->places[q->place_count++];

		p->group = rd_u64be(r);
		p->voters = rd_u8(r);
		p->count = (int)rd_count(r, rd_u8(r), 4);
		if (p->count == 0 || p->count > META_MEMBERS_MAX || p->voters > p->count)
			rd_fail(r, ERR_MALFORMED);
		for (int k = 0; r->err == OK && k < p->count; k++)
			p->nodes[k] = rd_u32be(r);
	}
}

static enum err read_node_row(struct rd *r, struct meta_node **out)
{
	struct bytes row = rd_take(r, rd_u32be(r));

	if (r->err == OK && meta_node_decode(row, out) != OK)
		rd_fail(r, ERR_MALFORMED);
	return r->err;
}

/* Bytes of a document that are there, or not. */
static struct bytes read_part(struct rd *r, bool there)
{
	struct bytes b = rd_bytes32(r);

	if (there)
		return bytes_of(b.at != NULL ? b.at : r->at, b.len); /* empty is not absent */
	if (b.len > 0)
		rd_fail(r, ERR_MALFORMED);
	return bytes_of(NULL, 0);
}

static void read_doc(struct rd *r, struct meta_doc *d)
{
	uint8_t only, flags;

	d->key = rd_bytes32(r);
	only = rd_u8(r);
	flags = rd_u8(r);
	d->value = read_part(r, flags & FLAG_VALUE);
	d->before = read_part(r, flags & FLAG_BEFORE);
	if (only > DOC_SAME || flags > (FLAG_VALUE | FLAG_BEFORE))
		rd_fail(r, ERR_MALFORMED);
	d->only = only;
}

static void read_docs(struct rd *r, struct meta_request *q)
{
	uint32_t count;

	if (rd_left(r) > CATALOG_CHANGE_BYTES_MAX + CATALOG_CHANGE_DOCS_MAX * DOC_BYTES_MIN +
			LIMITS_BYTES_MAX)
		rd_fail(r, ERR_MALFORMED);
	q->docs_none = rd_bytes32(r);
	count = rd_count(r, rd_u16be(r), DOC_BYTES_MIN);
	if (count > CATALOG_CHANGE_DOCS_MAX)
		rd_fail(r, ERR_MALFORMED);
	if (r->err != OK)
		return;
	q->docs = mem_new((count + 1) * sizeof *q->docs);
	for (uint32_t i = 0; i < count && r->err == OK; i++)
		read_doc(r, &q->docs[q->doc_count++]);
}

static void read_limits(struct rd *r, struct meta_request *q)
{
	uint32_t count = rd_count(r, rd_u8(r), LIMIT_BYTES_MIN);

	if (count == 0 || count > META_LIMITS_MAX)
		rd_fail(r, ERR_MALFORMED);
	if (r->err != OK)
		return;
	q->limits = mem_new(count * sizeof *q->limits);
	for (uint32_t i = 0; i < count && r->err == OK; i++) {
		struct meta_limit *l = &q->limits[q->limit_count++];
		uint8_t of = rd_u8(r);

		l->of = of;
		l->most = (int64_t)rd_u64be(r);
		l->prefix = rd_bytes32(r);
		l->what = rd_bytes32(r);
		if (of > LIMIT_DOCS || l->most < 0 || l->prefix.len > CATALOG_DOC_KEY_MAX ||
			l->what.len > LIMIT_WORD_MAX)
			rd_fail(r, ERR_MALFORMED);
	}
}

enum err meta_request_decode(struct bytes in, struct meta_request **out)
{
	struct meta_request *q = mem_new(sizeof *q);
	struct rd r = rd_over(in);
	uint8_t flags, state;

	if (rd_u8(&r) != VERSION)
		rd_fail(&r, ERR_MALFORMED);
	q->kind = rd_u8(&r);
	flags = rd_u8(&r);
	q->check_only = flags & FLAG_CHECK;
	q->force = flags & FLAG_FORCE;
	q->name = read_text(&r);
	q->partitions = (int64_t)rd_u64be(&r);
	q->replicas = (int64_t)rd_u64be(&r);
	read_settings(&r, q);
	q->node_id = rd_u32be(&r);
	state = rd_u8(&r);
	if (state > NODE_REMOVED)
		rd_fail(&r, ERR_MALFORMED);
	q->node_state = (enum node_state)state;
	read_places(&r, q);
	if (rd_u8(&r) != 0 && read_node_row(&r, &q->node) == OK)
		q->node->id = q->node_id;
	if (q->kind == META_DOCS)
		read_docs(&r, q);
	if (flags & FLAG_LIMITS)
		read_limits(&r, q);
	if (rd_done(&r) != OK) {
		meta_request_free(q);
		return ERR_MALFORMED;
	}
	*out = q;
	return OK;
}

void meta_request_free(struct meta_request *q)
{
	if (q == NULL)
		return;
	for (int i = 0; i < q->setting_count; i++)
		meta_setting_fini(&q->settings[i]);
	mem_free(q->settings);
	mem_free(q->places);
	mem_free(q->docs);
	mem_free(q->limits);
	mem_free(q->name);
	meta_node_free(q->node);
	mem_free(q);
}

void meta_founding_encode(const struct meta_founding *f, struct buf *out)
{
	struct buf row;

	buf_add_u8(out, VERSION);
	buf_init(&row, 1000);
	meta_cluster_encode(&f->cluster, &row);
	add_row(out, &row);
	buf_fini(&row);
	buf_add_u32be(out, f->node->id);
	add_node_row(out, f->node);
}

enum err meta_founding_decode(struct bytes in, struct meta_founding *out)
{
	struct rd r = rd_over(in);
	uint32_t id;

	*out = (struct meta_founding){0};
	if (rd_u8(&r) != VERSION)
		rd_fail(&r, ERR_MALFORMED);
	if (meta_cluster_decode(rd_take(&r, rd_u32be(&r)), &out->cluster) != OK)
		rd_fail(&r, ERR_MALFORMED);
	id = rd_u32be(&r);
	if (read_node_row(&r, &out->node) == OK)
		out->node->id = id;
	if (rd_done(&r) != OK) {
		meta_founding_fini(out);
		return ERR_MALFORMED;
	}
	return OK;
}

void meta_founding_fini(struct meta_founding *f)
{
	meta_node_free(f->node);
	*f = (struct meta_founding){0};
}

void meta_joined_encode(const struct meta_joined *j, struct buf *out)
{
	buf_add(out, bytes_of(j->cluster, sizeof j->cluster));
	buf_add_u64be(out, j->replica);
}

enum err meta_joined_decode(struct bytes in, struct meta_joined *out)
{
	struct rd r = rd_over(in);
	struct bytes id = rd_take(&r, sizeof out->cluster);

	out->replica = rd_u64be(&r);
	if (r.err == OK)
		memcpy(out->cluster, id.at, sizeof out->cluster);
	return rd_done(&r);
}
