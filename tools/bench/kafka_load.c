/* Kafka produce and fetch at full speed. One connection per stream: a stream is one partition
 * driven by one client, there are max(clients, partitions) of them, each connected to the
 * leader of its partition. Produce keeps `inflight` requests on the wire and sends one batch,
 * built beforehand, without copying it; fetch asks for the next range as soon as one has come,
 * checks that offsets follow each other without a gap and, with --verify 1, the checksums. */
#include "tools/bench/bench.h"
#include "tools/bench/hist.h"
#include "tools/bench/kafka_wire.h"
#include "tools/bench/proc.h"
#include "tools/bench/report.h"
#include "tools/bench/sock.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

enum {
	EVENTS_MAX = 64,
	HEAD_BYTES = 512,
	REPLY_BYTES_MAX = 16 * 1024 * 1024,
	FETCH_BYTES = 1024 * 1024,
	SETUP_TRIES = 100,
	SETUP_PAUSE_US = 100000,
	STALL_S = 30
};

struct stream {
	struct sock sock;
	uint32_t partition;
	bool up, closed, finished;
	uint8_t head[HEAD_BYTES];    /* of the request being sent */
	size_t head_len, sent_bytes; /* of head and body together; head_len 0: none */
	uint64_t requests, replies, limit;
	uint64_t *times;                 /* when each request in flight left, a ring of inflight */
	uint64_t offset, high_watermark; /* fetch: next offset, and where the log ends */
	uint8_t *batch;                  /* --keys: its own, with other keys each time */
};

struct kafka {
	const struct options *options;
	const char *name;
	char topic[256];
	struct kafka_place place;
	struct addrs nodes[KAFKA_NODES_MAX];
	int ep;
	struct stream *streams;
	uint32_t count;
	uint8_t *batch; /* the records every request carries */
	size_t batch_len;
	uint32_t batch_records;
	bool sending; /* false once time is up: what is in flight comes home */
	uint64_t start_ns, end_ns, moved_ns;
	uint64_t due_ns, seed; /* --rate: when the next request is to leave; of keys */
	uint64_t records, bytes, errors, gaps, corrupt;
	uint32_t closed;
	int16_t first_error;
	struct hist ack;
	struct proc_use use[2];
	uint64_t self_us[2];
};

/* ---- set-up: a blocking connection, a few calls ---- */

