/* Notes arrive on a stack any thread pushes to. The keeper merges them into one range per group
 * and family: from the group's first key to the highest index reported. A family's ranges are
 * reclaimed when what they held is more than 64 MB and a tenth of its blob files, when too much of
 * those is garbage (store_garbage_much), or under pressure. A group's range is one slice: it is
 * what one compaction touches, and between two the keeper looks whether it should end. */
#include "storage/space.h"
#include <stdatomic.h>
#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/base/map.h"
#include "server/base/mem.h"
#include "storage/keys.h"

enum { WORTH_BYTES = 64 << 20, WORTH_PART = 10 };

struct note {
	struct note *next;
	uint64_t group, index, bytes;
	int64_t at_ms;
	enum store_family family;
};

struct space {
	struct store *store;
	int64_t settle_ms;
	_Atomic(struct note *) notes;
	struct map groups[FAMILY_COUNT]; /* -> struct note, merged; the keeper's own */
	uint64_t bytes[FAMILY_COUNT];    /* of those */
};

struct space *space_new(struct store *s, int64_t settle_ms)
{
	struct space *sp = mem_new(sizeof *sp);

	sp->store = s;
	sp->settle_ms = settle_ms;
	return sp;
}

static void free_notes(struct note *n)
{
	while (n != NULL) {
		struct note *next = n->next;

		mem_free(n);
		n = next;
	}
}

void space_free(struct space *sp)
{
	if (sp == NULL)
		return;
	free_notes(atomic_exchange(&sp->notes, NULL));
	for (int f = 0; f < FAMILY_COUNT; f++) {
		uint32_t at = 0;
		struct note *n;

		while ((n = map_next(&sp->groups[f], &at)) != NULL)
			mem_free(n);
		map_fini(&sp->groups[f]);
	}
	mem_free(sp);
}

static void push(struct space *sp, struct note *n)
{
	n->next = atomic_load(&sp->notes);
	while (!atomic_compare_exchange_weak(&sp->notes, &n->next, n))
		;
}

void space_note(
	struct space *sp, uint64_t group, enum store_family f, uint64_t index, uint64_t bytes)
{
	struct note *n = mem_new(sizeof *n);

	must(f < FAMILY_COUNT);
	n->group = group;
	n->family = f;
	n->index = index;
	n->bytes = bytes;
	n->at_ms = clock_ms();
	push(sp, n);
}

static void merge(struct space *sp, struct note *n)
{
	struct note *held = map_get_u64(&sp->groups[n->family], n->group);

	sp->bytes[n->family] += n->bytes;
	if (held == NULL) {
		map_put_u64(&sp->groups[n->family], n->group, n);
		return;
	}
	held->index = n->index > held->index ? n->index : held->index;
	held->bytes += n->bytes;
	mem_free(n);
}

static bool worth(const struct space *sp, const struct store_stats *stats, int f, bool pressure)
{
	int64_t blobs = stats->blob_bytes[f], garbage = stats->blob_garbage_bytes[f];
	int64_t noted = (int64_t)sp->bytes[f];

	if (sp->groups[f].count == 0)
		return false;
	return pressure || (noted >= WORTH_BYTES && noted >= blobs / WORTH_PART) ||
		(blobs > WORTH_BYTES && store_garbage_much((enum store_family)f, blobs, garbage));
}

/* The group's range goes; false: it could not be reclaimed, and is kept for the next time. */
static bool reclaim_group(struct space *sp, int f, struct note *n)
{
	struct entry_key from = key_entry(n->group, 0), to = key_entry(n->group, n->index);
	enum store_family families[2] = {(enum store_family)f, FAMILY_IDX};

	for (int i = 0; i < 2; i++) {
		enum err e = store_reclaim(sp->store, families[i], KEY_BYTES(from), KEY_BYTES(to));

		if (e == OK)
			continue;
		LOG(LOG_WARN, AREA_STORAGE, "reclaim_failed", "group=%llu err=\"%s\"",
			(unsigned long long)n->group, err_text(e));
		return false;
	}
	return true;
}

static int reclaim_family(struct space *sp, int f, const _Atomic bool *stop)
{
	uint32_t at = 0;
	int done = 0;
	struct note *n;

	while (!atomic_load(stop) && (n = map_next(&sp->groups[f], &at)) != NULL) {
		if (!reclaim_group(sp, f, n))
			return done;
		sp->bytes[f] -= n->bytes;
		map_remove_u64(&sp->groups[f], n->group);
		mem_free(n);
		done++;
	}
	return done;
}

int space_run(struct space *sp, bool pressure, const _Atomic bool *stop)
{
	struct note *n = atomic_exchange(&sp->notes, NULL), *next;
	struct store_stats stats;
	int done = 0;

	for (; n != NULL; n = next) {
		next = n->next;
		if (clock_ms() - n->at_ms < sp->settle_ms)
			push(sp, n);
		else
			merge(sp, n);
	}
	store_stats(sp->store, &stats);
	for (int f = 0; f < FAMILY_COUNT; f++) {
		if (worth(sp, &stats, f, pressure))
			done += reclaim_family(sp, f, stop);
	}
	if (done > 0) {
		int64_t before = stats.disk_bytes;

		store_stats(sp->store, &stats);
		LOG(LOG_INFO, AREA_STORAGE, "reclaimed", "dir=%s ranges=%d disk=%lld was=%lld",
			store_dir(sp->store), done, (long long)stats.disk_bytes, (long long)before);
	}
	return done;
}
