/* The insides of the simulated peers, shared by sim_peer.c (connections and frames) and
 * sim_peer_call.c (calls). */
#ifndef SIM_PEER_PRIV_H
#define SIM_PEER_PRIV_H
#include "cluster/peer.h"
#include "server/base/mem.h"
#include "tests/sim/sim_net.h"

enum {
	BULK_ROOM_BYTES = 1 << 20,
	BACKOFF_MS_MIN = 100,
	BACKOFF_MS_MAX = 2000,
	GIVE_UP_US_MIN = 1 * SIM_S,
	GIVE_UP_US_MAX = 4 * SIM_S,
	POLL_US = 50 * SIM_MS, /* for cuts and silent peers */
	LATE_US_MAX = 500 * SIM_MS,
	BYTES_A_US = 200,
	QUEUE_BYTES_MAX = 64 << 20,
	CALL_HEAD = 24
};

struct parcel { /* a frame on its way */
	struct parcel *next;
	struct conn_out *conn;
	uint64_t epoch; /* of the connection; 0: it does not matter any more */
	bool back;      /* an answer: from the other end */
	enum peer_lane lane;
	enum peer_kind kind;
	uint64_t group;
	struct slice body;
};

struct conn_out { /* of a loop to a node */
	struct peers *peers;
	struct loop *loop;
	uint32_t to;
	bool wanted, up, dialling;
	uint64_t epoch; /* grows when it is lost */
	uint64_t life;  /* of the machine at the other end, when it was made */
	int64_t backoff_ms, give_up_us, arrives_us, since_us;
	size_t bytes, bulk_bytes;                   /* on their way */
	struct parcel *held, **held_tail;           /* while the way is cut */
	struct parcel *held_back, **held_back_tail; /* the same of answers */
	int64_t back_arrives_us;
	uint8_t cluster[16]; /* said when it was made */
	bool guest;
	struct list rooms;
};

struct peer_loop {
	struct peers *peers;
	struct loop *loop;
	struct list watchers, calls;
	struct loop_timer timer;
	uint64_t next_id;
	bool stopped;
};

struct known { /* a node to be connected with */
	bool wanted, instance_known, removed;
	bool met; /* instance is as told, or that of who was let in when nothing was told */
	bool told, learnt; /* has been in the list; has said hello */
	uint8_t instance[16];
	char address[128];
};

struct peers {
	struct peers_conf conf;
	struct sim_machine *machine;
	struct loops *loops;
	int loop_count;
	bool started, stopping;
	uint8_t cluster[16], circle[16];
	struct known known[SIM_MACHINES_MAX + 1];
	struct conn_out *conns; /* loop * (SIM_MACHINES_MAX + 1) + node */
	struct peer_loop *each;
	peer_handler handlers[PEER_KIND_COUNT];
	void *handler_args[PEER_KIND_COUNT];
	peer_server servers[PEER_OP_COUNT];
	void *server_args[PEER_OP_COUNT];
	struct loop *judged_on;
	peer_judged judged;
	void *judged_arg;
	uint32_t judged_by;
};

/* sim_peer.c */
struct conn_out *sim_conn_of(const struct peers *p, int loop, uint32_t to);
bool sim_conn_is_same(const struct conn_out *k, uint64_t epoch);
bool sim_send(struct peers *p, struct conn_out *k, struct parcel like);
void sim_send_back(struct conn_out *k, struct parcel like);
struct slice sim_joined(struct bytes head, struct slice *parts, int count);

/* sim_peer_call.c */
struct arrived { /* a frame that is there */
	struct loop_msg msg;
	struct peers *peers;
	uint32_t from;
	enum peer_kind kind;
	uint64_t group, epoch; /* of the connection */
	struct conn_out *conn;
	struct slice body;
};
void sim_call_arrived(struct arrived *a);
void sim_answer_arrived(struct arrived *a);
void sim_calls_time_out(struct loop_timer *t);
/* Calls that wait for that node (0: for any) end. */
void sim_calls_lost(struct peer_loop *l, uint32_t to, enum err e);

#endif
