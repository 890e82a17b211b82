/* Maps, told as timelines (TASK_FORMAT rule 5). */
#include "trace.h"

#include "cox/base/alloc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define DOC(steps) "{\"api_version\":\"v1\",\"name\":\"t\",\"steps\":{" steps "}}"
#define DOC_WITH(more, steps) "{\"api_version\":\"v1\",\"name\":\"t\"," more ",\"steps\":{" steps "}}"
#define OUTPUTS "\"outputs\":{\"o\":\"${{ steps.scan.output }}\",\"e\":\"${{ steps.scan.errors }}\"}"
#define RUN "\"run\":{\"argv\":[\"true\"]}"
#define ECHO "\"run\":{\"argv\":[\"${{ item }}\"]}"
#define RETRY "\"retry\":{\"max_attempts\":3,\"initial_backoff\":\"10s\",\"max_backoff\":\"60s\"}"
#define SCAN(map, more) "\"scan\":{\"map\":{" map "}," more "}"

static struct trace *begin(uint32_t credit)
{
    struct trace *t = trace_begin();
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 4, .credit = credit });
    return t;
}

static void rule_5_a_map_yields_an_ordered_list(void **state)
{
    (void)state;
    struct trace *t = begin(9);
    submit(t, DOC_WITH(OUTPUTS, SCAN("\"over\":[\"a\",\"b\",\"c\"]", ECHO)));
    expect(t, "scan waits", "scan maps 3 items", "reply ok t0-000001",
           "assign scan[0]#1 to w1: {\"argv\":[\"a\"]}", "assign scan[1]#1 to w1: {\"argv\":[\"b\"]}",
           "assign scan[2]#1 to w1: {\"argv\":[\"c\"]}");
    items(t, "w1", "scan[2]", "3");
    expect(t, "scan[2] done", "answer accepted to w1");
    items(t, "w1", "scan[0]", "{\"x\":1}");
    expect(t, "scan[0] done", "answer accepted to w1");
    items(t, "w1", "scan[1]", "null");
    expect(t, "scan[1] done", "scan SUCCEEDED", "task SUCCEEDED {\"o\":[{\"x\":1},null,3],\"e\":[]}",
           "answer accepted to w1");
    trace_end(t);
}

static void rule_5_an_empty_list_gives_an_empty_list(void **state)
{
    (void)state;
    struct trace *t = begin(1);
    submit(t, DOC_WITH(OUTPUTS, SCAN("\"over\":[]", RUN)));
    expect(t, "scan waits", "scan maps 0 items", "scan SUCCEEDED", "task SUCCEEDED {\"o\":[],\"e\":[]}",
           "reply ok t0-000001");
    trace_end(t);
}

static void rule_5_null_is_the_empty_list(void **state)
{
    (void)state;
    struct trace *t = begin(1);
    submit(t, DOC_WITH(OUTPUTS, "\"a\":{" RUN "}," SCAN("\"over\":\"${{ steps.a.output.files }}\"", RUN)));
    ignore(t);
    succeed(t, "w1", "a", "{\"files\":null}");
    expect(t, "a SUCCEEDED", "scan waits", "scan maps 0 items", "scan SUCCEEDED",
           "task SUCCEEDED {\"o\":[],\"e\":[]}", "answer accepted to w1");
    trace_end(t);
}

static void rule_5_a_list_that_is_none_is_refused(void **state)
{
    (void)state;
    struct trace *t = begin(1);
    submit(t, DOC("\"a\":{" RUN "}," SCAN("\"over\":\"${{ steps.a.output }}\"", RUN)));
    ignore(t);
    succeed(t, "w1", "a", "{\"x\":1}");
    expect(t, "a SUCCEEDED", "scan refused INPUT_INVALID: map.over: expected a list or null, found an object",
           "task FAILED INPUT_INVALID: map.over: expected a list or null, found an object",
           "answer accepted to w1");
    trace_end(t);
}

