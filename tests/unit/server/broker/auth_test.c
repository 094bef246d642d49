/* Logins on a node of two loops. */
#include "server/broker/auth_priv.h"
#include "server/broker/scram.h"
#include "tests/unit/server/broker/world_rights.h"

static const struct auth_peer near = {.door = "test", .address = "127.0.0.1:1"};
static const struct auth_peer far = {.door = "test", .address = "10.0.0.9:77"};

static struct bytes B(const char *text) {
	return bytes_text(text);
}

static struct shard *
shard(void)
{
	return broker_shard(w.broker, loop_here());
}

static void put_user_with(const char *name, const char *password, bool disabled)
{
	struct secrets s;
	struct user_doc u = {.name = B(name), .disabled = disabled};
	ck_assert_int_eq(secrets_make(B(password), &s), OK);
	for (int i = 0; i < s.count; i++)
		u.secrets[u.secret_count++] = s.of[i];
	put_user(&u);
	secrets_fini(&s);
}

static void apply_rows(void *arg)
{
	(void)arg;
	conf_apply(w.rows, false);
}
static void set_live(const char *key, const char *value)
{
	world_set(&w, key, value);
	loops_stand_still(w.loops, apply_rows, NULL);
}

static void setup(void)
{
	world_init(&w);
	log_setup(LOG_ERROR, false); /* refused logins are told */
	world_set(&w, "auth.hashers", "1");
	world_set(&w, "auth.fail_delay", "1ms");
	world_start(&w, 2);
	put_user_with("u", "right", false);
	put_user_with("off", "right", true);
}
static void teardown(void)
{
	world_stop(&w);
}

/* ---- by password */

struct
try {
	struct auth_login l;
	int loop;
	const struct auth_peer *peer;
	struct bytes user, password;
	_Atomic int done;
	int64_t took_ms;
	bool cancel;
};

static void login_done(struct auth_login *l)
{
	struct try *t = list_entry(l, struct try, l);
	t->took_ms = clock_ms() - t->took_ms;
	if (l->access != NULL)
		ck_assert(bytes_equal(access_user(l->access), t->user));
	access_unref(l->access);
	atomic_fetch_add(&t->done, 1);
}
static void login_run(void *arg)
{
	struct try *t = arg;
	t->l.shard = shard();
	t->l.done = login_done;
	t->took_ms = clock_ms();
	auth_login(&t->l, t->peer, t->user, t->password);
	ck_assert_int_eq(t->done, 0);
	if (t->cancel)
		auth_cancel(&t->l);
}
static void login_start(struct try *t)
{
	atomic_store(&t->done, 0);
	loop_call(loops_at(w.loops, t->loop), login_run, t);
}
static enum err login_end(struct try *t)
{
	for (int i = 0; i < 200000 && atomic_load(&t->done) == 0; i++)
		usleep(500);
	ck_assert_int_eq(t->done, 1);
	return t->l.err;
}
static enum err login(const struct auth_peer *peer, const char *user, const char *password)
{
	struct try t = {.peer = peer, .user = B(user), .password = B(password)};
	login_start(&t);
	return login_end(&t);
}

static int64_t count(int row)
{
	return metric_sum(&broker_metrics, row);
}

START_TEST(only_the_right_password_comes_in)
{
	int64_t in = count(M_LOGINS), refused = count(M_LOGINS_REFUSED);
	ck_assert_int_eq(login(&far, "u", "right"), OK);
	ck_assert_int_eq(login(&far, "u", "right"), OK); /* remembered */
	ck_assert_int_eq(login(&far, "u", "wrong"), ERR_UNAUTHENTICATED);
	ck_assert_int_eq(login(&far, "u", ""), ERR_UNAUTHENTICATED);
	ck_assert_int_eq(login(&far, "", "right"), ERR_UNAUTHENTICATED);
	ck_assert_int_eq(login(&far, "v", "right"), ERR_UNAUTHENTICATED);
	ck_assert_int_eq(login(&far, "off", "right"), ERR_UNAUTHENTICATED);
	ck_assert_int_eq(login(&near, "off", "right"), ERR_UNAUTHENTICATED);
	ck_assert_int_eq(count(M_LOGINS) - in, 2);
	ck_assert_int_eq(count(M_LOGINS_REFUSED) - refused, 6);
}
END_TEST

START_TEST(hostile_names_and_passwords_are_refused)
{
	char *big = mem_new(70000);
	memset(big, 'a', 69999);
	ck_assert_int_eq(login(&far, big, "right"), ERR_UNAUTHENTICATED);
	ck_assert_int_eq(login(&far, "u", big), ERR_UNAUTHENTICATED);
	struct try t = {.peer = &far, .user = B("u"), .password = bytes_of("right\0", 6)};
	login_start(&t);
	ck_assert_int_eq(login_end(&t), ERR_UNAUTHENTICATED);
	t.user = bytes_of("u\0u", 3);
	t.password = B("right");
	login_start(&t);
	ck_assert_int_eq(login_end(&t), ERR_UNAUTHENTICATED);
	ck_assert_int_eq(login(&far, "\xff\xfe\n\"", "right"), ERR_UNAUTHENTICATED);
	mem_free(big);
}
END_TEST

