/* What must be true, whatever happens. It watches every entry that any replica of any node applies
 * and who leads, keeps the one history that all of them must agree with, and hears from the loads
 * what was acknowledged. */
#ifndef SIM_CHECK_H
#define SIM_CHECK_H
#include "tests/sim/sim_node.h"

/* A record of a load: in its value, so that it is known again wherever it turns up. */
enum { CHECK_VALUE_BYTES = 28 };
struct check_value {
	uint64_t op;       /* its number, from check_op_new */
	uint32_t producer; /* 0: may be there twice; else once, and in the order of sequence */
	uint32_t sequence;
	uint32_t topic; /* of a producer: the key, of a stream that is compacted */
};
void check_value_write(const struct check_value *v, uint8_t *out);
bool check_value_read(struct bytes in, struct check_value *out);

uint64_t check_op_new(void);
/* Told OK: that record is in the log of that group at that offset, for ever. */
void check_acked(uint64_t op, uint64_t group, int64_t offset);
/* It was sent by topic, to be delivered, after that time, and acknowledged. */
void check_sent(uint64_t op);
bool check_is_expected(uint64_t op, int64_t since_us);
bool check_is_acked(uint64_t op);
bool check_is_found(uint64_t op); /* some replica has applied it */
uint64_t check_ops(void);         /* numbers given */
uint64_t check_acked_count(void);

/* Watches from now on; before its loops run. */
void check_wire(struct sim_node *n);
void check_node_gone(struct sim_node *n);

/* Some partition of a group below that number that is led, where it is. NULL: none is. */
struct partition *check_pick_leader(uint64_t below, struct sim_node **on);
/* Whether any one node may lose its data: every group is led and has three votes or more. */
bool check_bears_loss(void);

/* A node has been removed: no group that is led counts on its vote. */
void check_let_go(int node);

/* The end: everything is healed, nothing is proposed any more. Whether all replicas say the same
 * now (else wait some more; why says what does not). */
bool check_converged(struct sim_node *nodes, int count, char *why, size_t why_size);
void check_dump(void); /* to the record: each replica as it is */
/* Compares all that is stored, and all that was acknowledged, with the history. */
void check_final(struct sim_node *nodes, int count);
uint64_t check_entries(void); /* in the history */
uint64_t check_compacted(
	void); /* entries that lost records, on all machines, as found in the end */

#endif
