#include "budget.h"

#include "expand/map.h"
#include "route.h"

#include "cox/json.h"

#include <string.h>

#define OUTPUT_TOKENS_GUESS 1024u           /* of a call that does not say how long its answer may be */
#define OUTPUT_TOKENS_UNSAID 16384u         /* what such a call is held to, where there is a budget */
#define OUTPUT_TOKENS_LEAST 256u            /* what the last call is given, though less is left */
#define LOOKED_AT_LEN_MAX ((size_t)1 << 20) /* of a spec, for max_tokens: a longer one does not say */
#define BYTES_A_TOKEN 4u                    /* about: a guess. A token has at least one */
#define WOKEN_MAX 64u                       /* of what waits, for what one call has given back */
#define MICRO 1000000u

/* ---- accounts ---- */

struct cox_task *budget_account(struct cox_task *t)
{
    while (!t->own_image)
        t = t->parent;
    return t;
}

struct cox_task *budget_above(struct cox_task *account)
{
    return account->parent != NULL ? budget_account(account->parent) : NULL;
}

static bool has_limit(struct cox_task *t, enum cox_budget which)
{
    for (struct cox_task *a = budget_account(t); a != NULL; a = budget_above(a))
        if (a->doc.budget[which] != COX_BUDGET_NONE)
            return true;
    return false;
}

static uint64_t tokens_used(const struct ledger *l)
{
    return l == NULL ? 0 : l->usage.input_tokens + l->usage.output_tokens + l->usage.wasted_tokens;
}

static uint64_t cost_used(const struct ledger *l)
{
    return l == NULL ? 0 : l->usage.cost_micros;
}

static uint64_t reserved_of(const struct ledger *l)
{
    return l == NULL ? 0 : l->reserved;
}

/* What calls under way will cost, by what others did. Before any has ended nobody knows: it may be all. */
static uint64_t cost_reserved(const struct ledger *l, uint64_t limit)
{
    uint64_t used = tokens_used(l), reserved = reserved_of(l);
    if (reserved == 0)
        return 0;
    return used == 0 ? limit : (uint64_t)((double)cost_used(l) / (double)used * (double)reserved);
}

/* ---- may it begin? ---- */

static const char *refusal(struct cox_engine *e, const char *which, uint64_t used, uint64_t limit,
                           uint64_t unit)
{
    struct cox_buf text = { 0 };
    if (unit == 1)
        cox_buf_printf(&text, "budget.%s: %llu used, of %llu", which, (unsigned long long)used,
                       (unsigned long long)limit);
    else
        cox_buf_printf(&text, "budget.%s: %.6f used, of %.6f", which, (double)used / (double)unit,
                       (double)limit / (double)unit);
    const char *out = cox_arena_dup(&e->fx->arena, cox_buf_cstr(&text), text.len + 1);
    cox_buf_fini(&text);
    return out;
}

static bool tokens_spent(const struct cox_task *account)
{
    return tokens_used(account->ledger) >= account->doc.budget[COX_BUDGET_TOKENS] &&
           !COX_PLANTED("budget-of-tokens-ignored");
}

static bool cost_spent(const struct cox_task *account)
{
    return cost_used(account->ledger) >= account->doc.budget[COX_BUDGET_COST];
}

static bool account_waits(const struct cox_task *account)
{
    const struct ledger *l = account->ledger;
    const uint64_t *limit = account->doc.budget;
    if (COX_PLANTED("reservations-ignored"))
        return false;
    if (limit[COX_BUDGET_TOKENS] != COX_BUDGET_NONE &&
        tokens_used(l) + reserved_of(l) >= limit[COX_BUDGET_TOKENS])
        return true;
    return limit[COX_BUDGET_COST] != COX_BUDGET_NONE &&
           cost_used(l) + cost_reserved(l, limit[COX_BUDGET_COST]) >= limit[COX_BUDGET_COST];
}

static struct cox_task *parents_too(struct cox_task *account)
{
    return COX_PLANTED("parents-budget-ignored") ? NULL : budget_above(account);
}

