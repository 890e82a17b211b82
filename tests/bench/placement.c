/* What placement costs by itself: decisions among many endpoints for many programs while both come and go, a
 * long queue, and a turn of a long conversation. One JSON object on standard output.
 *
 * usage: cox-bench-placement [endpoints=N] [programs=N] [decisions=N] [waiting=N] */
#include "orchestrator/inference/placement.h"
#include "orchestrator/inference/prefix.h"

#include "cox/base/alloc.h"
#include "cox/base/rng.h"
#include "cox/base/units.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IN_FLIGHT_MAX 5000u /* calls at once */
#define BLOCKS 400u         /* of a prompt at most: 100 KB */
#define SYSTEM_BLOCKS 40u   /* shared by all programs of a kind */
#define KINDS 20u
#define TURN_LEN 10000u
#define TURNS 40u

struct times { /* nanoseconds, all of them */
    int64_t *ns;
    size_t n, cap;
};
struct job {
    struct placement_call call;
    uint64_t blocks[BLOCKS];
};
struct bench {
    struct placement *p;
    struct cox_rng rng;
    uint32_t pool, n_endpoints, n_programs, n_waiting;
    uint32_t *endpoints;
    uint8_t *turns;  /* that each program has had */
    uint32_t *lives; /* its number, when it has come anew */
    struct job *jobs;
    int64_t now_ns;
    size_t n_decisions;
    struct times submit, decide, done;
};

static void note(struct times *t, int64_t from_ns)
{
    if (t->n < t->cap)
        t->ns[t->n++] = cox_clock_mono_ns() - from_ns;
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

static void put_times(const char *name, struct times *t)
{
    qsort(t->ns, t->n, sizeof *t->ns, by_value);
    printf(", \"%s\": {\"n\": %zu, \"p50_us\": %.2f, \"p99_us\": %.2f, \"p999_us\": %.2f, \"max_us\": %.2f}",
           name, t->n, (double)t->ns[t->n / 2] / 1e3, (double)t->ns[t->n * 99 / 100] / 1e3,
           (double)t->ns[t->n * 999 / 1000] / 1e3, (double)t->ns[t->n - 1] / 1e3);
}

static uint64_t resident_bytes(void)
{
    unsigned long long total = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "re");

    if (f == NULL)
        return 0;
    if (fscanf(f, "%llu %llu", &total, &resident) != 2)
        resident = 0;
    fclose(f);
    return resident * 4096;
}

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

static void add_endpoint(struct bench *b, uint32_t i)
{
    struct placement_limits limits = { .in_flight_max = 64, .kv_tokens = 400000 };

    b->endpoints[i] = placement_endpoint_add(b->p, b->pool, &limits);
}

/* The next turn of a program drawn at random; its prompt has grown by ten blocks. */
static void draw_turn(struct bench *b, struct job *j)
{
    uint32_t g = (uint32_t)cox_rng_below(&b->rng, b->n_programs);

    if (b->turns[g] >= 30) { /* it is over, another comes in its place */
        placement_program_end(b->p, ((uint64_t)b->lives[g] << 32) + g + 1);
        b->lives[g]++;
        b->turns[g] = 0;
    }
    uint64_t id = ((uint64_t)b->lives[g] << 32) + g + 1;
    uint32_t n = SYSTEM_BLOCKS + 10 + 10u * b->turns[g]++;
    for (uint32_t i = 0; i < n; i++)
        j->blocks[i] = mix(i < SYSTEM_BLOCKS ? id % KINDS * 1000 + i : id * 1000003 + i);
    j->call = (struct placement_call){ .pool = b->pool,
                                       .band = PLACEMENT_BAND_NORMAL,
                                       .tenant = g % 100,
                                       .program = id,
                                       .blocks = j->blocks,
                                       .n_blocks = n,
                                       .input_tokens = n * 64,
                                       .deadline_ns = INT64_MAX };
}

static void finish(struct bench *b, struct job *j)
{
    struct placement_outcome o = { true, j->call.input_tokens, -1, 200 };
    int64_t from_ns = cox_clock_mono_ns();

    placement_first_token(b->p, b->now_ns, &j->call);
    b->now_ns += 1000000;
    placement_done(b->p, b->now_ns, &j->call, &o);
    note(&b->done, from_ns);
}

