/* The insides of a consensus, shared by consensus.c (what callers see), raft_io.c (what the core
 * calls), raft_log.c (how an instance of the core begins and ends) and raft_send.c (how messages
 * leave). All of it is the home loop's. */
#ifndef CLUSTER_CONSENSUS_PRIV_H
#define CLUSTER_CONSENSUS_PRIV_H
#include "cluster/consensus.h"
#include "cluster/guard.h"
#include "server/base/mem.h"

enum consensus_phase {
	PHASE_RUNNING,    /* there is an instance of the core */
	PHASE_REBUILDING, /* the last one is gone, the next starts when all staged is durable */
	PHASE_INSTALLING, /* the same, after the owner has fetched a snapshot */
	PHASE_DOWN        /* quarantined, or closed */
};

/* What raft's memory holds of an entry: enough to apply it by its header and to find its payload.
 * Copied in and out of raft's buffers with memcpy. */
struct raft_stub {
	uint32_t magic;
	uint8_t kind, flags;
	uint16_t unused;
	uint32_t count, payload_bytes, payload_crc, unused_too;
	int64_t base_offset, hlc, max_ms;
};
enum { RAFT_STUB_MAGIC = 0x534c4331 };

struct append_op { /* entries handed to io->append */
	struct durable durable;
	struct list node; /* consensus.appends, in order, or spare_appends */
	struct consensus *c;
	struct raft_io_append *request; /* NULL: its instance is gone */
	uint64_t first, last, term;
	bool stored;
};

struct snapshot_meta { /* what a snapshot is here: no data, that is log and rows themselves */
	uint64_t index, term, config_index;
	int64_t next_offset;
	struct raft_configuration config;
};

struct put_op {
	struct durable durable;
	struct consensus *c;
	struct raft_io_snapshot_put *request; /* NULL: its instance is gone */
	raft_io_snapshot_put_cb cb;
	struct snapshot_meta meta;
	bool stored;
};

struct get_op {
	struct list node;
	struct raft_io_snapshot_get *request;
	raft_io_snapshot_get_cb cb;
};

struct sent {
	struct raft_io_send *request;
	raft_io_send_cb cb;
};

struct apply_request {
	struct raft_apply raft;
	struct list node; /* consensus.finished or spare_requests */
	struct consensus *c;
	struct consensus_proposal *proposal;
	size_t bytes;
	enum err err;
};

struct read_point { /* consensus_barrier calls of one turn */
	struct raft_barrier raft;
	struct list node;    /* consensus.reads */
	struct list waiting; /* struct consensus_barrier */
	uint64_t target;     /* with one voter: done when this is applied */
	bool in_raft, finished;
	enum err err;
};

/* What a leader knows of a replica it sends to, beside what the core does. The core says what is to
 * be sent; it is put on the way at the end of the turn, in runs, as far as the window is open. */
struct peer_out {
	uint64_t replica;
	int64_t heard_ms;     /* last answer in this term; 0: none, or its node was lost since */
	int64_t put_ms;       /* when entries were last put on the way */
	uint64_t next, last;  /* to be put on the way: next..last; below next: done */
	uint64_t commit_told; /* the peer has been told that this is committed, if all arrives */
	/* Payload bytes on the way: of entries up to mark, and above it. When mark is acknowledged
	 * the others take its place: so it is at most what is not acknowledged, and twice that. */
	uint64_t mark, mark_bytes, more_bytes;
	bool due;      /* a message is to leave, entries or not */
	bool rejected; /* since entries were put on the way */
	bool absent;   /* it fetches a snapshot: takes no entries */
	bool reading;  /* payloads: what follows waits */
};

struct held { /* a message the guard wants later */
	struct list node;
	struct raft_wire message;
};

struct consensus {
	struct plog *log;
	const struct plog_env *env;
	uint64_t replica;
	char *address;
	struct consensus_options o;
	struct consensus_fsm fsm;
	void *fsm_arg;
	const struct consensus_net *net; /* NULL: no peers */
	void *net_arg;

	enum consensus_phase phase;
	struct raft *raft; /* PHASE_RUNNING, else NULL */
	struct raft_io io;
	struct raft_fsm raft_fsm;
	raft_io_tick_cb tick;
	raft_io_recv_cb recv;
	raft_io_close_cb closed;
	struct guard guard;
	bool starting;     /* within raft_start */
	bool first;        /* founds the group and is to lead it: does not wait to stand */
	int64_t opened_ms; /* when it did */
	int64_t tick_ms;   /* of the last tick */
	int64_t late_ms;   /* of the last one that came late: what had been heard may be old */
	bool settling;
	bool muted;
	bool closing;
	const char *fault; /* why the core was made to give up; NULL: it did so by itself */
	uint32_t unavailable, rebuilds;
	uint32_t under_way; /* completions of others that will still touch this struct */

	struct list appends, spare_appends, spare_requests;
	struct put_op *put;
	struct list gets;
	struct sent *sent;
	uint32_t sent_count, sent_room;
	struct entry **staged; /* of the message being received */
	uint32_t staged_count;
	struct consensus_proposal *proposing;
	struct raft_barrier lead_barrier;
	bool swallow_results;