bool budget_is_spent(struct cox_task *t)
{
    for (struct cox_task *a = t != NULL ? budget_account(t) : NULL; a != NULL; a = parents_too(a))
        if (tokens_spent(a) || cost_spent(a))
            return true;
    return false;
}

enum budget_verdict budget_calls(struct cox_task *t)
{
    if (budget_is_spent(t))
        return BUDGET_SPENT;
    for (struct cox_task *a = budget_account(t); a != NULL; a = budget_above(a))
        if (account_waits(a))
            return BUDGET_WAITS;
    return BUDGET_GOES;
}

static const char *why_spent(struct cox_engine *e, struct cox_task *t)
{
    for (struct cox_task *a = budget_account(t); a != NULL; a = budget_above(a)) {
        if (tokens_spent(a))
            return refusal(e, "tokens", tokens_used(a->ledger), a->doc.budget[COX_BUDGET_TOKENS], 1);
        if (cost_spent(a))
            return refusal(e, "cost", cost_used(a->ledger), a->doc.budget[COX_BUDGET_COST], MICRO);
    }
    return "";
}

uint64_t budget_tokens_left(struct cox_task *t)
{
    uint64_t left = COX_BUDGET_NONE;
    for (struct cox_task *a = budget_account(t); a != NULL; a = budget_above(a)) {
        uint64_t limit = a->doc.budget[COX_BUDGET_TOKENS];
        uint64_t used = tokens_used(a->ledger) + reserved_of(a->ledger);
        if (limit != COX_BUDGET_NONE && (limit > used ? limit - used : 0) < left)
            left = limit > used ? limit - used : 0;
    }
    return left;
}

/* ---- processors ---- */

static bool is_under(const struct cox_task *t, const struct cox_task *account)
{
    while (t != NULL && t != account)
        t = t->parent;
    return t == account;
}

/* Of attempts that have ended. What a frame that has ended used, the step has that it is under; what the
 * items of a map have used so far, only the map knows. */
static uint64_t cpu_of_frame(const struct cox_task *t)
{
    uint64_t cpu_us = t->cpu_us;
    for (uint32_t no = 0; no < t->n_pages; no++)
        for (uint32_t i = 0; t->pages[no] != NULL && i < t->pages[no]->n_steps; i++) {
            const struct step *s = &t->pages[no]->steps[i];
            if (s->status == COX_STEP_WAITING && s->x->map != NULL)
                cpu_us += s->x->map->cpu_us;
        }
    return cpu_us;
}

static uint64_t cpu_of_tree(const struct cox_task *account)
{
    uint64_t cpu_us = cpu_of_frame(account);
    COX_LIST_FOR_EACH (it, &account->root->frames) {
        const struct cox_task *f = COX_CONTAINER_OF(it, struct cox_task, in_frames);
        if (f != account && !cox_task_status_final(f->status) && is_under(f, account))
            cpu_us += cpu_of_frame(f);
    }
    return cpu_us;
}

void budget_cpu_used(struct cox_task *t, uint64_t cpu_us)
{
    for (struct cox_task *a = budget_account(t); a != NULL; a = budget_above(a))
        if (a->ledger != NULL && a->ledger->cpu_known)
            a->ledger->cpu_us += cpu_us;
}

static const char *refuses_cpu(struct cox_engine *e, struct cox_task *t)
{
    for (struct cox_task *a = budget_account(t); a != NULL; a = budget_above(a)) {
        uint64_t limit = a->doc.budget[COX_BUDGET_CPU];
        if (limit == COX_BUDGET_NONE)
            continue;
        struct ledger *l = ledger_of(a);
        if (!l->cpu_known) { /* once: a walk over all frames */
            l->cpu_us = cpu_of_tree(a);
            l->cpu_known = true;
        }
        if (l->cpu_us >= limit)
            return refusal(e, "cpu_seconds", l->cpu_us, limit, MICRO);
    }
    return NULL;
}

enum budget_verdict budget_asks(struct cox_engine *e, struct cox_task *t, const struct class *c,
                                const char **ret_why)
{
    if (!c->is_model) {
        *ret_why = refuses_cpu(e, t);
        return *ret_why != NULL ? BUDGET_SPENT : BUDGET_GOES;
    }
    enum budget_verdict v = budget_calls(t);
    *ret_why = v == BUDGET_SPENT ? why_spent(e, t) : NULL;
    return v;
}

