/* CRC-32C (Castagnoli, RFC 3720 B.4), by ISA-L, which uses the processor's instructions. */
#ifndef BASE_CRC32C_H
#define BASE_CRC32C_H
#include "server/base/wire.h"

uint32_t crc32c(struct bytes b);
/* Continues: crc of a followed by b = crc32c_more(crc32c(a), b). */
uint32_t crc32c_more(uint32_t crc, struct bytes b);

#endif