static int control_open(const struct options *o)
{
	struct addrs a;
	struct timeval wait = {.tv_sec = STALL_S};
	int fd;

	if (!addrs_resolve(o->host, o->port, &a))
		return -1;
	fd = socket(a.at[0].ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
	if (fd >= 0 && connect(fd, (const struct sockaddr *)&a.at[0], a.len[0]) == 0)
		return fd;
	fprintf(stderr, "sluice-bench: %s: %s\n", o->host, strerror(errno));
	if (fd >= 0)
		close(fd);
	return -1;
}

static bool receive_all(int fd, uint8_t *at, size_t len)
{
	while (len > 0) {
		ssize_t n = recv(fd, at, len, 0);

		if (n <= 0)
			return false;
		at += n;
		len -= (size_t)n;
	}
	return true;
}

/* Sends a request and gives its response's bytes (freed by the caller); NULL when it fails. */
static uint8_t *control_call(int fd, const uint8_t *request, size_t len, struct bytes *body)
{
	uint8_t size[4];
	uint8_t *reply;

	if (len == 0 || send(fd, request, len, MSG_NOSIGNAL) != (ssize_t)len ||
		!receive_all(fd, size, sizeof size))
		goto closed;
	body->len = get_u32be(size);
	reply = body->len > REPLY_BYTES_MAX ? NULL : malloc(body->len + 1);
	if (!reply)
		return NULL;
	body->at = reply;
	if (receive_all(fd, reply, body->len))
		return reply;
	free(reply);
closed:
	fprintf(stderr, "sluice-bench: the broker closed the connection during set-up\n");
	return NULL;
}

static bool topic_create(struct kafka *k, int fd, const struct kafka_topic *t)
{
	uint8_t request[KAFKA_SMALL_BYTES];
	struct bytes body;
	int16_t error;
	uint8_t *reply = control_call(
		fd, request, kafka_create_write(request, sizeof request, t), &body);

	if (!reply)
		return false;
	error = kafka_create_read(body);
	free(reply);
	if (error != KAFKA_OK && error != KAFKA_TOPIC_EXISTS)
		fprintf(stderr, "sluice-bench: CreateTopics %s: error %d\n", k->topic, error);
	return error == KAFKA_OK || error == KAFKA_TOPIC_EXISTS;
}

/* Asks until every partition has a leader. */
static bool topic_locate(struct kafka *k, int fd, uint32_t partitions)
{
	uint8_t request[KAFKA_SMALL_BYTES];
	int16_t error = 0;

	k->place.leader = calloc(partitions, sizeof *k->place.leader);
	for (int i = 0; k->place.leader && i < SETUP_TRIES; i++) {
		struct bytes body;
		uint8_t *reply = control_call(fd, request,
			kafka_metadata_write(request, sizeof request, k->topic), &body);

		if (!reply)
			return false;
		error = kafka_metadata_read(body, partitions, &k->place);
		free(reply);
		if (error == 0)
			return true;
		usleep(SETUP_PAUSE_US);
	}
	fprintf(stderr, "sluice-bench: Metadata of %s: error %d\n", k->topic, error);
	return false;
}

static bool kafka_prepare(struct kafka *k, bool create)
{
	const struct options *o = k->options;
	struct kafka_topic t = {k->topic, (uint32_t)o->partitions, (uint32_t)o->replicas};
	uint8_t request[KAFKA_SMALL_BYTES];
	struct bytes body;
	uint8_t *reply;
	bool fine = false;
	int fd = control_open(o);

	if (fd < 0)
		return false;
	reply = control_call(fd, request, kafka_versions_write(request, sizeof request), &body);
	if (!reply)
		goto close_fd;
	fine = kafka_versions_read(body);
	free(reply);
	fine = fine && (!create || topic_create(k, fd, &t)) && topic_locate(k, fd, t.partitions);
	for (uint32_t i = 0; fine && i < k->place.nodes; i++)
		fine = addrs_one(k->place.host[i], k->place.port[i], &k->nodes[i]);
close_fd:
	close(fd);
	return fine;
}

/* ---- streams ---- */

static void stream_lost(struct kafka *k, struct stream *s, const char *why)
{
	if (s->closed)
		return;
	if (k->closed++ == 0)
		fprintf(stderr, "sluice-bench: partition %u: %s%s%s\n", s->partition, why,
			errno ? ": " : "", errno ? strerror(errno) : "");
	s->closed = s->finished = true;
	sock_close(&s->sock);
}

static bool streams_open(struct kafka *k, uint32_t in_cap)
{
	const struct options *o = k->options;

	k->count = (uint32_t)(o->clients > o->partitions ? o->clients : o->partitions);
	k->streams = calloc(k->count, sizeof *k->streams);
	k->ep = epoll_create1(EPOLL_CLOEXEC);
	for (uint32_t i = 0; k->streams && i < k->count; i++) {
		struct stream *s = &k->streams[i];
		uint64_t batches = k->batch_records ? o->count / k->batch_records : 0;

		s->partition = i % (uint32_t)o->partitions;
		s->limit = o->count ? batches / k->count + (i < batches % k->count) : UINT64_MAX;
		s->times = calloc(o->inflight, sizeof *s->times);
		s->batch = o->keys && k->batch_len ? malloc(k->batch_len) : NULL;
		if (s->batch)
			memcpy(s->batch, k->batch, k->batch_len);
		if (!s->times || (o->keys && k->batch_len && !s->batch) ||
			!sock_buffers(&s->sock, in_cap, HEAD_BYTES) ||
			!sock_open(
				&s->sock, k->ep, &k->nodes[k->place.leader[s->partition]], 0, s)) {
			fprintf(stderr, "sluice-bench: %s\n", strerror(errno));
			return false;
		}
	}
	return k->streams != NULL;
}

static void kafka_fini(struct kafka *k)
{
	for (uint32_t i = 0; k->streams && i < k->count; i++) {
		sock_close(&k->streams[i].sock);
		free(k->streams[i].times);
		free(k->streams[i].batch);
	}
	if (k->ep >= 0)
		close(k->ep);
	free(k->streams);
	free(k->batch);
	free(k->place.leader);
	free(k);
}

/* ---- produce ---- */

/* Begins the next request if the window and the run allow one. */
static bool produce_begin(struct kafka *k, struct stream *s)
{
	struct kafka_produce p = {.topic = k->topic,
		.partition = s->partition,
		.correlation = (uint32_t)s->requests,
		.acks = k->options->acks == 2 ? -1 : 1,
		.records_bytes = (uint32_t)k->batch_len};

	if (!k->sending || s->requests >= s->limit ||
		s->requests - s->replies >= k->options->inflight)
		return false;
	if (k->options->rate && now_ns() < k->due_ns)
		return false;
	s->head_len = kafka_produce_write(s->head, sizeof s->head, &p);
	s->sent_bytes = 0;
	/* At a rate time counts from when it was to leave, whatever held it up. */
	s->times[s->requests % k->options->inflight] = k->options->rate ? k->due_ns : now_ns();
	if (k->options->rate)
		k->due_ns += k->batch_records * 1000000000ull / k->options->rate;
	if (s->batch)
		kafka_batch_keys(s->batch, k->batch_len, k->options->keys, &k->seed);
	s->requests++;
	return s->head_len > 0;
}

/* Sends until the socket is full or nothing may leave. */
static bool produce_send(struct kafka *k, struct stream *s)
{
	while (s->head_len > 0 || produce_begin(k, s)) {
		size_t head_at = s->sent_bytes < s->head_len ? s->sent_bytes : s->head_len;
		size_t body_at = s->sent_bytes - head_at;
		struct iovec iov[2] = {
			{s->head + head_at, s->head_len - head_at},
			{(s->batch ? s->batch : k->batch) + body_at, k->batch_len - body_at},
		};
		int64_t n = sock_send(&s->sock, iov, 2);

		if (n < 0)
			return false;
		if (n == 0)
			break;
		s->sent_bytes += (size_t)n;
		if (s->sent_bytes == s->head_len + k->batch_len)
			s->head_len = 0;
	}
	sock_watch(&s->sock, k->ep, s->head_len ? EPOLLIN | EPOLLOUT : EPOLLIN, s);
	return true;
}

static bool produce_reply(struct kafka *k, struct stream *s, struct bytes body)
{
	struct kafka_produced p;
	uint64_t now = now_ns();

	if (!kafka_produce_read(body, &p) || p.correlation != (uint32_t)s->replies ||
		s->replies == s->requests)
		return false;
	hist_add(&k->ack, now - s->times[s->replies % k->options->inflight]);
	s->replies++;
	k->end_ns = now;
	if (p.error) {
		k->first_error = k->errors++ ? k->first_error : p.error;
		return true;
	}
	k->records += k->batch_records;
	k->bytes += (uint64_t)k->batch_records * k->options->size;
	return true;
}

static bool produce_over(const struct kafka *k, const struct stream *s)
{
	return s->replies == s->requests && s->head_len == 0 &&
		(!k->sending || s->requests >= s->limit);
}

/* ---- fetch ---- */

static bool fetch_send(struct kafka *k, struct stream *s)
{
	struct kafka_fetch f = {.topic = k->topic,
		.partition = s->partition,
		.correlation = (uint32_t)s->requests,
		.offset = s->offset,
		.bytes_max = FETCH_BYTES};

	if (s->requests == s->replies && !s->finished) {
		s->times[0] = now_ns();
		s->sock.out_len = (uint32_t)kafka_fetch_write(s->sock.out, s->sock.out_cap, &f);
		s->requests++;
	}
	if (!sock_flush(&s->sock))
		return false;
	sock_watch(&s->sock, k->ep, sock_pending(&s->sock) ? EPOLLIN | EPOLLOUT : EPOLLIN, s);
	return true;
}

static bool fetch_batches(struct kafka *k, struct stream *s, struct bytes records)
{
	struct kafka_batch_view v;
	int64_t used;

	while ((used = kafka_batch_read(records, k->options->verify, &v)) > 0) {
		records.at += used;
		records.len -= (size_t)used;
		if (v.base_offset + v.count <= s->offset)
			continue;
		if (v.base_offset > s->offset)
			k->gaps += v.base_offset - s->offset;
		k->corrupt += !v.intact;
		k->records += v.count;
		k->bytes += v.len;
		s->offset = v.base_offset + v.count;
	}
	return used == 0;
}

static bool fetch_reply(struct kafka *k, struct stream *s, struct bytes body)
{
	struct kafka_fetched f;
	uint64_t now = now_ns();

	if (!kafka_fetch_read(body, &f) || f.correlation != (uint32_t)s->replies)
		return false;
	hist_add(&k->ack, now - s->times[0]);
	s->replies++;
	if (f.error) {
		k->first_error = k->errors++ ? k->first_error : f.error;
		s->finished = true;
		return true;
	}
	if (f.records.len > 0)
		k->end_ns = now;
	if (!fetch_batches(k, s, f.records))
		return false;
	s->high_watermark = f.high_watermark;
	s->finished = s->offset >= f.high_watermark || !k->sending;
	return true;
}

/* ---- the loop of both ---- */

struct kind {
	bool (*send)(struct kafka *k, struct stream *s);
	bool (*reply)(struct kafka *k, struct stream *s, struct bytes body);
};

static bool stream_replies(struct kafka *k, struct stream *s, const struct kind *kind)
{
	uint32_t at = 0;

	while (s->sock.in_len - at >= 4) {
		uint32_t len = get_u32be(s->sock.in + at);

		if (len > s->sock.in_cap - 4)
			return false;
		if (s->sock.in_len - at - 4 < len)
			break;
		if (!kind->reply(k, s, bytes_of(s->sock.in + at + 4, len)))
			return false;
		at += 4 + len;
		k->moved_ns = k->end_ns;
	}
	sock_consume(&s->sock, at);
	return true;
}

static void stream_event(
	struct kafka *k, struct stream *s, uint32_t events, const struct kind *kind)
{
	errno = 0;
	if (s->closed)
		return;
	if (!s->up && !sock_connected(&s->sock)) {
		stream_lost(k, s, "cannot connect");
		return;
	}
	s->up = true;
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
		if (sock_fill(&s->sock) < 0) {
			stream_lost(k, s, "closed by the broker");
			return;
		}
		if (!stream_replies(k, s, kind)) {
			errno = 0;
			stream_lost(k, s, "malformed response");
			return;
		}
	}
	if (!kind->send(k, s))
		stream_lost(k, s, "closed by the broker");
}

