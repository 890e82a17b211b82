#include "cox/base/network.h"

#include <netinet/in.h>
#include <string.h>

#define PREFIX_LEN 8u /* of an IPv6 address: its network's */
/* Beside the networks of IPv6: nobody has ::1:0:0/64 and its neighbours. */
#define IPV4 (UINT64_C(1) << 32)

static uint64_t big_endian(const uint8_t *p, size_t len)
{
    uint64_t value = 0;

    for (size_t i = 0; i < len; i++)
        value = value << 8 | p[i];
    return value;
}

uint64_t cox_network_of(const struct sockaddr *address)
{
    struct sockaddr_in in;
    struct sockaddr_in6 in6;

    if (address->sa_family == AF_INET) {
        memcpy(&in, address, sizeof(in));
        return IPV4 | ntohl(in.sin_addr.s_addr);
    }
    if (address->sa_family != AF_INET6)
        return 0;
    memcpy(&in6, address, sizeof(in6));
    if (IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr))
        return IPV4 | big_endian(in6.sin6_addr.s6_addr + 12, 4);
    uint64_t prefix = big_endian(in6.sin6_addr.s6_addr, PREFIX_LEN);

    return prefix ? prefix : 1; /* of ::1 */
}
