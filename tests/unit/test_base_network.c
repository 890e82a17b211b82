#include "check.h"

#include "cox/base/network.h"

#include <arpa/inet.h>

static uint64_t of(const char *text)
{
    struct sockaddr_storage s = { 0 };
    struct sockaddr_in *in = (struct sockaddr_in *)&s;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&s;

    if (inet_pton(AF_INET, text, &in->sin_addr) == 1)
        s.ss_family = AF_INET;
    else if (inet_pton(AF_INET6, text, &in6->sin6_addr) == 1)
        s.ss_family = AF_INET6;
    in->sin_port = htons(7); /* says nothing of whose it is; the same place in both */
    return cox_network_of((const struct sockaddr *)&s);
}

static void hosts_are_told_apart(void **state)
{
    (void)state;
    assert_int_equal(of("192.0.2.1"), of("192.0.2.1"));
    assert_int_not_equal(of("192.0.2.1"), of("192.0.2.2"));
    assert_int_equal(of("2001:db8:1:2::3"), of("2001:db8:1:2:ffff::"));
    assert_int_not_equal(of("2001:db8:1:2::3"), of("2001:db8:1:3::3"));
    assert_int_equal(of("::ffff:192.0.2.9"), of("192.0.2.9")); /* all of IPv4 is no one network */
    assert_int_not_equal(of("::ffff:192.0.2.9"), of("::ffff:192.0.2.8"));
    assert_int_not_equal(of("::1"), of("127.0.0.1"));
    assert_int_not_equal(of("::1"), 0);
    assert_int_not_equal(of("0.0.0.0"), 0);
    assert_int_equal(of("nowhere"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(hosts_are_told_apart) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