static void churn(struct bench *b)
{
    uint32_t i = (uint32_t)cox_rng_below(&b->rng, b->n_endpoints);
    struct placement_signals s = { (int32_t)cox_rng_below(&b->rng, 30), 0,
                                   (int32_t)cox_rng_below(&b->rng, 900), 400000 };

    for (int k = 0; k < 20; k++)
        placement_endpoint_signals(b->p, b->endpoints[cox_rng_below(&b->rng, b->n_endpoints)], b->now_ns, &s);
    if (cox_rng_below(&b->rng, 100) == 0) {
        placement_endpoint_remove(b->p, b->endpoints[i]);
        add_endpoint(b, i);
    } else if (cox_rng_below(&b->rng, 20) == 0) {
        placement_endpoint_gate(b->p, b->endpoints[i], (enum placement_gate)cox_rng_below(&b->rng, 3), false);
    } else {
        placement_endpoint_gate(b->p, b->endpoints[i], PLACEMENT_OPEN, false);
    }
}

/* Calls come and end one by one; what is not sent at once waits for its turn in placement's queue. */
static void decisions(struct bench *b, size_t n)
{
    struct job **sent = cox_calloc(IN_FLIGHT_MAX, sizeof(struct job *));
    struct job **idle = cox_calloc(IN_FLIGHT_MAX, sizeof(struct job *));
    uint32_t n_sent = 0, n_idle = IN_FLIGHT_MAX;
    struct placement_call *c;
    int64_t retry_ms;

    for (uint32_t i = 0; i < IN_FLIGHT_MAX; i++)
        idle[i] = &b->jobs[i];
    for (size_t decided = 0; decided < n;) {
        b->now_ns += 100000;
        if (n_idle > 0) {
            draw_turn(b, idle[n_idle - 1]);
            int64_t from_ns = cox_clock_mono_ns();
            if (placement_submit(b->p, b->now_ns, &idle[n_idle - 1]->call, &retry_ms) == COX_OK)
                n_idle--;
            note(&b->submit, from_ns);
        }
        for (;;) {
            int64_t from_ns = cox_clock_mono_ns();
            c = placement_next(b->p, b->now_ns);
            if (c == NULL)
                break;
            note(&b->decide, from_ns);
            decided++;
            sent[n_sent++] = COX_CONTAINER_OF(c, struct job, call);
        }
        if (n_sent > 0 && (n_idle == 0 || cox_rng_below(&b->rng, 2) == 0)) {
            uint32_t i = (uint32_t)cox_rng_below(&b->rng, n_sent);
            struct job *j = sent[i];
            sent[i] = sent[--n_sent];
            finish(b, j);
            idle[n_idle++] = j;
        }
        if (decided % 16 == 0)
            churn(b);
    }
    while (n_sent > 0)
        finish(b, sent[--n_sent]);
    while ((c = placement_next(b->p, b->now_ns)) != NULL)
        finish(b, COX_CONTAINER_OF(c, struct job, call));
    cox_free(sent);
    cox_free(idle);
}

static struct times times_of(size_t cap)
{
    return (struct times){ cox_calloc(cap, sizeof(int64_t)), 0, cap };
}

/* A queue of so many calls for 64 endpoints that take one each: who is next, each time. */
static void queue(struct bench *b)
{
    struct placement_config config = { .policy = PLACEMENT_PROGRAM, .queue_max = b->n_waiting };
    struct placement_limits limits = { .in_flight_max = 1 };
    struct placement *p = placement_create(&config);
    struct placement_call *calls = cox_calloc(b->n_waiting, sizeof *calls), *c;
    struct times submit = times_of(b->n_waiting), decide = times_of(b->n_waiting);
    uint32_t pool = placement_pool_add(p);
    struct placement_outcome o = { true, 1000, -1, 100 };
    int64_t now_ns = 1000000000, retry_ms;

    for (int i = 0; i < 64; i++)
        placement_endpoint_add(p, pool, &limits);
    for (uint32_t i = 0; i < b->n_waiting; i++) {
        uint64_t x = cox_rng_u64(&b->rng);
        calls[i] = (struct placement_call){ .pool = pool,
                                            .band = (enum placement_band)(x % PLACEMENT_BAND_NR),
                                            .tenant = x / 3 % 100,
                                            .program = 1 + x / 300 % 10000,
                                            .input_tokens = 1000,
                                            .deadline_ns = INT64_MAX };
        int64_t from_ns = cox_clock_mono_ns();
        if (placement_submit(p, now_ns, &calls[i], &retry_ms) != COX_OK)
            break;
        note(&submit, from_ns);
        now_ns += 100000;
    }
    for (;;) { /* one goes, one ends */
        int64_t from_ns = cox_clock_mono_ns();
        c = placement_next(p, now_ns);
        if (c == NULL)
            break;
        note(&decide, from_ns);
        now_ns += 1000000;
        placement_done(p, now_ns, c, &o);
    }
    put_times("queue_submit", &submit);
    put_times("queue_decide", &decide);
    placement_destroy(p);
    cox_free(calls);
    cox_free(submit.ns);
    cox_free(decide.ns);
}