static void rule_5_a_failed_item_is_null_and_listed(void **state)
{
    (void)state;
    struct trace *t = begin(9);
    submit(t, DOC_WITH(OUTPUTS, SCAN("\"over\":[1,2,3],\"tolerate_failures\":1", RUN)));
    ignore(t);
    items(t, "w1", "scan[1]", "!EXIT_NONZERO");
    items(t, "w1", "scan[2]", "30");
    expect(t, "scan[1] FAILED after EXIT_NONZERO", "answer accepted to w1", "scan[2] done",
           "answer accepted to w1");
    items(t, "w1", "scan[0]", "10");
    expect(t, "scan[0] done", "scan SUCCEEDED",
           "task SUCCEEDED {\"o\":[10,null,30],\"e\":[{\"index\":1,\"code\":\"EXIT_NONZERO\",\"message\":"
           "\"it broke\"}]}",
           "answer accepted to w1");
    trace_end(t);
}

static void rule_5_a_percentage_rounds_down(void **state)
{
    (void)state;
    struct trace *t = begin(9);
    submit(t, DOC(SCAN("\"over\":[1,2,3],\"tolerate_failures\":\"66%\"", RUN))); /* 1.98: one */
    ignore(t);
    items(t, "w1", "scan[0]", "!EXIT_NONZERO");
    items(t, "w1", "scan[1]", "!TIMEOUT");
    expect(t, "scan[0] FAILED after EXIT_NONZERO", "answer accepted to w1", "scan[1] FAILED after TIMEOUT",
           "stop scan on w1", "answer accepted to w1");
    cancelled(t, "w1", "scan[2]");
    expect(t, "scan[2] CANCELLED", "scan FAILED after EXIT_NONZERO",
           "task FAILED EXIT_NONZERO: 2 of 3 items failed, tolerated are 1; item 0: it broke",
           "answer accepted to w1");
    trace_end(t);
}

static void rule_5_a_map_that_failed_is_replaced_by_its_fallback(void **state)
{
    (void)state;
    struct trace *t = begin(9);
    submit(t, DOC_WITH(OUTPUTS, SCAN("\"over\":[1,2]", RUN ",\"fallback\":{" RUN "}")));
    ignore(t);
    items(t, "w1", "scan[0]", "!EXIT_NONZERO");
    items(t, "w1", "scan[1]", "2"); /* it had ended before the stop reached it */
    expect(t, "scan[0] FAILED after EXIT_NONZERO", "stop scan on w1", "answer accepted to w1", "scan[1] done",
           "scan falls back after EXIT_NONZERO", "answer accepted to w1", "assign scan#2 to w1 (fallback)");
    succeed(t, "w1", "scan", "\"plan b\"");
    expect(t, "scan SUCCEEDED", "task SUCCEEDED {\"o\":\"plan b\",\"e\":[]}", "answer accepted to w1");
    trace_end(t);
}

#define RACE_INSTEAD "\"fallback\":{\"race\":[{" RUN "},{" RUN "}]}"

static void a_race_that_need_not_stand_in_for_a_map_is_skipped(void **state)
{
    (void)state;
    struct trace *t = begin(9);
    submit(t, DOC(SCAN("\"over\":[1]", RUN "," RACE_INSTEAD)));
    ignore(t);
    items(t, "w1", "scan[0]", "1");
    expect(t, "scan[0] done", "scan SUCCEEDED", "scan.fallback.0 SKIPPED", "scan.fallback.1 SKIPPED",
           "task SUCCEEDED {}", "answer accepted to w1");
    trace_end(t);
}

static void a_race_stands_in_for_a_map_and_stops_its_losers(void **state)
{
    (void)state;
    struct trace *t = begin(9);
    submit(t, DOC(SCAN("\"over\":[1]", RUN "," RACE_INSTEAD)));
    ignore(t);
    items(t, "w1", "scan[0]", "!EXIT_NONZERO");
    expect(t, "scan[0] FAILED after EXIT_NONZERO", "scan falls back after EXIT_NONZERO", "scan waits",
           "answer accepted to w1", "assign scan.fallback.0#1 to w1", "assign scan.fallback.1#1 to w1");
    succeed(t, "w1", "scan.fallback.1", "2");
    expect(t, "scan.fallback.1 SUCCEEDED", "scan SUCCEEDED", "scan.fallback.0 is to stop",
           "stop scan.fallback.0 on w1", "answer accepted to w1");
    cancelled(t, "w1", "scan.fallback.0");
    expect(t, "scan.fallback.0 CANCELLED", "task SUCCEEDED {}", "answer accepted to w1");
    trace_end(t);
}

