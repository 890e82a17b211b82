/* Who goes next, and where to: the rules of placement one by one. */
#include "check.h"
#include "placement.h"

#include <string.h>

#define S 1000000000LL

struct scene {
    struct placement *p;
    uint32_t pool;
    int64_t now_ns;
};

static struct scene scene_of(enum placement_policy policy)
{
    struct placement_config config = { .policy = policy, .seed = 1 };
    struct scene s = { .p = placement_create(&config), .now_ns = 100 * S };

    s.pool = placement_pool_add(s.p);
    return s;
}

static uint32_t add(struct scene *s, uint32_t in_flight_max, uint64_t kv_tokens)
{
    struct placement_limits limits = { .in_flight_max = in_flight_max,
                                       .kv_tokens = kv_tokens,
                                       .prefill_tokens_per_s = 10000,
                                       .decode_tokens_per_s = 2000 };
    return placement_endpoint_add(s->p, s->pool, &limits);
}

static struct placement_call call(const struct scene *s, uint64_t program)
{
    return (struct placement_call){ .pool = s->pool,
                                    .band = PLACEMENT_BAND_NORMAL,
                                    .tenant = 1,
                                    .program = program,
                                    .input_tokens = 1000,
                                    .output_tokens = 100,
                                    .deadline_ns = INT64_MAX };
}

static void submit(struct scene *s, struct placement_call *c)
{
    int64_t retry_ms;
    assert_int_equal(placement_submit(s->p, s->now_ns, c, &retry_ms), COX_OK);
}

static struct placement_call *next(struct scene *s)
{
    return placement_next(s->p, s->now_ns);
}

static void done(struct scene *s, struct placement_call *c)
{
    struct placement_outcome o = { true, c->input_tokens, -1, 100 };

    s->now_ns += S;
    placement_first_token(s->p, s->now_ns, c);
    placement_done(s->p, s->now_ns, c, &o);
}

/* All that wait, one after the other. */
static void expect_order(struct scene *s, struct placement_call *const *calls, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct placement_call *c = next(s);
        assert_ptr_equal(c, calls[i]);
        assert_null(next(s));
        done(s, c);
    }
    assert_null(next(s));
}

static void bands_are_strict(void **state)
{
    (void)state;
    struct scene s = scene_of(PLACEMENT_PROGRAM);
    struct placement_call low = call(&s, 1), normal = call(&s, 2), high = call(&s, 3);

    add(&s, 1, 0);
    low.band = PLACEMENT_BAND_LOW;
    high.band = PLACEMENT_BAND_HIGH;
    submit(&s, &low);
    submit(&s, &normal);
    submit(&s, &high);
    expect_order(&s, (struct placement_call *[]){ &high, &normal, &low }, 3);
    placement_destroy(s.p);
}

static void the_least_served_program_is_first(void **state)
{
    (void)state;
    struct scene s = scene_of(PLACEMENT_PROGRAM);
    struct placement_call old[3], other, fresh = call(&s, 9);

    add(&s, 1, 0);
    for (int i = 0; i < 3; i++) { /* program 1 gets twice what program 2 gets */
        old[i] = call(&s, i < 2 ? 1 : 2);
        submit(&s, &old[i]);
        done(&s, next(&s));
    }
    old[0] = call(&s, 1);
    other = call(&s, 2);
    submit(&s, &old[0]);
    submit(&s, &other);
    submit(&s, &fresh);
    expect_order(&s, (struct placement_call *[]){ &fresh, &other, &old[0] }, 3);
    placement_destroy(s.p);
}

static void service_is_forgotten(void **state)
{
    (void)state;
    struct scene s = scene_of(PLACEMENT_PROGRAM);
    struct placement_call first, second;

    add(&s, 1, 0);
    for (int i = 0; i < 8; i++) { /* much, and then a little, but ten half-lives later */
        struct placement_call c = call(&s, i < 7 ? 1 : 2);
        s.now_ns += i < 7 ? 0 : 600 * S;
        submit(&s, &c);
        done(&s, next(&s));
    }
    second = call(&s, 2);
    first = call(&s, 1);
    submit(&s, &second);
    submit(&s, &first);
    expect_order(&s, (struct placement_call *[]){ &first, &second }, 2);
    placement_destroy(s.p);
}

