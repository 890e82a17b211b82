/* Placement under random words: what is sent is charged once and refunded once, limits hold at every moment,
 * every call ends, whatever is added, removed, closed or forgotten meanwhile. */
#include "check.h"
#include "placement.h"

#include "cox/base/alloc.h"
#include "cox/base/rng.h"

#include <stdlib.h>
#include <string.h>

#define SEEDS 60
#define TURNS 3000
#define ENDPOINTS 90
#define CALLS 400
#define PROGRAMS 25
#define BLOCKS 40

struct endpoint_model {
    bool added, removed;
    enum placement_gate gate;
    struct placement_limits limits;
    uint32_t in_flight;
    uint64_t charged;
};

enum life { FREE, WAITING, SENT, PREFILLED };

struct call_model {
    struct placement_call call;
    enum life life;
    uint64_t blocks[BLOCKS];
};

struct world {
    struct placement *p;
    struct cox_rng rng;
    uint64_t seed;
    int64_t now_ns;
    uint32_t pools[2];
    struct endpoint_model endpoints[4 * ENDPOINTS];
    uint32_t n_added;
    struct call_model calls[CALLS];
    uint32_t n_waiting;
    enum placement_policy policy;
    uint64_t digest; /* of every decision */
};

static uint64_t below(struct world *w, uint64_t n)
{
    return cox_rng_below(&w->rng, n);
}

static void add_endpoint(struct world *w)
{
    struct placement_limits limits = { .in_flight_max = (uint32_t)below(w, 6),
                                       .kv_tokens = below(w, 2) * (2000 + below(w, 50000)) };
    if (w->n_added == ENDPOINTS)
        return;
    uint32_t id = placement_endpoint_add(w->p, w->pools[below(w, 4) == 0], &limits);
    check_seeded(id < ARRAY_LEN(w->endpoints), w->seed);
    struct endpoint_model *e = &w->endpoints[id];
    /* An id is given again only when nothing is under way on it. */
    check_seeded(!e->added && e->in_flight == 0, w->seed);
    *e = (struct endpoint_model){ .added = true, .limits = limits };
    w->n_added++;
}

static struct endpoint_model *some_endpoint(struct world *w, uint32_t *ret_id)
{
    *ret_id = (uint32_t)below(w, ARRAY_LEN(w->endpoints));
    for (uint32_t i = 0; i < ARRAY_LEN(w->endpoints);
         i++, *ret_id = (*ret_id + 1) % ARRAY_LEN(w->endpoints)) {
        struct endpoint_model *e = &w->endpoints[*ret_id];
        if (e->added && !e->removed)
            return e;
    }
    return NULL;
}

static void check_endpoint(struct world *w, uint32_t id)
{
    struct placement_endpoint_view v;

    placement_endpoint_view(w->p, id, &v);
    check_seeded(v.in_flight == w->endpoints[id].in_flight, w->seed);
    check_seeded(v.charged_tokens == w->endpoints[id].charged, w->seed);
}

static void submit(struct world *w)
{
    struct call_model *m = &w->calls[below(w, CALLS)];
    if (m->life != FREE)
        return;
    struct placement_call *c = &m->call;
    memset(c, 0xa5, sizeof *c); /* what is placement's need not be cleared */
    uint64_t program = below(w, PROGRAMS);
    c->pool = w->pools[below(w, 4) == 0];
    c->band = (enum placement_band)below(w, PLACEMENT_BAND_NR);
    c->tenant = program % 3;
    c->program = program;
    c->n_blocks = (uint32_t)below(w, BLOCKS);
    for (uint32_t i = 0; i < c->n_blocks; i++)
        m->blocks[i] = i < 5 ? i + 1 : (program + 1) * 1000 + i;
    c->blocks = m->blocks;
    c->input_tokens = c->n_blocks * 64 + (uint32_t)below(w, 3000);
    c->output_tokens = below(w, 3) == 0 ? (uint32_t)below(w, 900) : 0;
    c->deadline_ns = below(w, 4) == 0 ? w->now_ns + (int64_t)below(w, 100) * 1000000000 : INT64_MAX;
    c->critical_path_ns = below(w, 4) == 0 ? (int64_t)below(w, 100) * 1000000000 : 0;
    c->n_avoid = below(w, 6) == 0 ? (uint32_t)below(w, 5) : 0;
    for (uint32_t i = 0; i < c->n_avoid; i++)
        c->avoid[i] = (uint32_t)below(w, ENDPOINTS);
    int64_t retry_ms = -1;
    enum cox_err err = placement_submit(w->p, w->now_ns, c, &retry_ms);
    check_seeded(err == COX_OK || err == COX_ERR_FULL || err == COX_ERR_UNAVAILABLE, w->seed);
    check_seeded(retry_ms > 0, w->seed);
    if (err == COX_OK) {
        m->life = WAITING;
        w->n_waiting++;
    }
}

