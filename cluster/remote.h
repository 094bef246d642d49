/* Partitions and the other nodes: proposals and reads go to whoever leads, those of others come
 * here, the log of a partition without a replica is followed. The insides of partitions, shared by
 * remote.c (who leads, dispatch), remote_propose.c, remote_serve.c, remote_read.c, remote_point.c
 * and remote_follow.c. Thread: the partition's home loop. */
#ifndef CLUSTER_REMOTE_H
#define CLUSTER_REMOTE_H
#include "cluster/partition_priv.h"
#include "cluster/remote_wire.h"

enum { REMOTE_WAIT_MS = 3000 }; /* reads and points, for a leader */

static inline uint32_t remote_leader(const struct partition *p)
{
	return atomic_load_explicit(&p->leader, memory_order_relaxed);
}

/* remote.c */
void remote_init(struct partition *p);
void remote_changed(struct partition *p); /* who leads, or whether there is a replica */
void remote_tick(struct partition *p, int64_t now_ms);
void remote_close(struct partition *p); /* ends what waits; calls under way keep a share */
void remote_fini(struct partition *p);
void remote_home_init(struct partition_home *h);
void remote_home_tick(struct partition_home *h, int64_t now_ms);
void remote_home_stop(struct partition_home *h);
/* One call about p to the node that leads; takes the bytes of b. */
void remote_call(struct partition *p, struct peer_call *c, enum peer_op op, struct buf *b);
/* The partition a request is about, NULL (and answered): not served here. */
struct partition *remote_asked(void *arg, struct peer_request *r);
void remote_answer(struct peer_request *r, struct buf *b); /* takes the bytes of b */

/* remote_propose.c */
/* Whether nothing is under way with a leader that is not the present one (here: none at all). */
bool remote_propose_settled(struct partition *p, bool here);
/* Nothing is under way, but what came back is to be decided again. */
bool remote_propose_waits(const struct partition *p);
void remote_propose(struct partition *p); /* sends what is gathered to the leader */
void remote_propose_changed(struct partition *p);
void remote_propose_tick(struct partition *p, int64_t now_ms);
void remote_propose_close(struct partition *p);
void remote_propose_fini(struct partition *p);

/* remote_serve.c */
void remote_propose_serve(void *arg, struct peer_request *r);
void remote_guests_fini(struct partition *p);

/* remote_read.c: retried until somebody serves it or 3 s are over */
void remote_rows(struct row_read *r);
void remote_rows_later(struct row_read *r); /* the same, from the next tick on */
void remote_records(struct record_read *r);
void remote_records_later(struct record_read *r);
void remote_seek(struct offset_seek *s);
void remote_seek_later(struct offset_seek *s);
void remote_info(struct partition_info *i);
void remote_read_retry(struct partition *p);
void remote_read_close(struct partition *p);
void remote_rows_serve(void *arg, struct peer_request *r);
void remote_records_serve(void *arg, struct peer_request *r);
void remote_seek_serve(void *arg, struct peer_request *r);
void remote_info_serve(void *arg, struct peer_request *r);

/* remote_point.c */
void remote_point_grown(struct partition *p); /* the log, here */
void remote_point_tick(struct partition *p, int64_t now_ms);
void remote_point_close(struct partition *p);
void remote_point_serve(void *arg, struct peer_request *r);

/* remote_follow.c, remote_feed.c */
/* The next offset watchers have not been shown, where there is no replica. */
int64_t remote_follow_seen(const struct partition *p);
void remote_follow_changed(struct partition *p); /* watchers or waits came or went, or the leader */
void remote_follow_tick(struct partition *p, int64_t now_ms);
void remote_follow_fini(struct partition *p);
void remote_on_feed(void *arg, uint32_t from, uint64_t group, struct slice body);
void remote_feed_entry(struct partition *p, struct entry *e); /* to those who follow */
void remote_feed_tick(struct partition *p, int64_t now_ms);
void remote_feed_fini(struct partition *p);
void remote_on_follow(void *arg, uint32_t from, uint64_t group, struct slice body);

#endif
