/* The simulated inference engine: random calls against what must hold of any engine. */
#include "engine.h"

#include "cox/base/alloc.h"
#include "cox/base/rng.h"

#include "check.h"

#include <stdlib.h>
#include <string.h>

#define MS INT64_C(1000000)

static const struct engine_config small = {
    .step_us = 5000,
    .prefill_tokens_per_s = 10000,
    .prefill_attention_ps = 1000,
    .decode_us = 50,
    .decode_attention_ns = 20,
    .kv_tokens = 4096,
    .block_tokens = 16,
    .max_num_seqs = 16,
    .max_batched_tokens = 512,
    .queue_max = 1000,
    .speed_permille = 1000,
    .cache = true,
};

struct told { /* of one call, by the test's own count */
    struct engine_call call;
    uint64_t *blocks;
    uint32_t tokens, ends;
    int64_t first_ns, last_ns, end_ns;
    bool cancelled;
};

struct world {
    struct engine *engine;
    struct told *told;
    uint32_t n;
    int64_t now_ns;
    bool quiet, went_back;
    uint32_t ended;
};

static void note_time(struct world *w, int64_t now_ns)
{
    w->went_back |= now_ns < w->now_ns;
    w->now_ns = now_ns;
}

static void on_tokens(void *user, struct engine_call *call, int64_t now_ns, uint32_t n)
{
    struct world *w = user;
    struct told *t = COX_CONTAINER_OF(call, struct told, call);

    note_time(w, now_ns);
    if (t->tokens == 0)
        t->first_ns = now_ns;
    t->tokens += n;
    t->last_ns = now_ns;
}

static void on_end(void *user, struct engine_call *call, int64_t now_ns)
{
    struct world *w = user;
    struct told *t = COX_CONTAINER_OF(call, struct told, call);

    note_time(w, now_ns);
    t->ends++;
    t->end_ns = now_ns;
    w->ended++;
}

static const struct engine_events events = { .on_tokens = on_tokens, .on_end = on_end };

/* `shared` blocks of a family, then its own. */
static void make_call(struct told *t, uint32_t id, uint32_t family, uint32_t shared, uint32_t input,
                      uint32_t output)
{
    uint32_t n = (input + output) / 16;

    t->blocks = cox_calloc(n + 1, sizeof(*t->blocks));
    for (uint32_t i = 0; i < n; i++)
        t->blocks[i] = i < shared ? 1 + family * 1000u + i : ((uint64_t)(id + 1) << 32) + i;
    t->call.blocks = t->blocks;
    t->call.n_blocks = n;
    t->call.input_tokens = input;
    t->call.output_tokens = output;
}

static void world_init(struct world *w, const struct engine_config *config, uint32_t n)
{
    memset(w, 0, sizeof(*w));
    w->engine = engine_create(config, &events, w);
    w->told = cox_calloc(n, sizeof(*w->told));
    w->n = n;
    w->quiet = config->quiet;
}

static void world_fini(struct world *w)
{
    engine_destroy(w->engine);
    for (uint32_t i = 0; i < w->n; i++)
        cox_free(w->told[i].blocks);
    cox_free(w->told);
}

static void run_out(struct world *w)
{
    while (engine_next_ns(w->engine) != INT64_MAX)
        engine_advance(w->engine, engine_next_ns(w->engine));
}

static void check_blocks(struct world *w, uint64_t seed)
{
    struct engine_stats n;

    engine_stats(w->engine, &n);
    check_seeded(n.kv_held + n.kv_kept + n.kv_empty == n.kv_blocks, seed);
    check_seeded(n.running <= 16, seed);
    check_seeded(!w->went_back, seed);
}

/* Plays a random history: calls that come, some that are cancelled. The same seed gives the same whatever the
 * engine tells about. */
static void play(struct world *w, uint64_t seed)
{
    struct cox_rng rng;
    int64_t now = 0;

    cox_rng_init(&rng, seed);
    for (uint32_t i = 0; i < w->n; i++) {
        uint32_t input = 1 + (uint32_t)cox_rng_below(&rng, 1500),
                 output = 1 + (uint32_t)cox_rng_below(&rng, 200);
        uint32_t victim = (uint32_t)cox_rng_below(&rng, w->n);
        bool cancels = cox_rng_below(&rng, 8) == 0;

        now += (int64_t)cox_rng_below(&rng, 60) * MS + (int64_t)cox_rng_below(&rng, 1000);
        uint32_t family = (uint32_t)cox_rng_below(&rng, 3), shared = (uint32_t)cox_rng_below(&rng, 40);
        make_call(&w->told[i], i, family, shared < input / 16 ? shared : input / 16, input, output);
        engine_advance(w->engine, now);
        check_blocks(w, seed);
        check_seeded(engine_submit(w->engine, now, &w->told[i].call) == COX_OK, seed);
        if (cancels && victim <= i && w->told[victim].ends == 0) {
            engine_cancel(w->engine, now, &w->told[victim].call);
            w->told[victim].cancelled = w->told[victim].ends == 0;
        }
        check_blocks(w, seed);
    }
    run_out(w);
}

