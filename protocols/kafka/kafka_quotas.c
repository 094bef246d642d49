/* Quotas as Kafka's client quotas (KIP-546): those of users, and of users that have none of their
 * own (the default entity). Client ids and addresses are not identities here, so there are none for
 * them. Kafka's two byte rates are bytes-in and bytes-out; all other limits go by their own words.
 * Those of other tenants' users are for admins of the cluster. */
#include <math.h>
#include "protocols/kafka/kafka_priv.h"
#include "server/broker/rights_admin.h"

enum { MATCH_EXACT, MATCH_DEFAULT, MATCH_ANY };
enum { ENTRIES_MAX = 1000 };

static const char *const kafka_words[QUOTA_WHATS] = {
	[QUOTA_BYTES_IN] = "producer_byte_rate", [QUOTA_BYTES_OUT] = "consumer_byte_rate"};

static const char *word_of(enum quota_what w)
{
	return kafka_words[w] != NULL ? kafka_words[w] : quota_word(w);
}

static bool what_of(struct bytes word, enum quota_what *out)
{
	for (int w = 0; w < QUOTA_STREAMS; w++) { /* the others are of tenants */
		*out = (enum quota_what)w;
		if (bytes_equal(word, bytes_text(quota_word(*out))) ||
			bytes_equal(word, bytes_text(word_of(*out))))
			return true;
	}
	return false;
}

/* Whether that user's quota is theirs to see and change; the default is the cluster's. */
static bool quota_theirs(struct kafka_request *r, struct bytes user)
{
	struct bytes tenant = access_tenant(r->access);
	struct user_doc u;
	if (access_cluster_admin(r->access))
		return true;
	bool known = rights_user(kafka_catalog(r), user, &u);
	return known && bytes_equal(u.tenant, tenant);
}

/* --- DescribeClientQuotas */

static void refuse_describe(struct kafka_request *r, int16_t code, const char *why)
{
	struct kafka_describe_client_quotas_res *res = r->res;
	res->error = code;
	res->message = bytes_text(why);
	res->entries = NULL;
	kafka_answer(r);
}

struct wanted { /* what a request's components come to */
	const struct kafka_describe_client_quotas_req_component *user; /* NULL: not said */
	bool other; /* something that no quota here has */
};

/* NULL, or why the request makes no sense. */
static const char *wanted_read(
	const struct kafka_describe_client_quotas_req *req, struct wanted *out, int16_t *code)
{
	bool seen[3] = {false};
	static const char *const types[] = {"user", "client-id", "ip"};
	*out = (struct wanted){0};
	*code = KAFKA_INVALID_REQUEST;
	for (uint32_t i = 0; i < req->components_count; i++) {
		const struct kafka_describe_client_quotas_req_component *c = &req->components[i];
		size_t type = 0;
		while (type < 3 && !bytes_equal(c->type, bytes_text(types[type])))
			type++;
		if (c->type.len == 0)
			return "a component has a type";
		if (type == 3) {
			*code = KAFKA_UNSUPPORTED_VERSION;
			return "there are no quotas of such entities";
		}
		if (seen[type])
			return "a type of entity is named twice";
		if (c->match_type < MATCH_EXACT || c->match_type > MATCH_ANY ||
			(c->match_type == MATCH_EXACT) != (c->match.at != NULL))
			return "a component matches a name, the default, or any";
		seen[type] = true;
		if (type == 0)
			out->user = c;
		else
			out->other = true;
	}
	return NULL;
}

static bool is_wanted(const struct wanted *w, bool strict, const struct quota_doc *q)
{
	if (q->kind != QUOTA_USER || w->other)
		return false;
	if (w->user == NULL)
		return !strict;
	if (w->user->match_type == MATCH_DEFAULT)
		return q->name.len == 0;
	return w->user->match_type == MATCH_ANY ? q->name.len > 0
						: bytes_equal(w->user->match, q->name);
}

static bool fill_entry(struct kafka_request *r, struct kafka_describe_client_quotas_res_entry *e,
	const struct quota_doc *q)
{
	e->entity = kafka_list(r, &kafka_describe_client_quotas_res_entity_type, 1);
	e->values = kafka_list(r, &kafka_describe_client_quotas_res_value_type, QUOTA_WHATS);
	if (e->entity == NULL || e->values == NULL)
		return false;
	e->entity_count = 1;
	e->entity[0].type = bytes_text("user");
	e->entity[0].name = q->name.len > 0 ? kafka_copy(r, q->name) : bytes_of(NULL, 0);
	for (int w = 0; w < QUOTA_WHATS; w++) {
		if (q->limit[w] < 0)
			continue;
		e->values[e->values_count].key = bytes_text(word_of((enum quota_what)w));
		e->values[e->values_count++].value = (double)q->limit[w];
	}
	return true;
}

void kafka_on_describe_client_quotas(struct kafka_request *r)
{
	const struct kafka_describe_client_quotas_req *req = r->req;
	struct kafka_describe_client_quotas_res *res = r->res;
	const struct catalog *catalog = kafka_catalog(r);
	struct wanted w;
	struct quota_doc q;
	uint32_t count = 0;
	int16_t code;
	if (!kafka_may_rights(r, ACTION_DESCRIBE_CONFIGS)) {
		refuse_describe(r, KAFKA_CLUSTER_DENIED, "not allowed to describe quotas");
		return;
	}
	const char *why = wanted_read(req, &w, &code);
	if (why != NULL) {
		refuse_describe(r, code, why);
		return;
	}
	for (int at = 0; rights_quota_next(catalog, &at, &q);)
		count += is_wanted(&w, req->strict, &q) && quota_theirs(r, q.name);
	res->entries = kafka_list(r, &kafka_describe_client_quotas_res_entry_type, count);
	if (res->entries == NULL)
		return;
	for (int at = 0; rights_quota_next(catalog, &at, &q);)
		if (is_wanted(&w, req->strict, &q) && quota_theirs(r, q.name) &&
			!fill_entry(r, &res->entries[res->entries_count++], &q))
			return;
	kafka_answer(r);
}