static bool kafka_over(const struct kafka *k, bool produce)
{
	for (uint32_t i = 0; i < k->count; i++) {
		const struct stream *s = &k->streams[i];

		if (!s->closed && (produce ? !produce_over(k, s) : !s->finished))
			return false;
	}
	return true;
}

static void kafka_run(struct kafka *k, bool produce)
{
	static const struct kind kinds[2] = {
		{fetch_send, fetch_reply}, {produce_send, produce_reply}};
	struct epoll_event events[EVENTS_MAX];
	const struct options *o = k->options;
	uint64_t stop_ns;

	proc_read(o->pid, &k->use[0]);
	k->self_us[0] = proc_self_cpu_us();
	k->start_ns = k->end_ns = k->moved_ns = k->due_ns = now_ns();
	k->seed = k->start_ns | 1;
	stop_ns = o->count && produce ? UINT64_MAX : k->start_ns + o->seconds * 1000000000u;
	k->sending = true;
	while (!kafka_over(k, produce)) {
		int n = epoll_wait(k->ep, events, EVENTS_MAX, produce && o->rate ? 1 : 50);
		uint64_t now = now_ns();

		for (int i = 0; i < n; i++)
			stream_event(k, events[i].data.ptr, events[i].events, &kinds[produce]);
		for (uint32_t i = 0; produce && o->rate && i < k->count; i++)
			if (k->streams[i].up && !k->streams[i].closed)
				stream_event(k, &k->streams[i], 0, &kinds[produce]);
		if (now >= stop_ns)
			k->sending = false;
		if (now > k->moved_ns && now - k->moved_ns > STALL_S * 1000000000ull) {
			fprintf(stderr, "sluice-bench: no answer for %d s\n", STALL_S);
			k->closed++;
			break;
		}
	}
	proc_read(o->pid, &k->use[1]);
	k->self_us[1] = proc_self_cpu_us();
}

