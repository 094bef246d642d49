/* A line is made on the stack and leaves with one write, so lines of threads don't mix. Callers
 * give text ("key=value key=\"two words\""); the JSON form is made from it by one pass over the
 * pairs, so that call sites exist once. The limit is a window per call site: its first line
 * opens ten seconds, the tenth is the last within them, and the line that opens the next window
 * first says how many were held back. */
#include "server/base/log.h"
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>
#include "server/base/clock.h"

enum { LINE_BYTES = 2048, WINDOW_MS = 10000, WINDOW_LINES = 10, PEER_TEXT_BYTES = 128 };

static _Atomic int level_least = LOG_INFO;
static _Atomic bool as_json;

static const char *const level_names[] = {"debug", "info", "warn", "error"};
static const char *const area_names[AREA_COUNT] = {
	"main", "conf", "net", "storage", "cluster", "broker", "mqtt", "kafka", "http", "amqp"};

void log_setup(enum log_level level, bool json)
{
	atomic_store_explicit(&level_least, (int)level, memory_order_relaxed);
	atomic_store_explicit(&as_json, json, memory_order_relaxed);
}

bool log_on(enum log_level level)
{
	return (int)level >= atomic_load_explicit(&level_least, memory_order_relaxed);
}

bool log_admit(struct log_site *site, enum log_level level, enum log_area area, const char *event)
{
	int64_t now = clock_ms() + 1; /* so that 0 always means: never opened */
	int64_t opened = atomic_load_explicit(&site->window_ms, memory_order_relaxed);
	uint32_t before;

	if (opened != 0 && now - opened < WINDOW_MS && now >= opened)
		return atomic_fetch_add_explicit(&site->count, 1, memory_order_relaxed) <
			WINDOW_LINES;
	/* Of several threads that come here at once one opens the window. */
	if (!atomic_compare_exchange_strong(&site->window_ms, &opened, now))
		return atomic_fetch_add_explicit(&site->count, 1, memory_order_relaxed) <
			WINDOW_LINES;
	before = atomic_exchange_explicit(&site->count, 1, memory_order_relaxed);
	if (before > WINDOW_LINES)
		log_line(level, area, event, "suppressed=%u", before - WINDOW_LINES);
	return true;
}

struct log_peer_text log_text(struct bytes b)
{
	static const char hex[] = "0123456789abcdef";
	struct log_peer_text out;
	size_t len = 0;

	for (size_t i = 0; i < b.len; i++) {
		uint8_t c = b.at[i];
		bool plain = c > 0x20 && c < 0x7f && c != '"' && c != '\\' && c != '=';
		if (len + (plain ? 1 : 4) > PEER_TEXT_BYTES) {
			memcpy(out.text + len, "...", 3);
			len += 3;
			break;
		}
		if (plain) {
			out.text[len++] = (char)c;
			continue;
		}
		out.text[len++] = '\\';
		out.text[len++] = 'x';
		out.text[len++] = hex[c >> 4];
		out.text[len++] = hex[c & 15];
	}
	out.text[len] = 0;
	return out;
}

/* A bounded line: what does not fit is cut, room for the end is kept by who calls. */
struct line {
	char text[LINE_BYTES];
	size_t len;
};

static void add_char(struct line *l, char c)
{
	if (l->len < LINE_BYTES - 4)
		l->text[l->len++] = c;
}

static void add_text(struct line *l, const char *text)
{
	while (*text)
		add_char(l, *text++);
}

/* Numbers may stand bare in JSON: digits, perhaps a sign, perhaps one point within. */
static bool is_number(const char *at, size_t len)
{
	size_t i = len > 1 && at[0] == '-', digits = 0, points = 0;

	if (i < len && at[i] == '0' && len - i > 1 && at[i + 1] != '.')
		return false;
	for (; i < len; i++) {
		if (at[i] == '.' && digits > 0 && i + 1 < len)
			points++;
		else if (at[i] >= '0' && at[i] <= '9')
			digits++;
		else
			return false;
	}
	return digits > 0 && digits < 16 && points < 2;
}

/* Adds text as it may stand within a JSON string. In quoted values \" and \\ are taken as what
 * the caller escaped already. */
static void add_json(struct line *l, const char *at, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		bool escaped = at[i] == '\\' && i + 1 < len &&
			(at[i + 1] == '"' || at[i + 1] == '\\');
		if (l->len > LINE_BYTES - 16)
			return;
		if (escaped) {
			add_char(l, at[i++]);
			add_char(l, at[i]);
			continue;
		}
		if (at[i] == '"' || at[i] == '\\')
			add_char(l, '\\');
		add_char(l, at[i]);
	}
}

/* The length of the value at text, quotes included. */
static size_t value_len(const char *text)
{
	size_t len = 1;

	if (*text != '"')
		return strcspn(text, " ");
	while (text[len] && text[len] != '"')
		len += text[len] == '\\' && text[len + 1] ? 2 : 1;
	return text[len] == '"' ? len + 1 : len;
}

static void add_pairs_json(struct line *l, const char *text)
{
	while (*text) {
		size_t key = strcspn(text, "= "), len;

		/* A pair that may not fit whole is left out: the line must stay JSON. */
		if (l->len + 2 * (strlen(text) < 512 ? strlen(text) : 512) + 32 > LINE_BYTES)
			return;
		add_text(l, ",\"");
		add_json(l, text, key);
		add_text(l, "\":");
		text += key + (text[key] == '=');
		len = value_len(text);
		if (is_number(text, len)) {
			for (size_t i = 0; i < len; i++)
				add_char(l, text[i]);
		} else {
			bool quoted = len > 1 && text[0] == '"' && text[len - 1] == '"';
			add_char(l, '"');
			add_json(l, text + quoted, len - 2u * quoted);
			add_char(l, '"');
		}
		text += len;
		text += strspn(text, " ");
	}
}

static void write_line(const struct line *l)
{
	size_t at = 0;

	while (at < l->len) {
		ssize_t n = write(STDERR_FILENO, l->text + at, l->len - at);
		if (n <= 0)
			return; /* nobody reads the log: not worth stopping for */
		at += (size_t)n;
	}
}

void log_line(enum log_level level, enum log_area area, const char *event, const char *format, ...)
{
	bool json = atomic_load_explicit(&as_json, memory_order_relaxed);
	struct line l = {.len = 0};
	char pairs[LINE_BYTES / 2], time[32];
	va_list args;

	va_start(args, format);
	if (vsnprintf(pairs, sizeof pairs, format, args) < 0)
		pairs[0] = 0;
	va_end(args);
	for (char *c = pairs; *c; c++) /* one line is one line */
		if ((uint8_t)*c < 0x20 || *c == 0x7f)
			*c = ' ';
	clock_text(clock_wall_ms(), time);
	add_text(&l, json ? "{\"time\":\"" : "");
	add_text(&l, time);
	add_text(&l, json ? "\",\"level\":\"" : " ");
	add_text(&l, level_names[level]);
	add_text(&l, json ? "\",\"area\":\"" : " ");
	add_text(&l, area_names[area]);
	add_text(&l, json ? "\",\"event\":\"" : " ");
	add_text(&l, event);
	if (json) {
		add_char(&l, '"');
		add_pairs_json(&l, pairs);
		add_char(&l, '}');
	} else if (pairs[0]) {
		add_char(&l, ' ');
		add_text(&l, pairs);
	}
	l.text[l.len++] = '\n';
	write_line(&l);
}