/* --- AlterClientQuotas */

struct alter {
	struct rights_change change;
	struct kafka_request *r;
	struct kafka_alter_client_quotas_res_entry *res;
};

static void on_changed(struct rights_change *c)
{
	struct alter *a = list_entry(c, struct alter, change);
	struct kafka_request *r = a->r;
	if (!r->sent && c->err != OK) {
		a->res->error = kafka_rights_code(c->err);
		a->res->message = kafka_copy(r, bytes_text(c->why[0] ? c->why : err_text(c->err)));
	}
	kafka_land(r);
}

/* NULL and *q changed, or why not. */
static const char *op_apply(const struct kafka_alter_client_quotas_req_op *op, struct quota_doc *q)
{
	enum quota_what w;
	if (!what_of(op->key, &w))
		return "no such quota: producer_byte_rate, consumer_byte_rate, messages-in, "
		       "messages-out, connections";
	if (op->remove) {
		q->limit[w] = -1;
		return NULL;
	}
	if (!(op->value >= 1 && op->value <= 9e18))
		return "a quota is 1 or more";
	q->limit[w] = (int64_t)floor(op->value);
	return NULL;
}

/* NULL and *out, or why there is no quota of such. */
static const char *entity_read(struct kafka_request *r,
	const struct kafka_alter_client_quotas_req_entry *e, struct bytes *out, int16_t *code)
{
	*code = KAFKA_INVALID_REQUEST;
	if (e->entity_count != 1 || !bytes_equal(e->entity[0].type, bytes_text("user")))
		return "quotas are of users, or the default of users; not of client ids or "
		       "addresses";
	*out = e->entity[0].name.at != NULL ? e->entity[0].name : bytes_of(kafka_empty, 0);
	if (e->entity[0].name.at != NULL && !user_name_valid(*out))
		return "no user has such a name";
	*code = KAFKA_CLUSTER_DENIED;
	return quota_theirs(r, *out) ? NULL : "not a user of the tenant";
}

static bool entity_copy(struct kafka_request *r,
	const struct kafka_alter_client_quotas_req_entry *e,
	struct kafka_alter_client_quotas_res_entry *res)
{
	res->entity = kafka_list(r, &kafka_alter_client_quotas_res_entity_type, e->entity_count);
	if (res->entity == NULL)
		return false;
	res->entity_count = e->entity_count;
	for (uint32_t i = 0; i < e->entity_count; i++) {
		res->entity[i].type = e->entity[i].type;
		res->entity[i].name = e->entity[i].name;
	}
	return true;
}

static void alter_one(struct kafka_request *r, const struct kafka_alter_client_quotas_req_entry *e,
	struct kafka_alter_client_quotas_res_entry *res)
{
	const struct kafka_alter_client_quotas_req *req = r->req;
	struct alter *a = kafka_take(r, sizeof *a);
	struct bytes name;
	if (a == NULL || !entity_copy(r, e, res))
		return;
	const char *why = entity_read(r, e, &name, &res->error);
	if (why != NULL) {
		res->message = bytes_text(why);
		return;
	}
	res->error = KAFKA_NONE;
	struct quota_doc q = {.kind = QUOTA_USER};
	for (int w = 0; w < QUOTA_WHATS; w++)
		q.limit[w] = QUOTA_AS_IS;
	q.name = name;
	for (uint32_t i = 0; i < e->ops_count && why == NULL; i++)
		why = op_apply(&e->ops[i], &q);
	if (why != NULL) {
		res->error = KAFKA_INVALID_REQUEST;
		res->message = bytes_text(why);
		return;
	}
	a->r = r;
	a->res = res;
	kafka_rights_change(r, &a->change, QUOTA_SET, on_changed);
	a->change.quota = q;
	a->change.check_only = req->validate_only;
	r->outstanding++;
	rights_change(&a->change);
}

void kafka_on_alter_client_quotas(struct kafka_request *r)
{
	const struct kafka_alter_client_quotas_req *req = r->req;
	struct kafka_alter_client_quotas_res *res = r->res;
	bool may = kafka_may_rights(r, ACTION_ALTER_CONFIGS);
	res->entries_count = req->entries_count;
	res->entries = kafka_list(r, &kafka_alter_client_quotas_res_entry_type, req->entries_count);
	if (res->entries == NULL)
		return;
	r->outstanding++;
	for (uint32_t i = 0; i < req->entries_count && !r->ready; i++) {
		struct kafka_alter_client_quotas_res_entry *one = &res->entries[i];
		if (may && i < ENTRIES_MAX) {
			alter_one(r, &req->entries[i], one);
			continue;
		}
		one->error = may ? KAFKA_INVALID_REQUEST : KAFKA_CLUSTER_DENIED;
		one->message = bytes_text(
			may ? "too many at once" : "not allowed to change quotas");
		if (!entity_copy(r, &req->entries[i], one))
			return;
	}
	kafka_land(r);
}
