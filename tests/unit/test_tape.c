/* Recorded model calls, written and found again. */
#include "check.h"

#include "orchestrator/inference/tape.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char path[] = "/tmp/cox-test-tape-XXXXXX";

static struct cox_slice s(const char *text)
{
    return cox_slice_str(text);
}

static struct tape *record(void)
{
    struct cox_buf error = { 0 };
    struct tape *t = NULL;

    assert_int_equal(tape_record(path, &t, &error), COX_OK);
    assert_false(tape_is_replay(t));
    return t;
}

static struct tape *replay(void)
{
    struct cox_buf error = { 0 };
    struct tape *t = NULL;

    if (tape_replay(path, &t, &error))
        fail_msg("%s", cox_buf_cstr(&error));
    assert_true(tape_is_replay(t));
    return t;
}

static void put(struct tape *t, const char *request, const char *response)
{
    tape_put(t, CHAT_COMPLETIONS, s("m"), s(request), s("application/json"), s(response),
             &(struct chat_usage){ true, strlen(request), strlen(response), 3 });
}

static void expect(struct tape *t, const char *request, const char *response)
{
    struct tape_answer answer;
    struct cox_buf why = { 0 };

    if (!tape_find(t, CHAT_COMPLETIONS, s(request), &answer, &why))
        fail_msg("%s", cox_buf_cstr(&why));
    assert_true(cox_slice_is(answer.response, response));
    assert_true(cox_slice_is(answer.type, "application/json"));
    assert_true(answer.usage.has);
    assert_int_equal(answer.usage.output_tokens, strlen(response));
    assert_int_equal(answer.usage.cached_tokens, 3);
}

static void expect_miss(struct tape *t, enum chat_api api, const char *request, const char *words)
{
    struct tape_answer answer;
    struct cox_buf why = { 0 };

    assert_false(tape_find(t, api, s(request), &answer, &why));
    if (!strstr(cox_buf_cstr(&why), words))
        fail_msg("\"%s\" does not say \"%s\"", cox_buf_cstr(&why), words);
    cox_buf_fini(&why);
}

#define HI "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}"
#define HO "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"ho\"}]}"

static void test_answers_come_back_in_their_order(void **state)
{
    struct tape *t = record();

    (void)state;
    put(t, HI, "data: \"one\"\n\n\xc3\xa4");
    put(t, HO, "other");
    put(t, HI, "two");
    tape_close(t);
    t = replay();
    expect(t, HO, "other");
    expect(t, "{ \"model\":\"m\", \"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}\n",
           "data: \"one\"\n\n\xc3\xa4"); /* white space is nothing */
    expect(t, HI, "two");
    expect(t, HI, "two"); /* and from then on */
    tape_close(t);
}

static void test_a_miss_says_where_it_parts(void **state)
{
    struct tape *t = record();

    (void)state;
    put(t, HI, "x");
    put(t,
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\","
        "\"content\":\"a\"}]}",
        "y");
    tape_close(t);
    t = replay();
    expect_miss(t, CHAT_COMPLETIONS, HO, "messages[0] differs");
    expect_miss(t, CHAT_COMPLETIONS,
                "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":"
                "\"assistant\",\"content\":\"b\"}]}",
                "messages[1] differs: recorded is {\"role\":\"assistant\",\"content\":\"a\"}, asked "
                "{\"role\":\"assistant\",\"content\":\"b\"}");
    expect_miss(t, CHAT_COMPLETIONS,
                "{\"model\":\"m\",\"max_tokens\":5,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}",
                "line 1: its `max_tokens` differs");
    expect_miss(t, CHAT_EMBEDDINGS, HI, "no answer to this call");
    tape_close(t);
}

static void test_what_is_no_recording_is_refused(void **state)
{
    const char *const bad[] = { "nonsense\n", "{}\n",
                                "\n{\"api\":\"x\",\"request\":[],\"type\":\"\",\"response\":\"\"}\n" };
    struct cox_buf error = { 0 };
    struct tape *t = NULL;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        FILE *f = fopen(path, "we");

        fputs(bad[i], f);
        fclose(f);
        cox_buf_clear(&error);
        assert_int_equal(tape_replay(path, &t, &error), COX_ERR_INVALID);
        assert_non_null(strstr(cox_buf_cstr(&error), i == 2 ? "line 2: expected" : "line 1: expected"));
    }
    assert_int_equal(tape_replay("/nowhere", &t, &error), COX_ERR_IO);
    assert_int_equal(tape_record("/nowhere/x", &t, &error), COX_ERR_IO);
    cox_buf_fini(&error);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_come_back_in_their_order),
        cmocka_unit_test(test_a_miss_says_where_it_parts),
        cmocka_unit_test(test_what_is_no_recording_is_refused),
    };

    close(mkstemp(path));
    int failed = cmocka_run_group_tests(tests, NULL, NULL);

    unlink(path);
    return failed;
}
