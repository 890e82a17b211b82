/* Messages to JSON and back: the shapes users rely on, errors that name their place, and a round trip over
 * generated messages of every kind that the contract has. */
#include "cox/base/alloc.h"
#include "cox/base/rng.h"
#include "cox/json.h"
#include "cox/wire.h"

#include "coxswain/v1/admin_service.pb-c.h"
#include "coxswain/v1/blob_service.pb-c.h"
#include "coxswain/v1/fleet_service.pb-c.h"
#include "coxswain/v1/schedule_service.pb-c.h"
#include "coxswain/v1/stats_service.pb-c.h"
#include "coxswain/v1/task_service.pb-c.h"
#include "coxswain/v1/template_service.pb-c.h"
#include "coxswain/v1/worker_service.pb-c.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const char *shown(struct cox_buf *b, const void *message)
{
    cox_buf_clear(b);
    cox_wire_put_json(b, message);
    return cox_buf_cstr(b);
}

static void assert_reads_back(const ProtobufCMessage *message)
{
    struct cox_buf text = { 0 }, again = { 0 }, error = { 0 };
    ProtobufCMessage *copy = NULL;

    shown(&text, message);
    assert_int_equal(cox_json_check(cox_buf_slice(&text), NULL), COX_OK);
    if (cox_wire_from_json(message->descriptor, cox_buf_slice(&text), &copy, &error))
        fail_msg("%s\n%s", cox_buf_cstr(&error), cox_buf_cstr(&text));
    assert_string_equal(shown(&again, copy), cox_buf_cstr(&text));
    size_t len = protobuf_c_message_get_packed_size(message);
    uint8_t *a = cox_alloc(len), *b = cox_alloc(len);

    assert_int_equal(protobuf_c_message_get_packed_size(copy), len);
    protobuf_c_message_pack(message, a);
    protobuf_c_message_pack(copy, b);
    assert_memory_equal(a, b, len);
    cox_free(a);
    cox_free(b);
    protobuf_c_message_free_unpacked(copy, NULL);
    cox_buf_fini(&text);
    cox_buf_fini(&again);
    cox_buf_fini(&error);
}

/* ---- the contract's shape --------------------------------------------------------------------------- */

static void test_empty_task_has_every_key(void **state)
{
    (void)state;
    struct cox_buf b = { 0 };
    Coxswain__V1__Task task = COXSWAIN__V1__TASK__INIT;

    assert_string_equal(shown(&b, &task),
                        "{\"id\":\"\",\"name\":\"\",\"tenant\":\"\",\"status\":\"UNSPECIFIED\",\"labels\":{},"
                        "\"created_at\":null,\"started_at\":null,\"finished_at\":null,\"inputs\":null,"
                        "\"outputs\":null,\"error\":null,\"steps\":null,\"usage\":null,\"as_of_seq\":0}");
    cox_buf_fini(&b);
}

static void test_task_is_shown_as_the_contract_says(void **state)
{
    (void)state;
    struct cox_buf b = { 0 };
    Coxswain__V1__Task task = COXSWAIN__V1__TASK__INIT;
    Google__Protobuf__Timestamp at = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    Coxswain__V1__StepCounts counts = COXSWAIN__V1__STEP_COUNTS__INIT;
    Coxswain__V1__StepCounts__ByStatusEntry ready = COXSWAIN__V1__STEP_COUNTS__BY_STATUS_ENTRY__INIT;
    Coxswain__V1__StepCounts__ByStatusEntry *entries[] = { &ready };

    at.seconds = 1767323045;
    at.nanos = 678000000;
    ready.key = (char *)"READY";
    ready.value = 2;
    counts.total = 2;
    counts.n_by_status = 1;
    counts.by_status = entries;
    task.id = (char *)"t0-00000k";
    task.status = COXSWAIN__V1__TASK_STATUS__TASK_STATUS_RUNNING;
    task.created_at = &at;
    task.inputs_json = (char *)"{ \"x\": 0.1, \"big\": 123456789012345678901234567890 }";
    task.steps = &counts;
    task.as_of_seq = (1ull << 53) + 1;
    assert_string_equal(
        shown(&b, &task),
        "{\"id\":\"t0-00000k\",\"name\":\"\",\"tenant\":\"\",\"status\":\"RUNNING\",\"labels\":{},"
        "\"created_at\":\"2026-01-02T03:04:05.678Z\",\"started_at\":null,\"finished_at\":null,"
        "\"inputs\":{\"x\":0.1,\"big\":123456789012345678901234567890},\"outputs\":null,"
        "\"error\":null,\"steps\":{\"total\":2,\"by_status\":{\"READY\":2}},\"usage\":null,"
        "\"as_of_seq\":\"9007199254740993\"}");
    cox_buf_fini(&b);
}

