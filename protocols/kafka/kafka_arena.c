/* Blocks in a list, each at least twice as large as the one before it, up to a limit; a piece
 * larger than that gets a block of its own size. The bound counts whole blocks, so it is a bound
 * of the memory held and not only of what was asked for. */
#include "protocols/kafka/kafka_arena.h"
#include <stdalign.h>
#include "server/base/mem.h"

enum { BLOCK_FIRST = 4096, BLOCK_LAST = 65536, ALIGN = 8 };

struct arena_block {
	alignas(ALIGN) struct arena_block *next;
	size_t size; /* of data */
	uint8_t data[];
};

void arena_init(struct arena *a, size_t max)
{
	*a = (struct arena){.max = max};
}

static void free_newer_than(struct arena *a, const struct arena_block *keep)
{
	while (a->blocks != keep) {
		struct arena_block *b = a->blocks;
		a->blocks = b->next;
		a->held -= b->size;
		mem_free(b);
	}
}

void arena_fini(struct arena *a)
{
	free_newer_than(a, NULL);
	a->at = a->end = NULL;
}

void arena_reset(struct arena *a)
{
	struct arena_block *oldest = a->blocks;
	while (oldest && oldest->next)
		oldest = oldest->next;
	if (oldest && oldest->size > BLOCK_FIRST)
		oldest = NULL;
	free_newer_than(a, oldest);
	a->at = oldest ? oldest->data : NULL;
	a->end = oldest ? oldest->data + oldest->size : NULL;
	a->err = OK;
}

static enum err add_block(struct arena *a, size_t len)
{
	size_t left = a->max - a->held;
	size_t size = a->held < BLOCK_FIRST ? BLOCK_FIRST : a->held;
	if (len > left)
		return ERR_TOOBIG;
	if (size > BLOCK_LAST)
		size = BLOCK_LAST;
	if (size > left)
		size = left;
	if (size < len)
		size = len;
	struct arena_block *b = mem_try(sizeof *b + size);
	if (!b)
		return ERR_NOMEM;
	b->next = a->blocks;
	b->size = size;
	a->blocks = b;
	a->held += size;
	a->at = b->data;
	a->end = b->data + size;
	return OK;
}

void *arena_take(struct arena *a, size_t len)
{
	if (len > SIZE_MAX - ALIGN) {
		a->err = ERR_TOOBIG;
		return NULL;
	}
	len = (len + ALIGN - 1) & ~(size_t)(ALIGN - 1);
	if ((size_t)(a->end - a->at) < len) {
		a->err = add_block(a, len);
		if (a->err != OK)
			return NULL;
	}
	void *p = a->at;
	a->at += len;
	return p;
}