static void the_longest_branch_of_a_program_is_first(void **state)
{
    (void)state;
    struct scene s = scene_of(PLACEMENT_PROGRAM);
    struct placement_call a = call(&s, 1), b = call(&s, 1), c = call(&s, 1);

    add(&s, 1, 0);
    b.critical_path_ns = 50 * S;
    c.critical_path_ns = 20 * S;
    submit(&s, &a);
    submit(&s, &b);
    submit(&s, &c);
    expect_order(&s, (struct placement_call *[]){ &b, &c, &a }, 3);
    placement_destroy(s.p);
}

static void what_has_no_slack_left_is_first(void **state)
{
    (void)state;
    struct scene s = scene_of(PLACEMENT_PROGRAM);
    struct placement_call early = call(&s, 1), late = call(&s, 2), tight = call(&s, 3), tighter = call(&s, 4);

    add(&s, 1, 0);
    late.deadline_ns = s.now_ns + 3600 * S;
    tight.deadline_ns = s.now_ns + 30 * S;
    tighter.deadline_ns = s.now_ns + 60 * S;
    tighter.critical_path_ns = 50 * S;
    submit(&s, &early);
    submit(&s, &late);
    submit(&s, &tight);
    submit(&s, &tighter);
    expect_order(&s, (struct placement_call *[]){ &tighter, &tight, &early, &late }, 4);
    placement_destroy(s.p);
}

/* A low call under a stream of high ones goes after two promotions. */
static void whoever_waits_is_promoted(void **state)
{
    (void)state;
    struct scene s = scene_of(PLACEMENT_PROGRAM);
    struct placement_call low = call(&s, 1), *c;
    int64_t begun_ns = s.now_ns;
    int n = 0;

    add(&s, 1, 0);
    low.band = PLACEMENT_BAND_LOW;
    submit(&s, &low);
    do {
        struct placement_call high[2] = { call(&s, 2), call(&s, 2) };
        high[0].band = high[1].band = PLACEMENT_BAND_HIGH;
        submit(&s, &high[0]);
        submit(&s, &high[1]);
        c = next(&s);
        assert_true(++n < 100);
        done(&s, c);
        for (int i = 0; i < 2; i++)
            placement_withdraw(s.p, &high[i]);
    } while (c != &low);
    assert_true(s.now_ns - begun_ns > 2 * S && s.now_ns - begun_ns < 65 * S);
    placement_destroy(s.p);
}

/* Tokens, not calls, are shared; a tenant that was away has saved nothing up. */
static void tenants_share_tokens(void **state)
{
    (void)state;
    struct scene s = scene_of(PLACEMENT_PROGRAM);
    struct placement_call a[400], b[400];
    uint64_t got_a = 0, got_b = 0;

    add(&s, 1, 0);
    for (int i = 0; i < 100; i++) { /* only tenant 1 is there */
        a[i] = call(&s, 1);
        submit(&s, &a[i]);
        done(&s, next(&s));
    }
    for (int i = 0; i < 400; i++) {
        a[i] = call(&s, 1);
        b[i] = call(&s, 2);
        b[i].tenant = 2;
        b[i].input_tokens = 3800; /* with 100 of output: 4000 against 1200 */
        submit(&s, &a[i]);
        submit(&s, &b[i]);
    }
    for (int i = 0; i < 130; i++) {
        struct placement_call *c = next(&s);
        *(c->tenant == 1 ? &got_a : &got_b) += c->input_tokens + 200u;
        done(&s, c);
        assert_true(got_a < got_b + 9000 && got_b < got_a + 9000);
    }
    assert_true(got_a > 100000 && got_b > 100000);
    placement_destroy(s.p);
}

