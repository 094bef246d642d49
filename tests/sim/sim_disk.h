/* The disks of machines: a store_mem that outlives the process, behind latency and faults. It takes
 * the place of RocksDB (store_open_rocks). */
#ifndef SIM_DISK_H
#define SIM_DISK_H
#include "storage/store.h"
#include "tests/sim/sim.h"

struct sim_disk { /* of one machine */
	struct store *content;
	int64_t write_us, sync_us, read_us; /* most that one takes */
	int64_t hangs_until_us;
	bool fails; /* from now on every write */
	bool lies;  /* planted: a sync does nothing */
	int64_t free_bytes;
};

void sim_disk_init(struct sim_machine *m);
struct sim_disk *sim_disk_of(const struct sim_machine *m);
void sim_disk_crash(struct sim_machine *m); /* what was not synced may be lost */
void sim_disk_renew(struct sim_machine *m); /* it neither fails nor hangs from now on */
void sim_disk_wipe(struct sim_machine *m);  /* a new, empty disk */
int64_t sim_disk_free_bytes(const struct sim_machine *m);

#endif
