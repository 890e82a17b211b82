/* Breakers by themselves, and health over servers that the test plays. The clock is a number. */
#include "health_turn.h"

#include "breaker.h"
#include "check.h"

#include "cox/base/alloc.h"
#include "cox/base/rng.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MS INT64_C(1000000)
#define S INT64_C(1000000000)

int64_t __wrap_cox_clock_mono_ns(void);

static int64_t now;

int64_t __wrap_cox_clock_mono_ns(void)
{
    return now;
}

/* ---- breakers ---- */

static bool bad(struct breaker *b)
{
    const char *why = NULL;
    bool out = breaker_bad(b, now, &why);

    if (out)
        breaker_out(b, now, why, true);
    return out;
}

static void five_in_a_row_open_it(void **state)
{
    struct breaker b = { 0 };

    (void)state;
    now = 1000 * S;
    for (int i = 0; i < 4; i++)
        assert_false(bad(&b));
    breaker_good(&b, now);
    for (int i = 0; i < 4; i++)
        assert_false(bad(&b));
    assert_int_equal(breaker_gate(&b, now), PLACEMENT_OPEN);
    assert_true(bad(&b));
    assert_int_equal(breaker_gate(&b, now), PLACEMENT_CLOSED);
    assert_string_equal(b.why, "5 failures in a row");
}

static void half_of_twenty_in_ten_seconds_open_it(void **state)
{
    struct breaker b = { 0 };

    (void)state;
    now = 2000 * S;
    for (int i = 0; i < 9; i++) { /* of these, half of a second later are forgotten */
        breaker_good(&b, now);
        assert_false(bad(&b));
    }
    now += 11 * S;
    for (int i = 0; i < 9; i++) {
        assert_false(bad(&b));
        breaker_good(&b, now);
        now += S / 2;
    }
    assert_false(bad(&b)); /* the nineteenth */
    assert_true(bad(&b));
    assert_string_equal(b.why, "half of its calls failed");
}

static void it_is_held_longer_each_time(void **state)
{
    static const int64_t holds[] = { 5, 10, 20, 40, 60, 60 };
    struct breaker b = { 0 };

    (void)state;
    now = 3000 * S;
    breaker_out(&b, now, "x", true);
    for (size_t i = 0; i < ARRAY_LEN(holds); i++) {
        assert_int_equal(breaker_wake_ns(&b, now), now + holds[i] * S);
        now += holds[i] * S - 1;
        assert_false(breaker_wants_probe(&b, now));
        now += 1;
        assert_true(breaker_wants_probe(&b, now));
        breaker_probed(&b, now, i % 2 == 0);
        if (i % 2 == 0) {
            assert_int_equal(breaker_gate(&b, now), PLACEMENT_HALF_OPEN);
            assert_false(bad(&b)); /* it is out again, by itself */
        }
        assert_int_equal(breaker_gate(&b, now), PLACEMENT_CLOSED);
    }
    now += 60 * S;
    breaker_probed(&b, now, true);
    breaker_good(&b, now);
    assert_int_equal(breaker_gate(&b, now), PLACEMENT_OPEN);
    now += 61 * S; /* of good behaviour */
    breaker_out(&b, now, "x", true);
    assert_int_equal(breaker_wake_ns(&b, now), now + 5 * S);
}

static void a_pause_is_no_fault(void **state)
{
    struct breaker b = { 0 };

    (void)state;
    now = 4000 * S;
    breaker_slow(&b, now, 3000);
    breaker_slow(&b, now, 0); /* no shorter than it asked for */
    assert_int_equal(breaker_gate(&b, now), PLACEMENT_CLOSED);
    assert_false(breaker_wants_probe(&b, now + 2 * S));
    assert_int_equal(breaker_wake_ns(&b, now), now + 3 * S);
    assert_int_equal(breaker_gate(&b, now + 3 * S), PLACEMENT_OPEN);
    breaker_slow(&b, now, INT64_MAX / 2);
    assert_int_equal(breaker_wake_ns(&b, now), now + 60 * S);
}

