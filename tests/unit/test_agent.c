/* The worker's state machine: timelines that read as stories. */
#include "agent_fixture.h"

static const struct cox_agent_config two_slots = {
    .slots = 2,
    .n_addresses = 1,
    .drain_timeout_ms = 30000,
    .orphan_timeout_ms = 600000,
    .seed = 1,
};

/* A worker with two slots that has just been welcomed and granted credit. */
static void begin_attached(struct worker *w)
{
    begin(w, &two_slots);
    attach(w, 7);
    expect(w, "dial 0; HELLO shard 0 holds; CREDIT 2");
}

/* ---------------------------------------------------------------- stories */

static void test_an_attempt_runs_and_its_result_is_kept_until_answered(void **state)
{
    struct worker w;
    struct cox_agent_stats stats;

    (void)state;
    begin_attached(&w);
    assign(&w, 1);
    expect(&w, "start 1 in 0");
    turn(&w);
    expect(&w, "");
    after(&w, 5);
    ended(&w, 0, COX_ATTEMPT_SUCCEEDED);
    turn(&w);
    expect(&w, "RESULT 1 SUCCEEDED; CREDIT 11"); /* 5 ms a run: 20 ms of work for two slots is 8 more */
    after(&w, 100);
    expect(&w, "");
    cox_agent_stats(w.agent, &stats);
    assert_int_equal(stats.n_kept, 1);
    about(&w, COX_AGENT_ANSWER, 1);
    cox_agent_stats(w.agent, &stats);
    assert_int_equal(stats.n_kept, 0);
    assert_int_equal(stats.kept_len, 0);
    end(&w);
}

static void test_only_attempts_that_last_are_reported_as_started(void **state)
{
    struct worker w;

    (void)state;
    begin_attached(&w);
    assign(&w, 1);
    assign(&w, 2);
    after(&w, COX_START_REPORT_MS - 1);
    ended(&w, 0, COX_ATTEMPT_SUCCEEDED);
    expect(&w, "start 1 in 0; start 2 in 1");
    after(&w, 1);
    expect(&w, "STARTED 2; RESULT 1 SUCCEEDED; CREDIT 5");
    after(&w, 1000);
    expect(&w, "");
    end(&w);
}

static void test_silence_is_broken_by_beats(void **state)
{
    struct worker w;

    (void)state;
    begin_attached(&w);
    after(&w, COX_BEAT_MS - 1);
    expect(&w, "");
    after(&w, 1);
    expect(&w, "BEAT");
    after(&w, COX_BEAT_MS - 1);
    assign(&w, 1);
    ended(&w, 0, COX_ATTEMPT_SUCCEEDED);
    after(&w, 1);
    expect(&w, "start 1 in 0; RESULT 1 SUCCEEDED; CREDIT 259");
    after(&w, COX_BEAT_MS - 1);
    expect(&w, "");
    end(&w);
}

static void test_results_outlive_streams(void **state)
{
    struct worker w;

    (void)state;
    begin_attached(&w);
    assign(&w, 1);
    assign(&w, 2);
    after(&w, 30);
    ended(&w, 0, COX_ATTEMPT_FAILED);
    turn(&w);
    expect(&w, "start 1 in 0; start 2 in 1; STARTED 1; STARTED 2; RESULT 1 FAILED EXIT_NONZERO; CREDIT 4");
    event(&w, COX_AGENT_STREAM_CLOSED);
    after(&w, 100);
    expect(&w, "dial 0");
    event(&w, COX_AGENT_STREAM_OPEN);
    turn(&w);
    expect(&w, "HELLO shard 7 holds 1 2");
    welcome(&w, 7);
    turn(&w);
    expect(&w, "STARTED 2; RESULT 1 FAILED EXIT_NONZERO; CREDIT 2");
    about(&w, COX_AGENT_ANSWER, 1);
    event(&w, COX_AGENT_STREAM_CLOSED);
    after(&w, 100);
    event(&w, COX_AGENT_STREAM_OPEN);
    turn(&w);
    expect(&w, "dial 0; HELLO shard 7 holds 2");
    end(&w);
}

