/* Users as Kafka's SCRAM credentials (KIP-554): of each user of who asks' own tenant the SCRAM
 * secrets. Clients send salted passwords, so the password itself stays theirs; a user that does
 * not exist is made, without roles. Changes of a request run one after the other: two of them may
 * be about the same user. */
#include "protocols/kafka/kafka_priv.h"
#include "server/broker/rights_admin.h"

enum { ITERATIONS_MIN = 4096, ITERATIONS_MAX = 16384, SALT_BYTES_MAX = 128, ALTER_MAX = 1000 };
enum { MECHANISM_256 = 1, MECHANISM_512 = 2 };

static const enum secret_kind kinds[] = {
	[MECHANISM_256] = SECRET_SCRAM_256, [MECHANISM_512] = SECRET_SCRAM_512};

static bool mechanism_known(int8_t mechanism)
{
	return mechanism == MECHANISM_256 || mechanism == MECHANISM_512;
}

/* --- DescribeUserScramCredentials */

/* What there is of a user; false: memory is out. */
static bool fill_user(struct kafka_request *r, struct kafka_describe_scram_users_res_result *out,
	const struct user_doc *u)
{
	out->user = kafka_copy(r, u->name);
	out->credentials = kafka_list(r, &kafka_describe_scram_users_res_credential_type, 2);
	if (out->credentials == NULL)
		return false;
	for (int8_t m = MECHANISM_256; m <= MECHANISM_512; m++) {
		const struct secret *s = user_secret(u, kinds[m]);
		if (s == NULL)
			continue;
		out->credentials[out->credentials_count].mechanism = m;
		out->credentials[out->credentials_count++].iterations = (int32_t)s->iterations;
	}
	return true;
}

static bool has_scram(const struct user_doc *u)
{
	return user_secret(u, SECRET_SCRAM_256) != NULL || user_secret(u, SECRET_SCRAM_512) != NULL;
}

static bool describe_all(struct kafka_request *r, struct kafka_describe_scram_users_res *res)
{
	struct bytes tenant = access_tenant(r->access);
	struct user_doc u;
	uint32_t count = 0;
	for (int at = 0; rights_user_next(kafka_catalog(r), &at, &tenant, &u);)
		count += has_scram(&u);
	res->results = kafka_list(r, &kafka_describe_scram_users_res_result_type, count);
	if (res->results == NULL)
		return false;
	for (int at = 0; rights_user_next(kafka_catalog(r), &at, &tenant, &u);)
		if (has_scram(&u) && !fill_user(r, &res->results[res->results_count++], &u))
			return false;
	return true;
}

/* Of their tenant. */
static bool user_find(struct kafka_request *r, struct bytes name, struct user_doc *out)
{
	return rights_user(kafka_catalog(r), name, out) &&
		bytes_equal(out->tenant, access_tenant(r->access));
}

static bool describe_asked(
	struct kafka_request *r, struct kafka_describe_scram_users_res *res, struct map *named)
{
	const struct kafka_describe_scram_users_req *req = r->req;
	struct user_doc u;
	res->results = kafka_list(r, &kafka_describe_scram_users_res_result_type, req->users_count);
	if (res->results == NULL)
		return false;
	for (uint32_t i = 0; i < req->users_count; i++) {
		struct kafka_describe_scram_users_res_result *one = &res->results[i];
		one->user = req->users[i].name;
		if (map_put(named, one->user, one) != NULL) {
			one->error = KAFKA_DUPLICATE_RESOURCE;
			one->message = bytes_text("the user is named twice");
		} else if (!user_find(r, one->user, &u) || !has_scram(&u)) {
			one->error = KAFKA_RESOURCE_NOT_FOUND;
			one->message = bytes_text("no such user with SCRAM credentials");
		} else if (!fill_user(r, one, &u)) {
			return false;
		}
	}
	res->results_count = req->users_count;
	return true;
}