static void test_every_call_ends_once_and_blocks_are_conserved(void **state)
{
    uint64_t first = getenv("COX_SEED") ? strtoull(getenv("COX_SEED"), NULL, 10) : 1, preempted = 0;

    (void)state;
    for (uint64_t seed = first; seed < first + 60; seed++) {
        struct world w;
        struct engine_stats n;

        world_init(&w, &small, 120);
        play(&w, seed);
        engine_stats(w.engine, &n);
        preempted += n.preemptions;
        check_seeded(n.running == 0 && n.waiting == 0 && n.kv_held == 0, seed);
        for (uint32_t i = 0; i < w.n; i++) {
            const struct told *t = &w.told[i];
            check_seeded(t->ends == !t->cancelled, seed);
            check_seeded(t->cancelled || (t->tokens == t->call.output_tokens && t->last_ns == t->end_ns),
                         seed);
            check_seeded(t->tokens == t->call.generated, seed);
            check_seeded(t->tokens == 0 || t->first_ns > t->call.submitted_ns, seed);
        }
        world_fini(&w);
    }
    assert_true(preempted > 0); /* or the hardest part was not played */
}

static void test_quiet_ends_at_the_same_times(void **state)
{
    uint64_t first = getenv("COX_SEED") ? strtoull(getenv("COX_SEED"), NULL, 10) : 1;

    (void)state;
    for (uint64_t seed = first; seed < first + 60; seed++) {
        struct engine_config config = small;
        struct engine_stats n, m;
        struct world loud, quiet;

        world_init(&loud, &config, 100);
        config.quiet = true;
        world_init(&quiet, &config, 100);
        play(&loud, seed);
        play(&quiet, seed);
        for (uint32_t i = 0; i < loud.n; i++) {
            check_seeded(loud.told[i].end_ns == quiet.told[i].end_ns, seed);
            check_seeded(loud.told[i].first_ns == quiet.told[i].first_ns, seed);
            check_seeded(loud.told[i].call.cached_tokens == quiet.told[i].call.cached_tokens, seed);
        }
        engine_stats(loud.engine, &n);
        engine_stats(quiet.engine, &m);
        check_seeded(memcmp(&n, &m, sizeof(n)) == 0, seed);
        world_fini(&loud);
        world_fini(&quiet);
    }
}

static void test_prefixes_are_found_exactly(void **state)
{
    struct world w;
    uint32_t shared[] = { 0, 1, 7, 20, 62 };
    struct engine_config roomy = small;

    (void)state;
    roomy.kv_tokens = 65536;
    world_init(&w, &roomy, 1 + ARRAY_LEN(shared) + 1);
    make_call(&w.told[0], 0, 0, 63, 1000, 8); /* whole blocks: 62 of the prompt, one with what it generates */
    assert_int_equal(engine_submit(w.engine, 0, &w.told[0].call), COX_OK);
    run_out(&w);
    for (uint32_t i = 0; i < ARRAY_LEN(shared); i++) {
        struct told *t = &w.told[1 + i];
        make_call(t, 1 + i, 0, shared[i], 1100, 4);
        assert_int_equal(engine_submit(w.engine, w.now_ns, &t->call), COX_OK);
        run_out(&w);
        assert_int_equal(t->call.cached_tokens, shared[i] * 16);
    }
    /* A prompt that is there whole: the last token is computed all the same. */
    struct told *same = &w.told[1 + ARRAY_LEN(shared)];
    make_call(same, 99, 0, 63, 992, 1);
    assert_int_equal(engine_submit(w.engine, w.now_ns, &same->call), COX_OK);
    run_out(&w);
    assert_int_equal(same->call.cached_tokens, 61 * 16);
    world_fini(&w);
}