static void rule_5_batches_group_dispatch_and_not_failure(void **state)
{
    (void)state;
    struct trace *t = begin(9);
    submit(t, DOC(SCAN("\"over\":[1,2,3,4,5],\"batch\":2", ECHO "," RETRY)));
    expect(t, "scan waits", "scan maps 5 items", "reply ok t0-000001", "assign scan[0..1]#1 to w1",
           "assign scan[2..3]#1 to w1", "assign scan[4]#1 to w1: {\"argv\":[\"5\"]}");
    items(t, "w1", "scan[0]", "1 !EXIT_NONZERO");
    expect(t, "scan[0] done", "scan[1] retries after EXIT_NONZERO", "answer accepted to w1");
    after_ms(t, 4900);
    beat(t, "w1");
    expect_nothing(t);
    after_ms(t, 5200);
    expect(t, "assign scan[1]#2 to w1: {\"argv\":[\"2\"]}");
    items(t, "w1", "scan[2]", "3 4");
    items(t, "w1", "scan[4]", "5");
    ignore(t);
    items(t, "w1", "scan[1]", "2");
    expect(t, "scan[1] done", "scan SUCCEEDED", "task SUCCEEDED {}", "answer accepted to w1");
    trace_end(t);
}

static void rule_5_an_item_is_tried_no_more_often_than_retry_says(void **state)
{
    (void)state;
    struct trace *t = begin(9);
    submit(t, DOC(SCAN("\"over\":[1]", RUN "," RETRY)));
    ignore(t);
    for (int n = 1; n < 3; n++) {
        items(t, "w1", "scan[0]", "!TIMEOUT");
        expect(t, "scan[0] retries after TIMEOUT", "answer accepted to w1");
        if (n == 1)
            crash(t); /* what was tried is remembered */
        attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 4, .credit = 9 });
        for (int s = 0; s < 60; s += 5, beat(t, "w1"))
            after_ms(t, 5000);
        ignore(t);
    }
    items(t, "w1", "scan[0]", "!TIMEOUT");
    expect(t, "scan[0] FAILED after TIMEOUT", "scan FAILED after TIMEOUT",
           "task FAILED TIMEOUT: 1 of 1 items failed, tolerated are 0; item 0: it broke",
           "answer accepted to w1");
    trace_end(t);
}

static void rule_5_max_parallel_bounds_items_at_once(void **state)
{
    (void)state;
    struct trace *t = begin(9);
    submit(t, DOC(SCAN("\"over\":[1,2,3,4,5,6],\"max_parallel\":3,\"batch\":2", RUN)));
    expect(t, "scan waits", "scan maps 6 items", "reply ok t0-000001", "assign scan[0..1]#1 to w1",
           "assign scan[2]#1 to w1: {\"argv\":[\"true\"]}");
    items(t, "w1", "scan[2]", "1");
    expect(t, "scan[2] done", "answer accepted to w1", "assign scan[3]#1 to w1: {\"argv\":[\"true\"]}");
    items(t, "w1", "scan[0]", "1 1");
    expect(t, "scan[0] done", "scan[1] done", "answer accepted to w1", "assign scan[4..5]#1 to w1");
    items(t, "w1", "scan[3]", "1");
    items(t, "w1", "scan[4]", "1 1");
    ignore(t);
    assert_false(is_live(t, 1) && view_of(t, 1).status != COX_TASK_SUCCEEDED);
    trace_end(t);
}

static void a_map_takes_turns_with_other_steps_of_its_class(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    submit(t, DOC(SCAN("\"over\":[1,2,3]", RUN) ",\"a\":{" RUN "},\"b\":{" RUN "}"));
    expect(t, "scan waits", "scan maps 3 items", "reply ok t0-000001");
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 9, .credit = 9 });
    expect(t, "assign scan[0]#1 to w1: {\"argv\":[\"true\"]}", "assign a#1 to w1", "assign b#1 to w1",
           "assign scan[1]#1 to w1: {\"argv\":[\"true\"]}", "assign scan[2]#1 to w1: {\"argv\":[\"true\"]}");
    trace_end(t);
}