/* After a pause: one, and as many more as have ended well, until nobody counts any more. */
static void after_a_pause_calls_come_one_by_one(void **state)
{
    struct breaker b = { 0 };

    (void)state;
    now = 4500 * S;
    assert_int_equal(breaker_room(&b), 0);
    breaker_good(&b, now);
    assert_int_equal(breaker_room(&b), 0);
    breaker_slow(&b, now, 1000);
    breaker_good(&b, now + S - 1); /* of before: says nothing of what it has room for later */
    assert_int_equal(breaker_room(&b), 1);
    now += S;
    for (uint32_t room = 1; room <= BREAKER_ROOM_MAX; room++) {
        assert_int_equal(breaker_room(&b), room);
        assert_int_equal(breaker_gate(&b, now), PLACEMENT_OPEN);
        assert_false(bad(&b)); /* is no reason for more */
        assert_int_equal(breaker_room(&b), room);
        breaker_good(&b, now);
        now += 11 * S;
    }
    assert_int_equal(breaker_room(&b), 0);
    breaker_slow(&b, now, 1000);
    now += S;
    breaker_good(&b, now);
    breaker_slow(&b, now, 1000); /* it had not enough of it */
    assert_int_equal(breaker_room(&b), 1);
}

/* Any history: never out for less than its hold, never tried by more than a probe before, never stuck. */
static void any_history(void **state)
{
    const char *env = getenv("COX_TEST_SEED");
    uint64_t seed = env ? strtoull(env, NULL, 10) : (uint64_t)getpid() * 104729;
    struct cox_rng rng;

    (void)state;
    cox_rng_init(&rng, seed);
    for (int round = 0; round < 200; round++) {
        struct breaker b = { 0 };
        uint64_t p_bad = cox_rng_below(&rng, 1000000);
        int64_t out_ns = -1;
        unsigned row = 0;

        now = 5000 * S;
        for (int i = 0; i < 500; i++) {
            now += (int64_t)cox_rng_below(&rng, 2 * S);
            if (breaker_gate(&b, now) == PLACEMENT_CLOSED) {
                bool due = breaker_wants_probe(&b, now);
                check_seeded(due == (now >= breaker_wake_ns(&b, now)), seed);
                check_seeded(!due || now - out_ns >= 5 * S, seed);
                check_seeded(due || now - out_ns < 60 * S, seed);
                if (due) {
                    breaker_probed(&b, now, !cox_rng_chance(&rng, (uint32_t)p_bad));
                    out_ns = b.gate == PLACEMENT_CLOSED ? now : out_ns;
                }
                row = 0;
            } else if (cox_rng_chance(&rng, (uint32_t)p_bad)) {
                (void)bad(&b);
                row++;
                check_seeded(row < BREAKER_ROW || b.gate == PLACEMENT_CLOSED, seed);
                out_ns = b.gate == PLACEMENT_CLOSED ? now : out_ns;
            } else {
                breaker_good(&b, now);
                row = 0;
                check_seeded(b.gate == PLACEMENT_OPEN, seed);
            }
        }
    }
}

/* ---- servers, as the test plays them ---- */

#define CALLS_MAX 512

static struct upstream_call {
    struct upstream_request request;
    char url[128];
    bool open;
} calls[CALLS_MAX];

struct upstream_call *upstream_start(struct upstream *u, const struct upstream_request *request)
{
    (void)u;
    for (int i = 0; i < CALLS_MAX; i++) {
        if (calls[i].open)
            continue;
        calls[i] = (struct upstream_call){ .request = *request, .open = true };
        strncpy(calls[i].url, request->target->url, sizeof(calls[i].url) - 1);
        return &calls[i];
    }
    fail_msg("more than %d calls at once", CALLS_MAX);
    return NULL;
}

void upstream_cancel(struct upstream_call *c)
{
    assert_true(c->open);
    c->open = false;
}

static struct upstream_call *call_to(const char *url)
{
    for (int i = 0; i < CALLS_MAX; i++)
        if (calls[i].open && strcmp(calls[i].url, url) == 0)
            return &calls[i];
    return NULL;
}

static void answer(const char *url, enum upstream_end end, int status, const char *body)
{
    struct upstream_call *c = call_to(url);
    const struct upstream_head head = { .status = status };

    if (!c)
        fail_msg("nobody asks %s", url);
    c->open = false;
    if (end == UPSTREAM_OK) {
        c->request.events->on_head(c->request.user, &head);
        c->request.events->on_data(c->request.user, cox_slice_str(body));
    }
    c->request.events->on_end(c->request.user, end, "");
}

/* ---- health ---- */

struct world {
    struct event_base *base;
    struct health *health;
    struct model model;
    struct endpoint endpoints[300];
    struct cox_buf said;
};

