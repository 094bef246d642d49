/* One queue, first in first out, under one lock: jobs are long (a disk read, a password hash), so
 * handing them out is never what limits. A job comes home as the message it embeds. */
#include "server/base/worker.h"
#include <pthread.h>
#include <signal.h>
#include "server/base/mem.h"

struct workers {
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct loop_msg *head, **tail; /* jobs, by their msg */
	bool ending, left;
	int threads, alive; /* alive: counted once left; the last one frees */
	pthread_t thread[];
};

static struct job *job_of(struct loop_msg *m)
{
	return list_entry(m, struct job, msg);
}

static void job_done(struct loop_msg *m)
{
	struct job *j = job_of(m);

	j->done(j);
}

/* The next job; NULL when all are done and the workers end. */
static struct job *job_next(struct workers *w)
{
	struct loop_msg *m;

	pthread_mutex_lock(&w->lock);
	while (w->head == NULL && !w->ending)
		pthread_cond_wait(&w->more, &w->lock);
	m = w->head;
	if (m != NULL) {
		w->head = m->next;
		if (w->head == NULL)
			w->tail = &w->head;
	}
	pthread_mutex_unlock(&w->lock);
	return m ? job_of(m) : NULL;
}

/* Its loop is there as long as nobody has left. */
static void job_home(struct workers *w, struct job *j)
{
	bool left;

	pthread_mutex_lock(&w->lock);
	left = w->left;
	j->msg.run = job_done;
	if (!left)
		loop_post(j->home, &j->msg);
	pthread_mutex_unlock(&w->lock);
	if (left)
		j->left(j);
}

static void workers_drop(struct workers *w)
{
	pthread_cond_destroy(&w->more);
	pthread_mutex_destroy(&w->lock);
	mem_free(w);
}

static void *worker_thread(void *arg)
{
	struct workers *w = arg;
	struct job *j;
	bool last;

	pthread_setname_np(pthread_self(), "worker");
	while ((j = job_next(w)) != NULL) {
		j->work(j);
		job_home(w, j);
	}
	pthread_mutex_lock(&w->lock);
	last = w->left && --w->alive == 0;
	pthread_mutex_unlock(&w->lock);
	if (last)
		workers_drop(w);
	return NULL;
}

struct workers *workers_new(int threads)
{
	struct workers *w;
	sigset_t most, before;

	must(threads > 0);
	w = mem_new(sizeof *w + (size_t)threads * sizeof w->thread[0]);
	w->threads = w->alive = threads;
	w->tail = &w->head;
	must(pthread_mutex_init(&w->lock, NULL) == 0);
	must(pthread_cond_init(&w->more, NULL) == 0);
	/* Signals are the main thread's; those of faults stay with who made them. */
	sigfillset(&most);
	sigdelset(&most, SIGSEGV);
	sigdelset(&most, SIGBUS);
	sigdelset(&most, SIGFPE);
	sigdelset(&most, SIGILL);
	sigdelset(&most, SIGABRT);
	must(pthread_sigmask(SIG_SETMASK, &most, &before) == 0);
	for (int i = 0; i < threads; i++)
		must(pthread_create(&w->thread[i], NULL, worker_thread, w) == 0);
	must(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
	return w;
}

void workers_free(struct workers *w)
{
	if (w == NULL)
		return;
	pthread_mutex_lock(&w->lock);
	w->ending = true;
	pthread_cond_broadcast(&w->more);
	pthread_mutex_unlock(&w->lock);
	for (int i = 0; i < w->threads; i++)
		must(pthread_join(w->thread[i], NULL) == 0);
	workers_drop(w);
}

void workers_leave(struct workers *w)
{
	struct loop_msg *m, *next;

	if (w == NULL)
		return;
	pthread_mutex_lock(&w->lock);
	w->ending = w->left = true;
	m = w->head;
	w->head = NULL;
	for (int i = 0; i < w->threads; i++)
		must(pthread_detach(w->thread[i]) == 0);
	pthread_cond_broadcast(&w->more);
	pthread_mutex_unlock(&w->lock);
	for (; m != NULL; m = next) {
		next = m->next;
		job_of(m)->left(job_of(m));
	}
}

void worker_run(struct workers *w, struct job *j)
{
	if (j->home == NULL)
		j->home = loop_here();
	must(j->home != NULL);
	j->msg.next = NULL;
	pthread_mutex_lock(&w->lock);
	*w->tail = &j->msg;
	w->tail = &j->msg.next;
	pthread_cond_signal(&w->more);
	pthread_mutex_unlock(&w->lock);
}