static void items_of_a_lost_worker_go_to_another_uncharged(void **state)
{
    (void)state;
    struct trace *t = begin(9);
    submit(t, DOC(SCAN("\"over\":[1,2,3],\"batch\":3", RUN)));
    expect(t, "scan waits", "scan maps 3 items", "reply ok t0-000001", "assign scan[0..2]#1 to w1");
    attach_as(t, &(struct worker_spec){ .id = "w1", .boot = "boot2", .slots = 4, .credit = 9 });
    expect(t, "scan[0] goes to another worker after WORKER_LOST",
           "scan[1] goes to another worker after WORKER_LOST",
           "scan[2] goes to another worker after WORKER_LOST",
           "close w1: a newer stream of this worker was opened", "assign scan[0..2]#2 to w1");
    items(t, "w1", "scan[0]", "1 2 3");
    ignore(t);
    trace_end(t);
}

static void a_batch_given_back_leaves_no_trace(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 1, .credit = 1 });
    submit(t, DOC(SCAN("\"over\":[1,2,3,4],\"batch\":2", RUN)));
    expect(t, "scan waits", "scan maps 4 items", "reply ok t0-000001", "assign scan[0..1]#1 to w1");
    returned(t, "w1", "scan[0]");
    expect(t, "scan[0..1] taken back from their worker");
    credit(t, "w1", 9);
    expect(t, "assign scan[0..1]#1 to w1", "assign scan[2..3]#1 to w1");
    started(t, "w1", "scan[0]");
    returned(t, "w1", "scan[0]"); /* too late */
    expect_nothing(t);
    trace_end(t);
}

static void what_a_worker_does_not_say_of_an_item_is_a_failure(void **state)
{
    (void)state;
    struct trace *t = begin(9);
    submit(t, DOC_WITH(OUTPUTS, SCAN("\"over\":[1,2,3],\"batch\":3,\"tolerate_failures\":2", RUN)));
    ignore(t);
    items(t, "w1", "scan[0]", "1 - !DENIED");
    expect(t, "scan[0] done", "scan[1] FAILED after OUTPUT_INVALID", "scan[2] FAILED after DENIED",
           "scan SUCCEEDED",
           "task SUCCEEDED {\"o\":[1,null,null],\"e\":[{\"index\":1,\"code\":\"OUTPUT_INVALID\",\"message\":"
           "\"its worker did not say how it ended\"},{\"index\":2,\"code\":\"DENIED\",\"message\":\"it "
           "broke\"}]}",
           "answer accepted to w1");
    trace_end(t);
}

static void a_batch_whose_attempt_fails_fails_in_every_item(void **state)
{
    (void)state;
    struct trace *t = begin(9);
    submit(t, DOC(SCAN("\"over\":[1,2],\"batch\":2,\"tolerate_failures\":\"100%\"", RUN)));
    ignore(t);
    fails(t, "w1", "scan[0]", COX_CODE_RESOURCE_EXHAUSTED);
    expect(t, "scan[0] FAILED after RESOURCE_EXHAUSTED", "scan[1] FAILED after RESOURCE_EXHAUSTED",
           "scan SUCCEEDED", "task SUCCEEDED {}", "answer accepted to w1");
    report_token(t, "w1", 1, 0, token_of(t, 1, "scan[0]")); /* said twice */
    expect(t, "answer stale to w1");
    trace_end(t);
}

static void an_item_without_an_input_fails_alone(void **state)
{
    (void)state;
    struct trace *t = begin(9);
    submit(t, DOC(SCAN("\"over\":[1,\"x\",3],\"batch\":3,\"tolerate_failures\":1",
                       "\"run\":{\"argv\":[\"n${{ item + 1 }}\"]}")));
    expect(t, "scan waits", "scan maps 3 items", "scan[1] FAILED after INPUT_INVALID", "reply ok t0-000001",
           "assign scan[0]#1 to w1: {\"argv\":[\"n2\"]}", "assign scan[2]#1 to w1: {\"argv\":[\"n4\"]}");
    items(t, "w1", "scan[2]", "3");
    items(t, "w1", "scan[0]", "1");
    expect(t, "scan[2] done", "answer accepted to w1", "scan[0] done", "scan SUCCEEDED", "task SUCCEEDED {}",
           "answer accepted to w1");
    trace_end(t);
}

