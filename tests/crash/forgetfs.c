/* A file system that forgets: what a machine's power loss leaves of a folder.
 *
 *	forgetfs BACKING MOUNTPOINT        (foreground; SIGUSR1 forgets, SIGTERM unmounts)
 *
 * Bytes written to a file live in this process, as dirty pages, until fsync or fdatasync of that
 * file; only then do they reach the file in BACKING. SIGUSR1 drops every dirty page and every
 * change of size that was not synced. Names (create, rename, unlink, folders) are kept at once,
 * as by a file system with an ordered journal of its metadata: a file that was made and not
 * synced is there afterwards, and empty.
 *
 * One thread serves all requests. The signal only sets a flag, which the next request acts on
 * before anything else; so a test sends the signal, asks for any file's status and can be sure.
 *
 * A disk also hangs and fails. Writing a line to MOUNTPOINT/.fault, which no listing shows, says:
 *	hang MS       the next fsync takes that long, and everything else waits behind it
 *	fail fsync    every fsync is EIO, and what it should have kept is dropped, as kernels do
 *	fail write    every write is EIO
 *	heal          nothing fails any more
 */
#define FUSE_USE_VERSION 31
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, BUCKETS = 1024 };

struct file { /* one inode that is open or has something to forget */
	struct file *next;
	ino_t inode;
	int fd; /* of the backing file: keeps the inode number from being used again */
	int opens;
	off_t size;      /* as its users see it */
	uint8_t **pages; /* dirty ones by number, NULL where the backing file is right */
	size_t page_count;
	bool dirty;
};

static struct forgetfs {
	int root;
	struct file *files[BUCKETS];
	volatile sig_atomic_t forget;
	long hang_ms; /* of the next fsync */
	bool fail_sync, fail_write;
} fs;

static const char fault_path[] = "/.fault";

static void forget_asked(int number)
{
	(void)number;
	fs.forget = 1;
}

static void file_drop_pages(struct file *f)
{
	for (size_t i = 0; i < f->page_count; i++)
		free(f->pages[i]);
	free(f->pages);
	f->pages = NULL;
	f->page_count = 0;
	f->dirty = false;
}

static off_t backing_size(const struct file *f)
{
	struct stat st;
	return fstat(f->fd, &st) == 0 ? st.st_size : 0;
}

static void forget_if_asked(void)
{
	if (!fs.forget)
		return;
	fs.forget = 0;
	for (size_t i = 0; i < BUCKETS; i++) {
		for (struct file *f = fs.files[i]; f; f = f->next) {
			file_drop_pages(f);
			f->size = backing_size(f);
		}
	}
}

/* Every request begins here: its path below the backing folder. */
static const char *entered(const char *path)
{
	forget_if_asked();
	return path[1] ? path + 1 : ".";
}

static struct file *file_find(ino_t inode)
{
	struct file *f = fs.files[inode % BUCKETS];
	while (f && f->inode != inode)
		f = f->next;
	return f;
}

static void file_free(struct file *f)
{
	struct file **at = &fs.files[f->inode % BUCKETS];
	while (*at != f)
		at = &(*at)->next;
	*at = f->next;
	file_drop_pages(f);
	close(f->fd);
	free(f);
}

/* The file behind a descriptor, which this takes. */
static struct file *file_of(int fd)
{
	struct stat st;
	if (fstat(fd, &st) != 0) {
		close(fd);
		return NULL;
	}
	struct file *f = file_find(st.st_ino);
	if (f) {
		close(fd);
		return f;
	}
	f = calloc(1, sizeof *f);
	if (!f)
		abort();
	*f = (struct file){.next = fs.files[st.st_ino % BUCKETS],
		.inode = st.st_ino,
		.fd = fd,
		.size = st.st_size};
	fs.files[st.st_ino % BUCKETS] = f;
	return f;
}

static void file_free_if_idle(struct file *f)
{
	struct stat st;
	bool gone = fstat(f->fd, &st) == 0 && st.st_nlink == 0;
	if (f->opens == 0 && (gone || !f->dirty))
		file_free(f);
}