/* ---- steps ---- */

static uint64_t steps_of(const struct cox_task *account)
{
    return task_n_members(account) + (account->ledger != NULL ? account->ledger->n_steps : 0);
}

const char *budget_refuses_frame(struct cox_engine *e, struct cox_task *t)
{
    for (struct cox_task *a = budget_account(t); a != NULL; a = budget_above(a)) {
        uint64_t limit = a->doc.budget[COX_BUDGET_STEPS];
        if (limit != COX_BUDGET_NONE && steps_of(a) >= limit)
            return refusal(e, "steps", steps_of(a), limit, 1);
    }
    return NULL;
}

void budget_frame_opened(struct cox_engine *e, struct cox_task *frame)
{
    if (!has_limit(frame->parent, COX_BUDGET_STEPS))
        return;
    struct record r = usage_record(e, budget_account(frame->parent), (struct cox_token){ 0, 0 });
    r.u.usage.n_steps = task_n_members(frame);
    emit(e, &r);
}

/* ---- model calls ---- */

struct reservation budget_reservation(struct cox_task *t, uint64_t len, uint64_t said, uint64_t *ret_output)
{
    uint64_t guess = len / BYTES_A_TOKEN, output = said > 0 ? said : OUTPUT_TOKENS_GUESS;
    uint64_t left = budget_tokens_left(t);
    bool limited = left != COX_BUDGET_NONE || has_limit(t, COX_BUDGET_COST);
    *ret_output = 0;
    if (limited) {
        uint64_t most = left > guess ? left - guess : 0;
        most = most > OUTPUT_TOKENS_LEAST ? most : OUTPUT_TOKENS_LEAST;
        output = said > 0 ? said : OUTPUT_TOKENS_UNSAID;
        output = output < most ? output : most;
        *ret_output = output;
    }
    uint64_t expected = said == 0 && output > OUTPUT_TOKENS_GUESS ? OUTPUT_TOKENS_GUESS : output;
    return (struct reservation){ .reserved = len + output, .guessed = guess + expected };
}

struct reservation budget_reservation_of(struct cox_task *t, struct cox_slice spec, uint64_t elsewhere,
                                         uint64_t *ret_output)
{
    uint64_t len = spec.len + (COX_PLANTED("said-elsewhere-is-free") ? 0 : elsewhere);
    struct cox_slice request, most, conversation;
    int64_t n = 0;
    bool looks = spec.len <= LOOKED_AT_LEN_MAX;
    if (looks && cox_json_member(spec, "conversation", &conversation) &&
        cox_json_member(conversation, "request", &request))
        spec = request; /* an agent's: the first call of its model */
    bool said = looks && cox_json_member(spec, "request", &request) &&
                (cox_json_member(request, "max_completion_tokens", &most) ||
                 cox_json_member(request, "max_tokens", &most)) &&
                cox_json_int(most, &n) && n > 0;
    return budget_reservation(t, len, said ? (uint64_t)n : 0, ret_output);
}

void budget_add(struct cox_task *t, uint64_t tokens)
{
    if (tokens == 0)
        return;
    for (struct cox_task *a = budget_account(t); a != NULL; a = budget_above(a))
        ledger_of(a)->reserved += tokens;
}

void budget_sub(struct cox_engine *e, struct cox_task *t, uint64_t tokens)
{
    if (tokens == 0)
        return;
    for (struct cox_task *a = budget_account(t); a != NULL; a = budget_above(a))
        a->ledger->reserved -= tokens;
    budget_changed(e, t);
}

void budget_restore(struct attempt *a)
{
    uint64_t output;
    const struct open_calls *c = ledger_open(a->task->ledger, a->token, false);
    if (c != NULL)
        a->call = (struct reservation){ c->reserved, c->guessed };
    else if (a->cls->is_model) /* an older version's: it did not write that down */
        a->call = budget_reservation(a->task, 0, OUTPUT_TOKENS_GUESS, &output);
    budget_add(a->task, a->call.reserved);
}