static void test_wrappers_durations_and_bytes(void **state)
{
    (void)state;
    struct cox_buf b = { 0 };
    Coxswain__V1__Attempt attempt = COXSWAIN__V1__ATTEMPT__INIT;
    Google__Protobuf__Int32Value exit_code = GOOGLE__PROTOBUF__INT32_VALUE__INIT;
    Coxswain__V1__GetTaskRequest get = COXSWAIN__V1__GET_TASK_REQUEST__INIT;
    Google__Protobuf__Duration wait = GOOGLE__PROTOBUF__DURATION__INIT;
    Coxswain__V1__GetLogsResponse log = COXSWAIN__V1__GET_LOGS_RESPONSE__INIT;

    attempt.exit_code = &exit_code;
    attempt.cpu_seconds = 0.1;
    assert_non_null(strstr(shown(&b, &attempt), "\"exit_code\":0,"));
    assert_non_null(strstr(shown(&b, &attempt), "\"cpu_seconds\":0.1,"));
    attempt.exit_code = NULL;
    assert_non_null(strstr(shown(&b, &attempt), "\"exit_code\":null,"));
    wait.seconds = -1;
    wait.nanos = -500000000;
    get.wait = &wait;
    assert_string_equal(shown(&b, &get), "{\"id\":\"\",\"wait\":\"-1.5s\"}");
    log.data.data = (uint8_t *)"\0\xff";
    log.data.len = 2;
    assert_non_null(strstr(shown(&b, &log), "\"data\":\"AP8=\""));
    cox_buf_fini(&b);
}

static void test_documents_are_json(void **state)
{
    struct cox_slice text = cox_slice_str("{\"document\":{ \"api_version\": \"v1\", \"n\": 1.50 }}");
    struct cox_buf error = { 0 }, out = { 0 };
    ProtobufCMessage *m;

    (void)state;
    assert_int_equal(cox_wire_from_json(&coxswain__v1__apply_template_request__descriptor, text, &m, &error),
                     COX_OK);
    cox_wire_put_json(&out, m);
    assert_string_equal(cox_buf_cstr(&out), "{\"document\":{\"api_version\":\"v1\",\"n\":1.50}}");
    protobuf_c_message_free_unpacked(m, NULL);
    cox_buf_fini(&out);
    cox_buf_fini(&error);
}

static void test_damaged_embedded_json_is_a_string(void **state)
{
    (void)state;
    struct cox_buf b = { 0 };
    Coxswain__V1__Step step = COXSWAIN__V1__STEP__INIT;

    step.output_json = (char *)"{\"a\":";
    assert_non_null(strstr(shown(&b, &step), "\"output\":\"{\\\"a\\\":\""));
    cox_buf_fini(&b);
}

/* ---- reading ---------------------------------------------------------------------------------------- */

static void assert_refused(const ProtobufCMessageDescriptor *d, const char *text, const char *message)
{
    struct cox_buf error = { 0 };
    ProtobufCMessage *m = NULL;

    assert_int_equal(cox_wire_from_json(d, cox_slice_str(text), &m, &error), COX_ERR_INVALID);
    assert_string_equal(cox_buf_cstr(&error), message);
    assert_null(m);
    cox_buf_fini(&error);
}

