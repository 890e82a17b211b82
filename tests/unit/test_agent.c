/* The worker's state machine: timelines that read as stories, then random ones that must keep the books. */
#include "check.h"

#include "cox/agent.h"
#include "cox/base/rng.h"

#include <stdlib.h>
#include <string.h>

#define MS INT64_C(1000000)

/* ---------------------------------------------------------------- a worker in a test tube */

struct worker {
    struct cox_agent *agent;
    struct cox_agent_actions actions;
    struct cox_buf said; /* what it did since the last expect() */
    int64_t now_ns;
};

static void describe(struct cox_buf *b, const struct cox_agent_action *act)
{
    unsigned n = (unsigned)act->ref.token.counter;

    switch (act->kind) {
    case COX_AGENT_START:
        cox_buf_printf(b, "start %u in %u; ", n, act->slot);
        break;
    case COX_AGENT_KILL:
        cox_buf_printf(b, "kill %u in %u; ", n, act->slot);
        break;
    case COX_AGENT_LOG:
        cox_buf_printf(b, "log of %u %s; ", n, act->wanted ? "on" : "off");
        break;
    case COX_AGENT_SEND_HELLO:
        cox_buf_printf(b, "HELLO shard %u holds", (unsigned)act->u.hello.shard_uid);
        for (size_t i = 0; i < act->u.hello.n_holds; i++)
            cox_buf_printf(b, " %u", (unsigned)act->u.hello.holds[i].token.counter);
        cox_buf_append_str(b, "; ");
        break;
    case COX_AGENT_SEND_STARTED:
        cox_buf_printf(b, "STARTED %u; ", n);
        break;
    case COX_AGENT_SEND_RESULT:
        cox_buf_printf(b, "RESULT %u %s", n, cox_attempt_status_text(act->u.result->status));
        if (act->u.result->code != COX_CODE_NONE)
            cox_buf_printf(b, " %s", cox_code_text(act->u.result->code));
        cox_buf_append_str(b, "; ");
        break;
    case COX_AGENT_SEND_RETURNED:
        cox_buf_printf(b, "RETURNED %u; ", n);
        break;
    case COX_AGENT_SEND_CREDIT:
        cox_buf_printf(b, "CREDIT %u; ", (unsigned)act->u.granted);
        break;
    case COX_AGENT_SEND_LOG_END:
        cox_buf_printf(b, "LOG_END %u; ", n);
        break;
    case COX_AGENT_SEND_DRAINING:
        cox_buf_append_str(b, "DRAINING; ");
        break;
    case COX_AGENT_SEND_BEAT:
        cox_buf_append_str(b, "BEAT; ");
        break;
    case COX_AGENT_DIAL:
        cox_buf_printf(b, "dial %u; ", act->address);
        break;
    case COX_AGENT_HANG_UP:
        cox_buf_printf(b, "hang up: %s; ", act->u.why);
        break;
    case COX_AGENT_EXIT:
        cox_buf_printf(b, "exit: %s; ", act->u.why);
        break;
    }
}

static void step(struct worker *w, struct cox_agent_input *in)
{
    in->now_mono_ns = w->now_ns;
    w->actions.len = 0;
    cox_agent_step(w->agent, in, &w->actions);
    for (size_t i = 0; i < w->actions.len; i++)
        describe(&w->said, &w->actions.items[i]);
    cox_agent_check(w->agent);
}

static void expect_at(struct worker *w, const char *expected, int line)
{
    size_t len = w->said.len;

    if (len >= 2) /* the last "; " */
        w->said.len -= 2;
    if (strcmp(cox_buf_cstr(&w->said), expected) != 0)
        fail_msg("line %d:\n  expected \"%s\"\n  but      \"%s\"", line, expected, cox_buf_cstr(&w->said));
    cox_buf_clear(&w->said);
}
#define expect(w, expected) expect_at(w, expected, __LINE__)

static struct cox_ref ref(unsigned n)
{
    return (struct cox_ref){ .task = 1000 + n, .step = n, .token = { .epoch = 1, .counter = n } };
}

