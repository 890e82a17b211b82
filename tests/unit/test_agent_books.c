/* The worker's state machine on random timelines: whatever happens, the books are in order. */
#include "agent_fixture.h"

#include "cox/base/rng.h"

#include <stdlib.h>

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
        cmocka_unit_test(test_random_timelines_keep_the_books),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
