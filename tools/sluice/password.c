/* Passwords: typed on the terminal without being shown, or a line of stdin. The terminal is opened
 * by itself, so that a body may come from stdin at the same time. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>
#include "server/base/mem.h"
#include "tools/sluice/sluice.h"

enum { PASSWORD_MAX = 1024 };

/* A line without its end; NULL: nothing came. */
static char *line_of(FILE *from)
{
	char line[PASSWORD_MAX + 2], *out = NULL;

	if (fgets(line, sizeof line, from) != NULL) {
		line[strcspn(line, "\r\n")] = 0;
		out = mem_text(line, strlen(line));
	}
	explicit_bzero(line, sizeof line);
	return out;
}

char *ask_password(const char *before_name, const char *name, const char *behind)
{
	struct termios before, quiet;
	int fd = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
	FILE *tty = fd < 0 ? NULL : fdopen(fd, "r");
	char *out;

	if (tty == NULL || tcgetattr(fd, &before) != 0) {
		if (tty != NULL)
			fclose(tty);
		return NULL;
	}
	quiet = before;
	quiet.c_lflag &= ~(tcflag_t)ECHO;
	(void)dprintf(fd, "%s%s%s", before_name, name, behind);
	(void)tcsetattr(fd, TCSAFLUSH, &quiet);
	out = line_of(tty);
	(void)tcsetattr(fd, TCSAFLUSH, &before);
	(void)dprintf(fd, "\n");
	fclose(tty);
	return out;
}

enum exit_code new_password(const struct options *o, const char *name, char **out)
{
	char *again;

	if (o->value[FLAG_password] != NULL) {
		*out = mem_text(o->value[FLAG_password], strlen(o->value[FLAG_password]));
		return EXIT_OK;
	}
	if (o->given[FLAG_password_stdin]) {
		*out = line_of(stdin);
		return *out != NULL ? EXIT_OK : usage_error("no password on stdin");
	}
	*out = ask_password("new password of ", name, ": ");
	if (*out == NULL)
		return usage_error("no terminal to ask for the password: --password-stdin");
	again = ask_password("once more", "", ": ");
	if (again == NULL || strcmp(*out, again) != 0) {
		mem_free(again);
		mem_free(*out);
		*out = NULL;
		say("sluice: they differ, nothing done");
		return EXIT_FAILED;
	}
	mem_free(again);
	return EXIT_OK;
}