static void on_gate(void *user, struct endpoint *e, enum placement_gate gate, bool forget)
{
    cox_buf_printf(&((struct world *)user)->said, "%s%s%s ", e->name,
                   gate == PLACEMENT_OPEN     ? "+"
                   : gate == PLACEMENT_CLOSED ? "-"
                                              : "~",
                   forget ? "forget" : "");
}

static void on_room(void *user, struct endpoint *e, uint32_t room, bool from_now)
{
    cox_buf_printf(&((struct world *)user)->said, "%s%s%u ", e->name, from_now ? "*" : "^", room);
}

static void on_signals(void *user, struct endpoint *e, const struct placement_signals *s)
{
    cox_buf_printf(&((struct world *)user)->said, "%s=%d/%d ", e->name, s->running, s->waiting);
}

static void begin(struct world *w, size_t n, int64_t scrape_ms)
{
    *w = (struct world){ .base = event_base_new() };
    const struct health_config config = { .base = w->base,
                                          .scrape_ms = scrape_ms,
                                          .on_signals = on_signals,
                                          .on_gate = on_gate,
                                          .on_room = on_room,
                                          .user = w };

    memset(calls, 0, sizeof(calls));
    now += 1000 * S;
    w->health = health_create(&config);
    w->model.name = "m";
    cox_list_init(&w->model.endpoints);
    w->model.n_endpoints = n;
    for (size_t i = 0; i < n; i++) {
        struct endpoint *e = &w->endpoints[i];
        e->model = &w->model;
        e->name = cox_asprintf("%zu", i);
        e->url = cox_asprintf("http://%zu/v1", i);
        e->targets[3].url = cox_asprintf("http://%zu/v1/models", i);
        cox_list_push_back(&w->model.endpoints, &e->node);
        health_add(w->health, e);
    }
}

static void end(struct world *w)
{
    for (size_t i = 0; i < w->model.n_endpoints; i++) {
        health_remove(w->health, &w->endpoints[i]);
        cox_free(w->endpoints[i].name);
        cox_free(w->endpoints[i].url);
        cox_free((char *)(uintptr_t)w->endpoints[i].targets[3].url);
    }
    for (int i = 0; i < CALLS_MAX; i++)
        assert_false(calls[i].open);
    health_destroy(w->health);
    event_base_free(w->base);
    cox_buf_fini(&w->said);
}

static void pass(struct world *w, int64_t ns)
{
    now += ns;
    (void)health_turn(w->health, now);
}

static void check_said(struct world *w, const char *expected)
{
    assert_string_equal(cox_buf_cstr(&w->said), expected);
    cox_buf_clear(&w->said);
}

static void tell(struct world *w, size_t i, enum health_word word, int n)
{
    for (; n > 0; n--)
        health_tell(w->health, &w->endpoints[i], word, 0);
}

static void an_endpoint_goes_out_and_comes_back(void **state)
{
    struct health_view v;
    struct world w;

    (void)state;
    begin(&w, 2, -1);
    tell(&w, 0, HEALTH_BAD, 5);
    check_said(&w, "0- ");
    health_view(&w.endpoints[0], &v);
    assert_int_equal(v.gate, PLACEMENT_CLOSED);
    assert_string_equal(v.why, "5 failures in a row");
    assert_int_equal(v.n_failures, 5);
    pass(&w, 5 * S - 1);
    assert_null(call_to("http://0/health"));
    pass(&w, 1);
    answer("http://0/health", UPSTREAM_OK, 404, ""); /* some have none */
    answer("http://0/v1/models", UPSTREAM_OK, 503, "");
    check_said(&w, "");
    pass(&w, 10 * S);
    answer("http://0/v1/models", UPSTREAM_OK, 200, "{}");
    check_said(&w, "0~ ");
    tell(&w, 0, HEALTH_GOOD, 1);
    check_said(&w, "0+ ");
    tell(&w, 1, HEALTH_SLOW_DOWN, 1);
    check_said(&w, "1- ");
    pass(&w, S);
    check_said(&w, "1*1 1+ "); /* what it has room for comes first */
    tell(&w, 1, HEALTH_GOOD, 2);
    check_said(&w, "1^2 1^3 ");
    tell(&w, 1, HEALTH_SLOW_DOWN, 1);
    tell(&w, 1, HEALTH_GOOD, 1);
    check_said(&w, "1- ");
    pass(&w, S);
    check_said(&w, "1*1 1+ ");
    tell(&w, 1, HEALTH_GOOD, 64);
    assert_non_null(strstr(cox_buf_cstr(&w.said), "1^64 1^0 "));
    end(&w);
}

