/* A store in front of the store: it has the functions of the one below and calls them after the
 * time that a disk takes. A sync makes durable what was written before it began; the one below is
 * asked either at its beginning or at its end, by the dice, and both are what a disk may do. */
#include "tests/sim/sim_disk.h"
#include <stdio.h>
#include "server/base/mem.h"
#include "storage/store_priv.h"

enum { HANG_LOOK_US = 10 * SIM_MS };

struct front {
	struct store base;
	struct store *content;
	struct sim_disk *disk;
};

static struct sim_disk disks[SIM_MACHINES_MAX + 1];

static struct front *front_of(struct store *s)
{
	return (struct front *)(void *)s;
}

struct sim_disk *sim_disk_of(const struct sim_machine *m)
{
	must(m->id > 0 && m->id <= SIM_MACHINES_MAX);
	return &disks[m->id];
}

void sim_disk_init(struct sim_machine *m)
{
	struct sim_disk *d = sim_disk_of(m);

	*d = (struct sim_disk){.write_us = 60, .sync_us = 600, .read_us = 100};
	d->free_bytes = (int64_t)100 << 30;
	must(store_open_mem(sim_random(), &d->content) == OK);
}

void sim_disk_crash(struct sim_machine *m)
{
	struct sim_disk *d = sim_disk_of(m);

	store_mem_crash(d->content);
	sim_disk_renew(m);
}

void sim_disk_renew(struct sim_machine *m)
{
	sim_disk_of(m)->fails = false;
	sim_disk_of(m)->hangs_until_us = 0;
}

void sim_disk_wipe(struct sim_machine *m)
{
	must(store_open_mem(sim_random(), &sim_disk_of(m)->content) == OK);
}

int64_t sim_disk_free_bytes(const struct sim_machine *m)
{
	return m ? sim_disk_of(m)->free_bytes : (int64_t)100 << 30;
}

static void take_time(struct front *f, int64_t us_max)
{
	if (!sim_in_fiber())
		return;
	sim_sleep_us(sim_pick(1, us_max));
	while (f->disk->hangs_until_us > sim_now_us()) /* or until it is mended */
		sim_sleep_us(HANG_LOOK_US);
}

/* Whether the disk takes it, after the time of a write. */
static bool takes_write(struct front *f)
{
	take_time(f, f->disk->write_us);
	return !f->disk->fails;
}

static enum err front_write(struct store *s, struct store_batch *b)
{
	struct front *f = front_of(s);

	return takes_write(f) ? f->content->ops->write(f->content, b) : ERR_IO;
}

static enum err front_write_unlogged(struct store *s, struct store_batch *b)
{
	struct front *f = front_of(s);

	return takes_write(f) ? f->content->ops->write_unlogged(f->content, b) : ERR_IO;
}

enum { EVERYTHING = FAMILY_COUNT };

/* A sync, or the flush of one family. */
static enum err content_reach(struct front *f, enum store_family fam)
{
	return (int)fam == EVERYTHING ? f->content->ops->sync(f->content)
				      : f->content->ops->flush(f->content, fam);
}

/* What was written is on the disk at some moment of the time that takes. */
static enum err front_reach(struct store *s, enum store_family fam)
{
	struct front *f = front_of(s);
	bool first = sim_chance(500);
	enum err e = OK;

	if (f->disk->lies) {
		take_time(f, f->disk->sync_us);
		return OK;
	}
	if (first)
		e = content_reach(f, fam);
	take_time(f, f->disk->sync_us);
	if (f->disk->fails)
		return ERR_IO;
	return first ? e : content_reach(f, fam);
}

static enum err front_sync(struct store *s)
{
	return front_reach(s, (enum store_family)EVERYTHING);
}

static enum err front_get(struct store *s, struct store_snapshot *snapshot, enum store_family fam,
	struct bytes key, struct slice *out)
{
	struct front *f = front_of(s);

	take_time(f, f->disk->read_us);
	return f->content->ops->get(f->content, snapshot, fam, key, out);
}

static enum err front_multi_get(struct store *s, struct store_snapshot *snapshot,
	enum store_family fam, int count, const struct bytes *keys, struct slice *out)
{
	struct front *f = front_of(s);

	take_time(f, f->disk->read_us);
	return f->content->ops->multi_get(f->content, snapshot, fam, count, keys, out);
}

static struct store_iter *front_iter_new(struct store *s, struct store_snapshot *snapshot,
	enum store_family fam, struct bytes from, struct bytes to, bool forward)
{
	struct front *f = front_of(s);

	take_time(f, f->disk->read_us);
	return f->content->ops->iter_new(f->content, snapshot, fam, from, to, forward);
}

static struct store_batch *front_batch_new(struct store *s)
{
	return front_of(s)->content->ops->batch_new(front_of(s)->content);
}
static struct store_snapshot *front_snapshot_new(struct store *s)
{
	return front_of(s)->content->ops->snapshot_new(front_of(s)->content);
}
static void front_snapshot_free(struct store *s, struct store_snapshot *snapshot)
{
	front_of(s)->content->ops->snapshot_free(front_of(s)->content, snapshot);
}
static void front_stats(struct store *s, struct store_stats *out)
{
	front_of(s)->content->ops->stats(front_of(s)->content, out);
}
static uint64_t front_sequence(struct store *s)
{
	return front_of(s)->content->ops->sequence(front_of(s)->content);
}
static enum err front_reclaim(
	struct store *s, enum store_family fam, struct bytes from, struct bytes to)
{
	return front_of(s)->content->ops->reclaim(front_of(s)->content, fam, from, to);
}

/* The content stays with the machine; memory tables are flushed by a clean end. */
static void front_close(struct store *s)
{
	struct store *content = front_of(s)->content;

	must(content->ops->sync(content) == OK);
	for (int f = 0; f < FAMILY_COUNT; f++)
		must(content->ops->flush(content, (enum store_family)f) == OK);
	mem_free(s);
}

static struct store_ops ops = {
	.close = front_close,
	.batch_new = front_batch_new,
	.write = front_write,
	.write_unlogged = front_write_unlogged,
	.sync = front_sync,
	.flush = front_reach,
	.snapshot_new = front_snapshot_new,
	.snapshot_free = front_snapshot_free,
	.get = front_get,
	.multi_get = front_multi_get,
	.iter_new = front_iter_new,
	.stats = front_stats,
	.sequence = front_sequence,
	.reclaim = front_reclaim,
};

enum err store_open_rocks(const char *dir, const struct store_options *o, struct store **out,
	char *why, size_t why_size)
{
	struct front *f = mem_new(sizeof *f);

	(void)dir;
	(void)o;
	(void)why;
	(void)why_size;
	f->disk = sim_disk_of(sim_here());
	f->content = f->disk->content;
	f->base.ops = &ops;
	f->base.dir = mem_text("sim", 3);
	*out = &f->base;
	return OK;
}
