/* Addresses to listen on and to tell of: comma lists of host:port (IPv6 in brackets, '*' for
 * every address of the machine), and their text. Thread: any; address_list_read may block on a
 * name look-up, so it is called at start only; address_find may on a worker. */
#ifndef NET_ADDRESS_H
#define NET_ADDRESS_H
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include "server/base/err.h"

enum { ADDRESS_TEXT_BYTES = 64 }; /* "[IPv6%scope]:65535" and its NUL fit */

struct address {
	union {
		struct sockaddr any;
		struct sockaddr_storage room;
	} sa;
	socklen_t len;
	bool first; /* of those one item of the list stands for (localhost has two) */
};

struct address_list {
	struct address *items;
	int count;
};

/* Whether text is "off" or a list of host:port; names are not looked up. why: one line. */
enum err address_list_check(const char *text, char *why, size_t why_size) MUST_USE;
/* Reads such a list and looks its names up. Empty and "off" give no items. ERR_INVALID. */
enum err address_list_read(
	const char *text, struct address_list *out, char *why, size_t why_size) MUST_USE;
/* The addresses of one host:port to connect to. literal: names are not looked up but give
 * ERR_NOTFOUND; else this may block: workers only. ERR_INVALID. */
enum err address_find(const char *text, bool literal, struct address_list *out, char *why,
	size_t why_size) MUST_USE;
void address_list_fini(struct address_list *l);

/* Writes "10.0.0.1:1883" or "[::1]:1883", "local" for a socket in the file system; an IPv4 address
 * inside IPv6 is shown as IPv4. */
void address_text(const struct sockaddr *sa, char *out, size_t size);
int address_port(const struct sockaddr *sa);
void address_set_port(struct address *a, int port);
bool address_is_any(const struct sockaddr *sa); /* 0.0.0.0 or :: */

#endif
