#include "reach.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#define MAPPED_BITS 96u

static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

/* Of the registries, what is not globally reachable; and multicast. */
static const struct reach_net reserved_v4[] = {
    { { 0 }, 8 },             /* this network */
    { { 10 }, 8 },            /* private */
    { { 100, 64 }, 10 },      /* shared by carriers */
    { { 127 }, 8 },           /* loopback */
    { { 169, 254 }, 16 },     /* link-local: metadata of clouds */
    { { 172, 16 }, 12 },      /* private */
    { { 192, 0, 0 }, 24 },    /* protocol assignments */
    { { 192, 0, 2 }, 24 },    /* documentation */
    { { 192, 88, 99 }, 24 },  /* 6to4 relays, deprecated */
    { { 192, 168 }, 16 },     /* private */
    { { 198, 18 }, 15 },      /* benchmarks */
    { { 198, 51, 100 }, 24 }, /* documentation */
    { { 203, 0, 113 }, 24 },  /* documentation */
    { { 224 }, 4 },           /* multicast */
    { { 240 }, 4 },           /* reserved, broadcast */
};

/* All that has ever been given out; the rest is reserved, or means something within a network: translated
 * addresses of IPv4 (::ffff:0:0:0/96), NAT64 of one's own, unique local, link-local, multicast. */
static const struct reach_net given_v6 = { { 0x20 }, 3 };
static const struct reach_net reserved_v6[] = {
    { { 0x20, 0x01, 0x00 }, 23 },       /* protocol assignments, Teredo */
    { { 0x20, 0x01, 0x0d, 0xb8 }, 32 }, /* documentation */
    { { 0x3f, 0xff }, 20 },             /* documentation */
};

/* Where an IPv6 address carries one of IPv4. */
static const struct {
    struct reach_net net;
    size_t at;
} carriers[] = {
    { { { [10] = 0xff, [11] = 0xff }, 96 }, 12 }, /* mapped */
    { { { 0x00, 0x64, 0xff, 0x9b }, 96 }, 12 },   /* NAT64 */
    { { { 0x20, 0x02 }, 16 }, 2 },                /* 6to4 */
};

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static bool begins_with(const uint8_t *bytes, const uint8_t *prefix, unsigned bits)
{
    unsigned whole = bits / 8, rest = bits % 8;

    if (memcmp(bytes, prefix, whole) != 0)
        return false;
    return rest == 0 || (bytes[whole] ^ prefix[whole]) >> (8 - rest) == 0;
}

static bool is_among(const struct reach_net *nets, size_t n, const uint8_t *bytes)
{
    for (size_t i = 0; i < n; i++)
        if (begins_with(bytes, nets[i].bytes, nets[i].bits))
            return true;
    return false;
}

static bool is_public_v4(const uint8_t *bytes)
{
    return !is_among(reserved_v4, COUNT(reserved_v4), bytes);
}

static bool permits_v4(const struct reach *reach, const uint8_t *bytes)
{
    uint8_t as_v6[16];

    memcpy(as_v6, mapped, sizeof(mapped));
    memcpy(as_v6 + sizeof(mapped), bytes, 4);
    return is_public_v4(bytes) || is_among(reach->allowed, reach->n_allowed, as_v6);
}

static bool permits_v6(const struct reach *reach, const uint8_t *bytes)
{
    for (size_t i = 0; i < COUNT(carriers); i++)
        if (begins_with(bytes, carriers[i].net.bytes, carriers[i].net.bits))
            return permits_v4(reach, bytes + carriers[i].at);
    if (is_among(&given_v6, 1, bytes) && !is_among(reserved_v6, COUNT(reserved_v6), bytes))
        return true;
    return is_among(reach->allowed, reach->n_allowed, bytes);
}

bool reach_permits(const struct reach *reach, const struct sockaddr *address)
{
    struct sockaddr_in in;
    struct sockaddr_in6 in6;

    if (address->sa_family == AF_INET) {
        memcpy(&in, address, sizeof(in));
        return permits_v4(reach, (const uint8_t *)&in.sin_addr);
    }
    if (address->sa_family != AF_INET6)
        return false;
    memcpy(&in6, address, sizeof(in6));
    return permits_v6(reach, in6.sin6_addr.s6_addr);
}

/* ---- what is allowed ---- */

static bool is_clear_behind(const struct reach_net *net)
{
    for (unsigned bit = net->bits; bit < 128; bit++)
        if (net->bytes[bit / 8] >> (7 - bit % 8) & 1)
            return false;
    return true;
}

enum cox_err reach_allow(struct reach *reach, const char *text)
{
    struct reach_net net = { .bits = 128 };
    char address[INET6_ADDRSTRLEN];
    const char *slash = strchr(text, '/');
    size_t len = slash ? (size_t)(slash - text) : strlen(text);
    unsigned first_bit = 0;

    if (len >= sizeof(address))
        return COX_ERR_INVALID;
    memcpy(address, text, len);
    address[len] = 0;
    if (inet_pton(AF_INET, address, net.bytes + sizeof(mapped)) == 1) {
        memcpy(net.bytes, mapped, sizeof(mapped));
        first_bit = MAPPED_BITS;
    } else if (inet_pton(AF_INET6, address, net.bytes) != 1) {
        return COX_ERR_INVALID;
    }
    if (slash) {
        char *end;
        unsigned long bits = strtoul(slash + 1, &end, 10);

        if (slash[1] < '0' || slash[1] > '9' || *end || bits > 128 - first_bit)
            return COX_ERR_INVALID;
        net.bits = first_bit + (unsigned)bits;
    }
    if (!is_clear_behind(&net))
        return COX_ERR_INVALID;
    if (reach->n_allowed == REACH_NETS_MAX)
        return COX_ERR_FULL;
    reach->allowed[reach->n_allowed++] = net;
    return COX_OK;
}
