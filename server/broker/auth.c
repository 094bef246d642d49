/* Logins by password. The slow hash is compared by threads of their own, so that neither loops nor
 * reads of the disk wait for it, and only as many logins as there is room for. What a worker needs
 * it is given; whose login it is is looked at on the loop only, so the one who asked may go away
 * at any time.
 *
 * A password that was right is recognised by its HMAC, under a key that the process makes up,
 * together with the user's document: another document, another HMAC. Nothing has to be forgotten.
 *
 * A refused login is answered late, counted from its beginning: how long the hash took does not
 * show. The delay doubles with each refusal that comes from the address (of IPv6: the network), and
 * with each that is of the user, the longer one counts. So that nothing is won by many connections,
 * or by not waiting for the answer, an address has so many places for logins, and a refused one
 * takes one for its delay, whether anybody waits or not. A user has none: others could use them up.
 */
#include <arpa/inet.h>
#include <stdatomic.h>
#include <unistd.h>
#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/broker/audit.h"
#include "server/broker/auth_priv.h"

enum {
	LOGINS_MAX = 1024,       /* under way, on all loops */
	LOGINS_OF_FAILING = 128, /* of one address that has failed lately, on all loops */
	LOGINS_LEAST = 4,        /* of it, on a loop */
	PASSWORD_MAX = 1024,
	SOURCES = 4096,
	SEEN = 65536,
	FAIL_DELAY_MAX_MS = 5000,
	FORGIVEN_MS = 60000,
	DOUBLINGS_MAX = 10,
	CORES_PER_HASHER = 4,
	LOGIN_BYTES_MAX = CATALOG_DOC_BYTES_MAX + PASSWORD_MAX + USER_NAME_MAX + 64
};

struct auth_attempt { /* a login that a worker has; all but job is the loop's */
	struct job job;
	struct list node;
	struct auth_login *login; /* NULL: nobody wants to know */
	struct shard_rights *home;
	struct auth_node *auth;
	struct auth_who who;
	int64_t began_ms;
	bool counted; /* among those under way of its source */
	/* For the worker: */
	bool known, right;
	struct buf kept; /* user's key, its document, the password */
	struct bytes key, doc, password;
};

/* ---- life */

void auth_init(struct rights *r)
{
	struct auth_node *n = r->auth = mem_new(sizeof *n);
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	int64_t threads = r->broker->conf->auth_hashers;
	if (threads == 0)
		threads = (cores + CORES_PER_HASHER - 1) / CORES_PER_HASHER;
	n->hashers = workers_new(threads < 1 ? 1 : (int)threads);
	secret_random(n->key, sizeof n->key);
	for (int i = 0; i < r->count; i++) {
		struct auth_home *h = r->shards[i].auth = mem_new(sizeof *h);
		list_init(&h->attempts);
	}
}

static void attempt_free(struct auth_attempt *a)
{
	list_remove(&a->node);
	struct bytes b = buf_bytes(&a->kept);
	secret_wipe((void *)(uintptr_t)b.at, b.len);
	buf_fini(&a->kept);
	mem_free(a);
}

void auth_fini(struct rights *r)
{
	atomic_store(&r->auth->stopping, true);
	workers_free(r->auth->hashers); /* the loops stand: done runs for none */
	for (int i = 0; i < r->count; i++) {
		struct auth_home *h = r->shards[i].auth;
		while (!list_empty(&h->attempts))
			attempt_free(list_entry(h->attempts.next, struct auth_attempt, node));
		mem_free(h->sources);
		mem_free(h->users);
		mem_free(h->seen);
		mem_free(h);
	}
	secret_wipe(r->auth->key, sizeof r->auth->key);
	mem_free(r->auth);
}

/* ---- who is slowed down */

/* What counts as one address: of IPv6 the network. */
static uint64_t source_of(const char *address)
{
	char text[ACCESS_HOST_MAX + 1];
	uint8_t raw[16];
	struct bytes host = host_of(address, text);
	if (inet_pton(AF_INET6, text, raw) == 1)
		return hash_bytes(bytes_of(raw, 8));
	return hash_bytes(host);
}

void auth_keep(const struct auth_peer *p, struct auth_who *out)
{
	const char *address = p->address == NULL ? "" : p->address;
	size_t len = strnlen(address, AUTH_ADDRESS_MAX);
	*out = (struct auth_who){.door = p->door, .source = source_of(address)};
	memcpy(out->address, address, len);
}