void kafka_on_describe_scram_users(struct kafka_request *r)
{
	const struct kafka_describe_scram_users_req *req = r->req;
	struct kafka_describe_scram_users_res *res = r->res;
	if (!kafka_may_rights(r, ACTION_DESCRIBE)) {
		res->error = KAFKA_CLUSTER_DENIED;
		res->message = bytes_text("not allowed to describe users");
		kafka_answer(r);
		return;
	}
	bool all = req->users == NULL || req->users_count == 0;
	struct map named = {0};
	bool told = all ? describe_all(r, res) : describe_asked(r, res, &named);
	map_fini(&named);
	if (told)
		kafka_answer(r);
}

/* --- AlterUserScramCredentials */

struct alter { /* all of a request */
	struct rights_change change;
	struct kafka_request *r;
	uint32_t next, count; /* deletions first */
	struct secret secret;
	uint8_t stored[SECRET_HASH_MAX], server[SECRET_HASH_MAX];
	struct map results; /* by user */
};

struct step { /* one of a request's alterations */
	struct bytes name;
	int8_t mechanism;
	const struct kafka_alter_scram_users_req_upsertion *put; /* NULL: it is deleted */
};

static struct step step_at(const struct kafka_alter_scram_users_req *req, uint32_t i)
{
	if (i < req->deletions_count)
		return (struct step){req->deletions[i].name, req->deletions[i].mechanism, NULL};
	const struct kafka_alter_scram_users_req_upsertion *u =
		&req->upsertions[i - req->deletions_count];
	return (struct step){u->name, u->mechanism, u};
}

static void alter_fini(struct kafka_request *r)
{
	struct alter *a = r->op;
	map_fini(&a->results);
}

/* 0, or the code of what is wrong with it by itself. */
static int16_t step_check(const struct step *s, const char **why)
{
	*why = "the user's name can't be such";
	if (!user_name_valid(s->name))
		return KAFKA_UNACCEPTABLE_CREDENTIAL;
	*why = "unknown mechanism";
	if (!mechanism_known(s->mechanism))
		return KAFKA_UNSUPPORTED_MECHANISM;
	if (s->put == NULL)
		return KAFKA_NONE;
	*why = "iterations are between 4096 and 16384";
	if (s->put->iterations < ITERATIONS_MIN || s->put->iterations > ITERATIONS_MAX)
		return KAFKA_UNACCEPTABLE_CREDENTIAL;
	*why = "the salt or the salted password has a length it can't have";
	bool fits = s->put->salt.len > 0 && s->put->salt.len <= SALT_BYTES_MAX &&
		s->put->salted_password.len == secret_hash_bytes(kinds[s->mechanism]);
	return fits ? KAFKA_NONE : KAFKA_UNACCEPTABLE_CREDENTIAL;
}

/* The same credential twice: which of both were meant? Then none of the user's is changed. */
static void refuse_twice(const struct kafka_alter_scram_users_req *req, struct alter *a)
{
	struct map seen = {0};
	for (uint32_t i = 0; i < a->count; i++) {
		struct step s = step_at(req, i);
		struct kafka_alter_scram_users_res_result *one = map_get(&a->results, s.name);
		uint8_t *key = arena_take(&a->r->arena, s.name.len + 1);
		if (key == NULL)
			break;
		key[0] = (uint8_t)s.mechanism;
		if (s.name.len > 0)
			memcpy(key + 1, s.name.at, s.name.len);
		if (map_put(&seen, bytes_of(key, s.name.len + 1), one) != NULL) {
			one->error = KAFKA_DUPLICATE_RESOURCE;
			one->message = bytes_text("the credential is altered twice");
		}
	}
	map_fini(&seen);
}

static void steps(struct kafka_request *r);

static void on_changed(struct rights_change *c)
{
	struct alter *a = list_entry(c, struct alter, change);
	struct kafka_request *r = a->r;
	if (!kafka_landed(r))
		return;
	if (c->err != OK) {
		struct kafka_alter_scram_users_res_result *one = map_get(&a->results, c->name);
		one->error = kafka_rights_code(c->err);
		one->message = kafka_copy(r, bytes_text(c->why[0] ? c->why : err_text(c->err)));
	}
	steps(r);
}

