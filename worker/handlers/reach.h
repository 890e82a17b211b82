/* Which addresses an `http` step may connect to: those of the public internet, and those that the operator
 * allows. Pure. What is not public is what the IANA special-purpose address registries of IPv4 and IPv6 say
 * is not globally reachable, and of IPv6 whatever is not given out; an IPv6 address that carries one of IPv4
 * (mapped, NAT64, 6to4) is judged by that one.
 *
 * It is asked of the address that is connected to, after every resolving and every redirect: a name that
 * stands for something else a moment later gains nothing.
 */
#ifndef COX_WORKER_HANDLERS_REACH_H
#define COX_WORKER_HANDLERS_REACH_H

#include "cox/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define REACH_NETS_MAX 64

/* The first `bits` of `bytes`; IPv4 addresses stand in it as mapped ones. */
struct reach_net {
    uint8_t bytes[16];
    unsigned bits;
};

/* Zeroed: the public internet alone. */
struct reach {
    struct reach_net allowed[REACH_NETS_MAX];
    size_t n_allowed;
};

/* Adds one network, "10.1.0.0/16", "fd00::/8", or one address. Errors: COX_ERR_INVALID for another text, or
 * bits set behind the prefix; COX_ERR_FULL after REACH_NETS_MAX. */
COX_MUST_CHECK enum cox_err reach_allow(struct reach *reach, const char *text);

/* False also for what is neither IPv4 nor IPv6. O(networks). */
bool reach_permits(const struct reach *reach, const struct sockaddr *address);

#endif
