/* Maps of random lists, batches and limits, whose items fail a random number of times, against a model that
 * only counts. Workers restart, give batches back and report late; the engine is killed and checkpointed at
 * any point. MAP_SEED=N repeats one story, MAP_SEEDS=N tells so many. */
#include "trace.h"

#include "cox/base/alloc.h"
#include "cox/base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ITEMS_MAX 8200
#define PAGE 4096u
#define RESTARTS_MAX 8u /* an item survives nine */

struct story {
    struct trace *t;
    struct cox_rng rng;
    uint64_t seed;
    uint32_t n_items, batch, max_parallel, max_attempts, n_tolerated;
    bool percent;
    uint8_t *fails_at_first; /* how often each item fails before it succeeds */
    uint8_t *n_failed;       /* so far, as accepted */
    uint32_t n_restarts;
};

static uint32_t pick(struct story *s, uint32_t from, uint32_t to)
{
    return from + (uint32_t)cox_rng_below(&s->rng, to - from + 1);
}

static bool chance(struct story *s, uint32_t percent)
{
    return cox_rng_below(&s->rng, 100) < percent;
}

/* ---- the map ---- */

static void choose(struct story *s)
{
    static const uint32_t sizes[] = { 0, 1, 2, 7, 30, 200, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, 2 * PAGE + 5 };
    s->n_items = sizes[pick(s, 0, sizeof sizes / sizeof sizes[0] - 1)];
    s->batch = s->n_items > 1000 ? pick(s, 300, 1000) : pick(s, 1, 9);
    s->max_parallel = chance(s, 50) ? 0 : pick(s, 1, 3 * s->batch);
    if (s->n_items > 1000 && s->max_parallel > 0 && s->max_parallel < 300)
        s->max_parallel += 300; /* or it takes all day */
    s->max_attempts = pick(s, 1, 3);
    s->percent = chance(s, 50);
    s->n_tolerated = s->percent ? pick(s, 0, 100) : pick(s, 0, s->n_items / 8 + 1);
    s->fails_at_first = cox_calloc(s->n_items + 1u, 1);
    s->n_failed = cox_calloc(s->n_items + 1u, 1);
    uint32_t share = pick(s, 0, 20);
    for (uint32_t i = 0; i < s->n_items; i++)
        if (chance(s, share))
            s->fails_at_first[i] = (uint8_t)pick(s, 1, 3);
}

static uint32_t tolerated(const struct story *s)
{
    return s->percent ? (uint32_t)((uint64_t)s->n_items * s->n_tolerated / 100) : s->n_tolerated;
}

static uint32_t n_that_fail(const struct story *s)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n_items; i++)
        n += s->fails_at_first[i] >= s->max_attempts;
    return n;
}

static void begin(struct story *s)
{
    struct cox_buf doc = { 0 }, list = { 0 };
    cox_buf_printf(&doc,
                   "{\"api_version\":\"v1\",\"name\":\"t\",\"steps\":{\"a\":{\"run\":{\"argv\":[\"true\"]}},"
                   "\"scan\":{\"map\":{\"over\":\"${{ steps.a.output }}\",\"batch\":%u,",
                   s->batch);
    if (s->max_parallel > 0)
        cox_buf_printf(&doc, "\"max_parallel\":%u,", s->max_parallel);
    cox_buf_printf(&doc, s->percent ? "\"tolerate_failures\":\"%u%%\"}," : "\"tolerate_failures\":%u},",
                   s->n_tolerated);
    cox_buf_printf(&doc,
                   "\"run\":{\"argv\":[\"i${{ item }}\"]},\"retry\":{\"max_attempts\":%u,"
                   "\"initial_backoff\":\"1s\",\"max_backoff\":\"2s\"}}}}",
                   s->max_attempts);
    attach_as(s->t, &(struct worker_spec){ .id = "w1", .slots = 4, .credit = 60000 });
    submit(s->t, cox_buf_cstr(&doc));
    cox_put_u8(&list, '[');
    for (uint32_t i = 0; i < s->n_items; i++)
        cox_buf_printf(&list, "%s%u", i > 0 ? " , " : "", i);
    cox_put_u8(&list, ']');
    succeed(s->t, "w1", "a", cox_buf_cstr(&list));
    if (open_evaluations(s->t) > 0)
        evaluate(s->t);
    cox_buf_fini(&doc);
    cox_buf_fini(&list);
}

/* ---- what happens ---- */

static void restart_worker(struct story *s)
{
    char boot[16];
    snprintf(boot, sizeof boot, "b%u", s->n_restarts++);
    forget_batches(s->t);
    attach_as(s->t, &(struct worker_spec){ .id = "w1", .boot = boot, .slots = 4, .credit = 60000 });
}