static void start_put(struct alter *a, const struct step *s, bool exists)
{
	enum secret_kind kind = kinds[s->mechanism];
	size_t len = secret_hash_bytes(kind);
	secret_keys(kind, s->put->salted_password.at, a->stored, a->server);
	a->secret = (struct secret){.kind = kind,
		.salt = s->put->salt,
		.stored_key = bytes_of(a->stored, len),
		.server_key = bytes_of(a->server, len),
		.iterations = (uint32_t)s->put->iterations};
	kafka_rights_change(a->r, &a->change, exists ? USER_ALTER : USER_ADD, on_changed);
	a->change.secret = &a->secret;
}

/* True: a change is under way. False: there is nothing to do, or it is refused. */
static bool step_start(struct kafka_request *r, struct alter *a, const struct step *s)
{
	struct kafka_alter_scram_users_res_result *one = map_get(&a->results, s->name);
	struct user_doc u;
	const char *why;
	if (one->error != KAFKA_NONE)
		return false;
	one->error = step_check(s, &why);
	bool taken = rights_user(kafka_catalog(r), s->name, &u);
	bool exists = one->error == KAFKA_NONE && user_find(r, s->name, &u);
	if (one->error == KAFKA_NONE && s->put == NULL &&
		(!exists || user_secret(&u, kinds[s->mechanism]) == NULL)) {
		one->error = KAFKA_RESOURCE_NOT_FOUND;
		why = "the user has no such credential";
	} else if (one->error == KAFKA_NONE && !exists && taken) {
		one->error = KAFKA_UNACCEPTABLE_CREDENTIAL;
		why = "the name is taken";
	}
	if (one->error != KAFKA_NONE) {
		one->message = bytes_text(why);
		return false;
	}
	if (s->put != NULL) {
		start_put(a, s, exists);
	} else {
		kafka_rights_change(r, &a->change, USER_ALTER, on_changed);
		a->change.drop = kinds[s->mechanism];
	}
	a->change.name = s->name;
	r->outstanding++;
	rights_change(&a->change);
	return true;
}

static void steps(struct kafka_request *r)
{
	struct alter *a = r->op;
	while (!r->ready && a->next < a->count) {
		struct step s = step_at(r->req, a->next++);
		if (step_start(r, a, &s))
			return;
	}
	kafka_answer(r);
}

static bool results_new(struct kafka_request *r, struct alter *a, int16_t code, const char *why)
{
	struct kafka_alter_scram_users_res *res = r->res;
	res->results = kafka_list(r, &kafka_alter_scram_users_res_result_type, a->count);
	if (res->results == NULL)
		return false;
	for (uint32_t i = 0; i < a->count; i++) {
		struct step s = step_at(r->req, i);
		if (map_get(&a->results, s.name) != NULL)
			continue;
		struct kafka_alter_scram_users_res_result *one =
			&res->results[res->results_count++];
		one->user = s.name;
		one->error = code;
		if (code != KAFKA_NONE)
			one->message = bytes_text(why);
		map_put(&a->results, s.name, one);
	}
	return true;
}

void kafka_on_alter_scram_users(struct kafka_request *r)
{
	const struct kafka_alter_scram_users_req *req = r->req;
	struct alter *a = kafka_take(r, sizeof *a);
	if (a == NULL)
		return;
	bool may = kafka_may_rights(r, ACTION_ALTER);
	a->r = r;
	a->count = req->deletions_count + req->upsertions_count;
	r->op = a;
	r->fini = alter_fini;
	bool fits = a->count <= ALTER_MAX;
	if (!results_new(r, a,
		    !may           ? KAFKA_CLUSTER_DENIED
			    : fits ? KAFKA_NONE
				   : KAFKA_INVALID_REQUEST,
		    may ? "too many at once" : "not allowed to change users"))
		return;
	if (!may || !fits)
		a->count = 0;
	refuse_twice(req, a);
	steps(r);
}