void budget_release(struct cox_engine *e, struct attempt *a)
{
    uint64_t tokens = a->call.reserved;
    a->call = (struct reservation){ 0, 0 };
    budget_sub(e, a->task, tokens);
}

/* ---- waiting ---- */

void budget_wait(struct cox_engine *e, struct cox_task *t, struct step *s)
{
    struct cox_task *a = budget_account(t);
    while (a->parent != NULL && !account_waits(a))
        a = budget_above(a);
    s->waits_for_budget = true;
    cox_list_push_back(&ledger_of(a)->waiting, &s->in_queue);
    changed(e, t, step_index(s));
}

bool budget_unwait(struct step *s)
{
    if (!s->waits_for_budget)
        return false;
    s->waits_for_budget = false;
    cox_list_remove(&s->in_queue);
    return true;
}

void budget_changed(struct cox_engine *e, struct cox_task *t)
{
    for (struct cox_task *a = budget_account(t); a != NULL; a = budget_above(a))
        if (a->ledger != NULL && !cox_list_empty(&a->ledger->waiting) && cox_list_empty(&a->ledger->in_due) &&
            !COX_PLANTED("waits-for-budget-for-ever"))
            cox_list_push_back(&e->budgets_due, &a->ledger->in_due);
}

/* Each finds out for itself, when it is dispatched, whether it may go. */
void budgets_run(struct cox_engine *e)
{
    while (!cox_list_empty(&e->budgets_due)) {
        struct ledger *l = COX_CONTAINER_OF(e->budgets_due.next, struct ledger, in_due);
        cox_list_remove(&l->in_due);
        for (uint32_t n = 0; n < WOKEN_MAX && !cox_list_empty(&l->waiting); n++) {
            struct step *s = COX_CONTAINER_OF(l->waiting.next, struct step, in_queue);
            struct cox_task *t = step_page(s)->task;
            budget_unwait(s);
            route_enqueue_again(e, t, s);
            changed(e, t, step_index(s));
        }
    }
}

/* ---- what must always hold ---- */

static uint64_t reserved_under(const struct cox_engine *e, const struct cox_task *account)
{
    uint64_t sum = 0;
    for (uint32_t ref = 1; ref < e->n_workers_cap; ref++) {
        if (e->workers[ref] == NULL)
            continue;
        COX_LIST_FOR_EACH (it, &e->workers[ref]->attempts) {
            const struct attempt *a = COX_CONTAINER_OF(it, struct attempt, in_worker);
            sum += a->call.reserved > 0 && is_under(a->task, account) ? a->call.reserved : 0;
        }
    }
    COX_LIST_FOR_EACH (it, &e->task_list) {
        const struct cox_task *t = COX_CONTAINER_OF(it, struct cox_task, in_tasks);
        for (uint32_t i = 0; t->ledger != NULL && i < t->ledger->n_open && is_under(t, account); i++)
            sum += t->ledger->open[i].n_calls > 0 ? t->ledger->open[i].reserved : 0;
    }
    return sum;
}

/* What calls under way have reserved, and nothing else, stands in the accounts; who waits there is woken by
 * it; and nobody has used more than what it is in. */
void budgets_check(const struct cox_engine *e)
{
    COX_ASSERT(cox_list_empty(&e->budgets_due));
    COX_LIST_FOR_EACH (it, &e->task_list) {
        const struct cox_task *t = COX_CONTAINER_OF(it, struct cox_task, in_tasks);
        const struct ledger *l = t->ledger, *above = t->root->ledger;
        if (l == NULL)
            continue;
        COX_ASSERT(l->reserved == (t->own_image ? reserved_under(e, t) : 0));
        COX_ASSERT(cox_list_empty(&l->waiting) || t->own_image);
        COX_ASSERT(l->usage.cached_tokens <= l->usage.input_tokens);
        if (usage_is_none(&l->usage))
            continue;
        COX_ASSERT(l->usage.model_calls <= above->usage.model_calls);
        COX_ASSERT(l->usage.input_tokens <= above->usage.input_tokens);
        COX_ASSERT(l->usage.output_tokens <= above->usage.output_tokens);
    }
}
