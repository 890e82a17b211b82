#include "check.h"

#include "cox/types.h"
#include "coxswain/v1/types.pb-c.h"

#include <string.h>

/* The enum of types.h has the values of the proto's, and their texts are its names without the prefix. */
static void check_enum(const ProtobufCEnumDescriptor *proto, const char *prefix, int nr,
                       const char *(*text)(int))
{
    assert_int_equal(proto->n_values, nr);
    for (int i = 1; i < nr; i++) {
        const ProtobufCEnumValue *value = protobuf_c_enum_descriptor_get_value(proto, i);
        assert_non_null(value);
        assert_memory_equal(value->name, prefix, strlen(prefix));
        assert_string_equal(value->name + strlen(prefix), text(i));
    }
}

static const char *task_text(int i)
{
    return cox_task_status_text((enum cox_task_status)i);
}

static const char *step_text(int i)
{
    return cox_step_status_text((enum cox_step_status)i);
}

static const char *attempt_text(int i)
{
    return cox_attempt_status_text((enum cox_attempt_status)i);
}

static void statuses_match_the_proto(void **state)
{
    (void)state;
    check_enum(&coxswain__v1__task_status__descriptor, "TASK_STATUS_", COX_TASK_STATUS_NR, task_text);
    check_enum(&coxswain__v1__step_status__descriptor, "STEP_STATUS_", COX_STEP_STATUS_NR, step_text);
    check_enum(&coxswain__v1__attempt_status__descriptor, "ATTEMPT_STATUS_", COX_ATTEMPT_STATUS_NR,
               attempt_text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(statuses_match_the_proto),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