static void submit_says_when_it_cannot_be(void **state)
{
    (void)state;
    struct placement_config config = { .policy = PLACEMENT_PROGRAM, .queue_max = 3 };
    struct scene s = { .p = placement_create(&config), .now_ns = 100 * S };
    struct placement_call calls[40];
    int64_t retry_ms = 0;

    s.pool = placement_pool_add(s.p);
    calls[0] = call(&s, 1);
    assert_int_equal(placement_submit(s.p, s.now_ns, &calls[0], &retry_ms), COX_ERR_UNAVAILABLE);
    uint32_t id = add(&s, 1, 0);
    placement_endpoint_gate(s.p, id, PLACEMENT_CLOSED, false);
    for (int i = 0; i < 3; i++) {
        calls[i] = call(&s, 1);
        submit(&s, &calls[i]);
    }
    assert_null(next(&s));
    calls[3] = call(&s, 1);
    assert_int_equal(placement_submit(s.p, s.now_ns, &calls[3], &retry_ms), COX_ERR_FULL);
    assert_true(retry_ms > 0);
    /* Once it is known how fast credit comes back, a deadline that cannot be kept is refused. */
    placement_endpoint_gate(s.p, id, PLACEMENT_OPEN, false);
    for (int i = 4; i < 40; i++) {
        struct placement_call *c = next(&s);
        done(&s, c);
        calls[i] = call(&s, 1);
        submit(&s, &calls[i]);
    }
    done(&s, next(&s));
    calls[3] = call(&s, 1);
    calls[3].deadline_ns = s.now_ns + S / 2;
    assert_int_equal(placement_submit(s.p, s.now_ns, &calls[3], &retry_ms), COX_ERR_FULL);
    assert_true(retry_ms >= 1000 && retry_ms <= 4000);
    calls[3].deadline_ns = s.now_ns + 60 * S;
    submit(&s, &calls[3]);
    placement_destroy(s.p);
}

/* ---- where to ---- */

#define TURN_BLOCKS 400u

static void blocks_of(uint64_t *blocks, uint64_t program)
{
    for (uint64_t i = 0; i < TURN_BLOCKS; i++)
        blocks[i] = i < 20 ? 1000 + i : program * 1000000 + i;
}

static uint32_t turn(struct scene *s, uint64_t program, const uint64_t *blocks, int64_t cached)
{
    struct placement_call c = call(s, program);
    struct placement_outcome o = { true, TURN_BLOCKS * 64, cached, 100 };

    c.blocks = blocks;
    c.n_blocks = TURN_BLOCKS;
    c.input_tokens = TURN_BLOCKS * 64;
    submit(s, &c);
    assert_ptr_equal(next(s), &c);
    s->now_ns += S;
    placement_first_token(s->p, s->now_ns, &c);
    placement_done(s->p, s->now_ns, &c, &o);
    return c.endpoint;
}

static void turns_go_home(void **state)
{
    (void)state;
    for (int n = 4; n <= 300; n += 296) { /* all are looked at; some are drawn */
        struct scene s = scene_of(PLACEMENT_PROGRAM);
        uint64_t blocks[8][TURN_BLOCKS];
        uint32_t home[8];
        for (int i = 0; i < n; i++)
            add(&s, 8, 1000000);
        for (uint64_t g = 0; g < 8; g++) {
            blocks_of(blocks[g], g + 1);
            home[g] = turn(&s, g + 1, blocks[g], -1);
        }
        for (int i = 0; i < 40; i++) {
            s.now_ns += S;
            assert_int_equal(turn(&s, (uint64_t)i % 8 + 1, blocks[i % 8], -1), home[i % 8]);
        }
        /* Who is not known, but whose prompt is, goes where the prompt is. */
        for (int g = 0; g < 8; g++)
            assert_int_equal(turn(&s, 100 + (uint64_t)g, blocks[g], -1), home[g]);
        placement_destroy(s.p);
    }
}

/* Others prefill for so long at its home: a program stays when going would cost about as much, and goes when
 * it would cost a third. */
static void a_busy_home_is_left_when_it_pays(void **state)
{
    (void)state;
    for (int much = 0; much < 2; much++) {
        struct scene s = scene_of(PLACEMENT_PROGRAM);
        uint64_t blocks[TURN_BLOCKS];
        blocks_of(blocks, 1);
        add(&s, 8, 1000000);
        add(&s, 8, 1000000);
        uint32_t home = turn(&s, 1, blocks, -1);
        struct placement_call other = call(&s, 2), c = call(&s, 1);
        placement_endpoint_gate(s.p, !home, PLACEMENT_CLOSED, false);
        other.input_tokens = much ? 250000 : 60000; /* its first prompt has shown 25,600 a second */
        submit(&s, &other);
        assert_ptr_equal(next(&s), &other);
        placement_endpoint_gate(s.p, !home, PLACEMENT_OPEN, false);
        c.blocks = blocks;
        c.n_blocks = TURN_BLOCKS;
        c.input_tokens = TURN_BLOCKS * 64;
        submit(&s, &c);
        assert_ptr_equal(next(&s), &c);
        assert_int_equal(c.endpoint, much ? !home : home);
        placement_destroy(s.p);
    }
}

