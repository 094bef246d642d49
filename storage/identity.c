/* The file is a text of fixed form, written beside and renamed. A folder without it is a new one
 * only if it was added at the end of data.dir; in the place of one that had it, it tells of a disk
 * that was lost: its replicas would come back empty under ids whose votes they had given. */
#include "storage/identity.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "server/base/clock.h"
#include "server/base/mem.h"

enum { TEXT_BYTES_MAX = 512, HEX_BYTES = 33 };

static const char form[] = "sluice node\nnode %u\nfolder %d of %d\ninstance %s\ncluster %s\n"
			   "boot %" PRIu64 "\n";
static const char scan_form[] = "sluice node node %u folder %d of %d instance %32s cluster %32s "
				"boot %" SCNu64;

struct folder_says {
	bool there;
	int at, of;
	struct identity id;
};

static void to_hex(const uint8_t bytes[16], char out[HEX_BYTES])
{
	for (int i = 0; i < 16; i++)
		snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

static bool from_hex(const char *text, uint8_t out[16])
{
	if (strlen(text) != 32 || strspn(text, "0123456789abcdef") != 32)
		return false;
	for (int i = 0; i < 16; i++) {
		char two[3] = {text[2 * i], text[2 * i + 1], 0};

		out[i] = (uint8_t)strtoul(two, NULL, 16);
	}
	return true;
}

static char *path_in(const struct disk *d, const char *name)
{
	size_t len = strlen(disk_dir(d)) + strlen(name) + 2;
	char *path = mem_new(len);

	snprintf(path, len, "%s/%s", disk_dir(d), name);
	return path;
}

static enum err parse(const char *text, struct folder_says *out)
{
	char instance[HEX_BYTES], cluster[HEX_BYTES];

	if (sscanf(text, scan_form, &out->id.node, &out->at, &out->of, instance, cluster,
		    &out->id.boot) != 6 ||
		!from_hex(instance, out->id.instance) || !from_hex(cluster, out->id.cluster))
		return ERR_CORRUPT;
	out->there = true;
	return OK;
}

static enum err read_folder(const struct disk *d, struct folder_says *out)
{
	char *path = path_in(d, "node"), text[TEXT_BYTES_MAX] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	enum err e = ERR_IO;

	*out = (struct folder_says){0};
	mem_free(path);
	if (fd < 0)
		return errno == ENOENT ? OK : ERR_IO;
	if (read(fd, text, sizeof text - 1) > 0)
		e = parse(text, out);
	close(fd);
	return e;
}

static enum err write_file(const char *path, const char *text, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
	enum err e = ERR_IO;

	if (fd >= 0 && write(fd, text, len) == (ssize_t)len && fsync(fd) == 0)
		e = OK;
	else if (errno == ENOSPC)
		e = ERR_NOSPACE;
	if (fd >= 0)
		close(fd);
	return e;
}

/* The rename must be on the disk, too, before anyone relies on it. */
static enum err sync_folder(const struct disk *d)
{
	int fd = open(disk_dir(d), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	enum err e = fd >= 0 && fsync(fd) == 0 ? OK : ERR_IO;

	if (fd >= 0)
		close(fd);
	return e;
}

static enum err write_folder(const struct storage *s, int at, const struct identity *id)
{
	const struct disk *d = storage_disk(s, at);
	char *path = path_in(d, "node"), *new_path = path_in(d, "node.new");
	char instance[HEX_BYTES], cluster[HEX_BYTES], text[TEXT_BYTES_MAX];
	enum err e;
	int len;

	to_hex(id->instance, instance);
	to_hex(id->cluster, cluster);
	len = snprintf(text, sizeof text, form, id->node, at + 1, storage_disks(s), instance,
		cluster, id->boot);
	must(len > 0 && (size_t)len < sizeof text);
	e = write_file(new_path, text, (size_t)len);
	if (e == OK && rename(new_path, path) != 0)
		e = ERR_IO;
	if (e == OK)
		e = sync_folder(d);
	mem_free(path);
	mem_free(new_path);
	return e;
}

enum err identity_write(const struct storage *s, const struct identity *id)
{
	enum err e = OK;

	for (int i = 0; i < storage_disks(s) && e == OK; i++)
		e = write_folder(s, i, id);
	return e;
}

bool identity_has_cluster(const struct identity *id)
{
	static const uint8_t none[16];

	return memcmp(id->cluster, none, sizeof none) != 0;
}

/* What a folder says must fit what the first one that says something says. */
static enum err folder_fits(const struct storage *s, int at, const struct folder_says *says,
	const struct folder_says *first, char *why, size_t why_size)
{
	const char *dir = disk_dir(storage_disk(s, at));

	if (says->there &&
		memcmp(says->id.instance, first->id.instance, sizeof says->id.instance) != 0) {
		snprintf(why, why_size, "data.dir %s belongs to other data than the rest", dir);
		return ERR_CONFLICT;
	}
	if (!says->there && at < first->of) {
		snprintf(why, why_size,
			"data.dir %s lost its data: empty all folders to let the node come back "
			"without it",
			dir);
		return ERR_CONFLICT;
	}
	return OK;
}

static enum err look(const struct storage *s, struct folder_says *first, char *why, size_t why_size)
{
	struct folder_says says[DISKS_MAX];
	enum err e = OK;

	*first = (struct folder_says){0};
	for (int i = 0; i < storage_disks(s) && e == OK; i++) {
		e = read_folder(storage_disk(s, i), &says[i]);
		if (e != OK)
			snprintf(why, why_size, "%s/node: %s", disk_dir(storage_disk(s, i)),
				err_text(e));
		else if (says[i].there && !first->there)
			*first = says[i];
	}
	for (int i = 0; i < storage_disks(s) && e == OK && first->there; i++) {
		e = folder_fits(s, i, &says[i], first, why, why_size);
		if (says[i].there && says[i].id.boot > first->id.boot)
			first->id.boot = says[i].id.boot;
	}
	if (e == OK && first->there && first->of > storage_disks(s)) {
		snprintf(why, why_size, "data.dir names %d of the %d folders the data is in",
			storage_disks(s), first->of);
		e = ERR_CONFLICT;
	}
	return e;
}

enum err identity_open(
	const struct storage *s, uint32_t node, struct identity *out, char *why, size_t why_size)
{
	uint64_t now = (uint64_t)clock_wall_ms();
	struct folder_says found;
	enum err e = look(s, &found, why, why_size);

	if (e != OK)
		return e;
	if (found.there && found.id.node != node) {
		snprintf(why, why_size, "data.dir %s is the data of node %u; node.id is %u",
			disk_dir(storage_disk(s, 0)), found.id.node, node);
		return ERR_CONFLICT;
	}
	*out = found.id;
	out->node = node;
	if (!found.there)
		random_fill(out->instance, sizeof out->instance);
	out->boot = out->boot + 1 > now ? out->boot + 1 : now;
	e = identity_write(s, out);
	if (e != OK)
		snprintf(why, why_size, "%s/node: %s", disk_dir(storage_disk(s, 0)), err_text(e));
	return e == ERR_NOSPACE && found.there ? OK : e; /* a full disk may start */
}
