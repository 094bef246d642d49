/* The watch is a thread of its own that waits for nothing but the time. When it comes much later
 * than it wanted to, nobody ran: that time is taken off what hangs now, until something else does.
 */
#include "storage/stall.h"

enum { LATE_MS = 500 };

int64_t stall_look(struct stall *s, int64_t ms, int64_t now_ms)
{
	int64_t late = s->looked_ms == 0 ? 0 : now_ms - s->looked_ms - s->every_ms;

	if (ms < s->seen_ms)
		s->excused_ms = 0; /* another write than the last time */
	if (late > LATE_MS)
		s->excused_ms += late;
	if (s->excused_ms > ms)
		s->excused_ms = ms;
	s->seen_ms = ms;
	s->looked_ms = now_ms;
	return ms - s->excused_ms;
}