static void a_home_that_forgot_is_none(void **state)
{
    (void)state;
    struct scene s = scene_of(PLACEMENT_PROGRAM);
    uint64_t blocks[TURN_BLOCKS];
    struct placement_call c;

    blocks_of(blocks, 1);
    add(&s, 8, 1000000);
    uint32_t home = turn(&s, 1, blocks, -1);
    c = call(&s, 1);
    c.blocks = blocks;
    c.n_blocks = TURN_BLOCKS;
    c.input_tokens = TURN_BLOCKS * 64;
    submit(&s, &c);
    assert_ptr_equal(next(&s), &c);
    assert_true(c.hit_tokens > TURN_BLOCKS * 60);
    done(&s, &c);
    placement_endpoint_gate(s.p, home, PLACEMENT_OPEN, true);
    submit(&s, &c);
    assert_ptr_equal(next(&s), &c);
    assert_int_equal(c.hit_tokens, 0);
    placement_destroy(s.p);
}

/* Engines count cached tokens in blocks of their own. */
static void what_is_cached_corrects_what_is_believed(void **state)
{
    (void)state;
    struct scene s = scene_of(PLACEMENT_PROGRAM);
    uint64_t a[TURN_BLOCKS], b[TURN_BLOCKS];
    struct placement_endpoint_view v;

    blocks_of(a, 1);
    blocks_of(b, 2);
    uint32_t id = add(&s, 8, 1000000);
    turn(&s, 1, a, 0);
    turn(&s, 2, b, 20 * 64 - 16); /* the shared beginning, a little less: nothing is forgotten */
    placement_endpoint_view(s.p, id, &v);
    assert_int_equal(v.cached_blocks, 2 * TURN_BLOCKS - 20);
    turn(&s, 1, a, TURN_BLOCKS * 64 - 40);
    placement_endpoint_view(s.p, id, &v);
    assert_int_equal(v.cached_blocks, 2 * TURN_BLOCKS - 20);
    turn(&s, 2, b, 0); /* nothing at all was there: what shared its beginning is gone too */
    placement_endpoint_view(s.p, id, &v);
    assert_int_equal(v.cached_blocks, TURN_BLOCKS);
    placement_destroy(s.p);
}

/* A cache that is full of programs which come back soon takes no new one, until one of them goes or stays
 * away; those that are there go on. */
static void new_programs_wait_for_a_place_in_the_working_set(void **state)
{
    (void)state;
    for (int ends = 0; ends < 2; ends++) {
        struct scene s = scene_of(PLACEMENT_PROGRAM);
        uint64_t blocks[4][TURN_BLOCKS];
        struct placement_call fresh = call(&s, 9);
        add(&s, 0, 100000);
        for (uint64_t g = 0; g < 3; g++) {
            blocks_of(blocks[g], g + 1);
            turn(&s, g + 1, blocks[g], -1);
            placement_expect(s.p, s.now_ns, g + 1, 4 * S);
        }
        blocks_of(blocks[3], 9);
        fresh.blocks = blocks[3];
        fresh.n_blocks = TURN_BLOCKS;
        fresh.input_tokens = TURN_BLOCKS * 64;
        submit(&s, &fresh);
        assert_null(next(&s));
        turn(&s, 1, blocks[0], -1); /* next() in it gives this call, not the one that waits */
        placement_expect(s.p, s.now_ns, 1, 4 * S);
        assert_null(next(&s));
        if (ends == 0) {
            placement_program_end(s.p, 2);
            placement_program_end(s.p, 3);
        } else { /* they do not come back in time: time alone lets it in */
            assert_true(placement_wake_ns(s.p) < s.now_ns + 30 * S);
            s.now_ns = placement_wake_ns(s.p) + 10 * S;
        }
        assert_ptr_equal(next(&s), &fresh);
        placement_destroy(s.p);
    }
}

static struct placement_call turn_of(const struct scene *s, uint64_t program, const uint64_t *blocks)
{
    struct placement_call c = call(s, program);

    c.blocks = blocks;
    c.n_blocks = TURN_BLOCKS;
    c.input_tokens = TURN_BLOCKS * 64;
    return c;
}

static void take_turn(struct scene *s, uint64_t program, const uint64_t *blocks)
{
    turn(s, program, blocks, -1);
    placement_expect(s->p, s->now_ns, program, 4 * S);
}