static void dispatch(struct world *w)
{
    struct placement_call *c;

    while ((c = placement_next(w->p, w->now_ns)) != NULL) {
        struct call_model *m = COX_CONTAINER_OF(c, struct call_model, call);
        struct endpoint_model *e = &w->endpoints[c->endpoint];
        struct placement_endpoint_view v;
        check_seeded(m->life == WAITING, w->seed);
        check_seeded(e->added && !e->removed && e->gate != PLACEMENT_CLOSED, w->seed);
        check_seeded(e->gate != PLACEMENT_HALF_OPEN || e->in_flight == 0, w->seed);
        e->in_flight++;
        e->charged += c->charged_tokens;
        check_seeded(e->limits.in_flight_max == 0 || e->in_flight <= e->limits.in_flight_max, w->seed);
        check_seeded(c->hit_tokens <= c->input_tokens, w->seed);
        check_endpoint(w, c->endpoint);
        placement_endpoint_view(w->p, c->endpoint, &v);
        check_seeded(v.charged_tokens <= v.credit_tokens, w->seed);
        m->life = SENT;
        w->n_waiting--;
        w->digest = w->digest * 1000003 + (uint64_t)(m - w->calls) * 1000 + c->endpoint + c->hit_tokens;
        if (below(w, 8) == 0)
            return;
    }
}

static void progress(struct world *w, struct call_model *m)
{
    struct placement_call *c = &m->call;
    bool sent = m->life == SENT || m->life == PREFILLED;
    struct endpoint_model *e = sent ? &w->endpoints[c->endpoint] : NULL;
    uint64_t what = below(w, 3);

    if (m->life == SENT && what == 0) {
        placement_first_token(w->p, w->now_ns, c);
        m->life = PREFILLED;
    } else if (sent) {
        struct placement_outcome o = { .answered = m->life == PREFILLED || below(w, 3) > 0,
                                       .cached_tokens = -1 };
        if (o.answered && below(w, 2) == 0)
            o.input_tokens = c->input_tokens + (uint32_t)below(w, 50);
        if (o.answered && below(w, 2) == 0)
            o.cached_tokens = (int64_t)below(w, c->input_tokens + 1u);
        if (o.answered)
            o.output_tokens = (uint32_t)below(w, 1500);
        e->in_flight--;
        e->charged -= c->charged_tokens;
        uint32_t id = c->endpoint;
        placement_done(w->p, w->now_ns, c, &o);
        m->life = FREE;
        if (!e->removed)
            check_endpoint(w, id);
        else if (e->in_flight == 0)
            *e = (struct endpoint_model){ 0 };
    } else if (what == 0) {
        placement_withdraw(w->p, c);
        if (m->life == WAITING)
            w->n_waiting--;
        placement_withdraw(w->p, c);
        m->life = FREE;
    }
}

static void operate(struct world *w)
{
    uint32_t id;
    struct endpoint_model *e = some_endpoint(w, &id);
    uint64_t what = below(w, 8);

    if (e == NULL || what == 0) {
        add_endpoint(w);
    } else if (what == 1) {
        placement_endpoint_remove(w->p, id);
        e->removed = true;
        w->n_added--;
        if (e->in_flight == 0)
            *e = (struct endpoint_model){ 0 };
    } else if (what < 4) {
        e->gate = (enum placement_gate)below(w, 3);
        placement_endpoint_gate(w->p, id, e->gate, below(w, 3) == 0);
    } else if (what == 4) {
        e->limits.in_flight_max = e->in_flight + 1 + (uint32_t)below(w, 5);
        e->limits.kv_tokens = below(w, 3) * 20000;
        placement_endpoint_limit(w->p, id, &e->limits);
    } else if (what == 5) {
        struct placement_signals s = { .running = (int32_t)below(w, 20) - 1,
                                       .waiting = (int32_t)below(w, 20) - 1,
                                       .kv_used_permille = (int32_t)below(w, 1002) - 1,
                                       .kv_tokens = below(w, 4) * 30000 };
        placement_endpoint_signals(w->p, id, w->now_ns, &s);
    } else if (what == 6) {
        placement_expect(w->p, w->now_ns, below(w, PROGRAMS), (int64_t)below(w, 40) * 1000000000);
    } else {
        placement_program_end(w->p, below(w, PROGRAMS));
    }
}