/* Of an address that failed once; NULL: it did not, or that is forgotten. */
static struct auth_source *source_find(const struct shard_rights *r, uint64_t hash)
{
	struct auth_source *s = r->auth->sources;
	return s == NULL || s[hash % SOURCES].hash != hash ? NULL : &s[hash % SOURCES];
}

static bool failed_lately(const struct shard_rights *r, const struct auth_source *s)
{
	return s->failures > 0 && loop_now_ms(r->shard->loop) - s->last_ms <= FORGIVEN_MS;
}

/* A loop knows of its own failures only, so each gives away its part. */
static int room_of_failing(const struct rights *r)
{
	int part = LOGINS_OF_FAILING / r->count;
	return part > LOGINS_LEAST ? part : LOGINS_LEAST;
}

/* The latest refusal's. */
static int64_t delay_of(const struct shard_rights *r, const struct auth_source *s)
{
	int64_t delay = r->rights->broker->conf->auth_fail_delay_ms << (s->failures - 1);
	return delay > FAIL_DELAY_MAX_MS ? FAIL_DELAY_MAX_MS : delay;
}

bool auth_may_try(const struct shard_rights *r, const struct auth_who *who)
{
	const struct auth_source *s = source_find(r, who->source);
	if (s == NULL || !failed_lately(r, s))
		return true;
	int64_t now_us = loop_now_ms(r->shard->loop) * 1000, delay_us = delay_of(r, s) * 1000;
	return delay_us == 0 || s->used_us - now_us < delay_us;
}

static int64_t failed(struct shard_rights *r, struct auth_source **table, uint64_t hash)
{
	int64_t now = loop_now_ms(r->shard->loop);
	if (*table == NULL)
		*table = mem_new(SOURCES * sizeof **table);
	struct auth_source *s = &(*table)[hash % SOURCES];
	if (s->hash != hash)
		*s = (struct auth_source){.hash = hash};
	if (now - s->last_ms > FORGIVEN_MS)
		s->failures = 0;
	s->last_ms = now;
	if (s->failures <= DOUBLINGS_MAX)
		s->failures++;
	int64_t delay = delay_of(r, s);
	if (s->used_us < now * 1000)
		s->used_us = now * 1000;
	s->used_us += delay * 1000 / room_of_failing(r->rights);
	return delay;
}

int64_t auth_refused(struct shard_rights *r, const struct auth_who *who, struct bytes user)
{
	COUNT(r->shard, M_LOGINS_REFUSED, 1);
	LOG(LOG_WARN, AREA_BROKER, "login_refused", "door=%s peer=%s user=\"%s\"", who->door,
		who->address, log_text(user).text);
	audit(r->shard,
		&(struct audit_event){.what = "login-refused",
			.door = who->door,
			.peer = who->address,
			.user = user,
			.err = ERR_UNAUTHENTICATED});
	int64_t by_address = failed(r, &r->auth->sources, who->source);
	int64_t by_user = failed(r, &r->auth->users, hash_bytes(user));
	return by_address > by_user ? by_address : by_user;
}

void auth_accepted(struct shard_rights *r)
{
	COUNT(r->shard, M_LOGINS, 1);
}

/* ---- passwords that were right */

static void seen_mac(const struct auth_attempt *a, uint8_t out[AUTH_KEY_BYTES])
{
	secret_mac(bytes_of(a->auth->key, AUTH_KEY_BYTES), buf_bytes(&a->kept), out);
}

static uint8_t *seen_slot(const struct auth_home *h, const uint8_t *mac)
{
	return h->seen[get_u32be(mac + AUTH_SEEN_BYTES) % SEEN];
}

static bool seen(const struct auth_attempt *a)
{
	uint8_t mac[AUTH_KEY_BYTES];
	const struct auth_home *h = a->home->auth;
	if (h->seen == NULL)
		return false;
	seen_mac(a, mac);
	return secret_equal(
		bytes_of(mac, AUTH_SEEN_BYTES), bytes_of(seen_slot(h, mac), AUTH_SEEN_BYTES));
}

static void remember(const struct auth_attempt *a)
{
	uint8_t mac[AUTH_KEY_BYTES];
	struct auth_home *h = a->home->auth;
	if (h->seen == NULL)
		h->seen = mem_new((size_t)SEEN * sizeof *h->seen);
	seen_mac(a, mac);
	memcpy(seen_slot(h, mac), mac, AUTH_SEEN_BYTES);
}