/* However long that is: when those who have waited were let in all the same, they would push out the others,
 * who would wait in their turn. */
static void nobody_is_let_into_a_full_cache_for_having_waited(void **state)
{
    (void)state;
    struct scene s = scene_of(PLACEMENT_PROGRAM);
    uint64_t blocks[4][TURN_BLOCKS];

    add(&s, 0, 100000);
    for (uint64_t g = 0; g < 4; g++)
        blocks_of(blocks[g], g + 1);
    for (uint64_t g = 0; g < 3; g++)
        take_turn(&s, g + 1, blocks[g]);
    struct placement_call fresh = turn_of(&s, 4, blocks[3]);
    submit(&s, &fresh);
    for (uint64_t i = 0; i < 120; i++) { /* a second each */
        assert_null(next(&s));
        take_turn(&s, i % 3 + 1, blocks[i % 3]);
    }
    placement_program_end(s.p, 2);
    assert_null(next(&s)); /* it would fit, but the other two come back again and again, and grow */
    placement_program_end(s.p, 3);
    assert_ptr_equal(next(&s), &fresh);
    placement_destroy(s.p);
}

/* Whoever stayed away for too long has lost his place, though what he had may still lie there; when there is
 * one again, he is before those that came after him. */
static void the_oldest_program_gets_the_next_place(void **state)
{
    (void)state;
    struct scene s = scene_of(PLACEMENT_PROGRAM);
    uint64_t blocks[5][TURN_BLOCKS];

    add(&s, 0, 100000);
    for (uint64_t g = 0; g < 5; g++)
        blocks_of(blocks[g], g + 1);
    take_turn(&s, 1, blocks[0]);
    s.now_ns += 60 * S;
    for (uint64_t g = 1; g < 4; g++)
        take_turn(&s, g + 1, blocks[g]);
    struct placement_call fresh = turn_of(&s, 5, blocks[4]), back = turn_of(&s, 1, blocks[0]);
    submit(&s, &fresh);
    assert_null(next(&s));
    submit(&s, &back);
    assert_null(next(&s));
    placement_program_end(s.p, 2);
    assert_ptr_equal(next(&s), &back);
    assert_null(next(&s));
    placement_program_end(s.p, 3);
    assert_ptr_equal(next(&s), &fresh);
    placement_destroy(s.p);
}

static void who_waits_for_a_full_home_holds_up_nobody(void **state)
{
    (void)state;
    struct scene s = scene_of(PLACEMENT_PROGRAM);
    uint64_t blocks[4][TURN_BLOCKS];
    uint32_t home[4];

    add(&s, 1, 60000); /* of each, two programs fill the cache */
    add(&s, 1, 60000);
    for (uint64_t g = 0; g < 4; g++) {
        blocks_of(blocks[g], g + 1);
        home[g] = turn(&s, g + 1, blocks[g], -1);
        placement_expect(s.p, s.now_ns, g + 1, 4 * S);
    }
    uint64_t beside = home[1] == home[0] ? 1 : home[2] == home[0] ? 2 : 3;
    uint64_t elsewhere = beside == 1 ? 2 : 1;
    assert_int_equal(home[beside], home[0]);
    assert_int_not_equal(home[elsewhere], home[0]);
    struct placement_call first = turn_of(&s, beside + 1, blocks[beside]);
    struct placement_call waits = turn_of(&s, 1, blocks[0]),
                          goes = turn_of(&s, elsewhere + 1, blocks[elsewhere]);
    submit(&s, &first);
    assert_ptr_equal(next(&s), &first);
    submit(&s, &waits);
    assert_null(next(&s));
    submit(&s, &goes);
    assert_ptr_equal(next(&s), &goes);
    assert_null(next(&s));
    done(&s, &first);
    assert_ptr_equal(next(&s), &waits);
    assert_int_equal(waits.endpoint, home[0]);
    placement_destroy(s.p);
}

