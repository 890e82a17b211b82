#include "check.h"

#include "cox/base/rng.h"
#include "cox/types.h"

#include <string.h>

#define ID(shard, counter) ((cox_task_id)(shard) << 48 | (cox_task_id)(counter))

static void task_ids_have_one_text(void **state)
{
    (void)state;
    static const struct {
        cox_task_id id;
        const char *text;
    } pairs[] = {
        { ID(0, 1), "t0-000001" },
        { ID(0, 19), "t0-00000k" },
        { ID(0, 31), "t0-00000z" },
        { ID(0, 32), "t0-000010" },
        { ID(7, 1073741823), "t7-zzzzzz" },
        { ID(7, 1073741824), "t7-1000000" },
        { ID(65535, 281474976710655), "t65535-7zzzzzzzzz" },
    };
    for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
        char text[COX_TASK_ID_TEXT_MAX];
        cox_task_id back = 0;
        cox_task_id_format(pairs[i].id, text);
        assert_string_equal(text, pairs[i].text);
        assert_int_equal(cox_task_id_parse(cox_slice_str(text), &back), COX_OK);
        assert_true(back == pairs[i].id);
    }
}

static void other_texts_are_no_task_id(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "t",
        "t0",
        "t0-",
        "0-000001",
        "t0-00001",
        "t0-000000",
        "t0-0000001",
        "t00-000001",
        "t-000001",
        "t65536-000001",
        "t0-00000i",
        "t0-00000l",
        "t0-00000o",
        "t0-00000u",
        "t0-00000K",
        "T0-000001",
        "t0_000001",
        "t0-000001 ",
        " t0-000001",
        "t0-00-001",
        "t0-8000000000",
        "t0-zzzzzzzzzz",
        "t99999999999999999999-1",
        "x0-000001",
        "t0-0000000000000001",
        "t18446744073709551616-000001",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        cox_task_id id = 5;
        if (cox_task_id_parse(cox_slice_str(bad[i]), &id) != COX_ERR_INVALID || id != 5)
            fail_msg("\"%s\" passes as a task id", bad[i]);
    }
    cox_task_id id = 5;
    assert_int_equal(cox_task_id_parse(cox_slice("t0-00\0001", 9), &id), COX_ERR_INVALID);
}

static void random_task_ids_survive_the_trip(void **state)
{
    (void)state;
    struct cox_rng rng;

    cox_rng_init(&rng, 3);
    for (int i = 0; i < 10000; i++) {
        char text[COX_TASK_ID_TEXT_MAX];
        cox_task_id back = 0;
        cox_task_id id = cox_rng_u64(&rng) >> (cox_rng_below(&rng, 16));
        if ((id & (((cox_task_id)1 << 48) - 1)) == 0)
            continue;
        cox_task_id_format(id, text);
        assert_int_equal(cox_task_id_parse(cox_slice_str(text), &back), COX_OK);
        assert_true(back == id);
    }
}

static void codes(void **state)
{
    (void)state;
    enum cox_code code = COX_CODE_DENIED;

    for (int i = 1; i < COX_CODE_NR; i++) {
        assert_true(cox_code_parse(cox_slice_str(cox_code_text((enum cox_code)i)), &code));
        assert_int_equal(code, i);
    }
    assert_string_equal(cox_code_text(COX_CODE_NONE), "");
    assert_string_equal(cox_code_text(COX_CODE_EXIT_NONZERO), "EXIT_NONZERO");
    assert_string_equal(cox_code_text(COX_CODE_INTERNAL), "INTERNAL");
    code = COX_CODE_DENIED;
    assert_false(cox_code_parse(cox_slice_str(""), &code));
    assert_false(cox_code_parse(cox_slice_str("NONE"), &code));
    assert_false(cox_code_parse(cox_slice_str("timeout"), &code));
    assert_int_equal(code, COX_CODE_DENIED);
    /* These numbers are in logs on disk. */
    assert_int_equal(COX_CODE_EXIT_NONZERO, 1);
    assert_int_equal(COX_CODE_WORKER_LOST, 3);
    assert_int_equal(COX_CODE_INTERNAL, 16);
}

static void refs_have_one_text(void **state)
{
    static const char *const others[] = {
        "",         "1",         "1/2/3",     "1/2/3/",   "1/2/3/4/",         "1/2/3/4/5",
        "1//3/4",   "/1/2/3/4",  " 1/2/3/4",  "1/2/3/4 ", "1/2/3/x",          "1/2/3/-4",
        "+1/2/3/4", "0x1/2/3/4", "1/2/3/4\n", "1.2.3.4",  "1/4294967296/3/4", "18446744073709551616/2/3/4"
    };
    const struct cox_ref ref = { .task = UINT64_MAX, .step = UINT32_MAX, .token = { 7, UINT64_MAX } };
    char text[COX_REF_TEXT_MAX];
    struct cox_ref found;

    (void)state;
    cox_ref_format(ref, text);
    assert_string_equal(text, "18446744073709551615/4294967295/7/18446744073709551615");
    assert_int_equal(cox_ref_parse(cox_slice_str(text), &found), COX_OK);
    assert_true(cox_ref_eq(found, ref));
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        if (cox_ref_parse(cox_slice_str(others[i]), &found) != COX_ERR_INVALID)
            fail_msg("taken for a ref: %s", others[i]);
}

static void statuses(void **state)
{
    (void)state;
    assert_string_equal(cox_task_status_text(COX_TASK_NONE), "");
    assert_string_equal(cox_task_status_text(COX_TASK_PENDING), "PENDING");
    assert_string_equal(cox_task_status_text(COX_TASK_CANCELLED), "CANCELLED");
    assert_string_equal(cox_step_status_text(COX_STEP_BLOCKED), "BLOCKED");
    assert_string_equal(cox_step_status_text(COX_STEP_SKIPPED), "SKIPPED");
    assert_string_equal(cox_attempt_status_text(COX_ATTEMPT_TIMED_OUT), "TIMED_OUT");
    assert_string_equal(cox_attempt_status_text(COX_ATTEMPT_CANCELLED), "CANCELLED");
    assert_string_equal(cox_task_status_text((enum cox_task_status)99), "");
    for (int i = 0; i < COX_TASK_STATUS_NR; i++)
        assert_int_equal(cox_task_status_final((enum cox_task_status)i),
                         i >= COX_TASK_SUCCEEDED && i <= COX_TASK_CANCELLED);
    assert_string_equal(cox_err_text(COX_OK), "ok");
    assert_string_equal(cox_err_text(COX_ERR_INTERNAL), "internal error");
    assert_string_equal(cox_err_text((enum cox_err)99), "unknown error");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(task_ids_have_one_text),
        cmocka_unit_test(other_texts_are_no_task_id),
        cmocka_unit_test(random_task_ids_survive_the_trip),
        cmocka_unit_test(refs_have_one_text),
        cmocka_unit_test(codes),
        cmocka_unit_test(statuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
