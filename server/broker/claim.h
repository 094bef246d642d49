/* Who has a name (a client id): at most one at a time in this process. The directory of a name is
 * on one loop, its home; whoever claims it may be on any. A later claim fences the holder, which
 * ends what it does under that name and then releases it; only then is the name granted again.
 * Claims of one name are granted in the order they reached its home. */
#ifndef BROKER_CLAIM_H
#define BROKER_CLAIM_H
#include "server/base/loop.h"
#include "server/base/map.h"

struct claim_home { /* one per loop; its loop only, but for `loop` */
	struct loop *loop;
	struct map holders; /* by name */
};

struct claim;
struct claim_ops { /* all on the claimer's loop */
	void (*granted)(struct claim *c);
	void (*fenced)(struct claim *c);   /* after granted, at most once: release it soon */
	void (*released)(struct claim *c); /* the last call: the memory is the owner's again */
};

struct claim {                 /* embed; init before use; the memory stays until released */
	struct loop_msg msg;   /* private: acquire, granted, release, released */
	struct loop_msg fence; /* private */
	struct claim_home *home;
	struct loop *from;
	struct claim *behind; /* private: the next to get the name */
	const struct claim_ops *ops;
	struct bytes name; /* borrowed until released */
};

void claim_home_init(struct claim_home *h, struct loop *l);
void claim_home_fini(struct claim_home *h);
/* Asks for the name; granted follows, never inside the call. On the claimer's loop. */
void claim_acquire(struct claim *c, struct claim_home *home, struct loop *from,
	const struct claim_ops *ops, struct bytes name);
/* Gives the name back; after granted, once. */
void claim_release(struct claim *c);

#endif