START_TEST(what_is_remembered_goes_with_the_document)
{
	ck_assert_int_eq(login(&far, "u", "right"), OK);
	put_user_with("u", "other", false);
	ck_assert_int_eq(login(&far, "u", "right"), ERR_UNAUTHENTICATED);
	ck_assert_int_eq(login(&far, "u", "other"), OK);
	put_user_with("u", "other", true);
	ck_assert_int_eq(login(&far, "u", "other"), ERR_UNAUTHENTICATED);
	drop_user("u");
	ck_assert_int_eq(login(&far, "u", "other"), ERR_UNAUTHENTICATED);
}
END_TEST

/* Remembered: no hash is computed (a hash takes milliseconds). */
START_TEST(a_password_that_was_right_costs_little)
{
	struct try t = {.peer = &far, .user = B("u"), .password = B("right")};
	login_start(&t);
	ck_assert_int_eq(login_end(&t), OK);
	int64_t began = clock_ms();
	for (int i = 0; i < 50; i++) {
		login_start(&t);
		ck_assert_int_eq(login_end(&t), OK);
	}
	printf("a login remembered: %.2f ms with the test's own waiting\n",
		(double)(clock_ms() - began) / 50);
	ck_assert_int_eq(atomic_load(&w.broker->rights->auth->under_way), 0);
}
END_TEST

enum { LONGEST_MS = 5000, TURN_MS = 10 }; /* a timer counts from its turn's beginning */

START_TEST(refusals_wait_longer_and_longer)
{
	static const struct auth_peer other = {.door = "test", .address = "10.0.0.10:5"};
	set_live("auth.fail_delay", "40ms");
	for (int i = 0; i < 4; i++) {
		struct try t = {.peer = &far, .user = B(i % 2 ? "u" : "v"), .password = B("no")};
		login_start(&t);
		ck_assert_int_eq(login_end(&t), ERR_UNAUTHENTICATED);
		ck_assert_int_ge(t.took_ms, (40 << i) - TURN_MS);
	}
	set_live("auth.fail_delay", "400ms"); /* the fifth there waits for the longest there is */
	struct try t = {.peer = &other, .user = B("u"), .password = B("no")};
	login_start(&t);
	ck_assert_int_eq(login_end(&t), ERR_UNAUTHENTICATED);
	ck_assert_int_lt(t.took_ms, LONGEST_MS);
	/* The right one is not slowed down. */
	t.peer = &far;
	t.password = B("right");
	login_start(&t);
	ck_assert_int_eq(login_end(&t), OK);
}
END_TEST

/* From wherever they come. */
START_TEST(refusals_of_a_user_wait_longer_and_longer)
{
	char address[32];
	struct auth_peer from = {.door = "test", .address = address};
	set_live("auth.fail_delay", "40ms");
	for (int i = 0; i < 4; i++) {
		snprintf(address, sizeof address, "10.1.0.%d:5", i);
		struct try t = {.peer = &from, .user = B("u"), .password = B("no")};
		login_start(&t);
		ck_assert_int_eq(login_end(&t), ERR_UNAUTHENTICATED);
		ck_assert_int_ge(t.took_ms, (40 << i) - TURN_MS);
	}
	set_live("auth.fail_delay", "400ms");
	struct try t = {.peer = &from, .user = B("u"), .password = B("right")};
	login_start(&t);
	ck_assert_int_eq(login_end(&t), OK);
	ck_assert_int_lt(t.took_ms, LONGEST_MS);
	struct try v = {.peer = &near, .user = B("v"), .password = B("no")};
	login_start(&v);
	ck_assert_int_eq(login_end(&v), ERR_UNAUTHENTICATED);
	ck_assert_int_lt(v.took_ms, LONGEST_MS);
}
END_TEST

/* Of IPv6 the network counts, whatever the address in it. */
START_TEST(a_network_is_one_address)
{
	struct auth_who a, b, c, d;
	auth_keep(&(struct auth_peer){.address = "[2001:db8:1:2::5]:80"}, &a);
	auth_keep(&(struct auth_peer){.address = "[2001:db8:1:2:ffff::1]:99"}, &b);
	auth_keep(&(struct auth_peer){.address = "[2001:db8:1:3::5]:80"}, &c);
	auth_keep(&(struct auth_peer){.address = NULL}, &d);
	ck_assert(a.source == b.source);
	ck_assert(a.source != c.source);
	auth_keep(&(struct auth_peer){.address = "[::ffff:10.0.0.9]:80"}, &a);
	auth_keep(&far, &b);
	ck_assert(a.source == b.source);
	ck_assert_str_eq(b.address, far.address);
}
END_TEST

