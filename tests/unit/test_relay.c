/* Logs of attempts, from one worker to many readers: each sees the log once and in order, whenever it comes.
 */
#include "check.h"

#include "fleet/session.h"

#include "cox/base/alloc.h"

#include <string.h>

/* ---- the session, and the worker behind it ---- */

static struct cox_fleet fleet;
static struct cox_session session;
static const struct cox_ref ref = { 7, 3, { 1, 9 } };
static unsigned n_begun, n_stopped; /* how often the log was wanted, and not wanted any more */

struct cox_session *cox_session_find(const struct cox_fleet *f, uint32_t number)
{
    return f == &fleet && number == session.number ? &session : NULL;
}

void cox_session_want_log(struct cox_session *s, const struct cox_ref *r, bool wanted)
{
    assert_ptr_equal(s, &session);
    assert_true(cox_ref_eq(*r, ref));
    n_begun += wanted;
    n_stopped += !wanted;
}

bool cox_ref_read(const Coxswain__V1__AttemptRef *m, struct cox_ref *ret)
{
    (void)m;
    *ret = ref;
    return true;
}

static void begin(void)
{
    memset(&fleet, 0, sizeof(fleet));
    memset(&session, 0, sizeof(session));
    session.fleet = &fleet;
    session.number = 5;
    cox_list_init(&session.relays);
    n_begun = n_stopped = 0;
}

static void say(const char *text, size_t len, bool reset)
{
    Coxswain__V1__LogChunk m = COXSWAIN__V1__LOG_CHUNK__INIT;

    m.stream = COXSWAIN__V1__LOG_STREAM__LOG_STREAM_STDOUT;
    m.data = (ProtobufCBinaryData){ len, (uint8_t *)(uintptr_t)text };
    m.reset = reset;
    cox_session_relay(&session, &m);
}

static void say_end(void)
{
    Coxswain__V1__LogChunk m = COXSWAIN__V1__LOG_CHUNK__INIT;

    m.end = true;
    cox_session_relay(&session, &m);
}

/* ---- readers ---- */

struct reader {
    struct cox_log_reader log;
    struct cox_buf seen;
    unsigned n_resets;
    bool ended, away;
};

static void on_chunk(struct cox_log_reader *r, const Coxswain__V1__LogChunk *m)
{
    struct reader *x = (struct reader *)(void *)r; /* log is first */

    if (!m) {
        x->away = true;
        return;
    }
    if (m->reset) {
        cox_buf_clear(&x->seen);
        x->n_resets++;
    }
    cox_buf_append(&x->seen, m->data.data, m->data.len);
    x->ended = x->ended || m->end;
}

static void join(struct reader *x)
{
    memset(x, 0, sizeof(*x));
    cox_list_init(&x->log.node);
    x->log.ref = ref;
    x->log.on_chunk = on_chunk;
    assert_true(cox_fleet_log_start(&fleet, session.number, &x->log));
}

static void expect(struct reader *x, const char *text)
{
    assert_string_equal(cox_buf_cstr(&x->seen), text);
}

static void part(struct reader *x)
{
    cox_fleet_log_stop(&fleet, &x->log);
    cox_buf_fini(&x->seen);
}

/* ---- stories ---- */

static void test_late_readers_see_the_same(void **state)
{
    struct reader a, b;

    (void)state;
    begin();
    join(&a);
    say("one ", 4, false);
    join(&b);
    say("two ", 4, false);
    expect(&a, "one two ");
    expect(&b, "one two ");
    assert_int_equal(n_begun, 1); /* the worker was asked once */
    say_end();
    assert_true(a.ended && b.ended);
    part(&a);
    part(&b);
    assert_true(cox_list_empty(&session.relays));
    assert_int_equal(fleet.relayed_len, 0);
}

/* A log that is longer than what is kept is begun anew for who comes later, and is one again from then on. */
static void test_what_begins_anew_is_whole_again(void **state)
{
    struct reader a, b, c, d;
    char *much = cox_calloc(1, COX_RELAY_LEN_MAX);

    (void)state;
    begin();
    join(&a);
    say(much, COX_RELAY_LEN_MAX, false);
    assert_int_equal(fleet.relayed_len, 0);
    join(&b);
    assert_int_equal(n_begun, 2);
    assert_int_equal(n_stopped, 1);
    say("old ", 4, false); /* on its way before the worker heard of that */
    assert_int_equal(b.seen.len, 0);
    assert_int_equal(a.seen.len, COX_RELAY_LEN_MAX + 4);
    say("new ", 4, true);
    expect(&a, "new ");
    expect(&b, "new ");
    join(&c); /* it is short by now: nobody else is disturbed */
    join(&d);
    assert_int_equal(n_begun, 2);
    expect(&c, "new ");
    say("end ", 4, false);
    expect(&a, "new end ");
    expect(&b, "new end ");
    expect(&c, "new end ");
    expect(&d, "new end ");
    assert_int_equal(a.n_resets + b.n_resets, 2);
    part(&a);
    part(&b);
    part(&c);
    assert_int_equal(n_stopped, 1);
    part(&d);
    assert_int_equal(n_stopped, 2); /* nobody reads it any more */
    cox_free(much);
}

/* What a worker could not keep for us is gone for later readers as well. */
static void test_what_was_dropped_is_dropped_for_all(void **state)
{
    struct reader a, b;

    (void)state;
    begin();
    join(&a);
    say("one ", 4, false);
    say("three ", 6, true);
    join(&b);
    assert_int_equal(n_begun, 1);
    expect(&a, "three ");
    expect(&b, "three ");
    part(&a);
    part(&b);
}

static void test_a_reader_that_waits_hears_of_the_end(void **state)
{
    struct reader a, b, c;
    char *much = cox_calloc(1, COX_RELAY_LEN_MAX);

    (void)state;
    begin();
    join(&a);
    say(much, COX_RELAY_LEN_MAX, false);
    join(&b);
    say_end();
    assert_true(a.ended && b.ended);
    part(&a);
    part(&b);
    join(&c);
    cox_session_relays_end(&session);
    assert_true(c.away);
    part(&c);
    cox_free(much);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_late_readers_see_the_same),
        cmocka_unit_test(test_what_begins_anew_is_whole_again),
        cmocka_unit_test(test_what_was_dropped_is_dropped_for_all),
        cmocka_unit_test(test_a_reader_that_waits_hears_of_the_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
