/* Words and flags in any order; "--" ends the flags. Flags are known by one table whatever the
 * command, so that a flag's value is never taken for a word; whether the command takes the flag is
 * asked afterwards. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "server/base/conf.h"
#include "tools/sluice/sluice.h"

static const struct flag_row {
	const char *name, *value, *help;
} flags[FLAG_COUNT] = {
#define X(name, value, help) {#name, value, help},
	FLAGS(X)
#undef X
};

static const char flags_of_all[] = " server output user login tenant timeout help version ";

enum exit_code usage_error(const char *format, ...)
{
	va_list args;

	fputs("sluice: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputs("; see sluice --help\n", stderr);
	return EXIT_USAGE;
}

void say(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

/* "--dry-run" for dry_run. */
static bool same_flag(const char *name, const char *word, size_t len)
{
	if (strlen(name) != len)
		return false;
	for (size_t i = 0; i < len; i++)
		if (name[i] != (word[i] == '-' ? '_' : word[i]))
			return false;
	return true;
}

static int flag_find(const char *word, size_t len)
{
	for (int i = 0; i < FLAG_COUNT; i++)
		if (same_flag(flags[i].name, word, len))
			return i;
	return -1;
}

/* "-" is stdin, and no short flag is a digit: -5 is a number. */
static bool is_flag(const char *word)
{
	return word[0] == '-' && word[1] != 0 && !(word[1] >= '0' && word[1] <= '9');
}

static int flag_short(char c)
{
	switch (c) {
	case 'o': return FLAG_output;
	case 'y': return FLAG_yes;
	case 'h': return FLAG_help;
	case 'f': return FLAG_follow;
	case 'n': return FLAG_count;
	default: return -1;
	}
}

static enum exit_code flag_keep(struct options *o, int f, const char *value)
{
	o->given[f] = true;
	o->value[f] = value;
	if (f == FLAG_role) {
		if (o->role_count == REPEATS_MAX)
			return usage_error("--role too often");
		o->roles[o->role_count++] = value;
	}
	if (f == FLAG_set || f == FLAG_header) {
		int *count = f == FLAG_set ? &o->set_count : &o->header_count;
		if (*count == REPEATS_MAX)
			return usage_error("--%s too often", flags[f].name);
		if (strchr(value, '=') == NULL)
			return usage_error("--%s needs %s", flags[f].name, flags[f].value);
		(f == FLAG_set ? o->sets : o->headers)[(*count)++] = value;
	}
	return EXIT_OK;
}

/* Reads the flag at argv[*i], and its value. */
static enum exit_code flag_read(struct options *o, char **argv, int *i)
{
	const char *word = argv[*i], *value = NULL;
	bool is_long = word[1] == '-';
	size_t len = is_long ? strcspn(word + 2, "=") : 1;
	int f = is_long ? flag_find(word + 2, len) : flag_short(word[1]);

	if (f < 0)
		return usage_error("unknown flag %s", word);
	if (is_long && word[2 + len] == '=')
		value = word + 3 + len;
	else if (!is_long && word[2] != 0)
		value = word + 2;
	if (flags[f].value == NULL && value != NULL)
		return usage_error("%s takes no value", word);
	if (flags[f].value != NULL && value == NULL) {
		value = argv[*i + 1];
		if (value == NULL)
			return usage_error("%s needs %s", word, flags[f].value);
		(*i)++;
	}
	return flag_keep(o, f, value);
}

/* ---- commands */

static const struct command *command_find(const char *const *words, int count, int *used)
{
	for (const struct command *c = commands; c->noun != NULL; c++) {
		if (count < 1 || strcmp(words[0], c->noun) != 0)
			continue;
		if (c->verb == NULL) {
			*used = 1;
			return c;
		}
		if (count > 1 && strcmp(words[1], c->verb) == 0) {
			*used = 2;
			return c;
		}
	}
	return NULL;
}

static enum exit_code command_unknown(const struct options *o)
{
	bool noun = false;

	for (const struct command *c = commands; c->noun != NULL; c++) {
		if (strcmp(o->words[0], c->noun) != 0)
			continue;
		if (!noun)
			fprintf(stderr, "sluice: %s: one of these must follow:", c->noun);
		noun = true;
		fprintf(stderr, " %s", c->verb);
	}
	if (!noun)
		return usage_error("unknown command %s", o->words[0]);
	fputc('\n', stderr);
	return EXIT_USAGE;
}

/* A whole word of a list with spaces. */
static bool in_list(const char *list, const char *name)
{
	size_t len = strlen(name);

	for (const char *at = list; (at = strstr(at, name)) != NULL; at += len)
		if ((at == list || at[-1] == ' ') && (at[len] == ' ' || at[len] == 0))
			return true;
	return false;
}

bool flag_is_own(const struct options *o, enum flag f)
{
	return o->command != NULL && in_list(o->command->flags, flags[f].name);
}

static enum exit_code check_flags(const struct options *o)
{
	const struct command *c = o->command;

	for (int f = 0; f < FLAG_COUNT; f++)
		if (o->given[f] && !in_list(flags_of_all, flags[f].name) &&
			!in_list(c->flags, flags[f].name))
			return usage_error("%s%s%s does not take --%s", c->noun, c->verb ? " " : "",
				c->verb ? c->verb : "", flags[f].name);
	if (o->arg_count < c->args_min || o->arg_count > c->args_max)
		return usage_error("usage: sluice %s%s%s%s%s", c->noun, c->verb ? " " : "",
			c->verb ? c->verb : "", *c->args ? " " : "", c->args);
	return EXIT_OK;
}