static void kafka_report(const struct kafka *k)
{
	static const char *const reply[5] = {
		"reply_p50_ms", "reply_p90_ms", "reply_p99_ms", "reply_p999_ms", "reply_max_ms"};
	const struct options *o = k->options;
	struct report r = {0};
	double took_s = (double)(k->end_ns - k->start_ns) / 1e9;
	double cpu_s = (double)(k->use[1].cpu_us - k->use[0].cpu_us) / 1e6;
	double bytes = (double)k->bytes;

	report_word(&r, "workload", k->name);
	report_word(&r, "topic", k->topic);
	report_int(&r, "streams", k->count);
	report_int(&r, "partitions", o->partitions);
	report_int(&r, "size", o->size);
	report_int(&r, "batch_bytes", k->batch_len);
	report_int(&r, "inflight", o->inflight);
	report_real(&r, "mb_per_s", bytes > 0 ? bytes / took_s / 1e6 : 0, 1);
	report_real(&r, "records_per_s", bytes > 0 ? (double)k->records / took_s : 0, 0);
	report_real(&r, "server_cpu_s_per_gb", bytes > 0 ? cpu_s / (bytes / 1e9) : 0, 2);
	report_int(&r, "records", k->records);
	report_int(&r, "bytes", k->bytes);
	report_int(&r, "errors", k->errors);
	report_int(&r, "gaps", k->gaps);
	report_int(&r, "corrupt", k->corrupt);
	report_int(&r, "closed", k->closed);
	report_hist(&r, reply, &k->ack);
	report_real(&r, "server_cpu_s", cpu_s, 2);
	report_real(&r, "server_rss_mb", (double)k->use[1].rss_bytes / 1e6, 1);
	report_int(&r, "server_threads", k->use[1].threads);
	report_real(&r, "bench_cpu_s", (double)(k->self_us[1] - k->self_us[0]) / 1e6, 2);
	report_print(&r, o->json);
	if (k->errors)
		fprintf(stderr, "sluice-bench: the first error code was %d\n", k->first_error);
}

