/* Slots are pushed to a list that only grows and are used again by later groups, so setting one
 * is a store of one word and needs no lock: 24 bits of generation above 40 bits of index. A torn
 * view is not possible, a stale one (by a second) is what the file is anyway.
 *
 * The file: "SLUICES1", sequence 8, count 4, then per group {group 8, word 8}, CRC-32C 4. It is
 * written beside and renamed, so that it is whole or the one before. */
#include "storage/side.h"
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include "server/base/buf.h"
#include "server/base/crc32c.h"
#include "server/base/map.h"
#include "server/base/mem.h"

enum {
	MAGIC_BYTES = 8,
	SIDE_HEAD_BYTES = 20,
	GROUP_BYTES = 16,
	CRC_BYTES = 4,
	FILE_BYTES_MAX = 64 << 20, /* four million groups */
	INDEX_BITS = 40
};
static const char magic[MAGIC_BYTES + 1] = "SLUICES1";

struct side_slot {
	struct side_slot *next;
	_Atomic bool used;
	_Atomic uint64_t group;
	_Atomic uint64_t word; /* 0: says nothing */
};

struct said { /* by the file */
	uint64_t group, word;
};

struct side {
	char *path, *new_path, *dir;
	_Atomic(struct side_slot *) slots;
	uint64_t sequence; /* what the file says */
	struct said *said;
	uint32_t said_count;
	struct map by_group; /* -> said */
	uint64_t written_hash;
};

static uint64_t word_of(uint32_t generation, uint64_t index)
{
	return (uint64_t)(generation & 0xffffff) << INDEX_BITS |
		(index & ((1ull << INDEX_BITS) - 1));
}

static char *joined(const char *dir, const char *name)
{
	size_t len = strlen(dir) + strlen(name) + 2;
	char *path = mem_new(len);

	snprintf(path, len, "%s/%s", dir, name);
	return path;
}

static enum err side_decode(struct side *s, struct bytes in)
{
	struct rd r;
	uint32_t count;

	if (in.len < SIDE_HEAD_BYTES + CRC_BYTES ||
		crc32c(bytes_of(in.at, in.len - CRC_BYTES)) !=
			get_u32be(in.at + in.len - CRC_BYTES))
		return ERR_CORRUPT;
	r = rd_over(bytes_of(in.at, in.len - CRC_BYTES));
	if (!bytes_equal(rd_take(&r, MAGIC_BYTES), bytes_of(magic, MAGIC_BYTES)))
		return ERR_CORRUPT;
	s->sequence = rd_u64be(&r);
	count = rd_count(&r, rd_u32be(&r), GROUP_BYTES);
	s->said = mem_try(count * sizeof *s->said + 1);
	if (s->said == NULL)
		return ERR_NOMEM;
	for (uint32_t i = 0; i < count; i++) {
		s->said[i].group = rd_u64be(&r);
		s->said[i].word = rd_u64be(&r);
		map_put_u64(&s->by_group, s->said[i].group, &s->said[i]);
	}
	s->said_count = count;
	return rd_done(&r) == OK ? OK : ERR_CORRUPT;
}

static enum err side_read(struct side *s)
{
	int fd = open(s->path, O_RDONLY | O_CLOEXEC);
	enum err e = ERR_IO;
	struct stat st;
	uint8_t *at;

	if (fd < 0)
		return errno == ENOENT ? OK : ERR_IO;
	if (fstat(fd, &st) == 0 && st.st_size <= FILE_BYTES_MAX) {
		at = mem_try((size_t)st.st_size + 1);
		if (at == NULL)
			e = ERR_NOMEM;
		else if (read(fd, at, (size_t)st.st_size) == st.st_size)
			e = side_decode(s, bytes_of(at, (size_t)st.st_size));
		mem_free(at);
	}
	close(fd);
	return e;
}

enum err side_open(const char *dir, struct side **out)
{
	struct side *s = mem_new(sizeof *s);
	enum err e;