/* Reads what the backing file has of a range; zeros where it has nothing. */
static void backing_read(const struct file *f, uint8_t *to, size_t len, off_t at)
{
	ssize_t got = pread(f->fd, to, len, at);
	size_t have = got > 0 ? (size_t)got : 0;
	memset(to + have, 0, len - have);
}

static uint8_t *page_dirty(struct file *f, size_t number)
{
	if (number >= f->page_count) {
		size_t count = number + 1 > 2 * f->page_count ? number + 1 : 2 * f->page_count;
		uint8_t **pages = realloc(f->pages, count * sizeof *pages);
		if (!pages)
			return NULL;
		memset(pages + f->page_count, 0, (count - f->page_count) * sizeof *pages);
		f->pages = pages;
		f->page_count = count;
	}
	if (!f->pages[number]) {
		uint8_t *page = malloc(PAGE);
		if (!page)
			return NULL;
		backing_read(f, page, PAGE, (off_t)(number * PAGE));
		f->pages[number] = page;
	}
	return f->pages[number];
}

static int file_resize(struct file *f, off_t size)
{
	/* What lies beyond a shorter end must be zero when the file grows again. */
	if (size < f->size && size % PAGE != 0) {
		uint8_t *page = page_dirty(f, (size_t)size / PAGE);
		if (!page)
			return -ENOMEM;
		memset(page + size % PAGE, 0, (size_t)(PAGE - size % PAGE));
	}
	for (off_t at = (size + PAGE - 1) / PAGE; at < (f->size + PAGE - 1) / PAGE; at++) {
		uint8_t *page = size < f->size ? page_dirty(f, (size_t)at) : NULL;
		if (page)
			memset(page, 0, PAGE);
	}
	f->size = size;
	f->dirty = true;
	return 0;
}

static int file_sync(struct file *f)
{
	for (size_t i = 0; i < f->page_count; i++) {
		off_t at = (off_t)(i * PAGE);
		if (!f->pages[i] || at >= f->size)
			continue;
		size_t len = f->size - at < PAGE ? (size_t)(f->size - at) : PAGE;
		if (pwrite(f->fd, f->pages[i], len, at) != (ssize_t)len)
			return errno ? -errno : -EIO;
	}
	if (ftruncate(f->fd, f->size) != 0)
		return -errno;
	file_drop_pages(f);
	return 0;
}

/* ---- faults */

static int fault_command(const char *from, size_t len)
{
	char line[64] = "";

	if (len >= sizeof line)
		return -EINVAL;
	memcpy(line, from, len);
	line[strcspn(line, "\n")] = 0;
	if (strncmp(line, "hang ", 5) == 0)
		fs.hang_ms = strtol(line + 5, NULL, 10);
	else if (strcmp(line, "fail fsync") == 0)
		fs.fail_sync = true;
	else if (strcmp(line, "fail write") == 0)
		fs.fail_write = true;
	else if (strcmp(line, "heal") == 0)
		fs.fail_sync = fs.fail_write = false;
	else
		return -EINVAL;
	return (int)len;
}

/* The one thread sleeps, so the whole disk stands; SIGTERM ends it early. */
static void hang_if_asked(void)
{
	struct timespec time = {
		.tv_sec = fs.hang_ms / 1000, .tv_nsec = fs.hang_ms % 1000 * 1000000};

	fs.hang_ms = 0;
	nanosleep(&time, NULL);
}

static bool is_fault_file(const char *path)
{
	return strcmp(path, fault_path) == 0;
}

/* ---- requests */

static struct file *file_at(const struct fuse_file_info *info)
{
	return (struct file *)(uintptr_t)info->fh;
}

static int op_getattr(const char *path, struct stat *st, struct fuse_file_info *info)
{
	const char *name = entered(path);
	struct file *f = info && info->fh ? file_at(info) : NULL;
	if (path && is_fault_file(path)) {
		*st = (struct stat){.st_mode = S_IFREG | 0600, .st_nlink = 1};
		return 0;
	}
	if (f ? fstat(f->fd, st) : fstatat(fs.root, name, st, AT_SYMLINK_NOFOLLOW))
		return -errno;
	if (!f && S_ISREG(st->st_mode))
		f = file_find(st->st_ino);
	if (f)
		st->st_size = f->size;
	return 0;
}