static void a_share_goes_out_for_calls_and_never_the_last(void **state)
{
    struct world w;

    (void)state;
    begin(&w, 10, -1);
    for (size_t i = 0; i < 10; i++)
        tell(&w, i, HEALTH_BAD, 50);
    check_said(&w, "0- 1- 2- ");
    end(&w);
    begin(&w, 1, -1);
    tell(&w, 0, HEALTH_BAD, 50);
    check_said(&w, "");
    end(&w);
    begin(&w, 2, -1);
    tell(&w, 1, HEALTH_BAD, 50);
    tell(&w, 0, HEALTH_BAD, 50);
    check_said(&w, "1- ");
    end(&w);
}

static void metrics_are_read_again_and_again(void **state)
{
    struct health_view v;
    struct world w;

    (void)state;
    begin(&w, 1, 0);
    pass(&w, 200 * MS);
    answer("http://0/metrics", UPSTREAM_OK, 200,
           "vllm:num_requests_running 3\nprocess_start_time_seconds 100\n");
    check_said(&w, "0=3/-1 ");
    health_view(&w.endpoints[0], &v);
    assert_true(v.scraped);
    assert_string_equal(v.engine, "vllm");
    assert_int_equal(v.signals.running, 3);
    pass(&w, 179 * MS);
    assert_null(call_to("http://0/metrics"));
    pass(&w, 42 * MS);
    answer("http://0/metrics", UPSTREAM_OK, 200,
           "vllm:num_requests_running 4\nprocess_start_time_seconds 500\n");
    check_said(&w, "0=4/-1 0+forget ");
    pass(&w, 220 * MS); /* it does not answer */
    pass(&w, 2 * S);
    check_said(&w, "0=-1/-1 ");
    pass(&w, 2 * S);
    check_said(&w, "");
    end(&w);
}

static int n_ticks;

static void on_tick(evutil_socket_t fd, short what, void *user)
{
    struct world *w = user;

    (void)fd;
    (void)what;
    now += MS;
    health_tell(w->health, &w->endpoints[0], HEALTH_GOOD, 0);
    if (call_to("http://0/metrics") || ++n_ticks == 3000)
        event_base_loopbreak(w->base);
}

static void calls_that_end_do_not_put_off_what_is_due(void **state)
{
    const struct timeval ms = { 0, 1000 };
    struct world w;

    (void)state;
    begin(&w, 1, 0);
    struct event *tick = event_new(w.base, -1, EV_PERSIST, on_tick, &w);
    n_ticks = 0;
    event_add(tick, &ms);
    event_base_dispatch(w.base);
    event_free(tick);
    answer("http://0/metrics", UPSTREAM_OK, 200, "vllm:num_requests_running 3\n");
    check_said(&w, "0=3/-1 ");
    end(&w);
}

static void who_has_nothing_to_say_is_asked_seldom(void **state)
{
    struct world w;
    int n = 0;

    (void)state;
    begin(&w, 1, 0);
    for (int i = 0; i < 6000; i++) { /* ten minutes */
        pass(&w, 100 * MS);
        if (call_to("http://0/metrics")) {
            answer("http://0/metrics", UPSTREAM_OK, i % 2 ? 404 : 200, "<html>");
            n++;
        }
    }
    check_said(&w, "");
    assert_in_range(n, 10, 25); /* 1, 2, 4 ... 32 s, then once a minute */
    end(&w);
}

static void one_without_a_connection_is_out_before_calls_find_out(void **state)
{
    struct world w;

    (void)state;
    begin(&w, 3, 0);
    for (int i = 0; i < 5; i++) {
        pass(&w, 230 * MS);
        answer("http://0/metrics", UPSTREAM_CONNECT, 0, NULL);
        answer("http://1/metrics", UPSTREAM_CONNECT, 0, NULL);
        answer("http://2/metrics", UPSTREAM_CONNECT, 0, NULL);
    }
    check_said(&w, "0- 1- "); /* all are away; calls to the last one say so */
    pass(&w, 1200 * MS);
    answer("http://0/metrics", UPSTREAM_OK, 200, "vllm:num_requests_running 0\n");
    check_said(&w, "0=0/-1 ");
    pass(&w, 10 * MS); /* no hold is waited for, but whether it serves */
    answer("http://0/health", UPSTREAM_OK, 200, "");
    check_said(&w, "0~ ");
    end(&w);
}