enum { FLOOD = 1300 };
static struct try flood[FLOOD];

/* The one worker of passwords stands still meanwhile. */
static struct job still;
static _Atomic bool stands;
static void stand(struct job *j)
{
	(void)j;
	while (atomic_load(&stands))
		usleep(500);
}
static void stood(struct job *j)
{
	(void)j;
}
static void hasher_stops(void)
{
	atomic_store(&stands, true);
	still = (struct job){.home = loops_at(w.loops, 0), .work = stand, .done = stood};
	worker_run(w.broker->rights->auth->hashers, &still);
}
static void nothing(void) {}
/* All that was asked until now has been let in, or not. */
static void hasher_goes_on(void)
{
	on_loop(0, nothing);
	on_loop(1, nothing);
	atomic_store(&stands, false);
}

START_TEST(a_flood_is_turned_away)
{
	int busy = 0, ok = 0;
	hasher_stops();
	for (int i = 0; i < FLOOD; i++) {
		flood[i] = (struct try){
			.loop = i % 2, .peer = &far, .user = B("u"), .password = B("right")};
		login_start(&flood[i]);
	}
	hasher_goes_on();
	for (int i = 0; i < FLOOD; i++) {
		enum err e = login_end(&flood[i]);
		ck_assert(e == OK || e == ERR_BUSY);
		busy += e == ERR_BUSY;
		ok += e == OK;
	}
	ck_assert_int_ge(busy, 1);
	ck_assert_int_ge(ok, 1000);
	ck_assert_int_eq(atomic_load(&w.broker->rights->auth->under_way), 0);
	ck_assert_int_eq(login(&far, "u", "right"), OK);
}
END_TEST

/* Who fails may fill a part of what there is room for only. */
START_TEST(a_failing_address_leaves_room)
{
	static const struct auth_peer other = {.door = "test", .address = "10.9.9.9:5"};
	int busy = 0;
	ck_assert_int_eq(login(&far, "u", "no"), ERR_UNAUTHENTICATED);
	hasher_stops();
	for (int i = 0; i < 300; i++) {
		flood[i] = (struct try){.peer = &far, .user = B("u"), .password = B("no")};
		login_start(&flood[i]);
	}
	hasher_goes_on();
	/* Of all loops: it came over one of two. */
	ck_assert_int_le(atomic_load(&w.broker->rights->auth->under_way), 64);
	ck_assert_int_eq(login(&other, "u", "right"), OK);
	for (int i = 0; i < 300; i++)
		busy += login_end(&flood[i]) == ERR_BUSY;
	ck_assert_int_ge(busy, 100);
}
END_TEST

static struct auth_source *far_source(void)
{
	struct auth_who who;
	auth_keep(&far, &who);
	struct auth_source *s = rights_of(shard())->auth->sources;
	while (s->hash != who.source)
		s++;
	return s;
}
static void an_hour_passes(void)
{
	far_source()->last_ms -= 3600000;
}
/* However long the test takes. */
static void all_is_used_for_an_hour(void)
{
	far_source()->used_us += (int64_t)3600 * 1000000;
}

START_TEST(a_failure_is_forgiven)
{
	ck_assert_int_eq(login(&far, "u", "no"), ERR_UNAUTHENTICATED);
	on_loop(0, an_hour_passes);
	for (int i = 0; i < 150; i++) {
		flood[i] = (struct try){.peer = &far, .user = B("u"), .password = B("right")};
		login_start(&flood[i]);
	}
	for (int i = 0; i < 150; i++)
		ck_assert_int_eq(login_end(&flood[i]), OK);
}
END_TEST

START_TEST(cancelled_logins_end_soon)
{
	for (int i = 0; i < 200; i++) {
		flood[i] = (struct try){.loop = i % 2,
			.peer = i % 3 ? &far : &near,
			.user = B(i % 4 ? "u" : "v"),
			.password = B(i % 5 ? "right" : "no"),
			.cancel = i % 2 == 0 || i % 3 == 0};
		login_start(&flood[i]);
	}
	for (int i = 0; i < 200; i++) {
		enum err e = login_end(&flood[i]);
		if (flood[i].cancel)
			ck_assert_int_eq(e, ERR_CLOSED);
		else
			ck_assert_int_eq(e, i % 4 && i % 5 ? OK : ERR_UNAUTHENTICATED);
	}
}
END_TEST

/* The loops end with logins on workers and failures waiting: nothing is touched afterwards. */
START_TEST(ends_with_logins_under_way)
{
	for (int i = 0; i < 400; i++) {
		flood[i] = (struct try){.loop = i % 2,
			.peer = &far,
			.user = B("u"),
			.password = B(i % 2 ? "right" : "no")};
		login_start(&flood[i]);
	}
	usleep(20000);
}
END_TEST

