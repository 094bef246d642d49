/* Makes a group's configuration what the catalogue wants, one safe step at a time; on the leader,
 * elsewhere it only remembers. Order: add what is missing (spare, standby, and when it has caught
 * up voter), then take away what is too much (leader: transfer first; voter to spare, remove), then
 * hand leadership to voters[0] after it has been in sync for 10 s. Never a step that would leave
 * the group without a majority of voters in sync, unless forced. Thread and owner: the partition's.
 */
#ifndef CLUSTER_MEMBERSHIP_H
#define CLUSTER_MEMBERSHIP_H
#include "cluster/consensus.h"

struct membership;
struct membership_wanted {
	const uint64_t *voters; /* replica ids; [0] leads best */
	int voter_count;
	const uint64_t *learners;
	int learner_count;
};
struct membership *membership_new(struct consensus *c, struct loop *l);
void membership_free(struct membership *m);
void membership_want(struct membership *m, const struct membership_wanted *w); /* copies */
void membership_tick(struct membership *m, int64_t now_ms); /* with consensus_tick: takes a step */
/* Hands leadership to a replica of that node (0: the voter that is furthest); once. */
void membership_step_aside(struct membership *m, uint32_t node);

#endif
