/* beacon - datagrams that say how this process is doing, to whoever shows it (`dsm run --progress`).  Nothing is lost
 * with them. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* A socket that sends to this address (IPv4 as text); -1 where there is none. */
int beacon_open(const char *address, uint16_t port);
/* Never blocks. */
void beacon_send(int beacon, const char *text, size_t bytes);
