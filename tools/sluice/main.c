/* The way through a call: options, the command, its exit status. */
#include <curl/curl.h>
#include <stdio.h>
#include "protocols/http/version.h"
#include "server/base/mem.h"
#include "tools/sluice/sluice.h"

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
	/* sub flushes as it goes: what failed then fails no later flush. */
	if ((fflush(stdout) != 0 || ferror(stdout)) && e == EXIT_OK) {
		say("sluice: the output could not be written");
		e = EXIT_FAILED;
	}
	return (int)e;
}
