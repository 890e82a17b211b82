#include "ledger.h"

#include "state.h"

#include "cox/json.h"

#include <string.h>

#define OUTPUT_TOKENS_GUESS 1024u            /* of a call that does not say how long its answer may be */
#define LOOKED_AT_LEN_MAX ((size_t)64 << 10) /* of a spec, for that: a longer one is not walked over */
#define BYTES_A_TOKEN 4u
#define COUNT_MAX (1ULL << 40) /* of one report */

/* ---- usage ---- */

bool usage_is_none(const struct cox_usage *u)
{
    return u->model_calls == 0 && u->input_tokens == 0 && u->output_tokens == 0 && u->cached_tokens == 0 &&
           u->wasted_tokens == 0 && u->cost_micros == 0;
}

void usage_encode(struct cox_buf *b, const struct cox_usage *u)
{
    cox_put_u64(b, u->model_calls);
    cox_put_u64(b, u->input_tokens);
    cox_put_u64(b, u->output_tokens);
    cox_put_u64(b, u->cached_tokens);
    cox_put_u64(b, u->wasted_tokens);
    cox_put_u64(b, u->cost_micros);
    cox_buf_append(b, u->currency, sizeof u->currency);
}

void usage_decode(struct cox_reader *r, struct cox_usage *ret)
{
    ret->model_calls = cox_get_u64(r);
    ret->input_tokens = cox_get_u64(r);
    ret->output_tokens = cox_get_u64(r);
    ret->cached_tokens = cox_get_u64(r);
    ret->wasted_tokens = cox_get_u64(r);
    ret->cost_micros = cox_get_u64(r);
    struct cox_slice currency = cox_get_raw(r, sizeof ret->currency);
    if (currency.len == sizeof ret->currency)
        memcpy(ret->currency, currency.data, currency.len);
    if (ret->currency[sizeof ret->currency - 1] != '\0')
        r->bad = true;
}

/* One currency a ledger, that of the first call that cost something: amounts of another are no sum with it.
 */
static void usage_add(struct cox_usage *to, const struct cox_usage *u)
{
    to->model_calls += u->model_calls;
    to->input_tokens += u->input_tokens;
    to->output_tokens += u->output_tokens;
    to->cached_tokens += u->cached_tokens;
    to->wasted_tokens += u->wasted_tokens;
    if (u->cost_micros == 0)
        return;
    if (to->currency[0] == '\0')
        memcpy(to->currency, u->currency, sizeof to->currency);
    if (memcmp(to->currency, u->currency, sizeof to->currency) == 0)
        to->cost_micros += u->cost_micros;
}

/* As a worker says it: no number of it makes a sum overflow. */
static struct cox_usage bounded(const struct cox_usage *u)
{
    struct cox_usage b = *u;
    uint64_t *counts[] = { &b.model_calls,   &b.input_tokens,  &b.output_tokens,
                           &b.cached_tokens, &b.wasted_tokens, &b.cost_micros };
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        *counts[i] = *counts[i] < COUNT_MAX ? *counts[i] : COUNT_MAX;
    if (b.cached_tokens > b.input_tokens)
        b.cached_tokens = b.input_tokens;
    b.currency[sizeof b.currency - 1] = '\0';
    return b;
}

/* Nothing came of it: what was sent and said is wasted. It was paid for all the same. */
static struct cox_usage wasted(const struct cox_usage *u)
{
    struct cox_usage w = bounded(u);
    w.wasted_tokens += w.input_tokens + w.output_tokens;
    w.input_tokens = w.output_tokens = w.cached_tokens = 0;
    return w;
}

/* ---- the ledger ---- */

static struct ledger *ledger_of(struct cox_task *t)
{
    if (t->ledger == NULL)
        t->ledger = COX_NEW(struct ledger);
    return t->ledger;
}

bool ledger_untouched(const struct ledger *l)
{
    return l == NULL || (usage_is_none(&l->usage) && l->n_steps == 0 && l->n_unknown == 0);
}

void ledger_encode(struct cox_buf *b, const struct ledger *l)
{
    usage_encode(b, &l->usage);
    cox_put_u64(b, l->n_steps);
    cox_put_u32(b, l->n_unknown);
    for (uint32_t i = 0; i < l->n_unknown; i++) {
        cox_put_u64(b, l->unknown[i].token.epoch);
        cox_put_u64(b, l->unknown[i].token.counter);
        cox_put_u64(b, l->unknown[i].tokens);
    }
}

