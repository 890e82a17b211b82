/* Whose a connection is, for what is bounded by address. */
#ifndef COX_BASE_NETWORK_H
#define COX_BASE_NETWORK_H

#include <stdint.h>
#include <sys/socket.h>

/* The same for all connections of one host: of IPv4 the address, of IPv6 its first 64 bits, for a host has
 * all addresses of its network; an IPv4 address mapped into IPv6 is that address. 0: not of the Internet. */
uint64_t cox_network_of(const struct sockaddr *address);

#endif
