/* Folders on a real disk: opened, locked, filled, trimmed, read back in bounded memory. */
#include <check.h>
#include <fcntl.h>
#include <ftw.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include "server/base/clock.h"
#include "server/base/mem.h"
#include "storage/keys.h"
#include "storage/space.h"
#include "storage/storage.h"
#include "tests/unit/run_on.h"

enum { ENTRY_BYTES = 65536 };

static char dir[64], list[160];
static struct loops *loops;
static struct workers *workers;
static struct storage *storage;
static sem_t done;
static const struct plog_env *env;
static struct plog *p;

static struct storage_conf conf_of(const char *dirs)
{
	return (struct storage_conf){
		.dir = dirs,
		.reserve_bytes = 1 << 20,
		.stall_ms = 5000,
		.tail_bytes = 2 << 20,
		.write_buffer_bytes = 16 << 20,
		.block_cache_bytes = 4 << 20,
		.wal_bytes = 32 << 20,
		.open_files = 256,
		.direct = true,
	};
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st, (void)flag, (void)ftw;
	return remove(path);
}

static void setup(void)
{
	sem_init(&done, 0, 0);
	snprintf(dir, sizeof dir, "/tmp/storage_test.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(list, sizeof list, "%s/a/deep, %s/b", dir, dir);
}

static void teardown(void)
{
	nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static enum err begin(const struct storage_conf *c, char *why)
{
	enum err e;

	loops = loops_new(2);
	workers = workers_new(2);
	e = storage_open(c, loops, workers, &storage, why, 300);
	if (e == OK) {
		env = storage_env(storage, 1, 0);
		loops_run(loops);
		return OK;
	}
	workers_free(workers);
	loops_free(loops);
	return e;
}

static void end(void)
{
	workers_free(workers);
	loops_stop(loops);
	storage_stop(storage);
	loops_free(loops);
	storage_free(storage);
}

static void on_loop(void (*fn)(void *arg), void *arg)
{
	run_on(env->loop, fn, arg);
}

static void open_log(void *arg)
{
	plog_create(env, *(uint64_t *)arg, FAMILY_LOG_HOURS, bytes_text("x"));
	ck_assert_int_eq(plog_open(env, *(uint64_t *)arg, FAMILY_LOG_HOURS, &p), OK);
}
static void close_log(void *arg)
{
	(void)arg;
	plog_close(p);
}

static void append_one(void *arg)
{
	struct slice part = {chunk_try(ENTRY_BYTES), {NULL, 0}};
	struct entry *e;

	(void)arg;
	random_fill(part.chunk->data, ENTRY_BYTES);
	part.bytes = bytes_of(part.chunk->data, ENTRY_BYTES);
	e = entry_new(&part, 1);
	e->head.term = 1;
	e->head.count = 1;
	plog_append(p, e, -1);
	entry_unref(e);
}
static void durable_run(struct durable *d)
{
	(void)d;
	sem_post(&done);
}
static void ask_durable(void *arg)
{
	lane_when_durable(env->lane, arg);
}
static void apply_all(void *arg)
{
	(void)arg;
	plog_applied(p, plog_last_index(p));
	plog_mark_applied(p, plog_last_index(p), 1);
}

static void fill(int entries)
{
	for (int i = 0; i < entries; i++) {
		on_loop(append_one, NULL);
		if (i % 64 == 63 || i == entries - 1) {
			struct durable d = {.done = durable_run};

			on_loop(ask_durable, &d);
			sem_wait(&done);
			on_loop(apply_all, NULL);
		}
	}
}

static bool count_group(int disk, const struct plog_group_row *row, void *arg)
{
	int *counts = arg;

	counts[disk]++;
	counts[2] += (int)row->group;
	return true;
}

START_TEST(opens_all_disks_and_finds_the_groups)
{
	struct storage_conf c = conf_of(list);
	uint64_t groups[] = {11, 12};
	int counts[3] = {0};
	char why[300];

	ck_assert_msg(begin(&c, why) == OK, "%s", why);
	ck_assert_int_eq(storage_disks(storage), 2);
	for (int d = 0; d < 2; d++) {
		env = storage_env(storage, 1, d);
		on_loop(open_log, &groups[d]);
		fill(3);
		on_loop(close_log, NULL);
	}
	ck_assert(storage_writable(storage));
	ck_assert(!storage_stalled(storage));
	ck_assert_int_gt(disk_free_bytes(storage_disk(storage, storage_disk_for_new(storage))), 0);
	struct storage *second;
	ck_assert_int_eq(storage_open(&c, loops, workers, &second, why, sizeof why), ERR_BUSY);
	ck_assert_ptr_nonnull(strstr(why, "locked"));
	end();
	ck_assert_int_eq(begin(&c, why), OK);
	ck_assert_int_eq(storage_groups(storage, count_group, counts), OK);
	ck_assert_int_eq(counts[0], 1);
	ck_assert_int_eq(counts[1], 1);
	ck_assert_int_eq(counts[2], 23);
	end();
}
END_TEST

START_TEST(refuses_a_bad_list)
{
	struct storage_conf c = conf_of(_i == 0 ? "" : "/tmp/,,x");
	char why[300], path[100];

	if (_i == 1) {
		snprintf(path, sizeof path, "%s/x,,y", dir);
		c.dir = path;
	}
	ck_assert_int_eq(begin(&c, why), ERR_INVALID);
	ck_assert_ptr_nonnull(strstr(why, "data.dir"));
}
END_TEST

static void write_text(const char *name, const char *text)
{
	char path[120];
	int fd;

	snprintf(path, sizeof path, "%s/%s", dir, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	ck_assert_int_gt(write(fd, text, strlen(text)), 0);
	close(fd);
}

START_TEST(refuses_a_newer_format)
{
	struct storage_conf c = conf_of(dir);
	char why[300];

	write_text("FORMAT", "2\n");
	ck_assert_int_eq(begin(&c, why), ERR_UNSUPPORTED);
	ck_assert_ptr_nonnull(strstr(why, "format 2"));
}
END_TEST

/* The store goes back to what it was; its side file knows better. */
START_TEST(a_store_behind_its_side_file_is_wiped)
{
	struct storage_conf c = conf_of(dir);
	uint64_t group = 3;
	char why[300], path[120];

	ck_assert_int_eq(begin(&c, why), OK);
	on_loop(open_log, &group);
	fill(5);
	on_loop(close_log, NULL);
	end();
	snprintf(path, sizeof path, "%s/store", dir);
	nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	ck_assert_int_eq(begin(&c, why), ERR_CORRUPT);
	ck_assert_ptr_nonnull(strstr(why, "wiped"));
}
END_TEST

static void put_rows(void *arg)
{
	struct bytes value = bytes_text("x");

	for (uint64_t i = 0; i < 100; i++) {
		struct entry_key key = key_entry(7, i);

		if (*(bool *)arg)
			lane_put_unlogged(env->lane, FAMILY_LOG_HOURS, KEY_BYTES(key), &value);
		else
			lane_put(env->lane, FAMILY_ROWS, KEY_BYTES(key), &value, 1);
	}
}

static void put_rows_and_wait(bool unlogged)
{
	struct durable d = {.done = durable_run};

	on_loop(put_rows, &unlogged);
	on_loop(ask_durable, &d);
	sem_wait(&done);
}

/* A crash that takes unlogged writes alone leaves all that the side file tells of. */
START_TEST(who_lost_unlogged_writes_is_not_behind)
{
	char why[300], from[80], to[80], command[400];
	struct storage_conf c = conf_of(from);

	snprintf(from, sizeof from, "%s/a", dir);
	snprintf(to, sizeof to, "%s/b", dir);
	ck_assert_int_eq(begin(&c, why), OK);
	put_rows_and_wait(false);
	put_rows_and_wait(true);
	usleep(2500000); /* the side file is written once a second */
	snprintf(command, sizeof command, "cp -r %s %s && cmp -s %s/side %s/side", from, to, from,
		to);
	ck_assert_int_eq(system(command), 0);
	end();
	c.dir = to;
	ck_assert_msg(begin(&c, why) == OK, "%s", why);
	ck_assert_uint_ge(store_sequence(env->store), 100);
	ck_assert_uint_lt(store_sequence(env->store), 200); /* or the test shows nothing */
	end();
}
END_TEST

/* More reserve than the disk has: refused; with less it takes writes, and what is admitted is
 * debited. */
START_TEST(admits_only_above_the_reserve)
{
	struct storage_conf c = conf_of(dir);
	struct disk *d;
	char why[300];

	c.reserve_bytes = (int64_t)1 << 60;
	ck_assert_int_eq(begin(&c, why), OK);
	ck_assert(!storage_writable(storage));
	ck_assert(!disk_admit(storage_disk(storage, 0), 1));
	end();
	c.reserve_bytes = 1 << 20;
	ck_assert_int_eq(begin(&c, why), OK);
	d = storage_disk(storage, 0);
	ck_assert(disk_admit(d, 1));
	ck_assert(disk_admit(d, (size_t)disk_free_bytes(d)));
	ck_assert(!disk_admit(d, 1));
	for (int i = 0; i < 3000 && !disk_writable(d); i++)
		usleep(10000);
	ck_assert(disk_admit(d, 1)); /* by itself, after two looks */
	end();
}
END_TEST

static void read_done(struct plog_read *r)
{
	(void)r;
	sem_post(&done);
}
static void start_read(void *arg)
{
	plog_read(arg);
}

static int64_t resident_bytes(void)
{
	long long size, resident = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	ck_assert_int_eq(fscanf(f, "%lld %lld", &size, &resident), 2);
	fclose(f);
	return resident * sysconf(_SC_PAGESIZE);
}

static void trim_most(void *arg)
{
	plog_trim(p, *(int64_t *)arg, plog_last_index(p));
}

/* Reads 200 MB of old entries: memory stays within the budget of a read; then trims nearly all,
 * and the space comes back to the disk. */
START_TEST(reads_old_entries_in_bounded_memory_and_gives_space_back)
{
	enum { ENTRIES = 3200 };
	struct storage_conf c = conf_of(dir);
	uint64_t group = 3;
	struct store_stats full, after;
	int64_t at = 0, before, worst = 0;
	char why[300];

	ck_assert_int_eq(begin(&c, why), OK);
	on_loop(open_log, &group);
	fill(ENTRIES);
	before = resident_bytes();
	while (at < ENTRIES) {
		struct plog_read r = {.log = p,
			.offset = at,
			.end_offset = ENTRIES,
			.bytes_max = 1 << 20,
			.done = read_done};

		on_loop(start_read, &r);
		sem_wait(&done);
		ck_assert_int_eq(r.err, OK);
		ck_assert_int_gt(r.count, 0);
		for (int i = 0; i < r.count; i++) {
			ck_assert_int_eq(r.entries[i]->head.base_offset, at++);
			entry_unref(r.entries[i]);
		}
		mem_free(r.entries);
		if (resident_bytes() - before > worst)
			worst = resident_bytes() - before;
	}
	printf("cold read of %d MB: memory grew by %lld KB\n", ENTRIES * ENTRY_BYTES >> 20,
		(long long)worst >> 10);
	ck_assert_int_lt(worst, 100 << 20); /* half of it; the sanitizers keep freed memory */
	store_stats(env->store, &full);
	at = ENTRIES - 20;
	on_loop(trim_most, &at);
	for (int i = 0; i < 300; i++) {
		usleep(50000);
		store_stats(env->store, &after);
		if (after.disk_bytes < full.disk_bytes / 3)
			break;
	}
	printf("trim: disk %lld -> %lld\n", (long long)full.disk_bytes,
		(long long)after.disk_bytes);
	ck_assert_int_lt(after.disk_bytes, full.disk_bytes / 3);
	on_loop(close_log, NULL);
	end();
}
END_TEST

/* Notes alone cost nothing; under pressure every noted range is reclaimed once. */
START_TEST(space_is_reclaimed_when_worth_it)
{
	static const _Atomic bool go;
	static const _Atomic bool stop = true;
	struct store *s;
	struct space *sp;

	ck_assert_int_eq(store_open_mem(1, &s), OK);
	sp = space_new(s, 0);
	space_note(sp, 1, FAMILY_LOG_DAYS, 10, 1000);
	space_note(sp, 1, FAMILY_LOG_DAYS, 20, 1000);
	space_note(sp, 2, FAMILY_LOG_DAYS, 20, 1000);
	ck_assert_int_eq(space_run(sp, false, &go), 0);
	ck_assert_int_eq(space_run(sp, true, &stop), 0);
	ck_assert_int_eq(space_run(sp, true, &go), 2);
	ck_assert_int_eq(space_run(sp, true, &go), 0);
	space_note(sp, 1, FAMILY_LOG_DAYS, 30, 65 << 20);
	ck_assert_int_eq(space_run(sp, false, &go), 1);
	space_note(sp, 4, FAMILY_LOG_DAYS, 30, 1);
	space_free(sp);
	store_close(s);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("storage");
	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, opens_all_disks_and_finds_the_groups);
	tcase_add_loop_test(tc, refuses_a_bad_list, 0, 2);
	tcase_add_test(tc, refuses_a_newer_format);
	tcase_add_test(tc, a_store_behind_its_side_file_is_wiped);
	tcase_add_test(tc, who_lost_unlogged_writes_is_not_behind);
	tcase_add_test(tc, admits_only_above_the_reserve);
	tcase_add_test(tc, reads_old_entries_in_bounded_memory_and_gives_space_back);
	tcase_add_test(tc, space_is_reclaimed_when_worth_it);
	Suite *s = suite_create("storage");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