void ledger_decode(struct cox_reader *r, struct cox_task *t)
{
    struct ledger *l = ledger_of(t);
    usage_decode(r, &l->usage);
    l->n_steps = cox_get_u64(r);
    uint32_t n = cox_get_u32(r);
    if (n > LEDGER_UNKNOWN_MAX)
        r->bad = true;
    for (; l->n_unknown < n && !r->bad; l->n_unknown++) {
        l->unknown[l->n_unknown].token.epoch = cox_get_u64(r);
        l->unknown[l->n_unknown].token.counter = cox_get_u64(r);
        l->unknown[l->n_unknown].tokens = cox_get_u64(r);
    }
}

static void unknown_remove(struct ledger *l, uint32_t i)
{
    memmove(l->unknown + i, l->unknown + i + 1, (--l->n_unknown - i) * sizeof l->unknown[0]);
}

static uint32_t unknown_find(const struct ledger *l, struct cox_token token)
{
    uint32_t i = 0;
    while (l != NULL && i < l->n_unknown && !cox_token_eq(l->unknown[i].token, token))
        i++;
    return l == NULL ? UINT32_MAX : i < l->n_unknown ? i : UINT32_MAX;
}

static void unknown_push(struct ledger *l, struct cox_token token, uint64_t tokens)
{
    if (l->n_unknown == LEDGER_UNKNOWN_MAX)
        unknown_remove(l, 0);
    l->unknown[l->n_unknown].token = token;
    l->unknown[l->n_unknown++].tokens = tokens;
}

static void ledger_apply(struct ledger *l, const struct record *r, bool is_root)
{
    const struct record_usage *u = &r->u.usage;
    uint32_t known = is_root ? unknown_find(l, u->token) : UINT32_MAX;
    usage_add(&l->usage, &u->usage);
    l->usage.wasted_tokens += u->guessed;
    l->usage.wasted_tokens -= u->settled < l->usage.wasted_tokens ? u->settled : l->usage.wasted_tokens;
    if (!is_root)
        return;
    l->n_steps += u->n_steps;
    if (u->settled > 0 && known != UINT32_MAX)
        unknown_remove(l, known);
    if (u->guessed > 0)
        unknown_push(l, u->token, u->guessed);
}

void apply_usage(struct cox_engine *e, uint64_t seq, const struct record *r)
{
    cox_task_id ids[2] = { r->task, r->u.usage.frame };
    for (int i = 0; i < 2; i++) {
        struct cox_task *t = ids[i] != 0 ? cox_map64_get(&e->tasks, ids[i]) : NULL;
        if (t == NULL || !t->has_header || t->entity.applied_seq >= seq)
            continue;
        ledger_apply(ledger_of(t), r, i == 0);
        entity_touch(e, &t->entity, seq);
    }
}

static struct record usage_record(const struct cox_engine *e, const struct cox_task *t,
                                  struct cox_token token)
{
    struct record r = { .type = RECORD_USAGE, .task = t->root->id, .wall_ms = e->now.wall_ms };
    r.u.usage.frame = t->root != t ? t->id : 0;
    r.u.usage.token = token;
    return r;
}

/* ---- attempts ---- */

static uint64_t tokens_asked_for(struct cox_slice spec)
{
    struct cox_slice request, most;
    int64_t n = 0;
    bool known = spec.len <= LOOKED_AT_LEN_MAX && cox_json_member(spec, "request", &request) &&
                 (cox_json_member(request, "max_tokens", &most) ||
                  cox_json_member(request, "max_completion_tokens", &most)) &&
                 cox_json_int(most, &n) && n > 0;
    return spec.len / BYTES_A_TOKEN + (known ? (uint64_t)n : OUTPUT_TOKENS_GUESS);
}

void ledger_reserve(struct attempt *a, struct cox_slice spec)
{
    if (!a->cls->is_model)
        return;
    a->reserved = tokens_asked_for(spec);
    ledger_of(a->task->root)->reserved += a->reserved;
}

void ledger_release(struct attempt *a)
{
    if (a->reserved == 0)
        return;
    a->task->root->ledger->reserved -= a->reserved;
    a->reserved = 0;
}

