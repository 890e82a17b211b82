/* Whose connections were ended for what they sent, by address: who comes from there again is let in slowly
 * for a while. Of IPv6 the first 64 bits count, for a host has all addresses of its network. Pure, not
 * locked. */
#ifndef COX_RPC_OFFENDERS_H
#define COX_RPC_OFFENDERS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#define OFFENDERS_MAX 64u
#define OFFENDERS_NS (30000 * INT64_C(1000000)) /* an offence is forgotten after so long */

struct offender {
    struct sockaddr_storage address;
    int64_t until_ns;
};

/* Zeroed: nobody. */
struct offenders {
    struct offender known[OFFENDERS_MAX];
};

bool offenders_have(const struct offenders *o, const struct sockaddr_storage *peer, int64_t now_ns);
/* Of too many, the one is forgotten whose time is over first. */
void offenders_note(struct offenders *o, const struct sockaddr_storage *peer, int64_t now_ns);

#endif
