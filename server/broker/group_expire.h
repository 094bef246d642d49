/* Groups that nobody uses any more. A committed offset goes when neither it nor its group has been
 * in use for group.offsets_retention, or when its stream is gone; the group's row follows. A group
 * with members keeps its offsets however old they are: its row is renewed while they are there.
 * Thread: the sweeps' loop. */
#ifndef BROKER_GROUP_EXPIRE_H
#define BROKER_GROUP_EXPIRE_H
#include "server/broker/group_home.h"
#include "server/broker/sweep.h"

struct group_expire { /* embed; one per loop; private */
	struct sweep offsets, rows;
	struct groups *groups;
	const struct group_conf *conf;
	struct node *node;
	struct loop *loop;
};
/* conf: borrowed for good, a reload changes it. */
void group_expire_start(struct group_expire *x, struct groups *groups,
	const struct group_conf *conf, struct node *node, struct loop *l);
void group_expire_stop(struct group_expire *x);
void group_expire_free(struct group_expire *x); /* loops stand */

#endif
