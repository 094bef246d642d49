/* A member of a group says every few seconds that it is there, and most clients have a connection
 * for nothing else. Where that is on another loop than the group, each heartbeat wakes that one,
 * and the answer this one again. So a connection that does nothing but heartbeat goes to its
 * group's loop, with the next of them as its unread input; and there its input can wait
 * (conn_lull), until it says anything else or a heartbeat tells that there is something to do.
 *
 * What belongs to a loop stays behind: nothing may be under way, and the access is taken anew over
 * there, by name. If any document has changed meanwhile, its login may be over, which nobody could
 * tell it: then the connection is closed. */
#include "protocols/kafka/kafka_priv.h"

enum { BEATS_BEFORE_MOVE = 2 };

struct kafka_move {
	uint64_t docs_version;
	struct bytes user;
};

static uint64_t docs_version(const struct kafka_conn *kc)
{
	return catalog_docs_version(shard_catalog(kc->home->shard));
}

void kafka_beat(struct kafka_conn *kc, struct loop *home)
{
	if (home != kc->beats_home)
		kc->beats = 0;
	kc->beats_home = home;
	if (kc->beats < BEATS_BEFORE_MOVE)
		kc->beats++;
	conn_lull(kc->conn, kc->beats == BEATS_BEFORE_MOVE && home == kc->home->loop);
}

void kafka_no_beat(struct kafka_conn *kc)
{
	if (kc->beats > 0)
		conn_lull(kc->conn, false);
	kc->beats = 0;
}

static void on_moved(struct conn *c)
{
	struct kafka_conn *kc = conn_state(c);
	struct kafka_move *v = kc->move;
	struct access *a = NULL;
	kafka_enter(kc, c, &kc->home->kafka->loops[loop_index(conn_loop(c))]);
	if (docs_version(kc) == v->docs_version)
		a = access_later(kc->home->shard, v->user, conn_peer(c));
	if (a == NULL || access_hold(&kc->who, a) != OK) {
		access_unref(a);
		conn_close(c, ERR_UNAUTHENTICATED);
	}
	kafka_count(kc->home, M_MOVED, 1);
	kafka_move_end(kc);
}

bool kafka_moves(struct kafka_conn *kc)
{
	bool idle = kc->count == 0 && kc->inflight == 0 && kc->fetched == 0 &&
		kc->waits.count == 0 && list_empty(&kc->hungry) && kc->login == NULL &&
		!kc->muted && kc->who.access != NULL;
	if (kc->beats < BEATS_BEFORE_MOVE || kc->beats_home == kc->home->loop || !idle ||
		!conn_may_move(kc->conn))
		return false;
	struct bytes user = access_user(kc->who.access);
	struct kafka_move *v = mem_new(sizeof *v + user.len);
	memcpy(v + 1, user.at, user.len);
	v->user = bytes_of(v + 1, user.len);
	v->docs_version = docs_version(kc);
	kc->move = v;
	kc->beats = 0;
	access_release(&kc->who);
	conn_move(kc->conn, kc->beats_home, on_moved);
	return true;
}

void kafka_move_end(struct kafka_conn *kc)
{
	mem_free(kc->move);
	kc->move = NULL;
}
