/* What model calls used: each is charged once, as its worker said; what is guessed is settled at most once;
 * and what a task shows in the end is the sum of it. */
#include "audit.h"

#include "cox/base/alloc.h"

struct charge {
    uint64_t guessed; /* 0: it was not */
    bool charged;
};

struct cox_usage sim_usage(struct cox_token token)
{
    uint64_t parts[2] = { token.epoch, token.counter };
    uint64_t h = cox_hash64(parts, sizeof parts);
    return (struct cox_usage){ .model_calls = 1,
                               .input_tokens = 1 + h % 500,
                               .output_tokens = 1 + (h >> 10) % 200,
                               .cached_tokens = (h >> 20) % 2,
                               .wasted_tokens = (h >> 22) % 3,
                               .cost_micros = 1 + (h >> 30) % 1000,
                               .currency = "SIM" };
}

static uint64_t tokens_of(const struct cox_usage *u)
{
    return u->input_tokens + u->output_tokens + u->wasted_tokens;
}

static struct charge *charge_of(struct sim *s, struct cox_token token)
{
    uint64_t key = token.epoch << 40 ^ token.counter;
    struct charge *c = cox_map64_get(&s->audit.charges, key);
    if (c == NULL) {
        c = COX_NEW(struct charge);
        cox_map64_set(&s->audit.charges, key, c);
    }
    return c;
}

void audit_usage(struct sim *s, const struct record *r)
{
    const struct record_usage *u = &r->u.usage;
    struct cox_usage said = sim_usage(u->token);
    struct audit_task *t = audit_task(s, r->task);
    struct charge *c = charge_of(s, u->token);
    bool late = u->settled > 0; /* the archive is told again */
    if (t == NULL || t->root != t || (t->finished && !late))
        fail(s, "what a call used is charged to no task that lives");
    if (u->guessed > 0 && (c->charged || c->guessed > 0))
        fail(s, "%s: a call is guessed that was charged", t->job->plan.name);
    if (u->settled != (u->usage.model_calls > 0 ? c->guessed : 0))
        fail(s, "%s: %llu tokens are settled of a call that was guessed %llu", t->job->plan.name,
             (unsigned long long)u->settled, (unsigned long long)c->guessed);
    c->guessed += u->guessed;
    if (u->usage.model_calls > 0) {
        if (c->charged)
            fail(s, "%s: a call is charged twice", t->job->plan.name);
        if (tokens_of(&u->usage) != tokens_of(&said) || u->usage.cost_micros != said.cost_micros)
            fail(s, "%s: a call is charged otherwise than its worker said", t->job->plan.name);
        c->charged = true;
    }
    t->n_calls += u->usage.model_calls;
    t->cost_micros += u->usage.cost_micros;
    t->tokens += tokens_of(&u->usage) + u->guessed - u->settled;
    s->n.calls += u->usage.model_calls;
}

void audit_call_ended(struct sim *s, const struct audit_task *t, const struct record *r)
{
    if (r->u.ended.status == COX_ATTEMPT_SUCCEEDED && !charge_of(s, r->u.ended.token)->charged)
        fail(s, "%s/%u: a call succeeded, and is not charged", t->job->plan.name, r->step);
}

void verify_usage(struct sim *s, const struct audit_task *at, const struct cox_task *t)
{
    struct cox_task_view v;
    cox_task_view(t, &v);
    if (v.usage.model_calls != at->n_calls || v.usage.cost_micros != at->cost_micros ||
        tokens_of(&v.usage) != at->tokens)
        fail(s, "%s shows %llu calls and %llu tokens, and the log has %llu and %llu", at->job->plan.name,
             (unsigned long long)v.usage.model_calls, (unsigned long long)tokens_of(&v.usage),
             (unsigned long long)at->n_calls, (unsigned long long)at->tokens);
}

void audit_charges_fini(struct sim *s)
{
    size_t it = 0;
    uint64_t key;
    void *at;
    while (cox_map64_next(&s->audit.charges, &it, &key, &at))
        cox_free(at);
    cox_map64_fini(&s->audit.charges);
}