	s->dir = mem_text(dir, strlen(dir));
	s->path = joined(dir, "side");
	s->new_path = joined(dir, "side.new");
	e = side_read(s);
	if (e != OK)
		side_close(s);
	else
		*out = s;
	return e;
}

void side_close(struct side *s)
{
	struct side_slot *next;

	if (s == NULL)
		return;
	for (struct side_slot *slot = atomic_load(&s->slots); slot != NULL; slot = next) {
		next = slot->next;
		mem_free(slot);
	}
	map_fini(&s->by_group);
	mem_free(s->said);
	mem_free(s->path);
	mem_free(s->new_path);
	mem_free(s->dir);
	mem_free(s);
}

uint64_t side_sequence(const struct side *s)
{
	return s->sequence;
}

bool side_behind(const struct side *s, uint64_t group, uint32_t generation, uint64_t last_index)
{
	const struct said *said = map_get_u64(&s->by_group, group);

	return said != NULL && said->word >> INDEX_BITS == (generation & 0xffffff) &&
		said->word > word_of(generation, last_index);
}

struct side_slot *side_slot_new(struct side *s, uint64_t group)
{
	struct side_slot *slot = atomic_load(&s->slots);
	bool unused = false;

	for (; slot != NULL; slot = slot->next, unused = false) {
		if (atomic_compare_exchange_strong(&slot->used, &unused, true))
			break;
	}
	if (slot == NULL) {
		slot = mem_new(sizeof *slot);
		atomic_store(&slot->used, true);
		slot->next = atomic_load(&s->slots);
		while (!atomic_compare_exchange_weak(&s->slots, &slot->next, slot))
			;
	}
	atomic_store(&slot->group, group);
	return slot;
}

void side_slot_set(struct side_slot *slot, uint32_t generation, uint64_t index)
{
	atomic_store_explicit(&slot->word, word_of(generation, index), memory_order_relaxed);
}

void side_slot_free(struct side_slot *slot)
{
	if (slot == NULL)
		return;
	atomic_store(&slot->word, 0);
	atomic_store(&slot->used, false);
}

static void side_encode(struct side *s, uint64_t sequence, struct buf *b)
{
	uint32_t count = 0;
	uint8_t *head;

	buf_add(b, bytes_of(magic, MAGIC_BYTES));
	buf_add_u64be(b, sequence);
	buf_add_u32be(b, 0);
	for (struct side_slot *slot = atomic_load(&s->slots); slot != NULL; slot = slot->next) {
		uint64_t word = atomic_load_explicit(&slot->word, memory_order_relaxed);

		if (word == 0)
			continue;
		buf_add_u64be(b, atomic_load(&slot->group));
		buf_add_u64be(b, word);
		count++;
	}
	if (b->err != OK)
		return;
	head = b->chunk->data + b->start;
	put_u32be(head + MAGIC_BYTES + 8, count);
	buf_add_u32be(b, crc32c(buf_bytes(b)));
}

static enum err write_file(const struct side *s, struct bytes bytes)
{
	int fd = open(s->new_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
	enum err e = ERR_IO;

	if (fd < 0)
		return errno == ENOSPC ? ERR_NOSPACE : ERR_IO;
	if (write(fd, bytes.at, bytes.len) == (ssize_t)bytes.len && fdatasync(fd) == 0)
		e = OK;
	else if (errno == ENOSPC)
		e = ERR_NOSPACE;
	close(fd);
	return e;
}

enum err side_write(struct side *s, uint64_t sequence)
{
	struct buf b;
	uint64_t hash;
	enum err e;

	buf_init(&b, FILE_BYTES_MAX);
	side_encode(s, sequence, &b);
	e = b.err;
	if (e == OK) {
		hash = hash_bytes(buf_bytes(&b));
		if (hash != s->written_hash) {
			e = write_file(s, buf_bytes(&b));
			if (e == OK && rename(s->new_path, s->path) != 0)
				e = ERR_IO;
			s->written_hash = e == OK ? hash : s->written_hash;
		}
	}
	buf_fini(&b);
	return e;
}