/* Of a cache whose size nobody says nothing is kept from anybody, and its credit grows with use. */
static void an_unknown_cache_is_no_bound(void **state)
{
    (void)state;
    struct scene s = scene_of(PLACEMENT_PROGRAM);
    struct placement_call calls[64];
    struct placement_endpoint_view before, after;
    uint32_t id = add(&s, 0, 0);

    placement_endpoint_view(s.p, id, &before);
    for (int round = 0; round < 30; round++) {
        uint32_t n = 0;
        for (int i = 0; i < 64; i++) {
            calls[i] = call(&s, 1 + (uint64_t)(round * 64 + i));
            calls[i].input_tokens = 20000;
            submit(&s, &calls[i]);
        }
        for (struct placement_call *c = next(&s); c != NULL; c = next(&s), n++)
            s.now_ns += S / 1000;
        assert_true(n >= 10);
        for (int i = 0; i < 64; i++) {
            struct placement_outcome o = { true, 20000, -1, 100 };
            if (calls[i].dispatched_ns == 0) {
                placement_withdraw(s.p, &calls[i]);
                continue;
            }
            s.now_ns += S / 100;
            placement_first_token(s.p, s.now_ns, &calls[i]);
            placement_done(s.p, s.now_ns, &calls[i], &o);
            placement_expect(s.p, s.now_ns, calls[i].program, S);
        }
    }
    placement_endpoint_view(s.p, id, &after);
    assert_true(after.credit_tokens > 2 * before.credit_tokens);
    placement_destroy(s.p);
}

static void siblings_share_what_they_have_in_common(void **state)
{
    (void)state;
    struct scene s = scene_of(PLACEMENT_PROGRAM);
    uint64_t blocks[TURN_BLOCKS];
    struct placement_call calls[20];
    struct placement_endpoint_view v;

    blocks_of(blocks, 1);
    uint32_t id = add(&s, 0, 60000); /* of contexts that share nothing it holds two */
    for (int i = 0; i < 20; i++) {
        calls[i] = call(&s, 1);
        calls[i].blocks = blocks;
        calls[i].n_blocks = TURN_BLOCKS;
        calls[i].input_tokens = TURN_BLOCKS * 64;
        submit(&s, &calls[i]);
    }
    struct placement_call *first = next(&s);
    s.now_ns += S;
    placement_first_token(s.p, s.now_ns, first);
    while (next(&s) != NULL)
        ;
    placement_endpoint_view(s.p, id, &v);
    assert_true(v.in_flight >= 15);
    assert_true(v.charged_tokens <= v.credit_tokens);
    placement_destroy(s.p);
}

static void a_call_goes_where_it_has_not_failed(void **state)
{
    (void)state;
    for (int policy = 0; policy < PLACEMENT_POLICY_NR; policy++) {
        struct scene s = scene_of((enum placement_policy)policy);
        uint32_t bad = add(&s, 4, 0), good = add(&s, 4, 0);
        for (int i = 0; i < 20; i++) {
            struct placement_call c = call(&s, (uint64_t)i + 1);
            c.n_avoid = 1;
            c.avoid[0] = i % 2 ? bad : good;
            submit(&s, &c);
            assert_ptr_equal(next(&s), &c);
            assert_int_equal(c.endpoint, i % 2 ? good : bad);
            done(&s, &c);
        }
        placement_endpoint_gate(s.p, good, PLACEMENT_CLOSED, false);
        struct placement_call c = call(&s, 1);
        c.n_avoid = 1;
        c.avoid[0] = bad;
        submit(&s, &c);
        assert_ptr_equal(next(&s), &c); /* better there than nowhere */
        placement_destroy(s.p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bands_are_strict),
        cmocka_unit_test(the_least_served_program_is_first),
        cmocka_unit_test(service_is_forgotten),
        cmocka_unit_test(the_longest_branch_of_a_program_is_first),
        cmocka_unit_test(what_has_no_slack_left_is_first),
        cmocka_unit_test(whoever_waits_is_promoted),
        cmocka_unit_test(tenants_share_tokens),
        cmocka_unit_test(submit_says_when_it_cannot_be),
        cmocka_unit_test(turns_go_home),
        cmocka_unit_test(a_busy_home_is_left_when_it_pays),
        cmocka_unit_test(a_home_that_forgot_is_none),
        cmocka_unit_test(what_is_cached_corrects_what_is_believed),
        cmocka_unit_test(new_programs_wait_for_a_place_in_the_working_set),
        cmocka_unit_test(nobody_is_let_into_a_full_cache_for_having_waited),
        cmocka_unit_test(the_oldest_program_gets_the_next_place),
        cmocka_unit_test(who_waits_for_a_full_home_holds_up_nobody),
        cmocka_unit_test(an_unknown_cache_is_no_bound),
        cmocka_unit_test(siblings_share_what_they_have_in_common),
        cmocka_unit_test(a_call_goes_where_it_has_not_failed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
