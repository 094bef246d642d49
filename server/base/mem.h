/* Memory. mem_new is for small fixed objects of ours and never fails (it aborts); mem_try is
 * for any size that came from a peer, a file or the configuration. Any thread. */
#ifndef BASE_MEM_H
#define BASE_MEM_H
#include <stddef.h>
#include <stdint.h>

/* Stops the process with a message when a thing only our own bug can break is broken. On in
 * release builds. One condition each. */
#define must(x) ((x) ? (void)0 : must_failed(#x, __FILE__, __LINE__))
_Noreturn void must_failed(const char *what, const char *file, int line);

/* Gives size zeroed bytes; aborts when memory is out. */
void *mem_new(size_t size) __attribute__((returns_nonnull, malloc));
/* Gives size bytes, not zeroed, or NULL. */
void *mem_try(size_t size) __attribute__((malloc));
/* Grows or shrinks what mem_try or mem_new gave; NULL on failure, old stays valid. */
void *mem_resize(void *old, size_t size);
/* Gives a copy of len bytes and a final NUL; aborts when memory is out. */
char *mem_text(const void *at, size_t len) __attribute__((returns_nonnull, malloc));
void mem_free(void *p); /* NULL is fine */

/* Tests only: the n-th mem_try or mem_resize from now (0 = the next) of this thread fails,
 * once. Negative: none fails. */
void mem_fail_at(int n);

#endif
