/* Memory comes from the C library's allocator. What this adds is the rule who may fail (see the
 * header) and a countdown per thread that makes one allocation fail, so that tests can walk
 * through every error path. */
#include "server/base/mem.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local int fail_in = -1;

void mem_fail_at(int n)
{
	fail_in = n;
}

static int fails_now(void)
{
	if (fail_in < 0)
		return 0;
	return fail_in-- == 0;
}

void must_failed(const char *what, const char *file, int line)
{
	fprintf(stderr, "%s:%d: must hold: %s\n", file, line, what);
	abort();
}

static _Noreturn void out_of_memory(size_t size)
{
	fprintf(stderr, "out of memory (%zu bytes)\n", size);
	abort();
}

void *mem_new(size_t size)
{
	void *p = calloc(1, size ? size : 1);

	if (p == NULL)
		out_of_memory(size);
	return p;
}

void *mem_try(size_t size)
{
	return fails_now() ? NULL : malloc(size ? size : 1);
}

void *mem_resize(void *old, size_t size)
{
	return fails_now() ? NULL : realloc(old, size ? size : 1);
}

char *mem_text(const void *at, size_t len)
{
	char *text = malloc(len + 1);

	if (text == NULL)
		out_of_memory(len);
	if (len > 0)
		memcpy(text, at, len);
	text[len] = 0;
	return text;
}

void mem_free(void *p)
{
	free(p);
}
