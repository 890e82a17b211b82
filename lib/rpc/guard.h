/* Stands where the library reads and sends, so that what a peer says is judged (frames.h) before the library
 * acts on it, by what the peer was given.
 *
 * guard.c defines recvmsg(2) and sendmsg(2): the dynamic linker lets a program's own definition serve its
 * libraries, and these are how the library reads and writes every connection. The judge so runs on the thread
 * that reads, without a copy, a descriptor or a wake-up more; a relay in front of each connection, as TLS has
 * one anyway, would cost every call two of each. Other descriptors pass untouched, at the price of one look
 * into a table.
 *
 * One per process, as those are. Thread: any.
 */
#ifndef COX_RPC_GUARD_H
#define COX_RPC_GUARD_H

#include <stdbool.h>
#include <sys/socket.h>

/* From now on, until this descriptor is closed. To be called before the library has it. */
void rpc_guard_watch(int fd, const struct sockaddr_storage *peer);

/* Whether a connection from there was ended lately. */
bool rpc_guard_offends(const struct sockaddr_storage *peer);

#endif