static void test_errors_name_the_place(void **state)
{
    (void)state;
    const ProtobufCMessageDescriptor *describe = &coxswain__v1__describe_task_response__descriptor;
    const ProtobufCMessageDescriptor *submit = &coxswain__v1__submit_task_request__descriptor;

    assert_refused(submit, "{\"key\":\n}", "line 2, column 1: expected a JSON value");
    assert_refused(submit, "[]", "expected an object, found []");
    assert_refused(submit, "{\"kee\":\"\"}", "kee: unknown field");
    assert_refused(submit, "{\"key\":1}", "key: expected a string, found 1");
    assert_refused(submit, "{\"key\":\"a\",\"key\":\"b\"}", "key: expected each name once, found \"b\"");
    assert_refused(submit, "{\"key\":\"\\u0000\"}",
                   "key: expected a string without U+0000, found \"\\u0000\"");
    assert_refused(submit, "{\"labels\":{\"a\":1}}", "labels.a: expected a string, found 1");
    assert_refused(submit, "{\"labels\":{\"a\":\"\",\"a\":\"\"}}",
                   "labels.a: expected each name once, found \"\"");
    assert_refused(&coxswain__v1__get_logs_response__descriptor, "{\"data\":\"?\"}",
                   "data: expected base64 in a string, found \"?\"");
    assert_refused(describe, "{\"steps\":[{},{\"status\":\"DONE\"}]}",
                   "steps[1].status: expected one of BLOCKED READY RUNNING WAITING SUCCEEDED FAILED SKIPPED "
                   "CANCELLED, found \"DONE\"");
    assert_refused(describe, "{\"task\":{\"steps\":{\"total\":-1}}}",
                   "task.steps.total: expected an integer of at least 0, found -1");
    assert_refused(describe, "{\"task\":{\"steps\":{\"total\":4294967296}}}",
                   "task.steps.total: expected an integer of at most 32 bits, found 4294967296");
    assert_refused(describe, "{\"task\":{\"as_of_seq\":18446744073709551616}}",
                   "task.as_of_seq: expected an integer of at most 64 bits, found 18446744073709551616");
    assert_refused(
        describe, "{\"task\":{\"created_at\":\"yesterday\"}}",
        "task.created_at: expected a time such as \"2026-01-02T03:04:05.678Z\", found \"yesterday\"");
    assert_refused(&coxswain__v1__get_task_request__descriptor, "{\"wait\":\"1.5\"}",
                   "wait: expected a duration such as \"1.5s\" or \"10m\", found \"1.5\"");
}

static void test_reading_is_generous(void **state)
{
    (void)state;
    struct cox_buf error = { 0 };
    ProtobufCMessage *m = NULL;
    static const char text[] =
        " {\"tasks\": [{\"status\": \"TASK_STATUS_FAILED\", \"as_of_seq\": \"7\", \"inputs\": "
        "{\"a\": [1, 2]}, \"error\": null}, {\"status\": 5}], \"as_of_seq\": 8} ";

    assert_int_equal(
        cox_wire_from_json(&coxswain__v1__list_tasks_response__descriptor, cox_slice_str(text), &m, &error),
        COX_OK);
    const Coxswain__V1__ListTasksResponse *list = (const Coxswain__V1__ListTasksResponse *)m;

    assert_int_equal(list->n_tasks, 2);
    assert_int_equal(list->tasks[0]->status, COXSWAIN__V1__TASK_STATUS__TASK_STATUS_FAILED);
    assert_int_equal(list->tasks[0]->as_of_seq, 7);
    assert_string_equal(list->tasks[0]->inputs_json, "{\"a\":[1,2]}");
    assert_null(list->tasks[0]->error);
    assert_int_equal(list->tasks[1]->status, COXSWAIN__V1__TASK_STATUS__TASK_STATUS_SUCCEEDED);
    protobuf_c_message_free_unpacked(m, NULL);
    cox_buf_fini(&error);
}

/* ---- round trip ------------------------------------------------------------------------------------- */

