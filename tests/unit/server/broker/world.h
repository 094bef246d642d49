/* A node over a store in a temporary folder, with its broker and loops, for tests of the broker.
 * The test's own thread asks loops to do things and waits for the outcome. */
#ifndef TESTS_BROKER_WORLD_H
#define TESTS_BROKER_WORLD_H
#include <check.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "cluster/node.h"
#include "cluster/node_metrics.h"
#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/broker/broker_priv.h"
#include "storage/storage.h"

struct world {
	char dir[64];
	struct loops *loops;
	struct workers *workers;
	struct storage_conf storage_conf;
	struct node_conf node_conf;
	struct broker_conf conf;
	struct conf *rows;
	struct storage *storage;
	struct node *node;
	struct broker *broker;
	sem_t done;
};

static inline void world_set(struct world *w, const char *key, const char *value)
{
	char why[200];
	ck_assert_msg(conf_set(w->rows, key, value, why, sizeof why) == OK, "%s", why);
}

/* Configuration with defaults for tests; set keys, then world_start. */
static inline void world_init(struct world *w)
{
	static bool registered;
	if (!registered) {
		metric_register(&node_metrics);
		metric_register(&storage_metrics);
		metric_register(&broker_metrics);
		log_setup(LOG_WARN, false);
	}
	registered = true;
	memset(w, 0, sizeof *w);
	snprintf(w->dir, sizeof w->dir, "/tmp/broker-test-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(w->dir));
	sem_init(&w->done, 0, 0);
	w->rows = conf_new();
	conf_add(w->rows, storage_rows, &w->storage_conf);
	conf_add(w->rows, node_rows, &w->node_conf);
	conf_add(w->rows, broker_rows, &w->conf);
	world_set(w, "data.dir", w->dir);
	world_set(w, "stream.partitions", "4");
	world_set(w, "tables", "1");
	world_set(w, "disk.reserve", "1MiB");
}

static inline void world_start(struct world *w, int loops)
{
	char why[200] = "";
	conf_apply(w->rows, true);
	w->loops = loops_new(loops);
	w->workers = workers_new(2);
	ck_assert_msg(storage_open(&w->storage_conf, w->loops, w->workers, &w->storage, why,
			      sizeof why) == OK,
		"%s", why);
	ck_assert_msg(node_open(&w->node_conf, w->loops, w->workers, w->storage, &w->node, why,
			      sizeof why) == OK,
		"%s", why);
	ck_assert_msg(broker_new(&w->conf, w->node, w->loops, &w->broker, why, sizeof why) == OK,
		"%s", why);
	loops_run(w->loops);
	broker_start(w->broker);
	for (int i = 0; i < 2000 && !broker_ready(w->broker); i++)
		usleep(5000);
	ck_assert(broker_ready(w->broker));
}

static inline void world_stop(struct world *w)
{
	char command[128];
	node_close(w->node);
	loops_stop(w->loops);
	node_free(w->node);
	broker_free(w->broker);
	storage_stop(w->storage);
	workers_free(w->workers);
	loops_free(w->loops);
	storage_free(w->storage);
	conf_free(w->rows);
	sem_destroy(&w->done);
	snprintf(command, sizeof command, "rm -rf %s", w->dir);
	ck_assert_int_eq(system(command), 0);
}

static inline struct shard *world_shard(struct world *w, int loop)
{
	return broker_shard(w->broker, loops_at(w->loops, loop));
}

/* Runs fn(arg) on a loop; fn, or what it starts, posts w->done. */
static inline void world_call(struct world *w, int loop, void (*fn)(void *arg), void *arg)
{
	loop_call(loops_at(w->loops, loop), fn, arg);
	while (sem_wait(&w->done) != 0)
		;
}

/* ---- publishing one message and waiting */

struct world_publish {
	struct world *w;
	int loop;
	struct message m;
	const struct qos2_claim *claim;
	struct publish p;
	enum err err;
};
static inline void world_published(struct publish *p)
{
	struct world_publish *a = list_entry(p, struct world_publish, p);
	a->err = p->err;
	sem_post(&a->w->done);
}
static inline void world_publish_run(void *arg)
{
	struct world_publish *a = arg;
	a->p.done = world_published;
	struct shard *s = world_shard(a->w, a->loop);
	a->err = a->claim != NULL ? shard_publish_claimed(s, &a->m, a->claim, &a->p)
				  : shard_publish(s, &a->m, &a->p);
	if (a->err != OK)
		sem_post(&a->w->done);
}
static inline enum err world_publish(struct world *w, int loop, struct world_publish *a)
{
	a->w = w;
	a->loop = loop;
	world_call(w, loop, world_publish_run, a);
	return a->err;
}
static inline void world_say(
	struct world *w, int loop, const char *topic, const char *value, bool retain)
{
	struct world_publish a = {.m = {.topic = bytes_text(topic),
					  .value = bytes_text(value),
					  .retain = retain,
					  .qos = 1}};
	ck_assert_int_eq(world_publish(w, loop, &a), OK);
}

/* ---- a change of the catalogue */

struct world_change {
	struct world *w;
	struct meta_op op;
};
static inline void world_changed(struct meta_op *op)
{
	sem_post(&list_entry(op, struct world_change, op)->w->done);
}
static inline void world_change_run(void *arg)
{
	struct world_change *c = arg;
	c->op.done = world_changed;
	node_change(c->w->node, &c->op);
}
static inline enum err world_change(struct world *w, struct world_change *c)
{
	c->w = w;
	world_call(w, 0, world_change_run, c);
	return c->op.err;
}

#endif