static int open_with(const char *name, int flags, mode_t mode, struct fuse_file_info *info)
{
	/* The backing file is read to fill pages and never written but by file_sync. */
	int fd = openat(fs.root, name, (flags & (O_CREAT | O_EXCL)) | O_RDWR | O_CLOEXEC, mode);
	if (fd < 0)
		return -errno;
	struct file *f = file_of(fd);
	if (!f)
		return -EIO;
	f->opens++;
	info->fh = (uintptr_t)f;
	return flags & O_TRUNC ? file_resize(f, 0) : 0;
}

static int op_open(const char *path, struct fuse_file_info *info)
{
	if (is_fault_file(path)) {
		info->fh = 0;
		info->direct_io = 1;
		return 0;
	}
	return open_with(entered(path), info->flags & ~(O_CREAT | O_EXCL), 0, info);
}

static int op_create(const char *path, mode_t mode, struct fuse_file_info *info)
{
	return open_with(entered(path), info->flags | O_CREAT, mode, info);
}

static int op_release(const char *path, struct fuse_file_info *info)
{
	(void)path;
	forget_if_asked();
	struct file *f = file_at(info);
	if (!f)
		return 0; /* the fault file */
	f->opens--;
	file_free_if_idle(f);
	return 0;
}

static int op_read(const char *path, char *to, size_t len, off_t at, struct fuse_file_info *info)
{
	(void)path;
	forget_if_asked();
	struct file *f = file_at(info);
	if (!f || at >= f->size)
		return 0;
	if ((off_t)len > f->size - at)
		len = (size_t)(f->size - at);
	for (size_t done = 0; done < len;) {
		size_t number = ((size_t)at + done) / PAGE, in = ((size_t)at + done) % PAGE;
		size_t part = len - done < PAGE - in ? len - done : PAGE - in;
		if (number < f->page_count && f->pages[number])
			memcpy(to + done, f->pages[number] + in, part);
		else
			backing_read(f, (uint8_t *)to + done, part, at + (off_t)done);
		done += part;
	}
	return (int)len;
}

static int op_write(
	const char *path, const char *from, size_t len, off_t at, struct fuse_file_info *info)
{
	(void)path;
	forget_if_asked();
	struct file *f = file_at(info);
	if (!f)
		return fault_command(from, len);
	if (fs.fail_write)
		return -EIO;
	for (size_t done = 0; done < len;) {
		size_t number = ((size_t)at + done) / PAGE, in = ((size_t)at + done) % PAGE;
		size_t part = len - done < PAGE - in ? len - done : PAGE - in;
		uint8_t *page = page_dirty(f, number);
		if (!page)
			return -ENOMEM;
		memcpy(page + in, from + done, part);
		done += part;
	}
	f->dirty = true;
	if (at + (off_t)len > f->size)
		f->size = at + (off_t)len;
	return (int)len;
}

static int op_fsync(const char *path, int data_only, struct fuse_file_info *info)
{
	(void)path;
	(void)data_only;
	forget_if_asked();
	struct file *f = file_at(info);
	if (!f)
		return 0;
	hang_if_asked();
	if (!fs.fail_sync)
		return file_sync(f);
	file_drop_pages(f);
	f->size = backing_size(f);
	return -EIO;
}

static int op_truncate(const char *path, off_t size, struct fuse_file_info *info)
{
	const char *name = entered(path);
	if (info && info->fh)
		return file_resize(file_at(info), size);
	int fd = openat(fs.root, name, O_RDWR | O_CLOEXEC);
	struct file *f = fd < 0 ? NULL : file_of(fd);
	return f ? file_resize(f, size) : -errno;
}

static int op_fallocate(
	const char *path, int mode, off_t at, off_t len, struct fuse_file_info *info)
{
	(void)path;
	forget_if_asked();
	struct file *f = file_at(info);
	if (mode & FALLOC_FL_KEEP_SIZE)
		return mode == FALLOC_FL_KEEP_SIZE ? 0 : -EOPNOTSUPP;
	return mode ? -EOPNOTSUPP : at + len > f->size ? file_resize(f, at + len) : 0;
}

