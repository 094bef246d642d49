/* Every key starts with its group, big endian, so that one group is one range of each family and
 * its entries lie in the order of their indices. */
#include "storage/keys.h"
#include "server/base/mem.h"

struct entry_key key_entry(uint64_t group, uint64_t index)
{
	struct entry_key k;

	put_u64be(k.at, group);
	put_u64be(k.at + 8, index);
	return k;
}

bool key_entry_read(struct bytes key, uint64_t *group, uint64_t *index)
{
	if (key.len != ENTRY_KEY_BYTES)
		return false;
	*group = get_u64be(key.at);
	*index = get_u64be(key.at + 8);
	return true;
}

struct meta_key key_meta(uint64_t group, enum meta_what what)
{
	struct meta_key k;

	put_u64be(k.at, group);
	k.at[8] = (uint8_t)what;
	return k;
}

bool key_meta_read(struct bytes key, uint64_t *group, uint8_t *what)
{
	if (key.len != META_KEY_BYTES)
		return false;
	*group = get_u64be(key.at);
	*what = key.at[8];
	return true;
}

struct group_key key_group(uint64_t group)
{
	struct group_key k;

	put_u64be(k.at, group);
	return k;
}

size_t key_row(uint64_t group, uint8_t keyspace, struct bytes key, uint8_t *out)
{
	must(key.len <= ROW_KEY_BYTES_MAX);
	put_u64be(out, group);
	out[8] = keyspace;
	if (key.len > 0)
		memcpy(out + ROW_KEY_PREFIX_BYTES, key.at, key.len);
	return ROW_KEY_PREFIX_BYTES + key.len;
}