static void begin(struct worker *w, const struct cox_agent_config *config)
{
    *w = (struct worker){ .agent = cox_agent_create(config), .now_ns = 5000 * MS };
}

static void end(struct worker *w)
{
    cox_agent_destroy(w->agent);
    cox_agent_actions_fini(&w->actions);
    cox_buf_fini(&w->said);
}

static void event(struct worker *w, enum cox_agent_input_kind kind)
{
    step(w, &(struct cox_agent_input){ .kind = kind });
}

static void turn(struct worker *w)
{
    step(w, &(struct cox_agent_input){ .kind = COX_AGENT_TURN, .u.turn.room_len = SIZE_MAX });
}

/* Lets time pass as a driver would: with a turn whenever the agent asked for one. */
static void after(struct worker *w, int64_t ms)
{
    int64_t end_ns = w->now_ns + ms * MS;

    while (cox_agent_wake_ns(w->agent) < end_ns) {
        int64_t wake_ns = cox_agent_wake_ns(w->agent);

        w->now_ns = wake_ns > w->now_ns ? wake_ns : w->now_ns + MS;
        turn(w);
    }
    w->now_ns = end_ns;
    turn(w);
}

static void welcome(struct worker *w, uint64_t shard_uid)
{
    step(w, &(struct cox_agent_input){ .kind = COX_AGENT_WELCOME,
                                       .u.welcome = { shard_uid, COX_BEAT_MS, COX_LOST_MS } });
}

static void attach(struct worker *w, uint64_t shard_uid)
{
    turn(w);
    event(w, COX_AGENT_STREAM_OPEN);
    turn(w);
    welcome(w, shard_uid);
    turn(w);
}

static void assign_for(struct worker *w, unsigned n, uint64_t timeout_ms, int64_t cpu_milli)
{
    step(w, &(struct cox_agent_input){ .kind = COX_AGENT_ASSIGN,
                                       .u.assign = { .ref = ref(n),
                                                     .attempt = 1,
                                                     .timeout_ms = timeout_ms,
                                                     .resources = { .cpu_milli = cpu_milli },
                                                     .spec_json = cox_slice_str("{}") } });
}

static void assign(struct worker *w, unsigned n)
{
    assign_for(w, n, 0, 0);
}

static void about(struct worker *w, enum cox_agent_input_kind kind, unsigned n)
{
    step(w, &(struct cox_agent_input){ .kind = kind, .u.ref = ref(n) });
}

static void ended(struct worker *w, uint32_t slot, enum cox_attempt_status status)
{
    enum cox_code code = status == COX_ATTEMPT_SUCCEEDED ? COX_CODE_NONE : COX_CODE_EXIT_NONZERO;

    step(w, &(struct cox_agent_input){ .kind = COX_AGENT_SLOT_ENDED,
                                       .u.ended = { slot, { .status = status, .code = code } } });
}

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
    expect(&w, "start 1 in 0; hang up: the orchestrator asked to dial again");
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

/* ---------------------------------------------------------------- the books */

#define N_ATTEMPTS 400u
#define N_SLOTS 4u

/* A fake orchestrator and a lossy wire: each direction of a stream is in order, and all that is under way is
 * lost with it. What the orchestrator knows of an attempt: */
enum known { UNUSED, ASSIGNED, DONE, GIVEN_BACK, LOST };

struct wire_message {
    struct cox_agent_input in;      /* to the worker */
    struct cox_agent_action action; /* to the orchestrator */
    uint32_t holds[N_ATTEMPTS];
    size_t n_holds;
};

struct world {
    struct worker w;
    struct cox_rng rng;
    uint64_t seed;
    bool faults;
    struct wire_message *down, *up; /* queues of CAP */
    size_t n_down, n_up;
    bool open, attached; /* the stream, as the worker and as the orchestrator sees it */
    uint64_t granted, assigned;
    unsigned next;
    enum known known[N_ATTEMPTS + 1];
    unsigned n_starts[N_ATTEMPTS + 1];
    bool cancelled[N_ATTEMPTS + 1];
    unsigned in_slot[N_SLOTS];
    bool exited;
};
#define WIRE_CAP 4096u

