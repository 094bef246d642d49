/* The C library's allocator was a quarter of a seed's time. One thread, and a process that ends
 * with its seed: so blocks of a class of sizes go back to a list of their own, new ones come from
 * the front of one large mapping, and nothing is ever given back. A block that is freed twice, or
 * written to when it is free, ends the seed; its first bytes are made useless to who reads them.
 * Sanitizers bring their own. */
#ifndef __SANITIZE_ADDRESS__
#include <errno.h>
#include <malloc.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { HEAD = 16, SMALL = 1024, STEP = 16, CLASSES = 512, FREE = 1 << 30, SPOILT = 64 };
static const size_t arena_bytes = (size_t)64 << 30; /* of addresses; pages come when touched */

struct head {              /* before each block; when it is free, next lies in it */
	uint32_t at_class; /* | FREE */
	uint32_t back;     /* from an aligned block to its own head's */
	uint64_t bytes;
};
_Static_assert(sizeof(struct head) == HEAD, "blocks stay aligned");

struct freed {
	struct freed *next;
	uintptr_t check; /* ~next */
};

static struct freed *lists[CLASSES];
static uint8_t *front, *end;

/* Up to 1 KiB in steps of 16, above four classes to each power of two. */
static uint32_t class_of(size_t size, uint64_t *bytes)
{
	uint32_t power, quarter;

	if (size <= SMALL) {
		*bytes = size == 0 ? STEP : (size + STEP - 1) & ~(size_t)(STEP - 1);
		return (uint32_t)(*bytes / STEP);
	}
	power = 63u - (uint32_t)__builtin_clzll(size - 1);
	quarter = (uint32_t)((size - 1) >> (power - 2)) & 3;
	*bytes = (uint64_t)(5 + quarter) << (power - 2);
	return SMALL / STEP + (power - 10) * 4 + quarter + 1;
}

static void *take(size_t size, size_t *fresh)
{
	uint64_t bytes;
	uint32_t at_class;
	struct head *h;

	if (size > arena_bytes / 2) {
		errno = ENOMEM;
		return NULL;
	}
	at_class = class_of(size, &bytes);
	*fresh = 0;
	if (lists[at_class] != NULL) {
		struct freed *f = lists[at_class];

		h = (struct head *)(void *)f - 1;
		if (f->check != ~(uintptr_t)f->next || h->at_class != (at_class | FREE))
			abort();
		h->at_class = at_class;
		lists[at_class] = f->next;
		return f;
	}
	if (front == NULL) {
		front = mmap(NULL, arena_bytes, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (front == MAP_FAILED)
			_exit(70);
		end = front + arena_bytes;
	}
	if ((size_t)(end - front) < HEAD + bytes)
		_exit(70);
	h = (struct head *)(void *)front;
	front += HEAD + bytes;
	*h = (struct head){.at_class = at_class, .bytes = bytes};
	*fresh = 1;
	return h + 1;
}

static struct head *head_of(void *p)
{
	struct head *h = (struct head *)p - 1;

	return h->back != 0 ? (struct head *)(void *)((uint8_t *)h - h->back) : h;
}

void *malloc(size_t size)
{
	size_t fresh;

	return take(size, &fresh);
}

void free(void *p)
{
	struct head *h;
	struct freed *f;

	if (p == NULL)
		return;
	h = head_of(p);
	f = (struct freed *)(void *)(h + 1);
	if (h->at_class & FREE)
		abort();
	memset(f, 0xdd, h->bytes < SPOILT ? h->bytes : SPOILT);
	f->next = lists[h->at_class];
	f->check = ~(uintptr_t)f->next;
	lists[h->at_class] = f;
	h->at_class |= FREE;
}

void *calloc(size_t n, size_t size)
{
	size_t all, fresh = 0;
	void *p;

	if (__builtin_mul_overflow(n, size, &all)) {
		errno = ENOMEM;
		return NULL;
	}
	p = take(all, &fresh);
	if (p != NULL && !fresh)
		memset(p, 0, all);
	return p;
}

static size_t room_of(void *p)
{
	struct head *h = head_of(p);

	return (size_t)((uint8_t *)(h + 1) + h->bytes - (uint8_t *)p);
}

void *realloc(void *old, size_t size)
{
	void *p;

	if (old != NULL && size <= room_of(old))
		return old;
	p = malloc(size);
	if (p != NULL && old != NULL) {
		memcpy(p, old, room_of(old));
		free(old);
	}
	return p;
}

void *aligned_alloc(size_t alignment, size_t size)
{
	uint8_t *p = malloc(size + alignment + HEAD), *at = p;

	if (p == NULL || alignment <= HEAD)
		return p;
	at += HEAD;
	at += -(uintptr_t)at & (alignment - 1);
	((struct head *)(void *)at - 1)->back = (uint32_t)(at - p);
	return at;
}

int posix_memalign(void **out, size_t alignment, size_t size)
{
	*out = aligned_alloc(alignment, size);
	return *out == NULL ? ENOMEM : 0;
}

size_t malloc_usable_size(void *p)
{
	return p == NULL ? 0 : room_of(p);
}
#endif
