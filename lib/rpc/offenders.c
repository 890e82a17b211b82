#include "offenders.h"

#include <netinet/in.h>
#include <stddef.h>
#include <string.h>

#define NETWORK_LEN 8u

static bool same_place(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
    struct sockaddr_in in_a, in_b;
    struct sockaddr_in6 in6_a, in6_b;

    if (a->ss_family != b->ss_family)
        return false;
    if (a->ss_family == AF_INET) {
        memcpy(&in_a, a, sizeof(in_a));
        memcpy(&in_b, b, sizeof(in_b));
        return in_a.sin_addr.s_addr == in_b.sin_addr.s_addr;
    }
    if (a->ss_family != AF_INET6)
        return false;
    memcpy(&in6_a, a, sizeof(in6_a));
    memcpy(&in6_b, b, sizeof(in6_b));
    bool whole = IN6_IS_ADDR_V4MAPPED(&in6_a.sin6_addr); /* all of IPv4 is one such network */
    return memcmp(&in6_a.sin6_addr, &in6_b.sin6_addr, whole ? sizeof(in6_a.sin6_addr) : NETWORK_LEN) == 0;
}

bool offenders_have(const struct offenders *o, const struct sockaddr_storage *peer, int64_t now_ns)
{
    for (size_t i = 0; i < OFFENDERS_MAX; i++)
        if (o->known[i].until_ns > now_ns && same_place(&o->known[i].address, peer))
            return true;
    return false;
}

void offenders_note(struct offenders *o, const struct sockaddr_storage *peer, int64_t now_ns)
{
    struct offender *place = &o->known[0];

    for (size_t i = 0; i < OFFENDERS_MAX; i++) {
        struct offender *it = &o->known[i];
        if (it->until_ns > now_ns && same_place(&it->address, peer)) {
            place = it;
            break;
        }
        if (it->until_ns < place->until_ns)
            place = it;
    }
    *place = (struct offender){ .address = *peer, .until_ns = now_ns + OFFENDERS_NS };
}