static void a_batch_has_the_time_of_all_its_items(void **state)
{
    (void)state;
    struct trace *t = begin(9);
    submit(t, DOC(SCAN("\"over\":[1,2,3],\"batch\":3", RUN ",\"timeout\":\"10s\"")));
    started(t, "w1", "scan[0]");
    ignore(t);
    for (int s = 0; s < 35; s += 5, beat(t, "w1"))
        after_ms(t, 5000);
    expect_nothing(t); /* three times ten seconds, and ten of grace */
    after_ms(t, 5100);
    expect(
        t, "scan[0] FAILED after TIMEOUT", "scan[1] FAILED after TIMEOUT", "scan[2] FAILED after TIMEOUT",
        "scan FAILED after TIMEOUT",
        "task FAILED TIMEOUT: 3 of 3 items failed, tolerated are 0; item 0: still running after its timeout; "
        "its worker did not stop it",
        "stop scan on w1");
    trace_end(t);
}

static void a_restart_keeps_batches_with_their_workers(void **state)
{
    (void)state;
    struct trace *t = begin(9);
    submit(t, DOC_WITH(OUTPUTS, SCAN("\"over\":[1,2,3,4,5,6,7,8],\"batch\":2,\"max_parallel\":6", RUN)));
    items(t, "w1", "scan[0]", "1 2");
    checkpoint_some(t);
    items(t, "w1", "scan[2]", "3 4");
    ignore(t);
    crash(t);
    expect_nothing(t);
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 4, .credit = 9, .holds = "scan[4]" });
    expect(t, "scan[6..7] taken back from their worker", "assign scan[6..7]#1 to w1");
    items(t, "w1", "scan[4]", "5 6");
    items(t, "w1", "scan[6]", "7 8");
    expect(t, "scan[4] done", "scan[5] done", "answer accepted to w1", "scan[6] done", "scan[7] done",
           "scan SUCCEEDED", "task SUCCEEDED {\"o\":[1,2,3,4,5,6,7,8],\"e\":[]}", "answer accepted to w1");
    trace_end(t);
}

static void cancelling_ends_what_runs_and_gives_nothing_more(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 2, .credit = 2 });
    submit(t, DOC(SCAN("\"over\":[1,2,3,4]", RUN)));
    ignore(t);
    cancel(t, 1, "enough");
    expect(t, "task stops: enough", "stop scan on w1", "stop scan on w1", "reply ok t0-000001");
    crash(t);
    expect_nothing(t);
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 4, .credit = 9, .holds = "scan[0],scan[1]" });
    expect(t, "stop scan on w1", "stop scan on w1");
    cancelled(t, "w1", "scan[0]");
    items(t, "w1", "scan[1]", "2");
    expect(t, "scan[0] CANCELLED", "answer accepted to w1", "scan[1] done", "scan CANCELLED",
           "task CANCELLED CANCELLED: enough", "answer accepted to w1");
    trace_end(t);
}

/* ---- many items ---- */

/* {"files":[0,1,...]} */
static char *numbers(uint32_t n, const char *filler)
{
    struct cox_buf b = { 0 };
    cox_buf_append_str(&b, "{\"files\":[");
    for (uint32_t i = 0; i < n; i++)
        cox_buf_printf(&b, "%s\"%u%s\"", i > 0 ? ", " : "", i, filler);
    cox_buf_append_str(&b, "]}");
    return (char *)(uintptr_t)cox_buf_cstr(&b);
}

static void succeed_with(struct trace *t, const char *step, char *json)
{
    succeed(t, "w1", step, json);
    cox_free(json);
}

static void a_large_list_is_computed_elsewhere_and_fetched_after_a_restart(void **state)
{
    (void)state;
    struct trace *t = begin(9);
    submit(t,
           DOC("\"a\":{" RUN "}," SCAN("\"over\":\"${{ steps.a.output.files }}\",\"max_parallel\":1", ECHO)));
    ignore(t);
    succeed_with(t, "a", numbers(600, "xxxxxxxx"));
    expect(t, "a SUCCEEDED", "evaluate for scan", "answer accepted to w1");
    assert_string_equal(reason_of(t, 1, "scan"), "evaluating");
    evaluate(t);
    expect(t, "scan waits", "scan maps 600 items", "assign scan[0]#1 to w1: {\"argv\":[\"0xxxxxxxx\"]}");
    items(t, "w1", "scan[0]", "1");
    expect(t, "scan[0] done", "answer accepted to w1", "assign scan[1]#1 to w1: {\"argv\":[\"1xxxxxxxx\"]}");
    crash(t);
    expect(t, "fetch");
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 4, .credit = 9 });
    expect(t, "scan[1..1] taken back from their worker"); /* there is no list yet to give from */
    fetch(t);
    expect(t, "assign scan[1]#1 to w1: {\"argv\":[\"1xxxxxxxx\"]}");
    trace_end(t);
}