static void test_what_was_generated_is_found_in_the_next_turn(void **state)
{
    struct world w;

    (void)state;
    world_init(&w, &small, 2);
    make_call(&w.told[0], 0, 0, 99, 320, 161); /* the last token is told, not computed: 480 stand in blocks */
    assert_int_equal(engine_submit(w.engine, 0, &w.told[0].call), COX_OK);
    run_out(&w);
    make_call(&w.told[1], 1, 0, 30, 600, 1);
    assert_int_equal(engine_submit(w.engine, w.now_ns, &w.told[1].call), COX_OK);
    run_out(&w);
    assert_int_equal(w.told[1].call.cached_tokens, 480);
    world_fini(&w);
}

/* The stated cost model, by hand. */
static void test_time_is_as_stated(void **state)
{
    struct world w;

    (void)state;
    world_init(&w, &small, 1);
    make_call(&w.told[0], 0, 0, 0, 600, 3);
    assert_int_equal(engine_submit(w.engine, 7 * MS, &w.told[0].call), COX_OK);
    run_out(&w);
    /* 512 tokens and the 256 before each on average; then 88 and 512 + 44 */
    int64_t chunk1 = 5 * MS + 512 * 100000 + 512 * 256, chunk2 = 5 * MS + 88 * 100000 + 88 * 556;
    assert_int_equal(w.told[0].first_ns, 7 * MS + chunk1 + chunk2);
    int64_t decode = 2 * (5 * MS + 50000) + 600 * 20 + 601 * 20;
    assert_int_equal(w.told[0].end_ns, w.told[0].first_ns + decode);
    world_fini(&w);
}

static void test_limits(void **state)
{
    struct engine_config config = small;
    struct world w;

    (void)state;
    config.queue_max = 2;
    world_init(&w, &config, 4);
    make_call(&w.told[0], 0, 0, 0, 4000, 97);
    assert_int_equal(engine_submit(w.engine, 0, &w.told[0].call), COX_ERR_INVALID);
    w.told[0].call.output_tokens = 96;
    assert_int_equal(engine_submit(w.engine, 0, &w.told[0].call), COX_OK);
    make_call(&w.told[1], 1, 0, 0, 10, 1);
    assert_int_equal(engine_submit(w.engine, 0, &w.told[1].call), COX_OK);
    make_call(&w.told[2], 2, 0, 0, 10, 1);
    assert_int_equal(engine_submit(w.engine, 0, &w.told[2].call), COX_ERR_FULL);
    run_out(&w);
    assert_int_equal(w.ended, 2);
    world_fini(&w);
}

static void test_a_slow_engine_is_slower_by_the_factor(void **state)
{
    struct world a, b;

    (void)state;
    world_init(&a, &small, 1);
    world_init(&b, &small, 1);
    engine_slow(b.engine, 10000);
    make_call(&a.told[0], 0, 0, 0, 100, 20);
    make_call(&b.told[0], 0, 0, 0, 100, 20);
    assert_int_equal(engine_submit(a.engine, 0, &a.told[0].call), COX_OK);
    assert_int_equal(engine_submit(b.engine, 0, &b.told[0].call), COX_OK);
    run_out(&a);
    run_out(&b);
    assert_int_equal(b.told[0].end_ns, 10 * a.told[0].end_ns);
    world_fini(&a);
    world_fini(&b);
}

static void test_forgetting_leaves_what_is_held(void **state)
{
    struct engine_stats n;
    struct world w;

    (void)state;
    world_init(&w, &small, 2);
    make_call(&w.told[0], 0, 0, 63, 640, 1);
    assert_int_equal(engine_submit(w.engine, 0, &w.told[0].call), COX_OK);
    run_out(&w);
    engine_stats(w.engine, &n);
    assert_int_equal(n.kv_kept, 40);
    engine_forget(w.engine);
    engine_stats(w.engine, &n);
    assert_int_equal(n.kv_kept, 0);
    assert_int_equal(n.kv_empty, n.kv_blocks);
    make_call(&w.told[1], 1, 0, 63, 640, 1);
    assert_int_equal(engine_submit(w.engine, w.now_ns, &w.told[1].call), COX_OK);
    run_out(&w);
    assert_int_equal(w.told[1].call.cached_tokens, 0);
    world_fini(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_call_ends_once_and_blocks_are_conserved),
        cmocka_unit_test(test_quiet_ends_at_the_same_times),
        cmocka_unit_test(test_prefixes_are_found_exactly),
        cmocka_unit_test(test_what_was_generated_is_found_in_the_next_turn),
        cmocka_unit_test(test_time_is_as_stated),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_a_slow_engine_is_slower_by_the_factor),
        cmocka_unit_test(test_forgetting_leaves_what_is_held),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
