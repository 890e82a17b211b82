/* Whose a model call is, as heads say it: read strictly, for what is said twice could be read twice. */
#include "check.h"
#include "edge/claim.h"

#include <stdio.h>
#include <string.h>

static enum claim_found read_lines(const char *lines, struct cox_edge_claim *ret)
{
    static struct edge_head head; /* borrowed by nobody once it was read */
    char text[8192];
    const char *why;
    size_t len;

    snprintf(text, sizeof(text), "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n%s\r\n", lines);
    memset(&head, 0, sizeof(head));
    assert_int_equal(edge_parse_head(cox_slice_str(text), &head, &len, &why), 0);
    return claim_read(&head, ret);
}

static void test_what_is_said(void **state)
{
    struct cox_edge_claim claim;

    (void)state;
    assert_int_equal(read_lines("Cox-Session: s\r\ncox-tenant: acme\r\n", &claim), CLAIM_NONE);
    assert_int_equal(read_lines("cox-attempt: 1/2/3/4\r\nCox-Session: key\r\ncox-tenant: acme\r\n", &claim),
                     CLAIM_MADE);
    assert_true(cox_ref_eq(claim.ref, (struct cox_ref){ .task = 1, .step = 2, .token = { 3, 4 } }));
    assert_string_equal(claim.session, "key");
    assert_string_equal(claim.tenant, "acme");
    assert_int_equal(read_lines("cox-attempt: 1/2/3/4\r\n", &claim), CLAIM_MADE);
    assert_string_equal(claim.session, "");
    assert_string_equal(claim.tenant, "");
}

static void test_what_could_be_read_twice(void **state)
{
    static const char *const bad[] = {
        "cox-attempt:\r\n",
        "cox-attempt: 1/2/3\r\n",
        "cox-attempt: 1/2/3/4\r\ncox-attempt: 1/2/3/5\r\n",
        "cox-attempt: 1/2/3/4\r\ncox-session: a\r\nCOX-SESSION: b\r\n",
        "cox-attempt: 1/2/3/4\r\ncox-tenant: a\r\ncox-tenant: b\r\n",
        "cox-attempt: 1/2/3/4\r\ncox-tenant: "
        "0123456789012345678901234567890123456789012345678901234567890123\r\n",
    };
    struct cox_edge_claim claim;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (read_lines(bad[i], &claim) != CLAIM_MALFORMED)
            fail_msg("taken: %s", bad[i]);
}

static void test_answers(void **state)
{
    struct cox_edge_attempt said = { .program = "t0-000001", .priority = -3 }, found;

    (void)state;
    assert_false(claim_answer(cox_slice(NULL, 0), &found));
    assert_false(claim_answer(cox_slice(&said, sizeof(said) - 1), &found));
    assert_true(claim_answer(cox_slice(&said, sizeof(said)), &found));
    assert_string_equal(found.program, "t0-000001");
    assert_int_equal(found.priority, -3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_said),
        cmocka_unit_test(test_what_could_be_read_twice),
        cmocka_unit_test(test_answers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