/* Memory that a peer's words would need may lack: then the login is refused, and no more. */
static struct auth_login starved;
static int starved_at;
static void starved_done(struct auth_login *l)
{
	ck_assert((l->access != NULL) == (l->err == OK));
	access_unref(l->access);
	sem_post(&w.done);
}
static void starve(void *arg)
{
	(void)arg;
	starved = (struct auth_login){.shard = shard(), .done = starved_done};
	mem_fail_at(starved_at);
	auth_login(&starved, &far, B("u"), B("right"));
	mem_fail_at(-1);
}

START_TEST(memory_may_lack)
{
	int lacked = 0;
	ck_assert_int_eq(login(&far, "u", "right"), OK); /* remembered from now on */
	for (starved_at = 0; starved_at < 12; starved_at++) {
		world_call(&w, 0, starve, NULL);
		ck_assert(starved.err == OK || starved.err == ERR_NOMEM ||
			starved.err == ERR_UNAUTHENTICATED);
		lacked += starved.err != OK;
	}
	ck_assert_int_gt(lacked, 0);
	ck_assert_int_eq(starved.err, OK);
}
END_TEST

/* ---- without */

static struct auth_peer asks;
static enum err without_err;
static char without_user[300];
static bool without_admin, needed;
static void without_run(void)
{
	struct access *a;
	without_err = auth_without(shard(), &asks, &a);
	needed = auth_needed(shard(), &asks);
	ck_assert((a != NULL) == (without_err == OK));
	if (a == NULL)
		return;
	struct bytes user = access_user(a);
	snprintf(without_user, sizeof without_user, "%.*s", (int)user.len, (const char *)user.at);
	without_admin = access_cluster_admin(a);
	access_unref(a);
}
static enum err without(struct auth_peer peer)
{
	asks = peer;
	*without_user = 0;
	on_loop(0, without_run);
	ck_assert_int_eq(needed, without_err != OK);
	return without_err;
}

START_TEST(who_comes_without_a_login)
{
	struct auth_peer local = near;
	local.local = true;
	ck_assert_int_eq(without(near), ERR_UNAUTHENTICATED); /* there are users */
	ck_assert_int_eq(without(far), ERR_UNAUTHENTICATED);
	ck_assert_int_eq(without(local), OK);
	ck_assert(without_admin);
	set_live("auth.anonymous", "on");
	ck_assert_int_eq(without(far), OK);
	ck_assert_str_eq(without_user, "ANONYMOUS");
	ck_assert(!without_admin);
	drop_user("u");
	drop_user("off");
	ck_assert_int_eq(without(far), OK);
	ck_assert(without_admin);
	set_live("auth.anonymous", "auto");
	ck_assert_int_eq(without(near), OK);
	ck_assert_int_eq(without(far), ERR_UNAUTHENTICATED);
	/* What is said does not matter while there is no user. */
	ck_assert_int_eq(login(&far, "u", "right"), ERR_UNAUTHENTICATED);
	struct try t = {.peer = &near, .user = B("ANONYMOUS"), .password = B("x")};
	login_start(&t);
	ck_assert_int_eq(login_end(&t), OK);
	set_live("auth.anonymous", "off");
	ck_assert_int_eq(without(near), ERR_UNAUTHENTICATED);
	ck_assert_int_eq(without(local), OK);
}
END_TEST

START_TEST(certificates_name_users)
{
	struct auth_peer p = far;
	p.cert_name = "u";
	p.cert_subject = "CN=u,O=x";
	p.cert_san = "u.example";
	ck_assert_int_eq(without(p), OK);
	ck_assert_str_eq(without_user, "u");
	set_live("auth.certificate", "subject");
	ck_assert_int_eq(without(p), ERR_UNAUTHENTICATED);
	put_user_named("CN=u,O=x", "", NULL);
	ck_assert_int_eq(without(p), OK);
	ck_assert_str_eq(without_user, "CN=u,O=x");
	set_live("auth.certificate", "san");
	ck_assert_int_eq(without(p), ERR_UNAUTHENTICATED);
	put_user_named("u.example", "", NULL);
	ck_assert_int_eq(without(p), OK);
	set_live("auth.certificate", "off");
	ck_assert_int_eq(without(p), ERR_UNAUTHENTICATED);
	set_live("auth.certificate", "cn");
	p.cert_name = "off"; /* disabled */
	ck_assert_int_eq(without(p), ERR_UNAUTHENTICATED);
	p.cert_name = "";
	ck_assert_int_eq(without(p), ERR_UNAUTHENTICATED);
}
END_TEST

/* ---- SCRAM, with a client of our own */

static enum secret_kind kind;
static const char *scram_user, *scram_password;
static char gs2[64], broken[64], repeated[64];
static struct buf server_first, server_final, client_first, client_final;
static struct auth_scram *exchange;
static const struct auth_peer *scram_peer = &far;
static enum err scram_err;
static _Atomic int scram_over;
static uint8_t salted[SECRET_HASH_MAX];