static ProtobufCMessage *generate(struct cox_rng *rng, const ProtobufCMessageDescriptor *d);

static char *generate_string(struct cox_rng *rng)
{
    static const char *const pieces[] = { "a", "\"",       "\\",           "\n",  "\x7f",
                                          "/", "\xc3\xa9", "\xe2\x82\xac", "{}",  " ",
                                          "0", "\t",       "\x01",         "nul", "\xf0\x9f\x9a\xa3" };
    struct cox_buf b = { 0 };

    for (uint64_t n = cox_rng_below(rng, 6); n > 0; n--)
        cox_buf_append_str(&b, pieces[cox_rng_below(rng, sizeof(pieces) / sizeof(*pieces))]);
    char *s = cox_strdup(cox_buf_cstr(&b));

    cox_buf_fini(&b);
    return s;
}

static const char *generate_json(struct cox_rng *rng)
{
    static const char *const texts[] = { "{}",     "[]", "0.10", "\"\\u00e9\"", "{\"a\":[1,{\"b\":null}]}",
                                         "-1e400", "" };

    return texts[cox_rng_below(rng, sizeof(texts) / sizeof(*texts))];
}

/* Any bits, with the edges of ranges more often than chance would have them. */
static uint64_t generate_bits(struct cox_rng *rng)
{
    static const uint64_t edges[] = { 0,         1,          1ull << 53, (1ull << 53) + 1,
                                      INT64_MAX, 1ull << 63, UINT64_MAX, INT32_MAX };

    return cox_rng_below(rng, 2) ? cox_rng_u64(rng)
                                 : edges[cox_rng_below(rng, sizeof(edges) / sizeof(*edges))];
}

static void generate_value(struct cox_rng *rng, const ProtobufCFieldDescriptor *f, void *at)
{
    static const double doubles[] = { 0, -0.0, 0.1, 1e-320, 1.7976931348623157e308, INFINITY, 3, -2.5e-9 };
    bool json = cox_wire_is_json(f);
    const ProtobufCEnumDescriptor *e = f->descriptor;

    switch (f->type) {
    case PROTOBUF_C_TYPE_STRING:
        *(char **)at = json ? cox_strdup(generate_json(rng)) : generate_string(rng);
        break;
    case PROTOBUF_C_TYPE_BYTES: {
        char *s = json ? cox_strdup(generate_json(rng)) : generate_string(rng);
        *(ProtobufCBinaryData *)at = (ProtobufCBinaryData){ strlen(s), (uint8_t *)s };
        break;
    }
    case PROTOBUF_C_TYPE_MESSAGE:
        *(ProtobufCMessage **)at = generate(rng, f->descriptor);
        break;
    case PROTOBUF_C_TYPE_BOOL:
        *(protobuf_c_boolean *)at = (protobuf_c_boolean)cox_rng_below(rng, 2);
        break;
    case PROTOBUF_C_TYPE_ENUM:
        *(int *)at = (int)cox_rng_below(rng, e->n_values + 1);
        break;
    case PROTOBUF_C_TYPE_DOUBLE:
        *(double *)at = doubles[cox_rng_below(rng, sizeof(doubles) / sizeof(*doubles))];
        break;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        *(uint64_t *)at = generate_bits(rng);
        break;
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_UINT32:
        *(uint32_t *)at = (uint32_t)generate_bits(rng);
        break;
    default:
        fail_msg("%s: a type that this test does not know", f->name);
    }
}

static size_t value_size(const ProtobufCFieldDescriptor *f)
{
    if (f->type == PROTOBUF_C_TYPE_STRING || f->type == PROTOBUF_C_TYPE_MESSAGE)
        return sizeof(void *);
    return f->type == PROTOBUF_C_TYPE_DOUBLE ? 8 : 4;
}