void ledger_charge(struct cox_engine *e, struct attempt *a, const struct cox_in_result *in, bool counts)
{
    if (in != NULL ? usage_is_none(&in->usage) : a->reserved == 0) { /* most attempts call no model */
        ledger_release(a);
        return;
    }
    struct record r = usage_record(e, a->task, a->token);
    if (in == NULL)
        r.u.usage.guessed = a->reserved;
    else if (counts || COX_PLANTED("waste-counts-as-use"))
        r.u.usage.usage = bounded(&in->usage);
    else
        r.u.usage.usage = wasted(&in->usage);
    if (in != NULL || !COX_PLANTED("unknown-costs-nothing"))
        emit(e, &r);
    ledger_release(a);
}

void ledger_late(struct cox_engine *e, const struct cox_in_result *in)
{
    struct cox_task *t = cox_map64_get(&e->tasks, in->ref.task);
    if (t == NULL || cox_task_status_final(t->root->status))
        return; /* it has ended: its books are closed */
    uint32_t known = unknown_find(t->root->ledger, in->ref.token);
    if (known == UINT32_MAX)
        return; /* it was charged when it ended */
    struct record r = usage_record(e, t, in->ref.token);
    r.u.usage.usage = wasted(&in->usage);
    r.u.usage.settled = COX_PLANTED("late-word-charged-twice") ? 0 : t->root->ledger->unknown[known].tokens;
    emit(e, &r);
    changed(e, t->root, COX_IMAGE_NONE);
}

/* ---- budgets ---- */

static uint64_t tokens_used(const struct ledger *l)
{
    return l == NULL ? 0 : l->usage.input_tokens + l->usage.output_tokens + l->usage.wasted_tokens;
}

static uint64_t reserved_of(const struct ledger *l)
{
    return l == NULL ? 0 : l->reserved;
}

/* What calls under way will cost, by what others did. */
static uint64_t cost_reserved(const struct ledger *l)
{
    uint64_t used = tokens_used(l);
    return used == 0 ? 0 : (uint64_t)((double)l->usage.cost_micros / (double)used * (double)l->reserved);
}

static const char *refusal(struct cox_engine *e, const char *fmt, uint64_t used, uint64_t reserved,
                           uint64_t limit, uint64_t unit)
{
    struct cox_buf text = { 0 };
    cox_buf_printf(&text, "budget.%s: ", fmt);
    if (unit == 1)
        cox_buf_printf(&text, "%llu used", (unsigned long long)used);
    else
        cox_buf_printf(&text, "%.6f used", (double)used / (double)unit);
    if (reserved > 0 && unit == 1)
        cox_buf_printf(&text, " and %llu reserved by calls under way", (unsigned long long)reserved);
    else if (reserved > 0)
        cox_buf_printf(&text, " and %.6f reserved by calls under way", (double)reserved / (double)unit);
    if (unit == 1)
        cox_buf_printf(&text, ", of %llu", (unsigned long long)limit);
    else
        cox_buf_printf(&text, ", of %.6f", (double)limit / (double)unit);
    const char *out = cox_arena_dup(&e->fx->arena, text.data, text.len);
    cox_buf_fini(&text);
    return out;
}

#define MICRO 1000000u

static const char *refuses_call(struct cox_engine *e, const struct cox_task *t)
{
    for (; t != NULL; t = t->parent) {
        const struct ledger *l = t->ledger;
        const uint64_t *budget = t->doc.budget;
        if (!t->own_image) /* it has the document of what it is in */
            continue;
        if (tokens_used(l) + reserved_of(l) >= budget[COX_BUDGET_TOKENS] &&
            !COX_PLANTED("budget-of-tokens-ignored"))
            return refusal(e, "tokens", tokens_used(l), reserved_of(l), budget[COX_BUDGET_TOKENS], 1);
        uint64_t cost = l != NULL ? l->usage.cost_micros : 0;
        if (cost + cost_reserved(l) >= budget[COX_BUDGET_COST])
            return refusal(e, "cost", cost, cost_reserved(l), budget[COX_BUDGET_COST], MICRO);
    }
    return NULL;
}

bool ledger_spent(const struct cox_task *t)
{
    for (; t != NULL; t = t->parent) {
        const uint64_t *budget = t->doc.budget;
        uint64_t cost = t->ledger != NULL ? t->ledger->usage.cost_micros : 0;
        if (t->own_image &&
            (tokens_used(t->ledger) >= budget[COX_BUDGET_TOKENS] || cost >= budget[COX_BUDGET_COST]))
            return true;
    }
    return false;
}