/* Turn 40 of a conversation of 400 KB, as the router sees it: the hashes, then the decision. */
static void conversation(struct bench *b)
{
    static uint8_t bytes[TURNS * TURN_LEN];
    struct times update = times_of(1000);
    uint64_t hashed = 0;
    uint32_t n_blocks = 0;

    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)cox_rng_u64(&b->rng);
    for (uint32_t round = 0; round < 1000; round++) {
        struct prefix x = { 0 };
        struct cox_slice parts[TURNS];
        for (uint32_t i = 0; i < TURNS; i++)
            parts[i] = cox_slice(bytes + (size_t)i * TURN_LEN, TURN_LEN);
        prefix_update(&x, 0, parts, TURNS - 1);
        uint64_t before = x.hashed_len;
        int64_t from_ns = cox_clock_mono_ns();
        prefix_update(&x, 0, parts, TURNS);
        note(&update, from_ns);
        hashed = x.hashed_len - before;
        n_blocks = x.n_blocks;
        prefix_fini(&x);
    }
    put_times("prefix_turn", &update);
    printf(", \"prefix_turn_bytes\": %llu, \"prefix_blocks\": %u", (unsigned long long)hashed, n_blocks);
    cox_free(update.ns);
}

static void run(struct bench *b)
{
    uint64_t before = resident_bytes(), blocks = 0;
    struct placement_config config = { .policy = PLACEMENT_PROGRAM, .seed = 1 };

    b->p = placement_create(&config);
    b->pool = placement_pool_add(b->p);
    for (uint32_t i = 0; i < b->n_endpoints; i++)
        add_endpoint(b, i);
    decisions(b, b->n_programs * 4u); /* so that programs have homes and caches are full */
    b->submit = times_of(b->n_decisions);
    b->decide = times_of(b->n_decisions);
    b->done = times_of(b->n_decisions);
    decisions(b, b->n_decisions);
    uint64_t after = resident_bytes();
    for (uint32_t i = 0; i < b->n_endpoints; i++) {
        struct placement_endpoint_view v;
        placement_endpoint_view(b->p, b->endpoints[i], &v);
        blocks += v.cached_blocks;
    }
    printf("{\"endpoints\": %u, \"programs\": %u", b->n_endpoints, b->n_programs);
    put_times("submit", &b->submit);
    put_times("decide", &b->decide);
    put_times("done", &b->done);
    printf(", \"index_blocks\": %llu, \"memory_bytes\": %llu", (unsigned long long)blocks,
           (unsigned long long)(after - before));
    placement_destroy(b->p);
}

int main(int argc, char **argv)
{
    struct bench b = {
        .n_endpoints = 10000, .n_programs = 100000, .n_decisions = 200000, .n_waiting = 100000
    };

    b.now_ns = 1000000000;
    for (int i = 1; i < argc; i++) {
        const char *value = strchr(argv[i], '=');
        unsigned long n = value != NULL ? strtoul(value + 1, NULL, 10) : 0;
        if (n == 0 || n > 10000000) {
            fprintf(stderr, "%s: expected NAME=NUMBER\n", argv[i]);
            return 2;
        }
        if (strncmp(argv[i], "endpoints=", 10) == 0)
            b.n_endpoints = (uint32_t)n;
        else if (strncmp(argv[i], "programs=", 9) == 0)
            b.n_programs = (uint32_t)n;
        else if (strncmp(argv[i], "decisions=", 10) == 0)
            b.n_decisions = n;
        else if (strncmp(argv[i], "waiting=", 8) == 0)
            b.n_waiting = (uint32_t)n;
        else
            return 2;
    }
    cox_rng_init(&b.rng, 1);
    b.endpoints = cox_calloc(b.n_endpoints, sizeof *b.endpoints);
    b.turns = cox_calloc(b.n_programs, sizeof *b.turns);
    b.lives = cox_calloc(b.n_programs, sizeof *b.lives);
    b.jobs = cox_calloc(IN_FLIGHT_MAX, sizeof *b.jobs);
    run(&b);
    queue(&b);
    conversation(&b);
    printf("}\n");
    cox_free(b.endpoints);
    cox_free(b.turns);
    cox_free(b.lives);
    cox_free(b.jobs);
    cox_free(b.submit.ns);
    cox_free(b.decide.ns);
    cox_free(b.done.ns);
    return 0;
}
