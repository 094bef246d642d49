/* What the implementations of store.h share: the table of their functions. */
#ifndef STORAGE_STORE_PRIV_H
#define STORAGE_STORE_PRIV_H
#include "storage/store.h"

struct store_ops {
	void (*close)(struct store *s);
	struct store_batch *(*batch_new)(struct store *s);
	void (*batch_free)(struct store_batch *b);
	void (*batch_clear)(struct store_batch *b);
	size_t (*batch_bytes)(const struct store_batch *b);
	void (*put)(struct store_batch *b, enum store_family f, struct bytes key,
		const struct bytes *parts, int part_count);
	void (*del)(struct store_batch *b, enum store_family f, struct bytes key);
	void (*del_range)(
		struct store_batch *b, enum store_family f, struct bytes from, struct bytes to);
	enum err (*write)(struct store *s, struct store_batch *b);
	enum err (*write_unlogged)(struct store *s, struct store_batch *b);
	enum err (*sync)(struct store *s);
	enum err (*flush)(struct store *s, enum store_family f);
	struct store_snapshot *(*snapshot_new)(struct store *s);
	void (*snapshot_free)(struct store *s, struct store_snapshot *snapshot);
	enum err (*get)(struct store *s, struct store_snapshot *snapshot, enum store_family f,
		struct bytes key, struct slice *out);
	enum err (*multi_get)(struct store *s, struct store_snapshot *snapshot, enum store_family f,
		int count, const struct bytes *keys, struct slice *out);
	struct store_iter *(*iter_new)(struct store *s, struct store_snapshot *snapshot,
		enum store_family f, struct bytes from, struct bytes to, bool forward);
	bool (*iter_valid)(const struct store_iter *i);
	void (*iter_step)(struct store_iter *i);
	struct bytes (*iter_key)(const struct store_iter *i);
	struct bytes (*iter_value)(const struct store_iter *i);
	enum err (*iter_free)(struct store_iter *i);
	void (*stats)(struct store *s, struct store_stats *out);
	uint64_t (*sequence)(struct store *s);
	enum err (*reclaim)(
		struct store *s, enum store_family f, struct bytes from, struct bytes to);
};

/* Each implementation's structs start with these. */
struct store {
	const struct store_ops *ops;
	char *dir; /* owned */
	_Atomic uint64_t reads[FAMILY_COUNT];
};
struct store_batch {
	const struct store_ops *ops;
	int count;
};
struct store_iter {
	const struct store_ops *ops;
	struct store *store;
	enum store_family family;
};

#endif