uint64_t ledger_tokens_left(const struct cox_task *t)
{
    uint64_t left = COX_BUDGET_NONE;
    for (; t != NULL; t = t->parent) {
        uint64_t limit = t->doc.budget[COX_BUDGET_TOKENS];
        uint64_t used = tokens_used(t->ledger) + reserved_of(t->ledger);
        if (t->own_image && limit != COX_BUDGET_NONE && (limit > used ? limit - used : 1) < left)
            left = limit > used ? limit - used : 1;
    }
    return left == COX_BUDGET_NONE ? 0 : left;
}

bool ledger_may_free(const struct cox_task *t)
{
    bool blocked = false;
    for (; t != NULL; t = t->parent) {
        const struct ledger *l = t->ledger;
        const uint64_t *budget = t->doc.budget;
        if (!t->own_image || l == NULL)
            continue;
        if (tokens_used(l) >= budget[COX_BUDGET_TOKENS] || l->usage.cost_micros >= budget[COX_BUDGET_COST])
            return false;
        blocked = blocked || tokens_used(l) + l->reserved >= budget[COX_BUDGET_TOKENS] ||
                  l->usage.cost_micros + cost_reserved(l) >= budget[COX_BUDGET_COST];
    }
    return blocked;
}

static uint64_t cpu_of_tree(const struct cox_task *root)
{
    struct cox_task_view view;
    cox_task_view(root, &view);
    return view.cpu_us;
}

void ledger_cpu_used(struct cox_task *t, uint64_t cpu_us)
{
    if (t->root->ledger != NULL && t->root->ledger->cpu_known)
        t->root->ledger->cpu_us += cpu_us;
}

static const char *refuses_cpu(struct cox_engine *e, struct cox_task *t)
{
    struct cox_task *root = t->root;
    uint64_t limit = root->doc.budget[COX_BUDGET_CPU];
    if (limit == COX_BUDGET_NONE)
        return NULL;
    struct ledger *l = ledger_of(root);
    if (!l->cpu_known) { /* once: a walk over all frames */
        l->cpu_us = cpu_of_tree(root);
        l->cpu_known = true;
    }
    return l->cpu_us < limit ? NULL : refusal(e, "cpu_seconds", l->cpu_us, 0, limit, MICRO);
}

/* Model calls of a step's own processes; these are charged as they are reported, however the step ends. */
void ledger_spend(struct cox_engine *e, const struct cox_in_spend *in)
{
    enum cox_answer why;
    const struct attempt *a = attempt_find(e, in->ref, &why);
    struct cox_task *t = cox_map64_get(&e->tasks, in->ref.task);
    bool over = a == NULL || a->cancelling;
    if (t != NULL && !cox_task_status_final(t->root->status) && !usage_is_none(&in->usage)) {
        struct record r = usage_record(e, t, in->ref.token);
        r.u.usage.usage = a != NULL ? bounded(&in->usage) : wasted(&in->usage);
        emit(e, &r);
        changed(e, t->root, COX_IMAGE_NONE);
        over = over || refuses_call(e, t) != NULL;
    }
    over = over || (t != NULL && ledger_spent(t)); /* also by others, while this one's calls go on */
    if (!over || COX_PLANTED("spends-for-ever"))
        return;
    struct cox_action *out = act(e, COX_ACT_FENCED);
    out->u.attempt.session = in->session;
    out->u.attempt.ref = in->ref;
}

const char *ledger_refuses(struct cox_engine *e, struct cox_task *t, const struct class *c)
{
    return c->is_model ? refuses_call(e, t) : refuses_cpu(e, t);
}

const char *ledger_refuses_steps(struct cox_engine *e, const struct cox_task *t)
{
    const struct cox_task *root = t->root;
    uint64_t limit = root->doc.budget[COX_BUDGET_STEPS];
    if (limit == COX_BUDGET_NONE)
        return NULL;
    uint64_t used = task_n_members(root) + (root->ledger != NULL ? root->ledger->n_steps : 0);
    return used < limit ? NULL : refusal(e, "steps", used, 0, limit, 1);
}

void ledger_frame_opened(struct cox_engine *e, struct cox_task *frame)
{
    if (frame->root->doc.budget[COX_BUDGET_STEPS] == COX_BUDGET_NONE)
        return;
    struct record r = usage_record(e, frame->root, (struct cox_token){ 0, 0 });
    r.u.usage.n_steps = task_n_members(frame);
    emit(e, &r);
}
