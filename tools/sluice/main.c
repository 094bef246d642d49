/* The one table of commands, and the way through a call: options, the command, its exit status. */
#include <curl/curl.h>
#include <stdio.h>
#include "protocols/http/version.h"
#include "server/base/mem.h"
#include "tools/sluice/sluice.h"

const struct command commands[] = {
	{"stream", "list", "", 0, 0, "internal", "All streams.", stream_list, false},
	{"stream", "create", "NAME", 1, 1,
		"partitions replicas retention retention_bytes set dry_run wait",
		"Create a stream.", stream_create, false},
	{"stream", "describe", "NAME", 1, 1, "", "A stream with its partitions and settings.",
		stream_describe, false},
	{"stream", "alter", "NAME", 1, 1, "partitions retention retention_bytes set dry_run",
		"Change settings of a stream, or add partitions.", stream_alter, false},
	{"stream", "delete", "NAME", 1, 1, "yes dry_run", "Delete a stream and its records.",
		stream_delete, false},
	{"stream", "trim", "NAME", 1, 1, "partition before older_than yes",
		"Forget records below an offset or older than a time.", stream_trim, false},
	{"route", "list", "", 0, 0, "", "Which stream takes which topics.", route_list, false},
	{"route", "set", "NAME FILTER", 2, 2, "stream durability key dry_run",
		"Send topics that match FILTER to --stream.", route_set, false},
	{"route", "delete", "NAME", 1, 1, "yes dry_run", "Delete a route.", route_delete, false},
	{"config", "show", "[KEY]", 0, 1, "", "Settings and where they come from.", config_show,
		false},
	{"config", "set", "KEY [VALUE]", 1, 2, "dry_run",
		"Set a key for the whole cluster; without a value take it back.", config_set,
		false},
	{"config", "check", "FILE", 1, 1, "", "Check a configuration file on this machine.",
		config_check, false},
	{"node", "status", "", 0, 0, "", "The state of the server.", node_status, false},
	{"pub", NULL, "[TOPIC] [PAYLOAD]", 0, 2, "stream key partition header retain qos expires",
		"Publish to a topic, or with --stream append to a stream; no PAYLOAD: stdin.", pub,
		false},
	{"sub", NULL, "STREAM|TOPIC", 1, 1, "stream partition offset count follow payload",
		"Read a stream, or the messages of topics (wildcards + and #).", sub, false},
	{"bench", NULL, "[WORKLOAD] [OPTIONS]", 0, WORDS_MAX, "",
		"Measure: sluice-bench if it is installed, else messages over HTTP.", bench, true},
	{0},
};

int main(int argc, char **argv)
{
	struct options *o = mem_new(sizeof *o);
	enum exit_code e = options_read(o, argc, argv);

	if (e == EXIT_OK) {
		if (o->given[FLAG_version]) {
			puts("sluice " SLUICE_VERSION);
		} else if (o->given[FLAG_help] && o->command != NULL) {
			usage_command(o->command);
		} else if (o->given[FLAG_help]) {
			usage_all();
		} else if (o->word_count == 0) {
			usage_all();
			e = EXIT_USAGE;
		} else {
			must(curl_global_init(CURL_GLOBAL_DEFAULT) == 0);
			e = o->command->run(o);
			client_end();
			curl_global_cleanup();
		}
	}
	mem_free(o);
	if (fflush(stdout) != 0 && e == EXIT_OK)
		e = EXIT_FAILED;
	return (int)e;
}