static void scram_setup(void)
{
	buf_init(&server_first, 4096);
	buf_init(&server_final, 4096);
	buf_init(&client_first, 4096);
	buf_init(&client_final, 4096);
}

static void begin(void)
{
	scram_err = auth_scram_begin(
		shard(), kind, scram_peer, buf_bytes(&client_first), &server_first, &exchange);
}

static void ended(void *arg, enum err e, struct access *a, struct bytes final)
{
	(void)arg;
	scram_err = e;
	ck_assert((a != NULL) == (e == OK));
	buf_clear(&server_final);
	buf_add(&server_final, final);
	if (a != NULL)
		ck_assert(bytes_equal(access_user(a), B(scram_user)));
	access_unref(a);
	atomic_store(&scram_over, 1);
}
static void end(void)
{
	atomic_store(&scram_over, 0);
	auth_scram_end(exchange, buf_bytes(&client_final), ended, NULL);
	ck_assert_int_eq(atomic_load(&scram_over), 0);
}

/* The proof, by the same arithmetic that secret_test holds against the RFC. */
static void answer(void)
{
	uint8_t stored[SECRET_HASH_MAX], server[SECRET_HASH_MAX], client[SECRET_HASH_MAX];
	size_t len = secret_hash_bytes(kind);
	char first[1024], nonce[600], salt[300];
	unsigned iterations;
	struct buf raw, said;
	struct bytes s = buf_bytes(&server_first);
	snprintf(first, sizeof first, "%.*s", (int)s.len, (const char *)s.at);
	ck_assert_int_eq(sscanf(first, "r=%599[^,],s=%299[^,],i=%u", nonce, salt, &iterations), 3);
	buf_init(&raw, 1024);
	buf_init(&said, 4096);
	ck_assert_int_eq(base64_read(B(salt), &raw), OK);
	secret_salted(kind, B(scram_password), buf_bytes(&raw), iterations, salted);
	secret_keys(kind, salted, stored, server);
	struct secret key = {.kind = kind, .server_key = bytes_of(stored, len)};
	buf_clear(&client_final);
	buf_add_text(&client_final, "c=");
	base64_write(B(gs2), &client_final);
	buf_addf(&client_final, ",r=%s%s%s", repeated, nonce, broken);
	struct bytes c = buf_bytes(&client_first);
	buf_add(&said, bytes_of(c.at + strlen(gs2), c.len - strlen(gs2)));
	buf_addf(&said, ",%s,", first);
	buf_add(&said, buf_bytes(&client_final));
	secret_server_signature(&key, buf_bytes(&said), client); /* HMAC(StoredKey, said) */
	/* ClientKey is what a proof of zeros would need: HMAC(salted, "Client Key"). */
	struct secret by = {.kind = kind, .server_key = bytes_of(salted, len)};
	uint8_t client_key[SECRET_HASH_MAX];
	secret_server_signature(&by, B("Client Key"), client_key);
	for (size_t i = 0; i < len; i++)
		client[i] ^= client_key[i];
	buf_add_text(&client_final, ",p=");
	base64_write(bytes_of(client, len), &client_final);
	/* What the server is to prove. */
	struct secret ours = {.kind = kind, .server_key = bytes_of(server, len)};
	secret_server_signature(&ours, buf_bytes(&said), stored);
	buf_clear(&raw);
	buf_add_text(&raw, "v=");
	base64_write(bytes_of(stored, len), &raw);
	buf_clear(&server_final);
	buf_add(&server_final, buf_bytes(&raw));
	buf_fini(&raw);
	buf_fini(&said);
}

static enum err scram_begin(const char *user)
{
	scram_user = user;
	buf_clear(&client_first);
	buf_clear(&server_first);
	buf_addf(&client_first, "%sn=%s,r=fyko+d2lbbFgONRv9qkxdawL", gs2, user);
	on_loop(0, begin);
	return scram_err;
}
static enum err scram_end(void)
{
	on_loop(0, end);
	for (int i = 0; i < 200000 && atomic_load(&scram_over) == 0; i++)
		usleep(500);
	ck_assert_int_eq(atomic_load(&scram_over), 1);
	return scram_err;
}
static enum err scram(const char *user, const char *password)
{
	char want[300];
	scram_password = password;
	enum err e = scram_begin(user);
	if (e != OK)
		return e;
	answer();
	struct bytes f = buf_bytes(&server_final);
	snprintf(want, sizeof want, "%.*s", (int)f.len, (const char *)f.at);
	e = scram_end();
	if (e == OK)
		ck_assert(bytes_equal(buf_bytes(&server_final), B(want)));
	else
		ck_assert(bytes_equal(buf_bytes(&server_final), B("e=invalid-proof")));
	return e;
}