	struct list held; /* inbound */
	uint32_t held_count;
	size_t held_bytes;
	uint32_t marks_pending; /* terms and votes staged and not durable */
	uint32_t hold_count;    /* outbound, waiting for the disk */
	size_t hold_bytes;
	uint32_t cold_count; /* outbound, waiting for payloads */

	struct peer_out *peers; /* while this replica leads peers_term */
	uint32_t peer_count, peer_room;
	uint64_t peers_term, commit_seen;
	struct loop_hook out_hook;
	struct { /* a commit mark whose entries are not stored here yet; term 0: none */
		uint64_t from, term, index, index_term;
	} mark;

	uint32_t pins;
	uint64_t pin_index;       /* applied when the first was set */
	bool installing;          /* fsm.install has been called and has not ended */
	int64_t install_at_ms;    /* the next not before */
	int64_t install_heard_ms; /* a leader, while there is no instance */

	uint64_t applied, applied_term;
	int64_t applied_next_offset;
	size_t unsnapped_bytes;        /* of payloads applied since the last snapshot */
	struct snapshot_meta snapshot; /* index 0: none */
	struct consensus_install install;
	struct raft_configuration install_config;
	uint64_t install_config_index, install_leader_term;
	char *install_address;

	size_t inflight;
	struct list finished; /* apply_request */
	struct list barriers; /* consensus_barrier, not issued */
	struct list reads;    /* read_point */
	struct raft_change change_request;
	struct consensus_change *change;
	bool change_of_voter; /* it is one until the change is committed */
	enum err change_err;
	bool change_done;
	struct raft_transfer transfer;
	bool transfer_in_raft;
	uint64_t transfer_to; /* 0: none */
	int64_t transfer_until_ms;

	struct loop_hook hook;
	struct { /* what fsm.changed was called for last */
		enum consensus_role role;
		uint64_t term, leader;
		bool ready;
	} told;
	void (*close_done)(void *arg);
	void *close_arg;
};

/* consensus.c */
void consensus_settle(struct consensus *c);
void consensus_let_go(struct consensus *c); /* one less under way */
void consensus_want_turn(struct consensus *c);

/* raft_io.c */
void raft_io_setup(struct consensus *c);
bool raft_io_complete(struct consensus *c); /* tells what has finished; whether anything had */
void raft_io_abandon(struct consensus *c);  /* ends everything of an instance that is closed */
void consensus_deliver(struct consensus *c, uint64_t upto); /* hands committed entries to the fsm */
void raft_io_mark(struct consensus *c, uint64_t term, uint64_t vote);
void raft_io_wait_durable(struct consensus *c, void (*done)(struct consensus *c));

/* raft_log.c */
enum err instance_start(struct consensus *c, uint64_t base);
void instance_drop(struct consensus *c);
/* Makes the instance anew from the log, once what is staged is durable. */
void instance_rebuild(struct consensus *c);
void instance_quarantine(struct consensus *c, const char *why);
int raft_log_load(struct consensus *c, struct raft_snapshot **snapshot, raft_index *start_index,
	struct raft_entry **entries, size_t *n);
void snapshot_meta_fini(struct snapshot_meta *m);
struct raft_stub stub_of(const struct entry_header *h);
bool stub_read(const struct raft_buffer *b, struct raft_stub *out);
void stub_head(const struct raft_entry *re, struct entry_header *out);
struct slice entry_join(const struct entry *e); /* the payload in one piece */

/* raft_receive.c */
bool raft_receive_held(struct consensus *c);
void raft_receive_drop_held(struct consensus *c);

bool raft_receive_mark(struct consensus *c); /* the kept one, once its entries are stored */

struct raft_address {
	char text[RAFT_WIRE_ADDRESS_MAX + 1];
};
struct raft_address raft_address_of(struct bytes b);

/* raft_install.c */
void raft_install_receive(struct consensus *c, const struct raft_wire *m);
/* What comes while there is no instance. */
void raft_install_meanwhile(struct consensus *c, const struct raft_wire *m);
void raft_install_resume(struct consensus *c); /* an earlier process had begun a fetch */

/* raft_send.c */
void raft_send(struct consensus *c, const struct raft_message *m);
/* Puts a frame on the way; wait: when all that is staged by now is durable. */
void frame_send(struct consensus *c, const struct raft_wire *m, const char *address, bool wait);

/* raft_out.c */
/* The core wants an AppendEntries sent: kept in the peer's out until the end of the turn. */
void out_append(struct consensus *c, const struct raft_message *m);
void out_turn(struct loop_hook *h);
void out_want(struct consensus *c);
/* A result of a peer is about to be given to the core. */
void out_heard(
	struct consensus *c, uint64_t replica, const struct raft_append_entries_result *result);
/* The connection of a node is lost: what it has said counts no more. */
void out_lost(struct consensus *c, uint32_t node);
struct peer_out *out_of(const struct consensus *c, uint64_t replica); /* NULL: nothing known */

/* consensus_change.c */
bool change_finish(struct consensus *c); /* tells the end of a change */
bool transfer_step(struct consensus *c);
void pin_apply(struct consensus *c); /* sets the core's snapshot threshold */

#endif