/* ---- by password */

static void login_fire(struct loop_timer *t)
{
	struct auth_login *l = list_entry(t, struct auth_login, timer);
	l->done(l);
}

static void login_ends(struct auth_login *l, enum err e, struct access *access, int64_t after_ms)
{
	l->attempt = NULL;
	l->err = e;
	l->access = access;
	loop_timer_set(&l->timer, after_ms);
}

static void login_refused(struct auth_login *l, struct shard_rights *r, const struct auth_who *who,
	struct bytes user, int64_t began_ms)
{
	int64_t wait = auth_refused(r, who, user) - (clock_ms() - began_ms);
	login_ends(l, ERR_UNAUTHENTICATED, NULL, wait > 0 ? wait : 0);
}

static struct bytes attempt_user(const struct auth_attempt *a)
{
	return bytes_of(a->key.at + 2, a->key.len - 2);
}

/* The password is right, if the user is still the one it was compared with. */
static void attempt_right(struct auth_attempt *a)
{
	struct auth_login *l = a->login;
	struct shard_rights *r = a->home;
	const struct catalog_doc *d = r->catalog == NULL ? NULL : catalog_doc(r->catalog, a->key);
	struct access *access = NULL;
	if (d != NULL && bytes_equal(d->value, a->doc))
		access = access_of_user(r->shard, attempt_user(a), a->who.address);
	if (access == NULL) {
		login_refused(l, r, &a->who, attempt_user(a), a->began_ms);
		return;
	}
	auth_accepted(r);
	login_ends(l, OK, access, 0);
}

static void attempt_work(struct job *j)
{
	struct auth_attempt *a = list_entry(j, struct auth_attempt, job);
	struct user_doc u;
	if (atomic_load(&a->auth->stopping))
		return;
	if (a->known && user_read(a->key, a->doc, &u) == OK)
		a->right = secret_check(&u, a->password) && !u.disabled;
	else
		secret_check_nobody(a->password);
}

static void attempt_done(struct job *j)
{
	struct auth_attempt *a = list_entry(j, struct auth_attempt, job);
	struct shard_rights *r = a->home;
	struct auth_source *s = a->counted ? source_find(r, a->who.source) : NULL;
	if (s != NULL && s->under_way > 0)
		s->under_way--;
	atomic_fetch_sub(&a->auth->under_way, 1);
	if (a->right)
		remember(a);
	if (a->login != NULL && a->right)
		attempt_right(a);
	else if (a->login != NULL)
		login_refused(a->login, r, &a->who, attempt_user(a), a->began_ms);
	else if (!a->right)
		(void)auth_refused(r, &a->who, attempt_user(a)); /* who went counts as well */
	attempt_free(a);
}

/* Whether one more may wait for a worker. */
static bool attempt_enter(struct auth_attempt *a)
{
	struct auth_source *s = source_find(a->home, a->who.source);
	bool failing = s != NULL && failed_lately(a->home, s);
	if (failing &&
		(s->under_way >= room_of_failing(a->home->rights) ||
			!auth_may_try(a->home, &a->who)))
		return false;
	if (atomic_fetch_add(&a->auth->under_way, 1) >= LOGINS_MAX) {
		atomic_fetch_sub(&a->auth->under_way, 1);
		return false;
	}
	a->counted = failing;
	if (failing)
		s->under_way++;
	return true;
}

/* NULL: out of memory. */
static struct auth_attempt *attempt_new(struct auth_login *l, const struct auth_peer *peer,
	struct bytes user, struct bytes password)
{
	struct shard_rights *r = rights_of(l->shard);
	struct auth_attempt *a = mem_new(sizeof *a);
	struct user_doc u;
	a->login = l;
	a->home = r;
	a->auth = r->rights->auth;
	a->began_ms = clock_ms();
	list_push_back(&r->auth->attempts, &a->node);
	auth_keep(peer, &a->who);
	buf_init(&a->kept, LOGIN_BYTES_MAX);
	user_key(user, &a->kept);
	a->known = rights_find_user(r, user, &u) && !u.disabled && u.secret_count > 0;
	const struct catalog_doc *d = a->known ? catalog_doc(r->catalog, buf_bytes(&a->kept))
					       : NULL;
	size_t key_len = buf_len(&a->kept), doc_len = d != NULL ? d->value.len : 0;
	if (d != NULL)
		buf_add(&a->kept, d->value);
	buf_add_u8(&a->kept, 0); /* passwords hold none */
	buf_add(&a->kept, password);
	if (a->kept.err != OK) {
		attempt_free(a);
		return NULL;
	}
	const uint8_t *at = buf_bytes(&a->kept).at;
	a->key = bytes_of(at, key_len);
	a->doc = bytes_of(at + key_len, doc_len);
	a->password = bytes_of(at + key_len + doc_len + 1, password.len);
	return a;
}

