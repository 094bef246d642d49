/* What replicas say to each other: Raft's six messages as frames. Payloads are referenced, never
 * copied, on the way out, and are shares of the frame's chunk on the way in. Pure; any thread.
 *
 *	OFFSET SIZE MEANING (big endian)
 *	0      1    version, 1
 *	1      1    type: enum of raft.h, RAFT_IO_*, or RAFT_WIRE_MARK
 *	2      2    0
 *	4      8    group
 *	12     8    replica that sends
 *	20     8    replica it is for
 *	28     8    sender's clock in ms, for leases to come; 0 when unused
 *	36     2+n  address of the sender
 *	then the body of the type (raft_wire.c)
 */
#ifndef CLUSTER_RAFT_WIRE_H
#define CLUSTER_RAFT_WIRE_H
#include <raft.h>
#include "storage/entry.h"

enum {
	RAFT_WIRE_VERSION = 1,
	RAFT_WIRE_MARK = 64, /* our own: the leader has committed up to an entry. In memory it is
				an empty AppendEntries: previous index and term are the entry's */
	RAFT_WIRE_ENTRIES_MAX = 4096, /* of one AppendEntries */
	RAFT_WIRE_PAYLOAD_MAX =
		1 << 20, /* a sender starts a new frame above; one entry may be larger */
	RAFT_WIRE_ENTRY_BYTES_MAX = 64 << 20, /* payload of one entry */
	RAFT_WIRE_ADDRESS_MAX = 255,
	RAFT_WIRE_CONFIG_BYTES_MAX = 16384,
	RAFT_WIRE_MEMBERS_MAX = 64
};

struct raft_wire_entry { /* the payload of an entry that is trimmed is empty */
	struct entry_header head;
	const struct entry *from; /* encode: whose parts are the payload; NULL: none */
	struct slice payload;     /* decode: a share of the frame */
};

struct raft_wire { /* one message with its envelope */
	uint64_t group, from, to, clock_ms;
	struct bytes address;        /* of the sender; decode: in the frame */
	struct raft_message message; /* entries, server_id and server_address are not used */
	struct raft_wire_entry
		*entries;   /* of AppendEntries; message.append_entries.n_entries of them */
	struct slice frame; /* decode: keeps address and payloads */
};

/* Gives the frame as parts, in order, one share each; the array is freed with mem_free.
 * ERR_NOMEM, ERR_TOOBIG (a configuration or address over its limit). */
enum err raft_wire_encode(const struct raft_wire *m, struct slice **parts, int *count) MUST_USE;
/* The same for a message without payloads, most of all, without an array. False: it has some, or
 * cannot be encoded. */
bool raft_wire_encode_head(const struct raft_wire *m, struct slice *out) MUST_USE;
/* ERR_MALFORMED, ERR_UNSUPPORTED (another version), ERR_NOMEM; ERR_CORRUPT: a payload's checksum.
 * Shares frame. What is given is checked: kinds, chained offsets, configurations. */
enum err raft_wire_decode(struct slice frame, struct raft_wire *out) MUST_USE;
void raft_wire_fini(struct raft_wire *m); /* of a decoded one */

/* Configurations as raft_configuration_encode writes them, checked: at most RAFT_WIRE_MEMBERS_MAX
 * servers, no id or address twice, known roles, nothing but padding after. Gives *out, to be closed
 * with raft_configuration_close. ERR_MALFORMED. */
enum err raft_config_decode(struct bytes in, struct raft_configuration *out) MUST_USE;
void raft_config_copy(const struct raft_configuration *from, struct raft_configuration *to);

#endif