static void test_another_shards_worker_drops_what_it_holds(void **state)
{
    struct worker w;
    struct cox_agent_stats stats;

    (void)state;
    begin_attached(&w);
    assign(&w, 1);
    assign(&w, 2);
    ended(&w, 0, COX_ATTEMPT_SUCCEEDED);
    event(&w, COX_AGENT_STREAM_CLOSED);
    after(&w, 100);
    event(&w, COX_AGENT_STREAM_OPEN);
    turn(&w);
    expect(&w, "start 1 in 0; start 2 in 1; dial 0; HELLO shard 7 holds 1 2");
    welcome(&w, 8);
    expect(&w, "kill 2 in 1");
    turn(&w);
    cox_agent_stats(w.agent, &stats);
    assert_int_equal(stats.n_dropped, 2);
    expect(&w, "CREDIT 257"); /* a slot is still taken by the one that dies */
    ended(&w, 1, COX_ATTEMPT_FAILED);
    turn(&w);
    cox_agent_stats(w.agent, &stats);
    assert_int_equal(stats.n_kept, 0);
    end(&w);
}

static void test_a_time_limit_kills(void **state)
{
    struct worker w;

    (void)state;
    begin_attached(&w);
    assign_for(&w, 1, 1500, 0);
    after(&w, 1499);
    expect(&w, "start 1 in 0; STARTED 1");
    after(&w, 1);
    expect(&w, "kill 1 in 0");
    after(&w, 2000);
    ended(&w, 0, COX_ATTEMPT_SUCCEEDED); /* whatever it says */
    w.actions.len = 0;
    cox_agent_step(w.agent, &(struct cox_agent_input){ .now_mono_ns = w.now_ns, .u.turn.room_len = SIZE_MAX },
                   &w.actions);
    assert_int_equal(w.actions.items[0].kind, COX_AGENT_SEND_RESULT);
    assert_int_equal(w.actions.items[0].u.result->status, COX_ATTEMPT_TIMED_OUT);
    assert_true(cox_slice_is(w.actions.items[0].u.result->message, "stopped after its time limit of 1.5s"));
    end(&w);
}

static void test_cancel_of_the_running_the_queued_and_the_unknown(void **state)
{
    struct worker w;

    (void)state;
    begin(&w, &(struct cox_agent_config){ .slots = 1, .n_addresses = 1 });
    attach(&w, 7);
    assign(&w, 1);
    after(&w, 10);
    ended(&w, 0, COX_ATTEMPT_SUCCEEDED);
    turn(&w);
    expect(&w, "dial 0; HELLO shard 0 holds; CREDIT 1; start 1 in 0; RESULT 1 SUCCEEDED; CREDIT 4");
    assign(&w, 2);
    assign(&w, 3);
    expect(&w, "start 2 in 0");
    about(&w, COX_AGENT_CANCEL, 2);
    expect(&w, "kill 2 in 0");
    about(&w, COX_AGENT_CANCEL, 2);
    about(&w, COX_AGENT_CANCEL, 3);
    about(&w, COX_AGENT_CANCEL, 99);
    turn(&w);
    expect(&w, "RESULT 3 CANCELLED CANCELLED; RESULT 99 CANCELLED CANCELLED; CREDIT 5");
    ended(&w, 0, COX_ATTEMPT_SUCCEEDED);
    turn(&w);
    expect(&w, "RESULT 2 CANCELLED CANCELLED; CREDIT 6");
    end(&w);
}

static void test_a_repeated_assignment_changes_nothing(void **state)
{
    struct worker w;
    struct cox_agent_stats stats;

    (void)state;
    begin_attached(&w);
    assign(&w, 1);
    assign(&w, 1);
    turn(&w);
    cox_agent_stats(w.agent, &stats);
    assert_int_equal(stats.n_started, 1);
    assert_int_equal(stats.n_queued + stats.n_running, 1);
    end(&w);
}

