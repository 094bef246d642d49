/* Structured logs to stderr, text or JSON: level, area, a fixed event word, key=value pairs.
 * Any thread. No payloads, no secrets. Each call site is limited to 10 lines in 10 s; what was
 * held back is counted in a line of its own.
 *
 *	LOG(LOG_WARN, AREA_NET, "conn_refused", "peer=%s err=%s", log_text(..), err_text(e));
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H
#include <stdint.h>
#include "server/base/wire.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
enum log_area {
	AREA_MAIN,
	AREA_CONF,
	AREA_NET,
	AREA_STORAGE,
	AREA_CLUSTER,
	AREA_BROKER,
	AREA_MQTT,
	AREA_KAFKA,
	AREA_HTTP,
	AREA_AMQP,
	AREA_COUNT
};

struct log_site { /* one per call site, static; zero at first */
	_Atomic int64_t window_ms;
	_Atomic uint32_t count;
};

#define LOG(level, area, event, ...)                                                               \
	do {                                                                                       \
		static struct log_site log_site_here;                                              \
		if (log_on(level) && log_admit(&log_site_here, level, area, event))                \
			log_line(level, area, event, __VA_ARGS__);                                 \
	} while (0)

bool log_on(enum log_level level);
bool log_admit(struct log_site *site, enum log_level level, enum log_area area, const char *event);
/* format holds key=value pairs separated by one space; values with spaces are quoted by the
 * caller ("%s" inside escaped quotes). */
void log_line(enum log_level level, enum log_area area, const char *event, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

struct log_peer_text {
	char text[136];
};
/* Peer bytes made safe for a log line: escaped, cut at 128 bytes. Use as log_text(b).text */
struct log_peer_text log_text(struct bytes b);

void log_setup(enum log_level level, bool json);

#endif