static void check_pools(struct world *w)
{
    uint32_t n = 0;

    for (int i = 0; i < 2; i++) {
        struct placement_pool_view v;
        placement_pool_view(w->p, w->pools[i], &v);
        for (int b = 0; b < PLACEMENT_BAND_NR; b++)
            n += v.waiting[b];
        check_seeded((v.waiting[0] + v.waiting[1] + v.waiting[2] == 0) ==
                         (v.oldest_submitted_ns == INT64_MAX),
                     w->seed);
    }
    check_seeded(n == w->n_waiting, w->seed);
}

/* All gates open, an endpoint in each pool: then everything must go and end. */
static void drain(struct world *w)
{
    struct placement_limits limits = { 0 };

    for (uint32_t id = 0; id < ARRAY_LEN(w->endpoints); id++) {
        if (w->endpoints[id].added && !w->endpoints[id].removed) {
            w->endpoints[id].gate = PLACEMENT_OPEN;
            placement_endpoint_gate(w->p, id, PLACEMENT_OPEN, false);
        }
    }
    for (int i = 0; i < 2; i++) {
        uint32_t id = placement_endpoint_add(w->p, w->pools[i], &limits);
        w->endpoints[id] = (struct endpoint_model){ .added = true };
    }
    for (uint32_t turn = 0, busy = 1; busy > 0; turn++) {
        check_seeded(turn < 100 * CALLS, w->seed);
        int64_t wake_ns = placement_wake_ns(w->p);
        w->now_ns += 100000000;
        if (turn % 16 == 0 && wake_ns != INT64_MAX && wake_ns > w->now_ns)
            w->now_ns = wake_ns;
        dispatch(w);
        busy = w->n_waiting;
        for (uint32_t i = 0; i < CALLS; i++) {
            if (w->calls[i].life == SENT || w->calls[i].life == PREFILLED)
                progress(w, &w->calls[i]);
            busy += w->calls[i].life != FREE;
        }
    }
    for (uint32_t id = 0; id < ARRAY_LEN(w->endpoints); id++) {
        if (!w->endpoints[id].added)
            continue;
        struct placement_endpoint_view v;
        placement_endpoint_view(w->p, id, &v);
        check_seeded(v.in_flight == 0 && v.charged_tokens == 0, w->seed);
        check_seeded(v.pending_prefill_tokens == 0 && v.decoding == 0, w->seed);
        placement_endpoint_remove(w->p, id);
    }
    placement_pool_remove(w->p, w->pools[0]);
    placement_pool_remove(w->p, w->pools[1]);
}

static uint64_t run(uint64_t seed, enum placement_policy policy)
{
    struct world *w = COX_NEW(struct world);
    struct placement_config config = { .policy = policy, .seed = seed, .queue_max = 150 };

    w->seed = seed;
    w->policy = policy;
    w->now_ns = 1000000000;
    cox_rng_init(&w->rng, seed * PLACEMENT_POLICY_NR + (uint64_t)policy);
    w->p = placement_create(&config);
    w->pools[0] = placement_pool_add(w->p);
    w->pools[1] = placement_pool_add(w->p);
    /* Some worlds are large enough that candidates are drawn. */
    for (uint64_t i = 0, n = seed % 3 == 0 ? ENDPOINTS : below(w, 8); i < n; i++)
        add_endpoint(w);
    for (uint32_t turn = 0; turn < TURNS; turn++) {
        w->now_ns += (int64_t)below(w, 300000000);
        uint64_t what = below(w, 20);
        if (what < 8)
            submit(w);
        else if (what < 12)
            dispatch(w);
        else if (what < 19)
            progress(w, &w->calls[below(w, CALLS)]);
        else
            operate(w);
        check_pools(w);
    }
    drain(w);
    placement_destroy(w->p);
    uint64_t digest = w->digest;
    cox_free(w);
    return digest;
}

static void every_call_ends_and_the_books_come_back_to_nothing(void **state)
{
    (void)state;
    const char *only = getenv("COX_TEST_SEED");
    uint64_t first = only != NULL ? strtoull(only, NULL, 10) : 1;

    for (uint64_t seed = first; seed < first + (only != NULL ? 1 : SEEDS); seed++) {
        for (int policy = 0; policy < PLACEMENT_POLICY_NR; policy++)
            run(seed, (enum placement_policy)policy);
    }
}

static void the_same_words_get_the_same_decisions(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        for (int policy = 0; policy < PLACEMENT_POLICY_NR; policy++)
            check_seeded(run(seed, (enum placement_policy)policy) == run(seed, (enum placement_policy)policy),
                         seed);
    }
    assert_int_not_equal(run(1, PLACEMENT_PROGRAM), run(2, PLACEMENT_PROGRAM));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_call_ends_and_the_books_come_back_to_nothing),
        cmocka_unit_test(the_same_words_get_the_same_decisions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