static void test_prefetched_attempts_do_not_wait_behind_long_ones(void **state)
{
    struct worker w;

    (void)state;
    begin_attached(&w);
    assign(&w, 1);
    after(&w, 10);
    ended(&w, 0, COX_ATTEMPT_SUCCEEDED);
    turn(&w);
    expect(&w, "start 1 in 0; RESULT 1 SUCCEEDED; CREDIT 7");
    for (unsigned n = 2; n <= 5; n++)
        assign(&w, n);
    expect(&w, "start 2 in 0; start 3 in 1");
    after(&w, COX_PREFETCH_HOLD_MS - 1);
    expect(&w, "STARTED 2; STARTED 3");
    after(&w, 1);
    expect(&w, "RETURNED 4; RETURNED 5"); /* and no credit: the slots are taken for who knows how long */
    after(&w, 1000);
    ended(&w, 0, COX_ATTEMPT_SUCCEEDED);
    turn(&w);
    expect(&w, "RESULT 2 SUCCEEDED"); /* 2 of 7 are still outstanding */
    end(&w);
}

static void test_resources_are_not_overdrawn(void **state)
{
    struct worker w;

    (void)state;
    begin(&w, &(struct cox_agent_config){ .slots = 3, .n_addresses = 1, .resources = { .cpu_milli = 4000 } });
    attach(&w, 7);
    assign_for(&w, 1, 0, 3000);
    assign_for(&w, 2, 0, 2000);
    assign_for(&w, 3, 0, 1000);
    expect(&w, "dial 0; HELLO shard 0 holds; CREDIT 3; start 1 in 0");
    ended(&w, 0, COX_ATTEMPT_SUCCEEDED);
    expect(&w, "start 2 in 0; start 3 in 1");
    end(&w);
}

static void test_sigterm_returns_the_queue_and_waits_for_the_rest(void **state)
{
    struct worker w;

    (void)state;
    begin(&w, &(struct cox_agent_config){ .slots = 1, .n_addresses = 1, .drain_timeout_ms = 30000 });
    attach(&w, 7);
    assign(&w, 1);
    ended(&w, 0, COX_ATTEMPT_SUCCEEDED);
    turn(&w);
    about(&w, COX_AGENT_ANSWER, 1);
    assign(&w, 2);
    assign(&w, 3);
    cox_buf_clear(&w.said);
    event(&w, COX_AGENT_SHUTDOWN);
    turn(&w);
    expect(&w, "DRAINING; RETURNED 3");
    assign(&w, 4); /* was under way */
    turn(&w);
    expect(&w, "RETURNED 4");
    after(&w, 1000);
    ended(&w, 0, COX_ATTEMPT_SUCCEEDED);
    turn(&w);
    expect(&w, "STARTED 2; RESULT 2 SUCCEEDED");
    about(&w, COX_AGENT_ANSWER, 2);
    turn(&w);
    expect(&w, "exit: asked to stop");
    assert_true(cox_agent_wake_ns(w.agent) == INT64_MAX);
    end(&w);
}

static void test_a_drain_that_takes_too_long_preempts(void **state)
{
    struct worker w;

    (void)state;
    begin_attached(&w);
    assign(&w, 1);
    event(&w, COX_AGENT_SHUTDOWN);
    turn(&w);
    expect(&w, "start 1 in 0; DRAINING");
    after(&w, 29999);
    cox_buf_clear(&w.said);
    after(&w, 1);
    expect(&w, "kill 1 in 0");
    ended(&w, 0, COX_ATTEMPT_FAILED);
    turn(&w);
    expect(&w, "RESULT 1 FAILED PREEMPTED");
    after(&w, COX_AGENT_ANSWER_LIMIT_MS); /* nobody answers */
    expect(&w, "BEAT; BEAT; BEAT; BEAT; exit: waited long enough for answers");
    end(&w);
}

static void test_a_second_sigterm_does_not_wait(void **state)
{
    struct worker w;

    (void)state;
    begin_attached(&w);
    assign(&w, 1);
    event(&w, COX_AGENT_SHUTDOWN);
    turn(&w);
    event(&w, COX_AGENT_SHUTDOWN);
    turn(&w);
    expect(&w, "start 1 in 0; DRAINING; kill 1 in 0");
    end(&w);
}