static void send_down(struct world *s, struct cox_agent_input in)
{
    check_seeded(s->n_down < WIRE_CAP, s->seed);
    s->down[s->n_down++] = (struct wire_message){ .in = in };
}

static void take_actions(struct world *s)
{
    for (size_t i = 0; i < s->w.actions.len; i++) {
        const struct cox_agent_action *act = &s->w.actions.items[i];
        unsigned n = (unsigned)act->ref.token.counter;
        struct wire_message *m;

        if (act->kind == COX_AGENT_START) {
            check_seeded(s->in_slot[act->slot] == 0, s->seed);
            s->in_slot[act->slot] = n;
            s->n_starts[n]++;
            check_seeded(s->n_starts[n] == 1, s->seed);
        } else if (act->kind == COX_AGENT_KILL) {
            check_seeded(s->in_slot[act->slot] == n, s->seed);
        } else if (act->kind == COX_AGENT_DIAL) {
            s->open = true;
            s->n_up = s->n_down = 0;
            event(&s->w, COX_AGENT_STREAM_OPEN);
            s->w.actions.len = 0;
        } else if (act->kind == COX_AGENT_EXIT) {
            s->exited = true;
        } else {
            check_seeded(act->kind != COX_AGENT_HANG_UP, s->seed); /* this orchestrator keeps the protocol */
            check_seeded(s->open && s->n_up < WIRE_CAP, s->seed);
            m = &s->up[s->n_up++];
            m->action = *act;
            m->n_holds = 0;
            if (act->kind == COX_AGENT_SEND_HELLO)
                for (; m->n_holds < act->u.hello.n_holds; m->n_holds++)
                    m->holds[m->n_holds] = (uint32_t)act->u.hello.holds[m->n_holds].token.counter;
        }
    }
    s->w.actions.len = 0;
}

static void hello(struct world *s, const struct wire_message *m)
{
    bool held[N_ATTEMPTS + 1] = { false };

    for (size_t i = 0; i < m->n_holds; i++) {
        check_seeded(!held[m->holds[i]], s->seed);
        held[m->holds[i]] = true;
    }
    for (unsigned n = 1; n <= N_ATTEMPTS; n++)
        if (s->known[n] == ASSIGNED && !held[n])
            s->known[n] = LOST;
    s->attached = true;
    s->granted = s->assigned = 0;
    send_down(s, (struct cox_agent_input){ .kind = COX_AGENT_WELCOME, .u.welcome = { 7, 2500, 8000 } });
}

/* The orchestrator reads one message. */
static void read_up(struct world *s)
{
    struct wire_message *m = &s->up[0];
    unsigned n = (unsigned)m->action.ref.token.counter;

    if (m->action.kind == COX_AGENT_SEND_HELLO) {
        hello(s, m);
    } else if (m->action.kind == COX_AGENT_SEND_CREDIT) {
        check_seeded(m->action.u.granted > s->granted, s->seed);
        s->granted = m->action.u.granted;
    } else if (m->action.kind == COX_AGENT_SEND_RETURNED) {
        check_seeded(s->known[n] == ASSIGNED && s->n_starts[n] == 0, s->seed);
        s->known[n] = GIVEN_BACK;
    } else if (m->action.kind == COX_AGENT_SEND_RESULT) {
        check_seeded(s->known[n] != UNUSED, s->seed);
        check_seeded(s->n_starts[n] == 1 || s->cancelled[n], s->seed);
        if (s->known[n] == ASSIGNED)
            s->known[n] = DONE;
        send_down(s, (struct cox_agent_input){ .kind = COX_AGENT_ANSWER, .u.ref = ref(n) });
    }
    memmove(s->up, s->up + 1, --s->n_up * sizeof(*s->up));
}

static void read_down(struct world *s)
{
    struct cox_agent_input in = s->down[0].in;

    memmove(s->down, s->down + 1, --s->n_down * sizeof(*s->down));
    step(&s->w, &in);
    take_actions(s);
}

static void cut(struct world *s)
{
    s->open = s->attached = false;
    s->n_up = s->n_down = 0;
    event(&s->w, COX_AGENT_STREAM_CLOSED);
    take_actions(s);
}

