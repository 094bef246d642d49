/* What rights_admin.c (changes), rights_make.c (the documents of a change) and rights_list.c (what
 * there is) share. */
#ifndef BROKER_RIGHTS_PRIV_H
#define BROKER_RIGHTS_PRIV_H
#include "server/broker/rights_admin.h"
#include "server/broker/tenant.h"

/* The document that lists a user under its tenant. */
void rights_index_key(struct bytes tenant, struct bytes name, struct buf *out);

struct part { /* of what is kept; there false: none, which is not the same as empty */
	size_t at, len;
	bool there;
};
struct made_doc {
	struct part key, value, before;
	int only;
};
/* What a change makes of the catalogue. */
struct rights_made {
	struct secrets secrets; /* of a new password; the worker's, then the loop's */
	enum err hashed;        /* how that went */
	struct buf kept;
	struct made_doc *made;
	size_t count, room;
	struct meta_doc *docs; /* the same, to be asked for */
	/* Of a user that goes: rules are left for another change, and whose they are. */
	bool rules_left;
	bool user_gone; /* set by the caller: that is what is to be done */
	uint8_t tenant_len, tenant[TENANT_NAME_MAX];
};
void rights_made_init(struct rights_made *m);
void rights_made_fini(struct rights_made *m);
/* What is wrong with the change whatever there is. ERR_INVALID, ERR_TOOBIG, ERR_DENIED, with why.
 */
enum err rights_check(struct rights_change *c) MUST_USE;
/* The documents to be changed, with what must be before, as of that catalogue; anew each time. */
enum err rights_make(
	struct rights_change *c, const struct catalog *at, struct rights_made *m) MUST_USE;
/* Writes what why is, and gives e. */
enum err rights_no(struct rights_change *c, enum err e, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#endif