static void test_a_drain_by_the_orchestrator_has_no_deadline(void **state)
{
    struct worker w;

    (void)state;
    begin_attached(&w);
    assign(&w, 1);
    event(&w, COX_AGENT_DRAIN);
    turn(&w);
    expect(&w, "start 1 in 0; DRAINING");
    after(&w, 3600 * 1000);
    assert_null(strstr(cox_buf_cstr(&w.said), "kill"));
    ended(&w, 0, COX_ATTEMPT_SUCCEEDED);
    turn(&w);
    cox_buf_clear(&w.said);
    about(&w, COX_AGENT_ANSWER, 1);
    turn(&w);
    expect(&w, "exit: drained by the orchestrator");
    end(&w);
}

static void test_idle_workers_leave(void **state)
{
    struct worker w;

    (void)state;
    begin(&w, &(struct cox_agent_config){ .slots = 1, .n_addresses = 1, .idle_exit_ms = 2000 });
    attach(&w, 7);
    assign(&w, 1);
    ended(&w, 0, COX_ATTEMPT_SUCCEEDED);
    turn(&w);
    cox_buf_clear(&w.said);
    after(&w, 1000);
    about(&w, COX_AGENT_ANSWER, 1);
    turn(&w);
    after(&w, 1999);
    expect(&w, "BEAT");
    after(&w, 1);
    expect(&w, "DRAINING");
    after(&w, COX_AGENT_LINGER_MS);
    expect(&w, "exit: idle for long enough");
    end(&w);
}

static void test_orphans_run_on_and_then_stop(void **state)
{
    struct worker w;
    struct cox_agent_config config = two_slots;

    (void)state;
    config.orphan_timeout_ms = 60000;
    begin(&w, &config);
    attach(&w, 7);
    assign(&w, 1);
    assign(&w, 2);
    ended(&w, 0, COX_ATTEMPT_SUCCEEDED);
    turn(&w);
    event(&w, COX_AGENT_STREAM_CLOSED);
    cox_buf_clear(&w.said);
    for (int i = 0; i < 59; i++) {
        after(&w, 1000);
        event(&w, COX_AGENT_STREAM_CLOSED); /* nobody is there */
    }
    assert_null(strstr(cox_buf_cstr(&w.said), "kill"));
    after(&w, 1000);
    assert_non_null(strstr(cox_buf_cstr(&w.said), "kill 2 in 1"));
    ended(&w, 1, COX_ATTEMPT_FAILED);
    cox_buf_clear(&w.said);
    event(&w, COX_AGENT_STREAM_CLOSED);
    after(&w, 5000);
    event(&w, COX_AGENT_STREAM_OPEN);
    turn(&w);
    expect(&w, "dial 0; HELLO shard 7 holds");
    end(&w);
}

static void test_dialling_backs_off_and_goes_round(void **state)
{
    struct worker w;
    struct cox_agent_config config = two_slots;
    int n_dials = 0;

    (void)state;
    config.n_addresses = 3;
    begin(&w, &config);
    turn(&w);
    expect(&w, "dial 0");
    event(&w, COX_AGENT_STREAM_CLOSED);
    after(&w, 100);
    expect(&w, "dial 1");
    event(&w, COX_AGENT_STREAM_CLOSED);
    after(&w, 200);
    expect(&w, "dial 2");
    for (int ms = 0; ms < 60000; ms += 100) {
        event(&w, COX_AGENT_STREAM_CLOSED);
        after(&w, 100);
        n_dials += w.said.len > 0;
        cox_buf_clear(&w.said);
    }
    assert_in_range(n_dials, 12, 32); /* 5 s at most, half of it at least, and the climb */
    end(&w);
}

static void test_reconnect_dials_at_once(void **state)
{
    struct worker w;

    (void)state;
    begin_attached(&w);
    assign(&w, 1);
    event(&w, COX_AGENT_RECONNECT);
    assign(&w, 2); /* too late: Hello will not list it */
    turn(&w);
    expect(&w, "start 1 in 0; hang up: to dial again at once");
    event(&w, COX_AGENT_STREAM_CLOSED);
    turn(&w);
    event(&w, COX_AGENT_STREAM_OPEN);
    turn(&w);
    expect(&w, "dial 0; HELLO shard 7 holds 1");
    end(&w);
}

