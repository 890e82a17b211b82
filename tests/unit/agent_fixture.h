/* The agent in a test tube: inputs by name, what it does as text, time that passes when told to. */
#ifndef COX_TESTS_UNIT_AGENT_FIXTURE_H
#define COX_TESTS_UNIT_AGENT_FIXTURE_H

#include "check.h"

#include "cox/agent.h"

#include <string.h>

#define MS INT64_C(1000000)

struct worker {
    struct cox_agent *agent;
    struct cox_agent_actions actions;
    struct cox_buf said; /* what it did since the last expect() */
    int64_t now_ns;
};

static inline void describe(struct cox_buf *b, const struct cox_agent_action *act)
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

static inline void step(struct worker *w, struct cox_agent_input *in)
{
    in->now_mono_ns = w->now_ns;
    w->actions.len = 0;
    cox_agent_step(w->agent, in, &w->actions);
    for (size_t i = 0; i < w->actions.len; i++)
        describe(&w->said, &w->actions.items[i]);
    cox_agent_check(w->agent);
}

static inline void expect_at(struct worker *w, const char *expected, int line)
{
    size_t len = w->said.len;

    if (len >= 2) /* the last "; " */
        w->said.len -= 2;
    if (strcmp(cox_buf_cstr(&w->said), expected) != 0)
        fail_msg("line %d:\n  expected \"%s\"\n  but      \"%s\"", line, expected, cox_buf_cstr(&w->said));
    cox_buf_clear(&w->said);
}
#define expect(w, expected) expect_at(w, expected, __LINE__)

static inline struct cox_ref ref(unsigned n)
{
    return (struct cox_ref){ .task = 1000 + n, .step = n, .token = { .epoch = 1, .counter = n } };
}

static inline void begin(struct worker *w, const struct cox_agent_config *config)
{
    *w = (struct worker){ .agent = cox_agent_create(config), .now_ns = 5000 * MS };
}

static inline void end(struct worker *w)
{
    cox_agent_destroy(w->agent);
    cox_agent_actions_fini(&w->actions);
    cox_buf_fini(&w->said);
}

static inline void event(struct worker *w, enum cox_agent_input_kind kind)
{
    step(w, &(struct cox_agent_input){ .kind = kind });
}

static inline void turn(struct worker *w)
{
    step(w, &(struct cox_agent_input){ .kind = COX_AGENT_TURN, .u.turn.room_len = SIZE_MAX });
}

/* Lets time pass as a driver would: with a turn whenever the agent asked for one. */
static inline void after(struct worker *w, int64_t ms)
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

static inline void welcome(struct worker *w, uint64_t shard_uid)
{
    step(w, &(struct cox_agent_input){ .kind = COX_AGENT_WELCOME,
                                       .u.welcome = { shard_uid, COX_BEAT_MS, COX_LOST_MS } });
}

static inline void attach(struct worker *w, uint64_t shard_uid)
{
    turn(w);
    event(w, COX_AGENT_STREAM_OPEN);
    turn(w);
    welcome(w, shard_uid);
    turn(w);
}

static inline void assign_for(struct worker *w, unsigned n, uint64_t timeout_ms, int64_t cpu_milli)
{
    step(w, &(struct cox_agent_input){ .kind = COX_AGENT_ASSIGN,
                                       .u.assign = { .ref = ref(n),
                                                     .attempt = 1,
                                                     .timeout_ms = timeout_ms,
                                                     .resources = { .cpu_milli = cpu_milli },
                                                     .spec_json = cox_slice_str("{}") } });
}

static inline void assign(struct worker *w, unsigned n)
{
    assign_for(w, n, 0, 0);
}

static inline void about(struct worker *w, enum cox_agent_input_kind kind, unsigned n)
{
    step(w, &(struct cox_agent_input){ .kind = kind, .u.ref = ref(n) });
}

static inline void ended(struct worker *w, uint32_t slot, enum cox_attempt_status status)
{
    enum cox_code code = status == COX_ATTEMPT_SUCCEEDED ? COX_CODE_NONE : COX_CODE_EXIT_NONZERO;

    step(w, &(struct cox_agent_input){ .kind = COX_AGENT_SLOT_ENDED,
                                       .u.ended = { slot, { .status = status, .code = code } } });
}

#endif