/* Ends batches as they come until all of the map's items but the last batch have ended. */
static void work(struct trace *t, uint32_t from, uint32_t to, uint32_t batch)
{
    for (uint32_t first = from; first < to;) {
        char name[32], ends[16 * 1024];
        size_t len = 0;
        uint32_t page_end = (first / 4096 + 1) * 4096, n = batch;
        n = first + n > to ? to - first : n;
        n = first + n > page_end ? page_end - first : n;
        for (uint32_t i = first; i < first + n; i++)
            len += (size_t)snprintf(ends + len, sizeof ends - len, i % 1000 == 7 ? "!DENIED " : "%u ", i);
        snprintf(name, sizeof name, "scan[%u]", first);
        items(t, "w1", name, ends);
        ignore(t);
        first += n;
    }
}

static void a_map_of_many_pages_is_joined_by_parts(void **state)
{
    (void)state;
    struct trace *t = begin(1000);
    submit(
        t,
        DOC_WITH(
            "\"outputs\":{\"n\":\"${{ size(steps.scan.output) }}\",\"e\":\"${{ size(steps.scan.errors) }}\","
            "\"last\":\"${{ steps.scan.output[8999] }}\",\"seventh\":\"${{ steps.scan.output[4007] }}\"}",
            "\"a\":{" RUN "}," SCAN("\"over\":\"${{ steps.a.output.files }}\",\"batch\":500,"
                                    "\"max_parallel\":2000,\"tolerate_failures\":\"1%\"",
                                    ECHO)));
    ignore(t);
    succeed_with(t, "a", numbers(9000, ""));
    evaluate(t);
    expect(t, "a SUCCEEDED", "evaluate for scan", "answer accepted to w1", "scan waits",
           "scan maps 9000 items", "assign scan[0..499]#1 to w1", "assign scan[500..999]#1 to w1",
           "assign scan[1000..1499]#1 to w1", "assign scan[1500..1999]#1 to w1");
    work(t, 0, 4096, 500);
    checkpoint_some(t);
    crash(t); /* the first page has left memory: its outputs are in the state */
    expect(t, "fetch");
    fetch(t);
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 4, .credit = 1000 });
    ignore(t);
    work(t, 4096, 8596, 500);
    checkpoint(t);
    work(t, 8596, 9000, 500);
    crash(t); /* between the request to join them and the answer */
    expect(t, "compose 3 parts");
    compose(t);
    expect(t, "scan SUCCEEDED", "evaluate for outputs");
    evaluate(t);
    expect(t, "task SUCCEEDED {\"n\":9000,\"e\":9,\"last\":8999,\"seventh\":null}");
    trace_end(t);
}

static void a_large_output_of_few_items_is_joined_by_parts(void **state)
{
    (void)state;
    struct trace *t = begin(9);
    char output[4200];
    memset(output, 'x', sizeof output);
    output[0] = output[4197] = '"';
    output[4198] = '\0';
    submit(t, DOC(SCAN("\"over\":[1,2]", RUN)));
    items(t, "w1", "scan[0]", output);
    ignore(t);
    items(t, "w1", "scan[1]", "2");
    expect(t, "scan[1] done", "compose 1 parts", "answer accepted to w1");
    cancel(t, 1, "enough");
    expect(t, "task stops: enough", "scan CANCELLED", "task CANCELLED CANCELLED: enough",
           "reply ok t0-000001");
    compose(t); /* nobody waits for it any more */
    expect_nothing(t);
    trace_end(t);
}