START_TEST(scram_lets_in_who_knows_the_password)
{
	static const char *const headers[] = {"n,,", "y,,", "n,a=u,"};
	scram_setup();
	kind = _i % 2 ? SECRET_SCRAM_512 : SECRET_SCRAM_256;
	snprintf(gs2, sizeof gs2, "%s", headers[_i / 2]);
	ck_assert_int_eq(scram("u", "right"), OK);
	ck_assert_int_eq(scram("u", "wrong"), ERR_UNAUTHENTICATED);
	snprintf(gs2, sizeof gs2, "n,,");
	ck_assert_int_eq(scram("v", "right"), ERR_UNAUTHENTICATED);
	ck_assert_int_eq(scram("off", "right"), ERR_UNAUTHENTICATED);
	snprintf(gs2, sizeof gs2, "n,a=root,");
	ck_assert_int_eq(scram("u", "right"), ERR_UNAUTHENTICATED);
}
END_TEST

START_TEST(scram_needs_its_own_nonce)
{
	scram_setup();
	kind = SECRET_SCRAM_256;
	snprintf(gs2, sizeof gs2, "n,,");
	snprintf(broken, sizeof broken, "x");
	ck_assert_int_eq(scram("u", "right"), ERR_UNAUTHENTICATED);
	*broken = 0;
	snprintf(repeated, sizeof repeated, "fyko+d2lbbFgONRv9qkxdawL"); /* as librdkafka does */
	ck_assert_int_eq(scram("u", "right"), OK);
	ck_assert_int_eq(scram("u", "wrong"), ERR_UNAUTHENTICATED);
	*repeated = 0;
	/* The last message of another exchange is nothing here. */
	scram_password = "right";
	ck_assert_int_eq(scram_begin("u"), OK);
	answer();
	struct auth_scram *first = exchange;
	ck_assert_int_eq(scram_begin("u"), OK);
	ck_assert_int_eq(scram_end(), ERR_UNAUTHENTICATED);
	exchange = first;
	ck_assert_int_eq(scram_end(), OK);
}
END_TEST

/* The salt of somebody who does not exist is the same each time, and each one's own. */
static void salt_of(const char *user, char *out, size_t size)
{
	ck_assert_int_eq(scram_begin(user), OK);
	struct bytes s = buf_bytes(&server_first);
	const uint8_t *at = memmem(s.at, s.len, ",s=", 3);
	ck_assert_ptr_nonnull(at);
	snprintf(out, size, "%.*s", (int)(s.at + s.len - at), (const char *)at);
	auth_scram_free(exchange);
}

START_TEST(scram_does_not_tell_who_exists)
{
	char a[200], b[200], c[200], real[200];
	scram_setup();
	kind = SECRET_SCRAM_256;
	snprintf(gs2, sizeof gs2, "n,,");
	salt_of("nobody", a, sizeof a);
	salt_of("nobody", b, sizeof b);
	salt_of("nobodx", c, sizeof c);
	salt_of("u", real, sizeof real);
	ck_assert_str_eq(a, b);
	ck_assert_str_ne(a, c);
	ck_assert(strlen(a) == strlen(real));
	ck_assert_str_eq(strrchr(a, ','), strrchr(real, ',')); /* iterations */
}
END_TEST

static void put_user_of_kafka(const char *name, const char *salt, uint32_t iterations)
{
	static const uint8_t key[64] = {1};
	struct user_doc u = {.name = B(name), .secret_count = 1};
	u.secrets[0] = (struct secret){.kind = SECRET_SCRAM_256,
		.salt = B(salt),
		.stored_key = bytes_of(key, 32),
		.server_key = bytes_of(key, 32),
		.iterations = iterations};
	put_user(&u);
}

static bool all_digits(struct bytes b)
{
	for (size_t i = 0; i < b.len; i++)
		if (!(b.at[i] >= '0' && b.at[i] <= '9') && !(b.at[i] >= 'a' && b.at[i] <= 'z'))
			return false;
	return true;
}

/* Kafka's tools choose iterations, and salts that are numbers in base 36. Who does not exist looks
 * like one of those who do. */
