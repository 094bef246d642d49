/* The words of the result codes, from the one table in err.h. */
#include "server/base/err.h"

const char *err_text(enum err e)
{
	static const char *const text[ERR_COUNT] = {
#define X(code, words) [code] = words,
		ERR_TABLE(X)
#undef X
	};

	return (unsigned)e < ERR_COUNT ? text[e] : "unknown error";
}