static void generate_repeated(struct cox_rng *rng, const ProtobufCFieldDescriptor *f, void **at, size_t *n)
{
    bool map = strstr(f->type == PROTOBUF_C_TYPE_MESSAGE
                          ? ((const ProtobufCMessageDescriptor *)f->descriptor)->short_name
                          : "",
                      "Entry") != NULL;
    /* A map of one: generated keys might repeat, which is another test's matter. */
    *n = cox_rng_below(rng, map ? 2 : 4);
    if (*n == 0)
        return;
    char *items = cox_calloc(*n, value_size(f));

    for (size_t i = 0; i < *n; i++)
        generate_value(rng, f, items + i * value_size(f));
    *at = items;
}

static ProtobufCMessage *generate(struct cox_rng *rng, const ProtobufCMessageDescriptor *d)
{
    ProtobufCMessage *m = cox_calloc(1, d->sizeof_message);

    protobuf_c_message_init(d, m);
    for (unsigned i = 0; i < d->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &d->fields[i];
        void *at = (char *)m + f->offset, *quantifier = (char *)m + f->quantifier_offset;
        if (f->label == PROTOBUF_C_LABEL_REPEATED)
            generate_repeated(rng, f, at, quantifier);
        else if (f->type != PROTOBUF_C_TYPE_MESSAGE || cox_rng_below(rng, 3) > 0 ||
                 strcmp(f->name, "value") == 0)
            generate_value(rng, f, at);
    }
    return m;
}

static void round_trip(struct cox_rng *rng, const ProtobufCMessageDescriptor *kind)
{
    ProtobufCMessage *m = generate(rng, kind);

    assert_reads_back(m);
    protobuf_c_message_free_unpacked(m, NULL);
}

/* Every message of the contract, by way of the methods that carry it. */
static void test_generated_messages_survive_the_round_trip(void **state)
{
    (void)state;
    static const ProtobufCServiceDescriptor *const services[] = {
        &coxswain__v1__task_service__descriptor,  &coxswain__v1__template_service__descriptor,
        &coxswain__v1__fleet_service__descriptor, &coxswain__v1__schedule_service__descriptor,
        &coxswain__v1__stats_service__descriptor, &coxswain__v1__worker_service__descriptor,
        &coxswain__v1__blob_service__descriptor,  &coxswain__v1__admin_service__descriptor,
    };

    for (uint64_t seed = 1; seed <= 100; seed++) {
        struct cox_rng rng;
        cox_rng_init(&rng, seed);
        for (size_t k = 0; k < sizeof(services) / sizeof(*services); k++)
            for (unsigned i = 0; i < services[k]->n_methods; i++) {
                round_trip(&rng, services[k]->methods[i].input);
                round_trip(&rng, services[k]->methods[i].output);
            }
    }
}

/* ---- JSON text -------------------------------------------------------------------------------------- */

static void assert_stops(const char *text, unsigned line, unsigned column, const char *expected)
{
    struct cox_json_place place = { 0 };

    assert_int_equal(cox_json_check(cox_slice_str(text), &place), COX_ERR_INVALID);
    assert_string_equal(place.expected, expected);
    assert_int_equal(place.line, line);
    assert_int_equal(place.column, column);
}

static void test_json_check_says_where_it_stops(void **state)
{
    (void)state;
    struct cox_buf deep = { 0 };

    assert_stops("", 1, 1, "a JSON value");
    assert_stops("{\n  \"a\": 01}", 2, 9, "',' or '}'");
    assert_stops("[1,]", 1, 4, "a JSON value");
    assert_stops("{\"a\":1,}", 1, 8, "a name in double quotes");
    assert_stops("\"\\ud800\"", 1, 8, "a whole surrogate pair");
    assert_stops("\"a\nb\"", 1, 3, "an escape such as \\n instead of a control character");
    assert_stops("\"\xff\"", 1, 3, "UTF-8 in the string that ends here");
    assert_stops("1 2", 1, 3, "the end of the text");
    assert_stops("nul", 1, 1, "a JSON value");
    for (int i = 0; i < 1000; i++)
        cox_put_u8(&deep, '[');
    assert_stops(cox_buf_cstr(&deep), 1, 65, "less nesting");
    cox_buf_fini(&deep);
}