START_TEST(scram_does_not_tell_who_exists_by_iterations)
{
	char name[32], said[400], salt[300];
	int of_kafka = 0, of_ours = 0;
	unsigned iterations;
	struct buf raw;
	scram_setup();
	kind = SECRET_SCRAM_256;
	snprintf(gs2, sizeof gs2, "n,,");
	put_user_of_kafka("k1", "1a2b3c4d5e6f7g8h9i0j1k2l3m", 4096);
	put_user_of_kafka("t", "1zzb3c4d5e6f7g8h9i0j1k2l3m", 4096);
	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof name, "nobody-%d", i);
		salt_of(name, said, sizeof said);
		ck_assert_int_eq(sscanf(said, ",s=%299[^,],i=%u", salt, &iterations), 2);
		buf_init(&raw, 1024);
		ck_assert_int_eq(base64_read(B(salt), &raw), OK);
		struct bytes b = buf_bytes(&raw);
		of_kafka += iterations == 4096;
		of_ours += iterations == SECRET_ITERATIONS;
		ck_assert_uint_eq(b.len, iterations == 4096 ? 26 : SECRET_SALT_BYTES);
		ck_assert(all_digits(b) == (iterations == 4096));
		if (iterations == 4096)
			ck_assert_int_eq(b.at[0], '1');
		buf_fini(&raw);
	}
	ck_assert_int_eq(of_kafka + of_ours, 100);
	ck_assert_int_gt(of_kafka, 20);
	ck_assert_int_gt(of_ours, 10);
	kind = SECRET_SCRAM_512; /* those of Kafka have none */
	salt_of("nobody", said, sizeof said);
	ck_assert_ptr_nonnull(strstr(said, ",i=8192"));
}
END_TEST

/* Guesses over many connections, none of which waits for its answer. */
enum { GUESSES = 500 };

static void guess(void)
{
	for (int i = 0; i < GUESSES; i++) {
		buf_clear(&server_first);
		begin();
		ck_assert_int_eq(scram_err, OK);
		auth_scram_end(exchange, B("c=biws,r=x,p=AAAA"), ended, NULL);
		auth_scram_free(exchange);
	}
}

START_TEST(scram_guesses_of_an_address_are_few)
{
	static const struct auth_peer other = {.door = "test", .address = "10.9.9.9:5"};
	int64_t refused = count(M_LOGINS_REFUSED), busy = count(M_LOGINS_BUSY);
	scram_setup();
	kind = SECRET_SCRAM_256;
	snprintf(gs2, sizeof gs2, "n,,");
	set_live("auth.fail_delay", "500ms");
	buf_addf(&client_first, "n,,n=u,r=abc");
	on_loop(0, guess);
	refused = count(M_LOGINS_REFUSED) - refused;
	busy = count(M_LOGINS_BUSY) - busy;
	ck_assert_int_eq(refused + busy, GUESSES);
	ck_assert_int_ge(refused, 64);
	ck_assert_int_le(refused, 80);
	on_loop(0, all_is_used_for_an_hour);
	/* A password is not looked at either; who comes from elsewhere is. */
	ck_assert_int_eq(login(&far, "u", "right"), ERR_BUSY);
	scram_peer = &other;
	ck_assert_int_eq(scram("u", "right"), OK);
	ck_assert_int_eq(login(&other, "u", "right"), OK);
	scram_peer = &far;
	ck_assert_int_eq(scram_begin("u"), OK);
	scram_password = "right";
	answer();
	ck_assert_int_eq(scram_end(), ERR_BUSY);
	on_loop(0, an_hour_passes);
	ck_assert_int_eq(scram("u", "right"), OK);
}
END_TEST

START_TEST(scram_forgets_what_has_changed)
{
	scram_setup();
	kind = SECRET_SCRAM_256;
	snprintf(gs2, sizeof gs2, "n,,");
	scram_password = "right";
	ck_assert_int_eq(scram_begin("u"), OK);
	answer();
	put_user_with("u", "right", false); /* other salt */
	ck_assert_int_eq(scram_end(), ERR_UNAUTHENTICATED);
	ck_assert_int_eq(scram("u", "right"), OK);
	ck_assert_int_eq(scram_begin("u"), OK);
	answer();
	put_user_with("u", "right", true);
	ck_assert_int_eq(scram_end(), ERR_UNAUTHENTICATED);
}
END_TEST

static void begin_and_free(void)
{
	begin();
	ck_assert_int_eq(scram_err, OK);
	auth_scram_end(exchange, B("c=biws,r=x,p=AAAA"), ended, NULL);
	auth_scram_free(exchange); /* done does not run */
	begin();
	auth_scram_free(exchange);
	auth_scram_free(NULL);
}
static void begin_badly(void)
{
	char big[AUTH_SCRAM_MESSAGE_MAX + 2];
	struct auth_scram *x = NULL;
	memset(big, 'a', sizeof big);
	memcpy(big, "n,,n=u,r=x,a=", 13);
	ck_assert_int_eq(auth_scram_begin(shard(), SECRET_SCRAM_256, &far, B("p=x,,n=u,r=a"),
				 &server_first, &x),
		ERR_MALFORMED);
	ck_assert_int_eq(auth_scram_begin(shard(), SECRET_SCRAM_256, &far,
				 bytes_of(big, AUTH_SCRAM_MESSAGE_MAX + 1), &server_first, &x),
		ERR_MALFORMED);
	ck_assert_int_eq(
		auth_scram_begin(shard(), SECRET_CRYPT, &far, B("n,,n=u,r=a"), &server_first, &x),
		ERR_MALFORMED);
	ck_assert_ptr_null(x);
	/* The longest there is, and a last message as long. */
	ck_assert_int_eq(auth_scram_begin(shard(), SECRET_SCRAM_512, &far,
				 bytes_of(big, AUTH_SCRAM_MESSAGE_MAX), &server_first, &x),
		OK);
	memcpy(big, "c=biws,r=xx,a=", 14);
	auth_scram_end(x, bytes_of(big, AUTH_SCRAM_MESSAGE_MAX + 1), ended, NULL);
	auth_scram_free(x);
}

