/* Who has a name (a client id): at most one at a time in this process. The directory of a name is
 * on one loop, its home; whoever claims it may be on any. A later claim fences the holder, which
 * ends what it does under that name and then releases it; only then is the name granted again.
 * Claims of one name are granted in the order they reached its home.
 *
 * A holder may say by what epoch it has the name. Who only wants a holder up to some epoch gone
 * does not fence a later one, and is released at once, without a grant, when it meets it. */
#ifndef BROKER_CLAIM_H
#define BROKER_CLAIM_H
#include <stdatomic.h>
#include "server/base/loop.h"
#include "server/base/map.h"

struct claim_home { /* one per loop; its loop only, but for `loop` */
	struct loop *loop;
	struct map holders; /* by name */
};

struct claim;
struct claim_ops { /* all on the claimer's loop */
	void (*granted)(struct claim *c);
	/* After granted: release it soon. Once, but for claim_outlives. */
	void (*fenced)(struct claim *c);
	void (*released)(struct claim *c); /* the last call: the memory is the owner's again */
};

struct claim {                 /* embed; init before use; the memory stays until released */
	struct loop_msg msg;   /* private: acquire, granted, release, released */
	struct loop_msg fence; /* private: fence, stale */
	struct claim_home *home;
	struct loop *from;
	struct claim *behind; /* private: the next to get the name */
	const struct claim_ops *ops;
	struct bytes name; /* borrowed until released */
	uint64_t upto;     /* private: fences holders of up to this epoch */
	/* private: of the holder; 0 until it is known. Its loop writes. */
	_Atomic uint64_t epoch;
	_Atomic uint64_t against; /* private: greatest upto of those behind. The home writes. */
	bool over;                /* private: released; its loop's */
	_Atomic bool withdrawn;   /* private: its loop writes */
};

void claim_home_init(struct claim_home *h, struct loop *l);
void claim_home_fini(struct claim_home *h);
/* Asks for the name; granted follows, never inside the call. On the claimer's loop. */
void claim_acquire(struct claim *c, struct claim_home *home, struct loop *from,
	const struct claim_ops *ops, struct bytes name);
/* As that, but fences no holder of a later epoch than upto. */
void claim_acquire_upto(struct claim *c, struct claim_home *home, struct loop *from,
	const struct claim_ops *ops, struct bytes name, uint64_t upto);
/* Who waits need not have the name any more: when the next one asks for it at the latest it is
 * released, without a grant, or it was granted before. So who comes again and again does not pile
 * up behind a holder that takes long. On the claimer's loop, until released. */
void claim_withdraw(struct claim *c);
/* The holder has the name by this epoch, from now on. On its loop. */
void claim_set_epoch(struct claim *c, uint64_t epoch);
/* Of a holder that was fenced before it knew its epoch: whether that is later than all that was
 * meant. If so it has the name as if nothing had been; `fenced` may run again. On its loop. */
bool claim_outlives(struct claim *c);
/* Gives the name back; after granted, once. */
void claim_release(struct claim *c);

#endif