static void one_thing(struct world *s)
{
    uint64_t what = cox_rng_below(&s->rng, 100);
    uint32_t slot = (uint32_t)cox_rng_below(&s->rng, N_SLOTS);
    unsigned n = s->next;

    if (what < 30 && s->attached && s->assigned < s->granted && n <= N_ATTEMPTS) {
        s->assigned++;
        s->next++;
        s->known[n] = ASSIGNED;
        send_down(s, (struct cox_agent_input){
                         .kind = COX_AGENT_ASSIGN,
                         .u.assign = { .ref = ref(n), .timeout_ms = cox_rng_below(&s->rng, 3) * 400 } });
    } else if (what < 50 && s->n_up > 0) {
        read_up(s);
    } else if (what < 70 && s->n_down > 0) {
        read_down(s);
    } else if (what < 85 && s->in_slot[slot] &&
               (s->in_slot[slot] % 5 != 0 || !s->faults || cox_rng_chance(&s->rng, 5000))) { /* some last */
        s->in_slot[slot] = 0;
        ended(&s->w, slot, what & 1 ? COX_ATTEMPT_SUCCEEDED : COX_ATTEMPT_FAILED);
        take_actions(s);
    } else if (what == 98 && s->attached && s->next > 1 && s->faults) {
        n = 1 + (unsigned)cox_rng_below(&s->rng, s->next - 1);
        s->cancelled[n] = true;
        send_down(s, (struct cox_agent_input){ .kind = COX_AGENT_CANCEL, .u.ref = ref(n) });
    } else if (what == 99 && s->open && s->faults && cox_rng_chance(&s->rng, 300000)) {
        cut(s);
    } else {
        s->w.now_ns += (int64_t)cox_rng_below(&s->rng, 20) * MS;
    }
    turn(&s->w);
    take_actions(s);
    cox_buf_clear(&s->w.said);
}

static bool settled(const struct world *s)
{
    struct cox_agent_stats stats;

    for (unsigned n = 1; n <= N_ATTEMPTS; n++)
        if (s->known[n] == UNUSED || s->known[n] == ASSIGNED)
            return false;
    cox_agent_stats(s->w.agent, &stats);
    return stats.n_queued + stats.n_running + stats.n_kept == 0;
}

static void test_random_timelines_keep_the_books(void **state)
{
    unsigned n_done = 0, n_given_back = 0, n_lost = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct world s = { .seed = seed, .faults = true, .next = 1 };

        begin(&s.w, &(struct cox_agent_config){ .slots = N_SLOTS,
                                                .n_addresses = 1 + (uint32_t)(seed % 2),
                                                .orphan_timeout_ms = 600000,
                                                .seed = seed });
        cox_rng_init(&s.rng, seed);
        s.down = calloc(WIRE_CAP, sizeof(*s.down));
        s.up = calloc(WIRE_CAP, sizeof(*s.up));
        for (int i = 0; i < 10000; i++)
            one_thing(&s);
        s.faults = false;
        for (int i = 0; i < 20000 && !settled(&s); i++)
            one_thing(&s);
        check_seeded(settled(&s), seed);
        event(&s.w, COX_AGENT_SHUTDOWN);
        for (int i = 0; i < 20000 && !s.exited; i++)
            one_thing(&s);
        check_seeded(s.exited, seed);
        for (unsigned n = 1; n <= N_ATTEMPTS; n++) {
            n_done += s.known[n] == DONE;
            n_given_back += s.known[n] == GIVEN_BACK;
            n_lost += s.known[n] == LOST;
        }
        end(&s.w);
        free(s.down);
        free(s.up);
    }
    /* The timelines are worth something only if every fate occurs. */
    assert_true(n_done > 1000 && n_given_back > 100 && n_lost > 100);
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
        cmocka_unit_test(test_logs_of_running_attempts_are_switched_on_and_off),
        cmocka_unit_test(test_a_late_turn_looks_before_it_fires),
        cmocka_unit_test(test_random_timelines_keep_the_books),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