static void test_a_superseded_worker_does_not_fight(void **state)
{
    struct worker w;

    (void)state;
    begin_attached(&w);
    step(&w, &(struct cox_agent_input){ .kind = COX_AGENT_STREAM_CLOSED, .u.closed.superseded = true });
    after(&w, COX_AGENT_DIAL_BACKOFF_MAX_MS / 2 - 1);
    expect(&w, "");
    after(&w, COX_AGENT_DIAL_BACKOFF_MAX_MS / 2 + 1);
    expect(&w, "dial 0");
    end(&w);
}

static void test_an_orchestrator_that_breaks_the_protocol_is_left(void **state)
{
    struct worker w;

    (void)state;
    begin_attached(&w);
    assign(&w, 1);
    assign(&w, 2);
    assign(&w, 3);
    turn(&w);
    expect(&w, "start 1 in 0; start 2 in 1; "
               "hang up: the orchestrator broke the protocol: it assigned more than credit allows");
    end(&w);

    begin(&w, &two_slots);
    turn(&w);
    event(&w, COX_AGENT_STREAM_OPEN);
    turn(&w);
    assign(&w, 1);
    turn(&w);
    expect(&w, "dial 0; HELLO shard 0 holds; "
               "hang up: the orchestrator broke the protocol: no Welcome in its first message");
    end(&w);

    begin(&w, &two_slots);
    turn(&w);
    event(&w, COX_AGENT_STREAM_OPEN);
    turn(&w);
    after(&w, COX_AGENT_WELCOME_LIMIT_MS);
    expect(&w, "dial 0; HELLO shard 0 holds; hang up: no Welcome came in time");
    end(&w);
}

static void test_unanswered_results_stop_credit(void **state)
{
    struct worker w;
    struct cox_agent_config config = two_slots;
    struct cox_agent_stats stats;
    unsigned n = 0;

    (void)state;
    config.kept_len_max = 4096;
    begin(&w, &config);
    attach(&w, 7);
    for (int i = 0; i < 1000; i++) {
        cox_agent_stats(w.agent, &stats);
        if (stats.assigned == stats.granted)
            break;
        assign(&w, ++n);
        ended(&w, 0, COX_ATTEMPT_SUCCEEDED);
        turn(&w);
    }
    assert_true(stats.assigned == stats.granted);
    assert_true(stats.kept_len >= 4096);
    assert_int_equal(stats.n_kept, n);
    for (unsigned i = 1; i <= n; i++)
        about(&w, COX_AGENT_ANSWER, i);
    turn(&w);
    cox_agent_stats(w.agent, &stats);
    assert_true(stats.granted > stats.assigned);
    end(&w);
}

static const struct cox_agent_result *result_of_turn(struct worker *w)
{
    const struct cox_agent_input turn = { .now_mono_ns = w->now_ns,
                                          .kind = COX_AGENT_TURN,
                                          .u.turn.room_len = SIZE_MAX };
    const struct cox_agent_result *told = NULL;

    cox_agent_step(w->agent, &turn, &w->actions);
    for (size_t i = 0; i < w->actions.len; i++)
        if (w->actions.items[i].kind == COX_AGENT_SEND_RESULT)
            told = w->actions.items[i].u.result;
    assert_non_null(told);
    return told;
}