static void large_inputs_of_items_are_computed_a_few_at_a_time(void **state)
{
    (void)state;
    struct trace *t = begin(9);
    submit(t, DOC("\"a\":{" RUN
                  "}," SCAN("\"over\":[1,2,3],\"max_parallel\":2,\"batch\":2",
                            "\"run\":{\"argv\":[\"n${{ size(steps.a.output) }}\",\"i${{ item }}\"]}")));
    ignore(t);
    succeed_large(t, "w1", "a", 9000);
    expect(t, "a SUCCEEDED", "scan waits", "scan maps 3 items", "answer accepted to w1", "evaluate for scan",
           "evaluate for scan");
    evaluate(t);
    expect(t, "assign scan[0]#1 to w1: {\"argv\":[\"n9000\",\"i1\"]}");
    evaluate(t);
    expect(t, "assign scan[1]#1 to w1: {\"argv\":[\"n9000\",\"i2\"]}");
    items(t, "w1", "scan[0]", "1");
    expect(t, "scan[0] done", "answer accepted to w1", "evaluate for scan");
    cancel(t, 1, "enough");
    evaluate(t); /* nobody waits for it any more */
    cancelled(t, "w1", "scan[1]");
    expect(t, "task stops: enough", "stop scan on w1", "reply ok t0-000001", "scan[1] CANCELLED",
           "scan CANCELLED", "task CANCELLED CANCELLED: enough", "answer accepted to w1");
    trace_end(t);
}

/* ---- items that are frames ---- */

static void items_that_no_slot_runs_are_frames(void **state)
{
    (void)state;
    struct trace *t = begin(9);
    submit(t, DOC_WITH(OUTPUTS, SCAN("\"over\":[1,2,3],\"max_parallel\":2", "\"wait\":{\"for\":\"10s\"}")));
    expect(t, "scan waits", "scan maps 3 items", "reply ok t0-000001");
    for (int ms = 0; ms < 9000; ms += 500, beat(t, "w1"))
        after_ms(t, 500);
    assert_true(is_live(t, 2) && is_live(t, 3) && !is_live(t, 4)); /* two frames */
    crash(t);
    ignore(t);
    after_ms(t, 1100);
    assert_false(view_of(t, 2).status == COX_TASK_RUNNING || view_of(t, 3).status == COX_TASK_RUNNING);
    assert_true(is_live(t, 4));
    ignore(t);
    after_ms(t, 10100);
    expect(t, "4/scan[] SUCCEEDED", "task SUCCEEDED null", "scan[2] done", "scan SUCCEEDED",
           "task SUCCEEDED {\"o\":[null,null,null],\"e\":[]}");
    trace_end(t);
}

static void a_failed_frame_is_a_failed_item_and_stops_the_others(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    submit(t, DOC(SCAN("\"over\":[1,2,3]", "\"approval\":{\"prompt\":\"${{ item }}?\",\"expires\":\"5s\"}")));
    after_ms(t, 100);
    ignore(t);
    after_ms(t, 5000);
    ignore(t);
    assert_int_equal(view_of(t, 1).status, COX_TASK_FAILED);
    assert_int_equal(view_of(t, 1).code, COX_CODE_EXPIRED);
    trace_end(t);
}

static void a_paused_task_gives_no_items(void **state)
{
    (void)state;
    struct trace *t = trace_begin();
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 1, .credit = 1 });
    submit(t, DOC(SCAN("\"over\":[1,2,3]", RUN "," RETRY)));
    ignore(t);
    set_paused(t, 1, true);
    credit(t, "w1", 9);
    items(t, "w1", "scan[0]", "!EXIT_NONZERO");
    expect(t, "task pauses", "reply ok t0-000001", "scan[0] retries after EXIT_NONZERO",
           "answer accepted to w1");
    assert_string_equal(reason_of(t, 1, "scan"), "paused");
    for (int s = 0; s < 20; s += 5, beat(t, "w1"))
        after_ms(t, 5000);
    crash(t);
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 4, .credit = 9 });
    expect_nothing(t);
    set_paused(t, 1, false);
    expect(t, "task goes on", "reply ok t0-000001", "assign scan[0]#2 to w1: {\"argv\":[\"true\"]}",
           "assign scan[1]#1 to w1: {\"argv\":[\"true\"]}", "assign scan[2]#1 to w1: {\"argv\":[\"true\"]}");
    trace_end(t);
}