/* Their host is silent: that is no connection either. No probe is sent where the next scrape will tell. */
static void who_does_not_answer_at_all_is_out_as_well(void **state)
{
    struct world w;

    (void)state;
    begin(&w, 2, 0);
    for (int i = 0; i < 5; i++) {
        pass(&w, 230 * MS);
        answer("http://0/metrics", UPSTREAM_CONNECT_TIMEOUT, 0, NULL);
        answer("http://1/metrics", UPSTREAM_OK, 200, "vllm:num_requests_running 1\n");
        cox_buf_clear(&w.said);
    }
    health_tell(w.health, &w.endpoints[1], HEALTH_GOOD, 0);
    for (int i = 0; i < 60; i++) {
        struct health_view v;

        health_view(&w.endpoints[0], &v);
        assert_int_equal(v.gate, PLACEMENT_CLOSED);
        assert_string_equal(v.why, "no connection");
        pass(&w, S);
        assert_null(call_to("http://0/health"));
        if (call_to("http://0/metrics"))
            answer("http://0/metrics", UPSTREAM_CONNECT_TIMEOUT, 0, NULL);
        if (call_to("http://1/metrics"))
            answer("http://1/metrics", UPSTREAM_OK, 200, "vllm:num_requests_running 1\n");
    }
    pass(&w, 2 * S);
    answer("http://0/metrics", UPSTREAM_OK, 404, "");
    pass(&w, 10 * MS);
    cox_buf_clear(&w.said);
    answer("http://0/health", UPSTREAM_OK, 200, "");
    check_said(&w, "0~ ");
    end(&w);
}

static unsigned n_open(void)
{
    unsigned n = 0;

    for (int i = 0; i < CALLS_MAX; i++)
        n += calls[i].open;
    return n;
}

/* Of hundreds that are due together, some have their turn at a time: calls go between. */
static void a_turn_is_short(void **state)
{
    struct world w;
    unsigned turns = 0;

    (void)state;
    begin(&w, 300, 0);
    now += 10 * S;
    for (unsigned before = 0; n_open() < 300; turns++) {
        assert_true(health_turn(w.health, now) <= now || n_open() == 300);
        assert_in_range(n_open(), before + 1, before + 100);
        before = n_open();
    }
    assert_in_range(turns, 3, 300);
    end(&w);
}

/* What is counted of a model is what there is, whatever comes and goes. */
static void who_leaves_is_not_counted_as_out(void **state)
{
    struct world w;

    (void)state;
    begin(&w, 3, -1);
    tell(&w, 0, HEALTH_BAD, 5);
    assert_int_equal(w.model.n_out, 1);
    assert_int_equal(w.model.n_out_for_calls, 1);
    health_remove(w.health, &w.endpoints[0]);
    assert_int_equal(w.model.n_out, 0);
    assert_int_equal(w.model.n_out_for_calls, 0);
    health_add(w.health, &w.endpoints[0]);
    tell(&w, 1, HEALTH_BAD, 5);
    check_said(&w, "0- 1- ");
    assert_int_equal(w.model.n_out, 1);
    pass(&w, 5 * S);
    answer("http://1/health", UPSTREAM_OK, 200, "");
    tell(&w, 1, HEALTH_GOOD, 1);
    assert_int_equal(w.model.n_out, 0);
    end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(five_in_a_row_open_it),
        cmocka_unit_test(half_of_twenty_in_ten_seconds_open_it),
        cmocka_unit_test(it_is_held_longer_each_time),
        cmocka_unit_test(a_pause_is_no_fault),
        cmocka_unit_test(after_a_pause_calls_come_one_by_one),
        cmocka_unit_test(any_history),
        cmocka_unit_test(an_endpoint_goes_out_and_comes_back),
        cmocka_unit_test(a_share_goes_out_for_calls_and_never_the_last),
        cmocka_unit_test(metrics_are_read_again_and_again),
        cmocka_unit_test(calls_that_end_do_not_put_off_what_is_due),
        cmocka_unit_test(who_has_nothing_to_say_is_asked_seldom),
        cmocka_unit_test(one_without_a_connection_is_out_before_calls_find_out),
        cmocka_unit_test(who_does_not_answer_at_all_is_out_as_well),
        cmocka_unit_test(a_turn_is_short),
        cmocka_unit_test(who_leaves_is_not_counted_as_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
