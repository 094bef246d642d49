/* Result codes shared by every folder. OK is 0, everything else is a failure.
 * Each protocol maps them to its own codes in one switch without a default. */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#define MUST_USE __attribute__((warn_unused_result))

#define ERR_TABLE(X)                                                                               \
	X(OK, "ok")                                                                                \
	X(ERR_MORE, "more bytes are needed")                                                       \
	X(ERR_MALFORMED, "malformed input")                                                        \
	X(ERR_PROTOCOL, "not allowed at this point of the protocol")                               \
	X(ERR_UNSUPPORTED, "not supported")                                                        \
	X(ERR_INVALID, "invalid argument")                                                         \
	X(ERR_TOOBIG, "over a configured limit")                                                   \
	X(ERR_NOMEM, "out of memory")                                                              \
	X(ERR_BUSY, "too much is in flight, try again")                                            \
	X(ERR_NOTFOUND, "not found")                                                               \
	X(ERR_EXISTS, "exists already")                                                            \
	X(ERR_CONFLICT, "a condition did not hold")                                                \
	X(ERR_RANGE, "offset out of range")                                                        \
	X(ERR_CORRUPT, "stored or sent bytes fail their checksum")                                 \
	X(ERR_FENCED, "an owner with a newer epoch exists")                                        \
	X(ERR_SEQUENCE, "out of order sequence number")                                            \
	X(ERR_UNAUTHENTICATED, "login failed or missing")                                          \
	X(ERR_DENIED, "permission denied")                                                         \
	X(ERR_NOTLEADER, "another node leads this partition")                                      \
	X(ERR_UNAVAILABLE, "no leader or not ready yet, try again")                                \
	X(ERR_UNKNOWN, "the outcome of the write is not known")                                    \
	X(ERR_TIMEOUT, "timed out")                                                                \
	X(ERR_NOSPACE, "not enough free disk space")                                               \
	X(ERR_IO, "input/output error")                                                            \
	X(ERR_CLOSED, "closed")                                                                    \
	X(ERR_QUOTA, "over the limit of the tenant")

enum err {
#define X(code, text) code,
	ERR_TABLE(X)
#undef X
		ERR_COUNT
};

/* What the code says in words: a static string, never NULL. */
const char *err_text(enum err e);

#endif
