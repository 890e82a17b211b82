#include "offenders.h"

#include <stddef.h>

bool offenders_have(const struct offenders *o, uint64_t network, int64_t now_ns)
{
    for (size_t i = 0; i < OFFENDERS_MAX; i++)
        if (o->known[i].until_ns > now_ns && o->known[i].network == network)
            return true;
    return false;
}

void offenders_note(struct offenders *o, uint64_t network, int64_t now_ns)
{
    struct offender *place = &o->known[0];

    for (size_t i = 0; i < OFFENDERS_MAX; i++) {
        struct offender *it = &o->known[i];
        if (it->until_ns > now_ns && it->network == network) {
            place = it;
            break;
        }
        if (it->until_ns < place->until_ns)
            place = it;
    }
    *place = (struct offender){ .network = network, .until_ns = now_ns + OFFENDERS_NS };
}