static void test_json_layout(void **state)
{
    (void)state;
    struct cox_buf b = { 0 };
    const char *text = " { \"a\" : [ 1 , \" , \" , [ ] , { } ] , \"b\" : { \"c\" : 1.50 } } ";

    assert_int_equal(cox_json_check(cox_slice_str(text), NULL), COX_OK);
    cox_json_compact(&b, cox_slice_str(text));
    assert_string_equal(cox_buf_cstr(&b), "{\"a\":[1,\" , \",[],{}],\"b\":{\"c\":1.50}}");
    cox_buf_clear(&b);
    cox_json_pretty(&b, cox_slice_str(text), 2);
    assert_string_equal(cox_buf_cstr(&b),
                        "{\n  \"a\": [\n    1,\n    \" , \",\n    [],\n    {}\n  ],\n  \"b\": {\n"
                        "    \"c\": 1.50\n  }\n}");
    cox_buf_fini(&b);
}

static void test_json_members(void **state)
{
    (void)state;
    struct cox_slice v;
    struct cox_slice text = cox_slice_str("{\"a\": {\"b\": 0}, \"b\" : \"}\" , \"\\u0063\": [\"x\", 2]}");

    assert_int_equal(cox_json_check(text, NULL), COX_OK);
    assert_true(cox_json_member(text, "b", &v));
    assert_true(cox_slice_is(v, "\"}\""));
    assert_true(cox_json_member(text, "c", &v));
    struct cox_json_walk w = cox_json_walk(v);

    assert_true(cox_json_next(&w));
    assert_int_equal(w.key.len, 0);
    assert_true(cox_slice_is(w.value, "\"x\""));
    assert_true(cox_json_next(&w));
    assert_true(cox_slice_is(w.value, "2"));
    assert_false(cox_json_next(&w));
    assert_false(cox_json_member(text, "d", &v));
}

static void test_base64(void **state)
{
    (void)state;
    struct cox_buf b = { 0 };
    static const char *const pairs[][2] = { { "", "" },
                                            { "f", "Zg==" },
                                            { "fo", "Zm8=" },
                                            { "foo", "Zm9v" },
                                            { "foob", "Zm9vYg==" },
                                            { "fooba", "Zm9vYmE=" },
                                            { "foobar", "Zm9vYmFy" } };
    static const char *const bad[] = { "Z", "Zg=a", "Zh==", "Zg===", "Z g=" };

    for (size_t i = 0; i < sizeof(pairs) / sizeof(*pairs); i++) { /* RFC 4648, section 10 */
        cox_buf_clear(&b);
        cox_wire_put_base64(&b, cox_slice_str(pairs[i][0]));
        assert_string_equal(cox_buf_cstr(&b), pairs[i][1]);
        cox_buf_clear(&b);
        assert_int_equal(cox_wire_parse_base64(&b, cox_slice_str(pairs[i][1])), COX_OK);
        assert_string_equal(cox_buf_cstr(&b), pairs[i][0]);
    }
    cox_buf_clear(&b);
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        assert_int_equal(cox_wire_parse_base64(&b, cox_slice_str(bad[i])), COX_ERR_INVALID);
        assert_int_equal(b.len, 0);
    }
    cox_buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty_task_has_every_key),
        cmocka_unit_test(test_task_is_shown_as_the_contract_says),
        cmocka_unit_test(test_wrappers_durations_and_bytes),
        cmocka_unit_test(test_documents_are_json),
        cmocka_unit_test(test_damaged_embedded_json_is_a_string),
        cmocka_unit_test(test_errors_name_the_place),
        cmocka_unit_test(test_reading_is_generous),
        cmocka_unit_test(test_generated_messages_survive_the_round_trip),
        cmocka_unit_test(test_json_check_says_where_it_stops),
        cmocka_unit_test(test_json_layout),
        cmocka_unit_test(test_json_members),
        cmocka_unit_test(test_base64),
    };

    return cmocka_run_group_tests_name("wire_json", tests, NULL, NULL);
}
