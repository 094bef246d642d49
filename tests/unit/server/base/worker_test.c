#include <check.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>
#include "server/base/mem.h"
#include "server/base/worker.h"

enum { JOBS = 2000 };

struct sum {
	struct job job;
	int in, out;
};

static struct loops *all;
static struct workers *workers;
static _Atomic int left, worked;

static void sum_work(struct job *j)
{
	struct sum *s = list_entry(j, struct sum, job);

	must(loop_here() == NULL);
	s->out = s->in * 2;
	atomic_fetch_add(&worked, 1);
}

static void sum_done(struct job *j)
{
	struct sum *s = list_entry(j, struct sum, job);

	must(loop_here() == j->home);
	must(s->out == s->in * 2);
	mem_free(s);
	atomic_fetch_sub(&left, 1);
}

static void send(struct loop *home)
{
	for (int i = 0; i < JOBS; i++) {
		struct sum *s = mem_new(sizeof *s);
		s->job.home = home;
		s->job.work = sum_work;
		s->job.done = sum_done;
		s->in = i;
		worker_run(workers, &s->job);
	}
}

static void send_from_loop(void *arg)
{
	(void)arg;
	send(NULL); /* home: this loop */
}

START_TEST(jobs_come_home)
{
	all = loops_new(2);
	loops_run(all);
	workers = workers_new(3);
	atomic_store(&left, 3 * JOBS);
	loop_call(loops_at(all, 0), send_from_loop, NULL);
	loop_call(loops_at(all, 1), send_from_loop, NULL);
	send(loops_at(all, 1));
	for (int i = 0; i < 20000 && atomic_load(&left) > 0; i++)
		usleep(500);
	ck_assert_int_eq(atomic_load(&left), 0);
	workers_free(workers);
	loops_stop(all);
	loops_free(all);
}
END_TEST

START_TEST(queued_jobs_run_before_the_end)
{
	all = loops_new(1);
	workers = workers_new(1);
	atomic_store(&left, JOBS);
	send(loops_at(all, 0));
	workers_free(workers);
	ck_assert_int_eq(atomic_load(&worked), JOBS);
	ck_assert_int_eq(atomic_load(&left), JOBS); /* done waits for the loop */
	loops_run(all);
	loops_stop(all);
	ck_assert_int_eq(atomic_load(&left), 0);
	loops_free(all);
	workers_free(NULL);
}
END_TEST

static _Atomic int given_up, hold;

static void long_work(struct job *j)
{
	(void)j;
	atomic_fetch_add(&worked, 1);
	while (atomic_load(&hold))
		usleep(500);
}

static void never(struct job *j)
{
	(void)j;
	must(false);
}

static void give_up(struct job *j)
{
	mem_free(list_entry(j, struct sum, job));
	atomic_fetch_add(&given_up, 1);
}

/* Nobody waits for what is under way, and nothing comes home, where nobody is any more. */
START_TEST(those_who_are_left_end_by_themselves)
{
	all = loops_new(1);
	workers = workers_new(2);
	atomic_store(&hold, 1);
	atomic_store(&worked, 0);
	atomic_store(&given_up, 0);
	for (int i = 0; i < 10; i++) {
		struct sum *s = mem_new(sizeof *s);
		s->job = (struct job){.home = loops_at(all, 0),
			.work = long_work,
			.done = never,
			.left = give_up};
		worker_run(workers, &s->job);
	}
	for (int i = 0; i < 20000 && atomic_load(&worked) < 2; i++)
		usleep(500);
	workers_leave(workers);
	ck_assert_int_eq(atomic_load(&given_up), 8);
	loops_free(all);
	atomic_store(&hold, 0);
	for (int i = 0; i < 20000 && atomic_load(&given_up) < 10; i++)
		usleep(500);
	ck_assert_int_eq(atomic_load(&given_up), 10);
	ck_assert_int_eq(atomic_load(&worked), 2);
	workers_leave(NULL);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("worker");
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, jobs_come_home);
	tcase_add_test(tc, queued_jobs_run_before_the_end);
	tcase_add_test(tc, those_who_are_left_end_by_themselves);
	Suite *s = suite_create("worker");
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