/* What passes through the agent comes out as it went in, from memory of its own. */
static void test_a_batch_keeps_what_it_is_and_did(void **state)
{
    static const struct cox_agent_item items[] = { { 7, { (const uint8_t *)"[1]", 3 } },
                                                   { 9, { (const uint8_t *)"[2]", 3 } },
                                                   { 10, { (const uint8_t *)"[3]", 3 } } };
    struct cox_agent_item_result done[] = {
        { .index = 7, .status = COX_ATTEMPT_SUCCEEDED, .output = cox_slice_str("out") },
        { .index = 9, .status = COX_ATTEMPT_FAILED, .code = COX_CODE_DENIED, .message = cox_slice_str("no") },
    };
    struct cox_hash blob = { { 1, 2, 3 } };
    const struct cox_agent_assign *kept;
    const struct cox_agent_result *told;
    struct worker w;

    (void)state;
    begin(&w, &(struct cox_agent_config){ .slots = 1, .n_addresses = 1 });
    attach(&w, 7);
    cox_buf_clear(&w.said);
    struct cox_agent_input in = { .now_mono_ns = w.now_ns,
                                  .kind = COX_AGENT_ASSIGN,
                                  .u.assign = { .ref = ref(1),
                                                .timeout_ms = 100,
                                                .items = items,
                                                .n_items = 3,
                                                .version = cox_slice_str("1.2"),
                                                .workspace = cox_slice_str("w"),
                                                .home = 3,
                                                .snapshot = cox_slice_str("sha256:s"),
                                                .tree = cox_slice_str("sha256:t"),
                                                .bundle = cox_slice_str("sha256:b"),
                                                .continuation_json = cox_slice_str("{}"),
                                                .artifacts_json = cox_slice_str("[]") } };
    cox_agent_step(w.agent, &in, &w.actions);
    kept = w.actions.items[w.actions.len - 1].u.assign;
    assert_true(kept->n_items == 3 && kept->items != items && kept->items[2].index == 10);
    assert_true(cox_slice_is(kept->items[1].spec_json, "[2]") && cox_slice_is(kept->version, "1.2"));
    assert_true(kept->home == 3 && cox_slice_is(kept->snapshot, "sha256:s") &&
                cox_slice_is(kept->tree, "sha256:t"));
    assert_true(cox_slice_is(kept->workspace, "w") && cox_slice_is(kept->bundle, "sha256:b"));
    assert_true(cox_slice_is(kept->continuation_json, "{}") && cox_slice_is(kept->artifacts_json, "[]"));
    w.actions.len = 0;
    after(&w, 299); /* the time limit is an item's; the slots mind that */
    expect(&w, "STARTED 1");
    after(&w, 1);
    expect(&w, "kill 1 in 0");
    in = (struct cox_agent_input){
        .now_mono_ns = w.now_ns,
        .kind = COX_AGENT_SLOT_ENDED,
        .u.ended = { 0,
                     { .status = COX_ATTEMPT_SUCCEEDED,
                       .continuation_json = cox_slice_str("{}"),
                       .artifacts_json = cox_slice_str("{}"),
                       .items = done,
                       .n_items = 2,
                       .blobs = &blob,
                       .n_blobs = 1 } },
    };
    cox_agent_step(w.agent, &in, &w.actions);
    memset(done, 0, sizeof(done));
    memset(&blob, 0, sizeof(blob));
    w.actions.len = 0;
    told = result_of_turn(&w);
    assert_int_equal(told->status, COX_ATTEMPT_TIMED_OUT);
    assert_true(told->n_items == 2 && cox_slice_is(told->items[0].output, "out"));
    assert_true(told->items[1].code == COX_CODE_DENIED && cox_slice_is(told->items[1].message, "no"));
    assert_true(told->n_blobs == 1 && told->blobs->b[2] == 3);
    assert_int_equal(told->continuation_json.len + told->artifacts_json.len, 0); /* they go with success */
    w.actions.len = 0;
    end(&w);
}

static void test_results_leave_as_room_allows(void **state)
{
    struct worker w;

    (void)state;
    begin_attached(&w);
    assign(&w, 1);
    assign(&w, 2);
    ended(&w, 0, COX_ATTEMPT_SUCCEEDED);
    ended(&w, 1, COX_ATTEMPT_SUCCEEDED);
    cox_buf_clear(&w.said);
    step(&w, &(struct cox_agent_input){ .kind = COX_AGENT_TURN, .u.turn.room_len = 0 });
    expect(&w, "CREDIT 260");
    step(&w, &(struct cox_agent_input){ .kind = COX_AGENT_TURN, .u.turn.room_len = 1 });
    expect(&w, "RESULT 1 SUCCEEDED");
    turn(&w);
    expect(&w, "RESULT 2 SUCCEEDED");
    end(&w);
}

