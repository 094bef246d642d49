/* Frames of peers. The payload checksums are not repaired: entries without payload get past them.
 */
#include "cluster/consensus.h"
#include "cluster/raft_wire.h"
#include "server/base/mem.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	consensus_process_init();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice frame;
	struct raft_wire w;
	if (slice_copy(bytes_of(data, size), &frame) != OK)
		return 0;
	if (raft_wire_decode(frame, &w) == OK) {
		/* What was accepted can be said again. */
		struct slice *parts;
		int count;
		if (raft_wire_encode(&w, &parts, &count) == OK) {
			for (int i = 0; i < count; i++)
				slice_unref(&parts[i]);
			mem_free(parts);
		}
		raft_wire_fini(&w);
	}
	slice_unref(&frame);
	return 0;
}
