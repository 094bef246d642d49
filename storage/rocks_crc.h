/* RocksDB's CRC-32C by the processor's instructions; see rocks_crc.c. */
#ifndef STORAGE_ROCKS_CRC_H
#define STORAGE_ROCKS_CRC_H
#include <stdbool.h>

/* Whether the library calls ours; that it gives the same as the library's own was compared. Calling
 * it is also what links it in. Any thread. */
bool rocks_crc_in_force(void);

#endif
