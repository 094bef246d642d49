/* A world with users, rules and quotas as documents, put there as they are. */
#ifndef TESTS_BROKER_WORLD_RIGHTS_H
#define TESTS_BROKER_WORLD_RIGHTS_H
#include <time.h>
#include "server/broker/access_priv.h"
#include "server/broker/secret.h"
#include "tests/unit/server/broker/world.h"

static struct world w;

/* Runs fn on a loop and waits for it. */
struct world_step {
	void (*fn)(void);
};
static inline void world_step_run(void *arg)
{
	((struct world_step *)arg)->fn();
	sem_post(&w.done);
}
static inline void on_loop(int loop, void (*fn)(void))
{
	struct world_step step = {fn};
	world_call(&w, loop, world_step_run, &step);
}

/* Processor time of this thread: other work on the machine does not count. */
static inline int64_t cpu_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline void put_doc(struct bytes key, struct bytes value)
{
	struct meta_doc d = {.key = key, .value = value};
	struct world_change c = {.op = {.kind = META_DOCS, .docs = &d, .doc_count = 1}};
	ck_assert_int_eq(world_change(&w, &c), OK);
}

static inline void put_user(const struct user_doc *u)
{
	struct buf key, value;
	buf_init(&key, 4096);
	buf_init(&value, 65536);
	user_key(u->name, &key);
	user_write(u, &value);
	put_doc(buf_bytes(&key), buf_bytes(&value));
	buf_fini(&key);
	buf_fini(&value);
}

static inline void put_user_named(const char *name, const char *tenant, const char *role)
{
	struct user_doc u = {.name = bytes_text(name), .tenant = bytes_text(tenant)};
	if (role != NULL)
		u.roles[u.role_count++] = bytes_text(role);
	put_user(&u);
}

static inline void drop_user(const char *name)
{
	struct buf key;
	buf_init(&key, 4096);
	user_key(bytes_text(name), &key);
	put_doc(buf_bytes(&key), bytes_of(NULL, 0));
	buf_fini(&key);
}

/* "user:NAME allow|deny ACTION RESOURCE literal|prefixed NAME" without the words. */
static inline struct rule rule_of(const char *who, bool deny, enum action action,
	enum resource resource, enum rule_pattern pattern, const char *name)
{
	bool role = *who == '@';
	return (struct rule){.principal = role ? PRINCIPAL_ROLE : PRINCIPAL_USER,
		.who = bytes_text(role ? who + 1 : who),
		.resource = resource,
		.pattern = pattern,
		.name = bytes_text(name),
		.host = bytes_text("*"),
		.deny = deny,
		.action = action};
}

static inline void put_rule(struct rule r, bool there)
{
	struct buf key;
	char why[160];
	buf_init(&key, 4096);
	ck_assert_msg(rule_check(&r, why, sizeof why) == OK, "%s", why);
	rule_key(&r, &key);
	put_doc(buf_bytes(&key), there ? bytes_of("", 0) : bytes_of(NULL, 0));
	buf_fini(&key);
}

static inline void put_quota(
	enum quota_kind kind, const char *name, enum quota_what what, int64_t limit)
{
	struct quota_doc q = {.kind = kind, .name = bytes_text(name)};
	struct buf key, value;
	for (int i = 0; i < QUOTA_WHATS; i++)
		q.limit[i] = i == (int)what ? limit : -1;
	buf_init(&key, 4096);
	buf_init(&value, 4096);
	quota_key(kind, q.name, &key);
	quota_write(&q, &value);
	put_doc(buf_bytes(&key), limit < 0 ? bytes_of(NULL, 0) : buf_bytes(&value));
	buf_fini(&key);
	buf_fini(&value);
}

#endif