static void want_log(struct worker *w, unsigned n, bool wanted)
{
    step(w, &(struct cox_agent_input){ .kind = COX_AGENT_LOG_WANTED, .u.log = { ref(n), wanted } });
}

static void test_logs_of_running_attempts_are_switched_on_and_off(void **state)
{
    struct worker w;

    (void)state;
    begin_attached(&w);
    assign(&w, 1);
    want_log(&w, 1, true);
    want_log(&w, 1, true);
    expect(&w, "start 1 in 0; log of 1 on");
    want_log(&w, 9, true);
    turn(&w);
    expect(&w, "LOG_END 9");
    assign(&w, 2);
    want_log(&w, 2, true);
    ended(&w, 1, COX_ATTEMPT_SUCCEEDED);
    turn(&w);
    expect(&w, "start 2 in 1; log of 2 on; RESULT 2 SUCCEEDED; LOG_END 2; CREDIT 259");
    want_log(&w, 1, false);
    want_log(&w, 1, true);
    event(&w, COX_AGENT_STREAM_CLOSED);
    expect(&w, "log of 1 off; log of 1 on; log of 1 off");
    end(&w);
}

static void test_a_late_turn_looks_before_it_fires(void **state)
{
    struct worker w;

    (void)state;
    begin_attached(&w);
    assign_for(&w, 1, 500, 0);
    turn(&w);
    w.now_ns += 60000 * MS; /* the machine slept */
    turn(&w);
    expect(&w, "start 1 in 0; STARTED 1");
    assert_true(cox_agent_wake_ns(w.agent) <= w.now_ns);
    ended(&w, 0, COX_ATTEMPT_SUCCEEDED); /* it had ended in time: that was waiting to be read */
    turn(&w);
    cox_buf_clear(&w.said);

    assign_for(&w, 2, 500, 0);
    turn(&w);
    w.now_ns += 60000 * MS;
    turn(&w);
    cox_buf_clear(&w.said);
    turn(&w); /* nothing was waiting: now it fires */
    expect(&w, "kill 2 in 0");
    end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_attempt_runs_and_its_result_is_kept_until_answered),
        cmocka_unit_test(test_only_attempts_that_last_are_reported_as_started),
        cmocka_unit_test(test_silence_is_broken_by_beats),
        cmocka_unit_test(test_results_outlive_streams),
        cmocka_unit_test(test_another_shards_worker_drops_what_it_holds),
        cmocka_unit_test(test_a_time_limit_kills),
        cmocka_unit_test(test_cancel_of_the_running_the_queued_and_the_unknown),
        cmocka_unit_test(test_a_repeated_assignment_changes_nothing),
        cmocka_unit_test(test_prefetched_attempts_do_not_wait_behind_long_ones),
        cmocka_unit_test(test_resources_are_not_overdrawn),
        cmocka_unit_test(test_sigterm_returns_the_queue_and_waits_for_the_rest),
        cmocka_unit_test(test_a_drain_that_takes_too_long_preempts),
        cmocka_unit_test(test_a_second_sigterm_does_not_wait),
        cmocka_unit_test(test_a_drain_by_the_orchestrator_has_no_deadline),
        cmocka_unit_test(test_idle_workers_leave),
        cmocka_unit_test(test_orphans_run_on_and_then_stop),
        cmocka_unit_test(test_dialling_backs_off_and_goes_round),
        cmocka_unit_test(test_reconnect_dials_at_once),
        cmocka_unit_test(test_a_superseded_worker_does_not_fight),
        cmocka_unit_test(test_an_orchestrator_that_breaks_the_protocol_is_left),
        cmocka_unit_test(test_unanswered_results_stop_credit),
        cmocka_unit_test(test_results_leave_as_room_allows),
        cmocka_unit_test(test_a_batch_keeps_what_it_is_and_did),
        cmocka_unit_test(test_logs_of_running_attempts_are_switched_on_and_off),
        cmocka_unit_test(test_a_late_turn_looks_before_it_fires),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