static enum exit_code read_output(struct options *o)
{
	static const char *const names[] = {"table", "wide", "json", "ndjson"};
	const char *name = o->value[FLAG_output];

	if (name == NULL)
		name = getenv("SLUICE_OUTPUT");
	for (int i = 0; name != NULL && *name && i < 4; i++)
		if (strcmp(name, names[i]) == 0) {
			o->output = i;
			return EXIT_OK;
		}
	return name == NULL || !*name ? EXIT_OK : usage_error("-o is table, wide, json or ndjson");
}

enum exit_code options_read(struct options *o, int argc, char **argv)
{
	enum exit_code e = EXIT_OK;
	bool flags_over = false;
	int used = 0;

	o->self = argv[0];
	o->timeout_ms = 30000;
	for (int i = 1; i < argc && e == EXIT_OK; i++) {
		if (o->word_count == 1 && o->command == NULL)
			o->command = command_find(o->words, 1, &used);
		if (o->command != NULL && o->command->passes_on) {
			o->raw = argv + i;
			o->raw_count = argc - i;
			break;
		}
		if (!flags_over && strcmp(argv[i], "--") == 0)
			flags_over = true;
		else if (!flags_over && is_flag(argv[i]))
			e = flag_read(o, argv, &i);
		else if (o->word_count == WORDS_MAX)
			e = usage_error("too many words");
		else
			o->words[o->word_count++] = argv[i];
	}
	if (e == EXIT_OK)
		e = read_output(o);
	if (e == EXIT_OK && o->value[FLAG_timeout] != NULL &&
		(conf_parse_msec(o->value[FLAG_timeout], &o->timeout_ms) != OK ||
			o->timeout_ms < 1))
		e = usage_error("--timeout is a time such as 5s");
	if (e != EXIT_OK || o->given[FLAG_version] || o->word_count == 0)
		return e;
	o->command = command_find(o->words, o->word_count, &used);
	if (o->given[FLAG_help])
		return EXIT_OK;
	if (o->command == NULL)
		return command_unknown(o);
	o->args = o->words + used;
	o->arg_count = o->word_count - used;
	return o->command->passes_on ? EXIT_OK : check_flags(o);
}

/* ---- help */

/* own: of this command, not what the flag means to all. */
static void print_flag(enum flag f, bool own)
{
	const char *help = flags[f].help, *value = flags[f].value;
	char shown[64];
	size_t len = 0;

	if (own && (f == FLAG_user || f == FLAG_tenant)) {
		help = "whom it is about";
		value = "NAME";
	}
	for (const char *at = flags[f].name; *at && len < 40; at++)
		shown[len++] = *at == '_' ? '-' : *at;
	shown[len] = 0;
	if (value != NULL)
		(void)snprintf(shown + len, sizeof shown - len, " %s", value);
	printf("  --%-24s %s\n", shown, help);
}

void usage_command(const struct command *c)
{
	printf("usage: sluice %s%s%s %s\n\n%s\n\n", c->noun, c->verb ? " " : "",
		c->verb ? c->verb : "", c->args, c->help);
	for (int f = 0; f < FLAG_COUNT; f++)
		if (in_list(c->flags, flags[f].name))
			print_flag((enum flag)f, true);
	for (int f = 0; f < FLAG_COUNT; f++)
		if (in_list(flags_of_all, flags[f].name) && !in_list(c->flags, flags[f].name))
			print_flag((enum flag)f, false);
}

void usage_all(void)
{
	char shown[80];

	puts("usage: sluice NOUN VERB [ARGS] [FLAGS]\n");
	for (const struct command *c = commands; c->noun != NULL; c++) {
		(void)snprintf(shown, sizeof shown, "%s%s%s %s", c->noun, c->verb ? " " : "",
			c->verb ? c->verb : "", c->args);
		printf("  %-34s %s\n", shown, c->help);
	}
	puts("\nFlags may stand anywhere; sluice NOUN VERB --help lists those of a command.\n"
	     "Behind -- all are words, whatever they begin with; -5 is one anyhow.\n");
	for (int f = 0; f < FLAG_COUNT; f++)
		if (in_list(flags_of_all, flags[f].name))
			print_flag((enum flag)f, false);
	puts("\nExit status: 0 fine, 1 failed, 2 usage, 3 not found, 4 denied, 5 conflict,\n"
	     "6 unreachable or too slow, 7 done in part, 10 unhealthy.");
}

enum exit_code flag_int(const struct options *o, enum flag f, int64_t *out)
{
	if (o->given[f] && conf_parse_int(o->value[f], out) != OK)
		return usage_error("--%s needs a number", flags[f].name);
	return EXIT_OK;
}

enum exit_code confirm(const struct options *o, const char *format, ...)
{
	va_list args;
	int c, first;

	if (o->given[FLAG_yes] || o->given[FLAG_dry_run])
		return EXIT_OK;
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	if (!isatty(STDIN_FILENO)) {
		fputs(": add --yes to do it\n", stderr);
		return EXIT_USAGE;
	}
	fputs("? [y/N] ", stderr);
	first = c = getchar();
	while (c != '\n' && c != EOF)
		c = getchar();
	if (first == 'y' || first == 'Y')
		return EXIT_OK;
	say("nothing done");
	return EXIT_FAILED;
}
