/* The kinds of proposals by number. Boot fills the table, the same way on every node, and nothing
 * changes it afterwards: loops read it without a lock. */
#include "cluster/partition_priv.h"

static const struct proposal_kind *kinds[PROPOSAL_NUMBER_MAX];

void proposal_kind_add(const struct proposal_kind *k)
{
	must(k->number > 0 && k->number < PROPOSAL_NUMBER_MAX);
	must(k->evaluate != NULL);
	must(kinds[k->number] == NULL || kinds[k->number] == k);
	kinds[k->number] = k;
}

const struct proposal_kind *proposal_kind_find(uint32_t number)
{
	return number < PROPOSAL_NUMBER_MAX ? kinds[number] : NULL;
}