/* The engine dies; the worker comes back with some of its batches. */
static void kill_engine(struct story *s)
{
    char holds[512] = "";
    uint32_t first, n;
    size_t len = 0;
    for (size_t i = 0; i < 8 && open_batch(s->t, i, &first, &n); i++)
        if (chance(s, 50))
            len += (size_t)snprintf(holds + len, sizeof holds - len, "%sscan[%u]", len > 0 ? "," : "", first);
    crash(s->t);
    if (open_fetches(s->t) > 0)
        fetch(s->t);
    attach_as(s->t, &(struct worker_spec){ .id = "w1", .slots = 4, .credit = 60000, .holds = holds });
}

static void report(struct story *s, uint32_t first, uint32_t n)
{
    struct cox_buf ends = { 0 };
    char name[32];
    bool fails[1000];
    for (uint32_t i = 0; i < n; i++) {
        fails[i] = s->n_failed[first + i] < s->fails_at_first[first + i];
        if (fails[i])
            cox_buf_append_str(&ends, "!EXIT_NONZERO ");
        else
            cox_buf_printf(&ends, "%u ", 10 * (first + i));
    }
    snprintf(name, sizeof name, "scan[%u]", first);
    items(s->t, "w1", name, cox_buf_cstr(&ends));
    for (uint32_t i = 0; i < n && last_answer(s->t) == COX_ANSWER_ACCEPTED; i++)
        s->n_failed[first + i] += fails[i];
    cox_buf_fini(&ends);
}

static void check_batches(struct story *s)
{
    uint32_t first, n, n_given = 0;
    for (size_t i = 0; open_batch(s->t, i, &first, &n); i++) {
        assert_true(n <= s->batch && first / PAGE == (first + n - 1) / PAGE && first + n <= s->n_items);
        n_given += n;
    }
    assert_true(s->max_parallel == 0 || n_given <= s->max_parallel);
}

static size_t n_open(struct story *s)
{
    uint32_t first, n;
    size_t count = 0;
    while (open_batch(s->t, count, &first, &n))
        count++;
    return count;
}

static void something(struct story *s)
{
    uint32_t first, n;
    size_t open = n_open(s);
    check_batches(s);
    if (open_composes(s->t) > 0 && chance(s, 80)) {
        compose(s->t);
    } else if (chance(s, 3) && s->n_restarts < RESTARTS_MAX) {
        restart_worker(s);
    } else if (chance(s, 3)) {
        kill_engine(s);
    } else if (chance(s, 10)) {
        checkpoint_some(s->t);
    } else if (open == 0) {
        after_ms(s->t, 3000); /* backoffs */
        beat(s->t, "w1");
    } else if (open_batch(s->t, cox_rng_below(&s->rng, open), &first, &n)) {
        char name[32];
        snprintf(name, sizeof name, "scan[%u]", first);
        if (chance(s, 5))
            returned(s->t, "w1", name);
        else
            report(s, first, n);
    }
    ignore(s->t);
}

/* ---- the end ---- */

static void check_output(const struct story *s)
{
    struct cox_buf expected = { 0 };
    cox_put_u8(&expected, '[');
    for (uint32_t i = 0; i < s->n_items; i++) {
        cox_buf_append_str(&expected, i > 0 ? "," : "");
        if (s->fails_at_first[i] >= s->max_attempts)
            cox_buf_append_str(&expected, "null");
        else
            cox_buf_printf(&expected, "%u", 10 * i);
    }
    cox_put_u8(&expected, ']');
    if (expected.len > COX_INLINE_PAYLOAD_LEN_MAX)
        assert_true(cox_slice_eq(last_output(s->t), cox_buf_slice(&expected)));
    cox_buf_fini(&expected);
}

static void tell(uint64_t seed)
{
    struct story s = { .t = trace_begin(), .seed = seed };
    cox_rng_init(&s.rng, seed);
    choose(&s);
    begin(&s);
    ignore(s.t);
    for (uint32_t n = 0; is_live(s.t, 1) && view_of(s.t, 1).status == COX_TASK_RUNNING; n++) {
        assert_true(n < 20000); /* it comes to an end */
        something(&s);
    }
    assert_true(is_live(s.t, 1));
    bool fails = n_that_fail(&s) > tolerated(&s);
    assert_int_equal(view_of(s.t, 1).status, fails ? COX_TASK_FAILED : COX_TASK_SUCCEEDED);
    if (!fails)
        check_output(&s);
    trace_end(s.t);
    cox_free(s.fails_at_first);
    cox_free(s.n_failed);
}

static void maps_end_as_the_model_says(void **state)
{
    (void)state;
    const char *one = getenv("MAP_SEED"), *many = getenv("MAP_SEEDS");
    uint64_t from = one != NULL ? strtoull(one, NULL, 10) : 1;
    uint64_t n = one != NULL ? 1 : many != NULL ? strtoull(many, NULL, 10) : 10;
    for (uint64_t seed = from; seed < from + n; seed++) {
        print_message("MAP_SEED=%llu\n", (unsigned long long)seed); /* the last is the one that failed */
        tell(seed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(maps_end_as_the_model_says) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