void auth_login(struct auth_login *l, const struct auth_peer *peer, struct bytes user,
	struct bytes password)
{
	struct shard_rights *r = rights_of(l->shard);
	char host[ACCESS_HOST_MAX + 1];
	struct auth_who who;
	loop_must_own(l->shard->loop);
	loop_timer_init(&l->timer, l->shard->loop, login_fire);
	l->attempt = NULL;
	l->access = NULL;
	/* Also while auth.bootstrap's user is about to be there. */
	if (!rights_known(r) || (!r->any_user && r->rights->broker->bootstraps)) {
		login_ends(l, ERR_UNAVAILABLE, NULL, 0);
		return;
	}
	bool loopback = peer->local || host_is_loopback(host_of(peer->address, host));
	if (!r->any_user && anonymous_allowed(r, loopback)) {
		login_ends(l, OK, access_anonymous(l->shard, peer->address), 0);
		return;
	}
	if (user.len == 0 || user.len > USER_NAME_MAX || password.len == 0 ||
		password.len > PASSWORD_MAX || memchr(password.at, 0, password.len) != NULL) {
		auth_keep(peer, &who);
		login_refused(l, r, &who, user, clock_ms());
		return;
	}
	struct auth_attempt *a = attempt_new(l, peer, user, password);
	if (a == NULL) {
		login_ends(l, ERR_NOMEM, NULL, 0);
	} else if (a->known && seen(a)) {
		attempt_right(a);
		attempt_free(a);
	} else if (!attempt_enter(a)) {
		COUNT(l->shard, M_LOGINS_BUSY, 1);
		login_ends(l, ERR_BUSY, NULL, 0);
		attempt_free(a);
	} else {
		l->attempt = a;
		a->job = (struct job){
			.home = l->shard->loop, .work = attempt_work, .done = attempt_done};
		worker_run(a->auth->hashers, &a->job);
	}
}

void auth_cancel(struct auth_login *l)
{
	if (l->attempt != NULL)
		l->attempt->login = NULL;
	access_unref(l->access);
	login_ends(l, ERR_CLOSED, NULL, 0);
}

/* ---- without a password */

static const char *certificate_user(const struct shard_rights *r, const struct auth_peer *peer)
{
	switch (r->rights->broker->conf->auth_certificate) {
	case CERTIFICATE_CN: return peer->cert_name;
	case CERTIFICATE_SUBJECT: return peer->cert_subject;
	case CERTIFICATE_SAN: return peer->cert_san;
	default: return NULL;
	}
}

static struct access *by_certificate(struct shard_rights *r, const struct auth_peer *peer)
{
	const char *name = certificate_user(r, peer);
	return name == NULL || *name == 0
		? NULL
		: access_of_user(r->shard, bytes_text(name), peer->address);
}

static bool nobody_may(const struct shard_rights *r, const struct auth_peer *peer)
{
	char host[ACCESS_HOST_MAX + 1];
	return anonymous_allowed(r, host_is_loopback(host_of(peer->address, host)));
}

enum err auth_without(struct shard *s, const struct auth_peer *peer, struct access **out)
{
	struct shard_rights *r = rights_of(s);
	loop_must_own(s->loop);
	*out = NULL;
	if (peer->local) {
		*out = access_all(s, bytes_of(NULL, 0), peer->address);
		return OK;
	}
	if (!rights_known(r))
		return ERR_UNAVAILABLE;
	*out = by_certificate(r, peer);
	if (*out != NULL)
		auth_accepted(r);
	else if (nobody_may(r, peer))
		*out = access_anonymous(s, peer->address);
	return *out != NULL ? OK : ERR_UNAUTHENTICATED;
}

bool auth_needed(struct shard *s, const struct auth_peer *peer)
{
	struct shard_rights *r = rights_of(s);
	if (peer->local)
		return false;
	struct access *a = by_certificate(r, peer);
	access_unref(a);
	return a == NULL && !nobody_may(r, peer);
}