/* A file that loses its name is done with once nobody has it open. */
static struct file *file_named(const char *name)
{
	struct stat st;
	if (fstatat(fs.root, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return NULL;
	return file_find(st.st_ino);
}

static int op_unlink(const char *path)
{
	const char *name = entered(path);
	struct file *f = file_named(name);
	if (unlinkat(fs.root, name, 0) != 0)
		return -errno;
	if (f)
		file_free_if_idle(f);
	return 0;
}

static int op_rename(const char *from, const char *to, unsigned flags)
{
	const char *old = entered(from), *name = entered(to);
	struct file *replaced = file_named(name);
	if (renameat2(fs.root, old, fs.root, name, flags) != 0)
		return -errno;
	if (replaced)
		file_free_if_idle(replaced);
	return 0;
}

static int op_link(const char *from, const char *to)
{
	return linkat(fs.root, entered(from), fs.root, entered(to), 0) ? -errno : 0;
}

static int op_mkdir(const char *path, mode_t mode)
{
	return mkdirat(fs.root, entered(path), mode) ? -errno : 0;
}

static int op_rmdir(const char *path)
{
	return unlinkat(fs.root, entered(path), AT_REMOVEDIR) ? -errno : 0;
}

static int op_chmod(const char *path, mode_t mode, struct fuse_file_info *info)
{
	(void)info;
	return fchmodat(fs.root, entered(path), mode, 0) ? -errno : 0;
}

static int op_utimens(const char *path, const struct timespec times[2], struct fuse_file_info *info)
{
	(void)info;
	return utimensat(fs.root, entered(path), times, AT_SYMLINK_NOFOLLOW) ? -errno : 0;
}

static int op_statfs(const char *path, struct statvfs *st)
{
	(void)entered(path);
	return fstatvfs(fs.root, st) ? -errno : 0;
}

static int op_fsyncdir(const char *path, int data_only, struct fuse_file_info *info)
{
	(void)data_only;
	(void)info;
	(void)entered(path);
	return 0;
}

static int op_readdir(const char *path, void *to, fuse_fill_dir_t fill, off_t at,
	struct fuse_file_info *info, enum fuse_readdir_flags flags)
{
	(void)at;
	(void)info;
	(void)flags;
	int fd = openat(fs.root, entered(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir)
		return -errno;
	for (struct dirent *e = readdir(dir); e; e = readdir(dir))
		fill(to, e->d_name, NULL, 0, 0);
	closedir(dir);
	return 0;
}

/* The kernel may keep nothing that a signal could make wrong. */
static void *op_init(struct fuse_conn_info *conn, struct fuse_config *config)
{
	(void)conn;
	config->attr_timeout = 0;
	config->entry_timeout = 0;
	config->negative_timeout = 0;
	config->hard_remove = 1;
	return NULL;
}

static const struct fuse_operations operations = {
	.init = op_init,
	.getattr = op_getattr,
	.open = op_open,
	.create = op_create,
	.release = op_release,
	.read = op_read,
	.write = op_write,
	.fsync = op_fsync,
	.truncate = op_truncate,
	.fallocate = op_fallocate,
	.unlink = op_unlink,
	.rename = op_rename,
	.link = op_link,
	.mkdir = op_mkdir,
	.rmdir = op_rmdir,
	.chmod = op_chmod,
	.utimens = op_utimens,
	.statfs = op_statfs,
	.fsyncdir = op_fsyncdir,
	.readdir = op_readdir,
};

int main(int argc, char **argv)
{
	if (argc != 3) {
		fprintf(stderr, "usage: forgetfs BACKING MOUNTPOINT\n");
		return 2;
	}
	fs.root = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fs.root < 0) {
		perror(argv[1]);
		return 1;
	}
	struct sigaction on_forget = {.sa_handler = forget_asked};
	if (sigaction(SIGUSR1, &on_forget, NULL) != 0)
		return 1;
	char foreground[] = "-f", one_thread[] = "-s";
	char *words[] = {argv[0], foreground, one_thread, argv[2], NULL};
	return fuse_main(4, words, &operations, NULL);
}
