/* A list is cut at its commas, each item at its last colon outside of brackets; what stands
 * before may be a literal, a name, or '*'. A name gives every address it resolves to, since
 * "localhost" without its IPv6 half surprises people. */
#include "server/net/address.h"
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "server/base/mem.h"

enum { HOST_BYTES_MAX = 254, ITEMS_MAX = 64 };

struct item {
	char host[HOST_BYTES_MAX + 1];
	char port[6];
};

static enum err bad(const char *text, size_t len, const char *what, char *why, size_t size)
{
	snprintf(why, size, "'%.*s': %s", (int)(len < 200 ? len : 200), text, what);
	return ERR_INVALID;
}

static bool port_valid(const char *at, size_t len)
{
	unsigned long v = 0;
	if (len == 0 || len > 5)
		return false;
	for (size_t i = 0; i < len; i++) {
		if (at[i] < '0' || at[i] > '9')
			return false;
		v = v * 10 + (unsigned long)(at[i] - '0');
	}
	return v <= 65535;
}

/* Cuts host:port; brackets around the host are taken off. */
static enum err item_read(const char *at, size_t len, struct item *out, char *why, size_t size)
{
	const char *host = at;
	const char *colon = memrchr(at, ':', len);
	if (colon == NULL)
		return bad(at, len, "expected host:port", why, size);
	size_t host_len = (size_t)(colon - at);
	size_t port_len = len - host_len - 1;
	if (!port_valid(colon + 1, port_len))
		return bad(at, len, "the port must be a number from 0 to 65535", why, size);
	if (host_len >= 2 && host[0] == '[' && host[host_len - 1] == ']') {
		host++;
		host_len -= 2;
	} else if (memchr(host, ':', host_len) != NULL) {
		return bad(at, len, "an IPv6 address must stand in brackets", why, size);
	}
	if (host_len == 0 || host_len > HOST_BYTES_MAX)
		return bad(at, len, "the host is missing or too long", why, size);
	if (memchr(host, ' ', host_len) != NULL)
		return bad(at, len, "a host has no spaces", why, size);
	memcpy(out->host, host, host_len);
	out->host[host_len] = 0;
	memcpy(out->port, colon + 1, port_len);
	out->port[port_len] = 0;
	return OK;
}

/* Gives the next item without the spaces around it; false at the end of the list. */
static bool item_next(const char **at, const char **item, size_t *len)
{
	const char *p = *at;
	if (*p == 0)
		return false;
	size_t n = strcspn(p, ",");
	*at = p[n] == ',' ? p + n + 1 : p + n;
	while (n > 0 && *p == ' ') {
		p++;
		n--;
	}
	while (n > 0 && p[n - 1] == ' ')
		n--;
	*item = p;
	*len = n;
	return true;
}

static bool list_is_off(const char *text)
{
	return *text == 0 || strcmp(text, "off") == 0;
}

enum err address_list_check(const char *text, char *why, size_t why_size)
{
	const char *at = text, *one;
	size_t len;
	struct item item;
	if (list_is_off(text))
		return OK;
	while (item_next(&at, &one, &len)) {
		enum err e = item_read(one, len, &item, why, why_size);
		if (e != OK)
			return e;
	}
	return OK;
}

static bool list_has(const struct address_list *l, const struct addrinfo *ai)
{
	for (int i = 0; i < l->count; i++)
		if (l->items[i].len == ai->ai_addrlen &&
			memcmp(&l->items[i].sa, ai->ai_addr, ai->ai_addrlen) == 0 &&
			address_port(&l->items[i].sa.any) != 0)
			return true;
	return false;
}

static void list_take(struct address_list *l, const struct addrinfo *found)
{
	bool first = true;
	for (const struct addrinfo *ai = found; ai != NULL && l->count < ITEMS_MAX;
		ai = ai->ai_next) {
		if (ai->ai_addrlen > sizeof l->items->sa || list_has(l, ai))
			continue;
		struct address *a = &l->items[l->count++];
		memset(a, 0, sizeof *a);
		memcpy(&a->sa, ai->ai_addr, ai->ai_addrlen);
		a->len = ai->ai_addrlen;
		a->first = first;
		first = false;
	}
}

