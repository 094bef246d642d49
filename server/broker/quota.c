/* A token bucket as one number (GCRA): the time up to which what has been used is paid for. Using
 * n moves it n/limit seconds on, from now at the earliest; who is more than the burst (one second)
 * ahead of now has to wait for the rest. Several loops move it by compare and exchange.
 *
 * Limiters are found in chains of a fixed table. A chain only grows, at its head, by compare and
 * exchange, so nobody locks and nobody reads what is being freed. */
#include "server/broker/quota.h"
#include <stdatomic.h>
#include "server/base/map.h"
#include "server/base/mem.h"

enum { CHAINS = 4096 };
static const int64_t second_ns = 1000000000, used_max = 8000000000;

struct limiter {
	struct limiter *next;
	enum quota_kind kind;
	struct bytes name;
	_Atomic int64_t paid_ns[QUOTA_CONNECTIONS]; /* by what, monotonic */
	_Atomic int64_t limits[QUOTA_CONNECTIONS];  /* charged by last; 0: never yet */
	_Atomic int64_t connections;
};

struct quotas {
	_Atomic(struct limiter *) chains[CHAINS];
};

struct quotas *quotas_new(void)
{
	return mem_new(sizeof(struct quotas));
}

void quotas_free(struct quotas *q)
{
	for (int i = 0; q != NULL && i < CHAINS; i++)
		for (struct limiter *l = atomic_load(&q->chains[i]), *next; l != NULL; l = next) {
			next = l->next;
			mem_free(l);
		}
	mem_free(q);
}

static struct limiter *find(
	struct limiter *from, const struct limiter *to, enum quota_kind kind, struct bytes name)
{
	for (; from != to; from = from->next)
		if (from->kind == kind && bytes_equal(from->name, name))
			return from;
	return NULL;
}

struct limiter *quota_limiter(struct quotas *q, enum quota_kind kind, struct bytes name)
{
	_Atomic(struct limiter *) *chain = &q->chains[hash_bytes(name) & (CHAINS - 1)];
	struct limiter *head = atomic_load_explicit(chain, memory_order_acquire);
	struct limiter *l = find(head, NULL, kind, name);
	if (l != NULL)
		return l;
	l = mem_new(sizeof *l + name.len);
	if (name.len > 0)
		memcpy(l + 1, name.at, name.len);
	l->kind = kind;
	l->name = bytes_of(l + 1, name.len);
	l->next = head;
	while (!atomic_compare_exchange_weak_explicit(
		chain, &head, l, memory_order_acq_rel, memory_order_acquire)) {
		/* Others came first; one of them may have been for this name. */
		struct limiter *other = find(head, l->next, kind, name);
		if (other != NULL) {
			mem_free(l);
			return other;
		}
		l->next = head;
	}
	return l;
}

/* Who has been given more owes nothing: with that it would not have come to it. Loops hear of a
 * change one after the other, so for a moment it may be forgiven more than once. */
static void follow_limit(struct limiter *l, enum quota_what what, int64_t limit)
{
	int64_t before = atomic_load_explicit(&l->limits[what], memory_order_relaxed);
	if (before == limit)
		return;
	atomic_store_explicit(&l->limits[what], limit, memory_order_relaxed);
	if (before > 0 && before < limit)
		atomic_store_explicit(&l->paid_ns[what], 0, memory_order_relaxed);
}

int64_t limiter_charge(
	struct limiter *l, enum quota_what what, int64_t limit, int64_t n, int64_t now_ms)
{
	int64_t now = now_ms * 1000000, cost, before, after;
	if (limit < 0 || n <= 0 || what >= QUOTA_CONNECTIONS)
		return 0;
	if (limit == 0)
		return QUOTA_WAIT_MAX_MS;
	follow_limit(l, what, limit);
	if (n > used_max)
		n = used_max;
	cost = n * second_ns / limit;
	before = atomic_load_explicit(&l->paid_ns[what], memory_order_relaxed);
	do {
		int64_t from = before > now ? before : now;
		/* One huge use is not paid for all day: what is owed has a bound. */
		int64_t last = now + second_ns + QUOTA_WAIT_MAX_MS * (int64_t)1000000;
		after = cost > last - from ? last : from + cost;
	} while (!atomic_compare_exchange_weak_explicit(
		&l->paid_ns[what], &before, after, memory_order_relaxed, memory_order_relaxed));
	int64_t ahead = after - now - second_ns;
	return ahead <= 0 ? 0 : (ahead + 999999) / 1000000;
}

bool limiter_connect(struct limiter *l, int64_t limit)
{
	int64_t before = atomic_fetch_add_explicit(&l->connections, 1, memory_order_relaxed);
	if (limit < 0 || before < limit)
		return true;
	atomic_fetch_sub_explicit(&l->connections, 1, memory_order_relaxed);
	return false;
}

void limiter_add_connections(struct limiter *l, int64_t n)
{
	atomic_fetch_add_explicit(&l->connections, n, memory_order_relaxed);
}

int64_t limiter_connections(const struct limiter *l)
{
	return atomic_load_explicit(&l->connections, memory_order_relaxed);
}
