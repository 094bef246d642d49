/* What nodes say to each other: frames, and the hello and refusal that come before all others. The
 * bodies of frames are their owners' (raft_wire.h, remote.c, ...). Pure; any thread.
 *
 * A frame (big endian):
 *
 *	OFFSET SIZE MEANING
 *	0      4    length of the whole frame, these 16 bytes included
 *	4      1    kind: enum peer_kind, or enum peer_wire_kind
 *	5      1    flags, 0
 *	6      2    0
 *	8      8    group, 0 where it has no meaning
 *	16          body
 *
 * Each side's first frame is a hello. The one who dials speaks first; whoever is not content
 * answers with a refusal in place of his hello and closes. */
#ifndef CLUSTER_PEER_WIRE_H
#define CLUSTER_PEER_WIRE_H
#include "cluster/peer.h"

enum {
	PEER_VERSION = 1,     /* N; spoken are N and N - 1, from 1 on */
	PEER_VERSION_MIN = 1, /* so nodes of N - 1 to N + 1 find a common one */
	PEER_HEAD_BYTES = 16,
	PEER_FRAME_BYTES_MAX = 72 << 20,
	PEER_HELLO_BYTES_MAX = 4096, /* of a frame before the hello is through */
	PEER_TEXT_BYTES_MAX = 255,   /* of each text in a hello, and of a refusal */
	PEER_CALL_BYTES = 16,        /* what stands before the body of a call */
	PEER_ANSWER_BYTES = 16
};

enum peer_wire_kind { /* beside enum peer_kind; the numbers are the wire's */
	PEER_HELLO = 0x80,
	PEER_REFUSAL = 0x81,
	PEER_PING = 0x82, /* u64: comes back in a pong */
	PEER_PONG = 0x83
};

enum peer_purpose { /* of a connection */
	PEER_FOR_FRAMES = 0,
	PEER_FOR_PROBE = 1 /* wants the other's hello and nothing else */
};

enum peer_refusal { /* the numbers are the wire's */
	REFUSED_NOT = 0,
	REFUSED_VERSION = 1,
	REFUSED_CLUSTER = 2,  /* of another cluster, or of another name */
	REFUSED_SAME_ID = 3,  /* has the id of the one who refuses */
	REFUSED_INSTANCE = 4, /* its id belongs to other data */
	REFUSED_NODE = 5,     /* not who was dialled */
	REFUSED_EMPTY = 6,    /* the one who refuses has no cluster yet */
	REFUSED_FULL = 7,     /* too many connections */
	REFUSED_SELF = 8,     /* it is this very process */
	REFUSED_REMOVED = 9,  /* is not of the cluster any more */
	REFUSED_RUNS = 10, /* a process with its data is connected, which was started before it */
	REFUSED_RUNS_NEWER = 11 /* or after it */
};

struct peer_frame {
	size_t length; /* of the whole frame */
	uint8_t kind;
	uint64_t group;
	struct bytes body; /* a view of the input */
};

/* Reads one frame of at most max bytes. ERR_MORE: length is what must be there before it is worth
 * trying again. ERR_TOOBIG, ERR_MALFORMED. */
enum err peer_frame_read(struct bytes in, size_t max, struct peer_frame *out) MUST_USE;
void peer_head_write(uint8_t at[PEER_HEAD_BYTES], size_t body, uint8_t kind, uint64_t group);

/* The body of a hello; what a later version adds behind it is passed over.
 *
 *	0   8    "SLUICE-P"
 *	8   2, 2 versions spoken, least and greatest
 *	12  1    purpose
 *	13  1    0
 *	14  2    loop of the sender
 *	16  4    node
 *	20  8    boot
 *	28  8    capabilities, a bit each; 0
 *	36  16   cluster, zeros: none yet
 *	52  16   instance
 *	68  2+n  name of the cluster
 *	    2+n  name of the node, rack, address for peers: each the same way
 *	    16   circle, zeros: not known; the first of version 1 did not have it */
enum err peer_hello_read(struct bytes body, struct peer_hello *out) MUST_USE;
/* ERR_TOOBIG: a text is too long. out takes head and body. */
enum err peer_hello_write(struct buf *out, const struct peer_hello *h) MUST_USE;

/* The body of a refusal: u16 code, 2+n text. */
enum err peer_refusal_read(struct bytes body, enum peer_refusal *code, struct bytes *text) MUST_USE;
void peer_refusal_write(struct buf *out, enum peer_refusal code, const char *text);

/* What stands before the body of a call: u64 id, u16 op, 6 * 0; and of an answer: u64 id, u16
 * error as numbered in peer_wire.c, 6 * 0. */
struct peer_call_head {
	uint64_t id;
	uint16_t op;
};
struct peer_answer_head {
	uint64_t id;
	enum err err;
};
enum err peer_call_read(struct bytes body, struct peer_call_head *out, struct bytes *rest) MUST_USE;
void peer_call_write(uint8_t at[PEER_CALL_BYTES], const struct peer_call_head *h);
enum err peer_answer_read(
	struct bytes body, struct peer_answer_head *out, struct bytes *rest) MUST_USE;
void peer_answer_write(uint8_t at[PEER_ANSWER_BYTES], const struct peer_answer_head *h);

/* The version two nodes speak with each other; 0: there is none. */
uint16_t peer_version_common(const struct peer_hello *a, const struct peer_hello *b);

#endif