static enum err list_add(struct address_list *l, const struct item *item, char *why, size_t size)
{
	struct addrinfo hints = {
		.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
	struct addrinfo *found = NULL;
	int rc = getaddrinfo(
		strcmp(item->host, "*") == 0 ? NULL : item->host, item->port, &hints, &found);
	if (rc != 0)
		return bad(item->host, strlen(item->host), gai_strerror(rc), why, size);
	list_take(l, found);
	freeaddrinfo(found);
	return OK;
}

enum err address_list_read(const char *text, struct address_list *out, char *why, size_t why_size)
{
	const char *at = text, *one;
	size_t len;
	struct item item;
	*out = (struct address_list){0};
	if (list_is_off(text))
		return OK;
	out->items = mem_new(ITEMS_MAX * sizeof *out->items);
	while (item_next(&at, &one, &len)) {
		enum err e = item_read(one, len, &item, why, why_size);
		if (e == OK)
			e = list_add(out, &item, why, why_size);
		if (e == OK && out->count == ITEMS_MAX)
			e = bad(text, strlen(text), "too many addresses", why, why_size);
		if (e != OK) {
			address_list_fini(out);
			return e;
		}
	}
	return OK;
}

enum err address_find(
	const char *text, bool literal, struct address_list *out, char *why, size_t why_size)
{
	struct item item;
	struct addrinfo hints = {.ai_family = AF_UNSPEC,
		.ai_socktype = SOCK_STREAM,
		.ai_flags = AI_NUMERICSERV | (literal ? AI_NUMERICHOST : 0)};
	struct addrinfo *found = NULL;
	*out = (struct address_list){0};
	enum err e = item_read(text, strlen(text), &item, why, why_size);
	if (e != OK)
		return e;
	int rc = getaddrinfo(item.host, item.port, &hints, &found);
	if (rc == EAI_NONAME && literal)
		return ERR_NOTFOUND;
	if (rc != 0) {
		(void)bad(item.host, strlen(item.host), gai_strerror(rc), why, why_size);
		return ERR_UNAVAILABLE;
	}
	out->items = mem_new(ITEMS_MAX * sizeof *out->items);
	list_take(out, found);
	freeaddrinfo(found);
	return OK;
}

void address_list_fini(struct address_list *l)
{
	mem_free(l->items);
	*l = (struct address_list){0};
}

int address_port(const struct sockaddr *sa)
{
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
	if (sa->sa_family == AF_INET) {
		memcpy(&v4, sa, sizeof v4);
		return ntohs(v4.sin_port);
	}
	if (sa->sa_family != AF_INET6)
		return 0;
	memcpy(&v6, sa, sizeof v6);
	return ntohs(v6.sin6_port);
}

void address_set_port(struct address *a, int port)
{
	in_port_t be = htons((uint16_t)port);
	if (a->sa.any.sa_family == AF_INET)
		memcpy((char *)&a->sa + offsetof(struct sockaddr_in, sin_port), &be, sizeof be);
	else if (a->sa.any.sa_family == AF_INET6)
		memcpy((char *)&a->sa + offsetof(struct sockaddr_in6, sin6_port), &be, sizeof be);
}

bool address_is_any(const struct sockaddr *sa)
{
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
	if (sa->sa_family == AF_INET) {
		memcpy(&v4, sa, sizeof v4);
		return v4.sin_addr.s_addr == htonl(INADDR_ANY);
	}
	if (sa->sa_family != AF_INET6)
		return false;
	memcpy(&v6, sa, sizeof v6);
	return IN6_IS_ADDR_UNSPECIFIED(&v6.sin6_addr);
}

void address_text(const struct sockaddr *sa, char *out, size_t size)
{
	char host[INET6_ADDRSTRLEN] = "?";
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
	int port = address_port(sa);
	if (sa->sa_family == AF_INET) {
		memcpy(&v4, sa, sizeof v4);
		inet_ntop(AF_INET, &v4.sin_addr, host, sizeof host);
	} else if (sa->sa_family == AF_INET6) {
		memcpy(&v6, sa, sizeof v6);
		if (!IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr)) {
			inet_ntop(AF_INET6, &v6.sin6_addr, host, sizeof host);
			snprintf(out, size, "[%s]:%d", host, port);
			return;
		}
		inet_ntop(AF_INET, (const char *)&v6.sin6_addr + 12, host, sizeof host);
	} else if (sa->sa_family == AF_UNIX) {
		snprintf(out, size, "local");
		return;
	} else {
		snprintf(out, size, "unknown");
		return;
	}
	snprintf(out, size, "%s:%d", host, port);
}
