#include "handlers/reach.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static bool permits(const struct reach *reach, const char *text)
{
    struct sockaddr_in in = { .sin_family = AF_INET };
    struct sockaddr_in6 in6 = { .sin6_family = AF_INET6 };

    if (inet_pton(AF_INET, text, &in.sin_addr) == 1)
        return reach_permits(reach, (struct sockaddr *)&in);
    assert_int_equal(inet_pton(AF_INET6, text, &in6.sin6_addr), 1);
    return reach_permits(reach, (struct sockaddr *)&in6);
}

static void expect(const struct reach *reach, bool permitted, const char *const *addresses, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (permits(reach, addresses[i]) != permitted)
            fail_msg("%s: expected to be %s", addresses[i], permitted ? "permitted" : "denied");
}

#define EXPECT(reach, permitted, ...)                                                                        \
    do {                                                                                                     \
        const char *const addresses[] = { __VA_ARGS__ };                                                     \
        expect(reach, permitted, addresses, sizeof(addresses) / sizeof(addresses[0]));                       \
    } while (0)

static void test_the_public_internet_and_nothing_else(void **state)
{
    static const struct reach none;

    (void)state;
    EXPECT(&none, true, "1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0",
           "126.255.255.255", "128.0.0.0", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0",
           "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0", "223.255.255.255");
    EXPECT(&none, false, "0.0.0.0", "0.1.2.3", "10.0.0.0", "10.255.255.255", "100.64.0.0", "100.127.255.255",
           "127.0.0.1", "127.255.255.255", "169.254.169.254", "172.16.0.0", "172.31.255.255", "192.0.0.1",
           "192.0.2.1", "192.168.0.0", "192.168.255.255", "198.18.0.0", "198.19.255.255", "198.51.100.7",
           "203.0.113.7", "224.0.0.1", "239.255.255.255", "240.0.0.0", "255.255.255.255");
    EXPECT(&none, true, "2606:4700::1111", "2a00::1", "2001:200::1", "2400::1");
    EXPECT(&none, false, "::", "::1", "::8.8.8.8", "fe80::1", "febf::1", "fec0::1", "fc00::1", "fdff::1",
           "ff02::1", "2001::1", "2001:1ff::1", "2001:db8::1", "100::1", "64:ff9b:1::8.8.8.8", "3fff::1",
           "5f00::1", "::ffff:0:127.0.0.1", "::5efe:10.0.0.1", "200::1", "1fff:ffff::1", "4000::1",
           "e000::1");
}

/* Else a name server could write 127.0.0.1 in a way that nobody looks for. */
static void test_an_address_within_an_address_is_judged(void **state)
{
    static const struct reach none;
    struct reach ten = { 0 };

    (void)state;
    EXPECT(&none, true, "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1");
    EXPECT(&none, false, "::ffff:127.0.0.1", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "2002:7f00:1::1",
           "2002:a01:203::");
    assert_int_equal(reach_allow(&ten, "10.0.0.0/8"), COX_OK);
    EXPECT(&ten, true, "10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "2002:a01:203::");
    EXPECT(&ten, false, "192.168.0.1", "127.0.0.1", "::1", "fd00::1");
}

static void test_what_is_allowed_is_reached(void **state)
{
    struct reach r = { 0 };

    (void)state;
    assert_int_equal(reach_allow(&r, "127.0.0.1"), COX_OK);
    assert_int_equal(reach_allow(&r, "192.168.64.0/18"), COX_OK);
    assert_int_equal(reach_allow(&r, "::1"), COX_OK);
    assert_int_equal(reach_allow(&r, "fd12:3456::/31"), COX_OK);
    EXPECT(&r, true, "127.0.0.1", "192.168.64.0", "192.168.127.255", "::1", "fd12:3457::1", "8.8.8.8");
    EXPECT(&r, false, "127.0.0.2", "192.168.63.255", "192.168.128.0", "::2", "fd12:3458::1");
    assert_int_equal(reach_allow(&r, "0.0.0.0/0"), COX_OK);
    EXPECT(&r, true, "10.0.0.1", "255.255.255.255", "::ffff:10.0.0.1");
    EXPECT(&r, false, "fe80::1");
    assert_int_equal(reach_allow(&r, "::/0"), COX_OK);
    EXPECT(&r, true, "fe80::1");
}

static void test_texts_that_are_no_network(void **state)
{
    static const char *const texts[] = { "",          "10",          "10.0.0.0/33",  "10.0.0.1/8",
                                         "10.0.0.0/", "10.0.0.0/ 8", "fd00::/129",   "10.0.0.0/8x",
                                         "localhost", "::1/-1",      "10.0.0.0/0x8", "fd00::1/8" };
    struct reach r = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        if (reach_allow(&r, texts[i]) != COX_ERR_INVALID)
            fail_msg("\"%s\" was taken", texts[i]);
    assert_int_equal(r.n_allowed, 0);
    for (size_t i = 0; i < REACH_NETS_MAX; i++)
        assert_int_equal(reach_allow(&r, "10.0.0.0/8"), COX_OK);
    assert_int_equal(reach_allow(&r, "11.0.0.0/8"), COX_ERR_FULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_public_internet_and_nothing_else),
        cmocka_unit_test(test_an_address_within_an_address_is_judged),
        cmocka_unit_test(test_what_is_allowed_is_reached),
        cmocka_unit_test(test_texts_that_are_no_network),
    };

    return cmocka_run_group_tests_name("reach", tests, NULL, NULL);
}