static void a_list_of_megabytes_stays_out_of_the_log(void **state)
{
    (void)state;
    struct trace *t = begin(9);
    submit(t,
           DOC("\"a\":{" RUN "}," SCAN("\"over\":\"${{ steps.a.output.files }}\",\"max_parallel\":1", ECHO)));
    succeed_with(t, "a", numbers(130000, ""));
    ignore(t);
    size_t before = log_len(t);
    evaluate(t);
    expect(t, "scan waits", "scan maps 130000 items", "assign scan[0]#1 to w1: {\"argv\":[\"0\"]}");
    assert_true(log_len(t) - before < 1000);
    crash(t);
    expect(t, "fetch");
    fetch(t);
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 4, .credit = 9, .holds = "scan[0]" });
    items(t, "w1", "scan[0]", "0");
    expect(t, "scan[0] done", "answer accepted to w1", "assign scan[1]#1 to w1: {\"argv\":[\"1\"]}");
    trace_end(t);
}

static void a_list_that_was_lost_fails_the_map(void **state)
{
    (void)state;
    struct trace *t = begin(9);
    submit(t,
           DOC("\"a\":{" RUN "}," SCAN("\"over\":\"${{ steps.a.output.files }}\",\"max_parallel\":1", ECHO)));
    succeed_with(t, "a", numbers(600, "xxxxxxxx"));
    evaluate(t);
    crash(t);
    ignore(t);
    fetch_nothing(t);
    expect_nothing(t); /* an item is still with its worker */
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 4, .credit = 9 });
    expect(t, "scan[0] CANCELLED", "scan FAILED after INTERNAL",
           "task FAILED INTERNAL: the map's list cannot be read any more");
    trace_end(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rule_5_a_map_yields_an_ordered_list),
        cmocka_unit_test(rule_5_an_empty_list_gives_an_empty_list),
        cmocka_unit_test(rule_5_null_is_the_empty_list),
        cmocka_unit_test(rule_5_a_list_that_is_none_is_refused),
        cmocka_unit_test(rule_5_a_failed_item_is_null_and_listed),
        cmocka_unit_test(rule_5_a_percentage_rounds_down),
        cmocka_unit_test(rule_5_a_map_that_failed_is_replaced_by_its_fallback),
        cmocka_unit_test(a_race_that_need_not_stand_in_for_a_map_is_skipped),
        cmocka_unit_test(a_race_stands_in_for_a_map_and_stops_its_losers),
        cmocka_unit_test(rule_5_batches_group_dispatch_and_not_failure),
        cmocka_unit_test(rule_5_an_item_is_tried_no_more_often_than_retry_says),
        cmocka_unit_test(rule_5_max_parallel_bounds_items_at_once),
        cmocka_unit_test(a_map_takes_turns_with_other_steps_of_its_class),
        cmocka_unit_test(items_of_a_lost_worker_go_to_another_uncharged),
        cmocka_unit_test(a_batch_given_back_leaves_no_trace),
        cmocka_unit_test(what_a_worker_does_not_say_of_an_item_is_a_failure),
        cmocka_unit_test(a_batch_whose_attempt_fails_fails_in_every_item),
        cmocka_unit_test(an_item_without_an_input_fails_alone),
        cmocka_unit_test(a_batch_has_the_time_of_all_its_items),
        cmocka_unit_test(a_restart_keeps_batches_with_their_workers),
        cmocka_unit_test(cancelling_ends_what_runs_and_gives_nothing_more),
        cmocka_unit_test(a_large_list_is_computed_elsewhere_and_fetched_after_a_restart),
        cmocka_unit_test(a_map_of_many_pages_is_joined_by_parts),
        cmocka_unit_test(a_large_output_of_few_items_is_joined_by_parts),
        cmocka_unit_test(large_inputs_of_items_are_computed_a_few_at_a_time),
        cmocka_unit_test(items_that_no_slot_runs_are_frames),
        cmocka_unit_test(a_failed_frame_is_a_failed_item_and_stops_the_others),
        cmocka_unit_test(a_paused_task_gives_no_items),
        cmocka_unit_test(a_list_of_megabytes_stays_out_of_the_log),
        cmocka_unit_test(a_list_that_was_lost_fails_the_map),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