START_TEST(scram_ends_at_any_time)
{
	scram_setup();
	kind = SECRET_SCRAM_256;
	buf_addf(&client_first, "n,,n=u,r=abc");
	atomic_store(&scram_over, 0);
	on_loop(0, begin_and_free);
	buf_clear(&server_first);
	on_loop(1, begin_badly);
	usleep(20000);
	ck_assert_int_eq(atomic_load(&scram_over), 0);
}
END_TEST

/* ---- what it costs: printed, not judged. The server's part, on one core. */

enum { COST_TURNS = 2000, COST_HASHES = 50 };

static int64_t scram_ns;
/* With a proof of the right size that does not fit: as long a way as that of one that does. */
static void scram_turns(void)
{
	uint8_t proof[SECRET_HASH_MAX] = {0};
	scram_ns = cpu_ns();
	for (int i = 0; i < COST_TURNS; i++) {
		buf_clear(&server_first);
		begin();
		struct bytes s = buf_bytes(&server_first);
		const uint8_t *comma = memchr(s.at, ',', s.len);
		buf_clear(&client_final);
		buf_add_text(&client_final, "c=biws,");
		buf_add(&client_final, bytes_of(s.at, (size_t)(comma - s.at)));
		buf_add_text(&client_final, ",p=");
		base64_write(bytes_of(proof, secret_hash_bytes(kind)), &client_final);
		auth_scram_end(exchange, buf_bytes(&client_final), ended, NULL);
		auth_scram_free(exchange);
	}
	scram_ns = cpu_ns() - scram_ns;
}

START_TEST(what_logins_cost_is_printed)
{
	struct secrets s;
	struct user_doc u = {.secret_count = 1};
	scram_setup();
	set_live("auth.fail_delay", "0");
	snprintf(gs2, sizeof gs2, "n,,");
	for (int i = 0; i < 2; i++) {
		kind = i ? SECRET_SCRAM_512 : SECRET_SCRAM_256;
		ck_assert_int_eq(scram_begin("u"), OK);
		auth_scram_free(exchange);
		on_loop(0, scram_turns);
		printf("SCRAM-SHA-%d: %.0f logins/s\n", i ? 512 : 256,
			COST_TURNS * 1e9 / (double)scram_ns);
	}
	ck_assert_int_eq(secrets_make(B("right"), &s), OK);
	u.secrets[0] = s.of[0];
	int64_t began = cpu_ns();
	for (int i = 0; i < COST_HASHES; i++)
		ck_assert(secret_check(&u, B("right")));
	printf("by password, hashed: %.0f logins/s\n",
		COST_HASHES * 1e9 / (double)(cpu_ns() - began));
	secrets_fini(&s);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("auth");
	TCase *tc = tcase_create("auth");
	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, only_the_right_password_comes_in);
	tcase_add_test(tc, hostile_names_and_passwords_are_refused);
	tcase_add_test(tc, what_is_remembered_goes_with_the_document);
	tcase_add_test(tc, a_password_that_was_right_costs_little);
	tcase_add_test(tc, refusals_wait_longer_and_longer);
	tcase_add_test(tc, refusals_of_a_user_wait_longer_and_longer);
	tcase_add_test(tc, a_network_is_one_address);
	tcase_add_test(tc, a_flood_is_turned_away);
	tcase_add_test(tc, a_failing_address_leaves_room);
	tcase_add_test(tc, a_failure_is_forgiven);
	tcase_add_test(tc, cancelled_logins_end_soon);
	tcase_add_test(tc, ends_with_logins_under_way);
	tcase_add_test(tc, memory_may_lack);
	tcase_add_test(tc, who_comes_without_a_login);
	tcase_add_test(tc, certificates_name_users);
	tcase_add_loop_test(tc, scram_lets_in_who_knows_the_password, 0, 6);
	tcase_add_test(tc, scram_needs_its_own_nonce);
	tcase_add_test(tc, scram_does_not_tell_who_exists);
	tcase_add_test(tc, scram_does_not_tell_who_exists_by_iterations);
	tcase_add_test(tc, scram_guesses_of_an_address_are_few);
	tcase_add_test(tc, scram_forgets_what_has_changed);
	tcase_add_test(tc, scram_ends_at_any_time);
	tcase_add_test(tc, what_logins_cost_is_printed);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