static struct kafka *kafka_new(const struct options *o, const char *name)
{
	struct kafka *k = calloc(1, sizeof *k);

	if (!k)
		return NULL;
	k->options = o;
	k->name = name;
	k->ep = -1;
	if (o->topic)
		snprintf(k->topic, sizeof k->topic, "%s", o->topic);
	else
		snprintf(k->topic, sizeof k->topic, "bench-%08x", (uint32_t)(now_ns() >> 8));
	return k;
}

static int fetch_of(const struct options *o, const char *topic, uint64_t expect)
{
	struct options same = *o;
	struct kafka *k;
	int status = EXIT_TROUBLE;

	same.topic = topic;
	k = kafka_new(&same, "kafka-fetch");
	if (k && kafka_prepare(k, false) &&
		streams_open(k, FETCH_BYTES + 64 * 1024 + (uint32_t)o->batch_bytes * 2)) {
		kafka_run(k, false);
		kafka_report(k);
		status = k->closed || k->errors ? EXIT_TROUBLE : EXIT_FINE;
		if (k->gaps || k->corrupt || (expect && k->records < expect)) {
			fprintf(stderr, "sluice-bench: fetched %llu of %llu records\n",
				(unsigned long long)k->records, (unsigned long long)expect);
			status = EXIT_LOST;
		}
	}
	if (k)
		kafka_fini(k);
	return status;
}

int bench_kafka_fetch(const struct options *o, const char *name)
{
	struct options one = *o;

	(void)name;
	if (!o->topic) {
		fprintf(stderr, "sluice-bench: kafka-fetch needs --topic\n");
		return EXIT_USAGE;
	}
	one.clients = o->partitions; /* a partition is read once */
	one.inflight = 1;
	return fetch_of(&one, o->topic, o->expect);
}

static bool batch_build(struct kafka *k)
{
	const struct options *o = k->options;
	size_t one = kafka_batch_bytes(1, (uint32_t)o->size) - kafka_batch_bytes(0, 0);
	size_t key = o->keys ? KAFKA_KEY_BYTES : 0;
	size_t room;

	k->batch_records = (uint32_t)(o->batch_bytes / one ? o->batch_bytes / one : 1);
	room = kafka_batch_bytes(k->batch_records, (uint32_t)(o->size + key));
	k->batch = malloc(room);
	if (k->batch)
		k->batch_len = kafka_batch_write(
			k->batch, room, k->batch_records, (uint32_t)o->size, o->keys > 0);
	return k->batch_len > 0;
}

int bench_kafka_produce(const struct options *o, const char *name)
{
	struct kafka *k = kafka_new(o, name);
	struct options read = *o;
	char topic[256];
	uint64_t records;
	int status = EXIT_TROUBLE;

	if (!k)
		return EXIT_TROUBLE;
	if (!kafka_prepare(k, true) || !batch_build(k) || !streams_open(k, KAFKA_SMALL_BYTES * 16))
		goto end;
	kafka_run(k, true);
	kafka_report(k);
	status = k->closed || k->errors || k->records == 0 ? EXIT_TROUBLE : EXIT_FINE;
end:
	snprintf(topic, sizeof topic, "%s", k->topic);
	records = k->records;
	kafka_fini(k);
	if (status != EXIT_FINE || !o->verify)
		return status;
	read.clients = o->partitions;
	read.inflight = 1;
	read.seconds = STALL_S * 4;
	return fetch_of(&read, topic, records);
}
