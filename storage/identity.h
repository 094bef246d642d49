/* Whose data this is: a small file "node" in every folder of data.dir. It tells which node and
 * which cluster the data belongs to, that no folder of it went or was exchanged, and whether a
 * node that comes back still has what it promised (instance). Boot and worker threads. */
#ifndef STORAGE_IDENTITY_H
#define STORAGE_IDENTITY_H
#include "storage/storage.h"

struct identity {
	uint32_t node;
	uint8_t instance[16]; /* made with the data */
	uint8_t cluster[16];  /* zeros: none yet */
	uint64_t boot;        /* of this start: greater than that of any before, also of data that
			       * was lost, as far as the clock tells */
};

/* Reads it, or makes it with empty data (and data from before there was such a file); counts the
 * start. ERR_CONFLICT: the data of another node, or a folder is missing its part; ERR_IO,
 * ERR_CORRUPT. why: one line. */
enum err identity_open(const struct storage *s, uint32_t node, struct identity *out, char *why,
	size_t why_size) MUST_USE;
/* Writes it anew to every folder. Blocks. ERR_IO, ERR_NOSPACE. */
enum err identity_write(const struct storage *s, const struct identity *id) MUST_USE;
bool identity_has_cluster(const struct identity *id);

#endif
