/* Whose connections were ended for what they sent, by network: who comes from there again is let in slowly
 * for a while. Pure, not locked. */
#ifndef COX_RPC_OFFENDERS_H
#define COX_RPC_OFFENDERS_H

#include <stdbool.h>
#include <stdint.h>

#define OFFENDERS_MAX 64u
#define OFFENDERS_NS (30000 * INT64_C(1000000)) /* an offence is forgotten after so long */

struct offender {
    uint64_t network; /* cox_network_of */
    int64_t until_ns;
};

/* Zeroed: nobody. */
struct offenders {
    struct offender known[OFFENDERS_MAX];
};

bool offenders_have(const struct offenders *o, uint64_t network, int64_t now_ns);
/* Of too many, the one is forgotten whose time is over first. */
void offenders_note(struct offenders *o, uint64_t network, int64_t now_ns);

#endif
