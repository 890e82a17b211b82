#include "ledger.h"

#include "budget.h"
#include "state.h"

#include <string.h>

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

struct ledger *ledger_of(struct cox_task *t)
{
    if (t->ledger == NULL) {
        t->ledger = COX_NEW(struct ledger);
        cox_list_init(&t->ledger->waiting);
        cox_list_init(&t->ledger->in_due);
    }
    return t->ledger;
}

void ledger_free(struct ledger *l)
{
    if (l == NULL)
        return;
    cox_list_remove(&l->in_due);
    cox_free(l->open);
    cox_free(l);
}

bool ledger_untouched(const struct ledger *l)
{
    return l == NULL || (usage_is_none(&l->usage) && l->n_steps == 0 && l->n_unknown == 0 && l->n_open == 0);
}

static void put_token(struct cox_buf *b, struct cox_token token)
{
    cox_put_u64(b, token.epoch);
    cox_put_u64(b, token.counter);
}

static struct cox_token get_token(struct cox_reader *r)
{
    struct cox_token token = { .epoch = cox_get_u64(r) };
    token.counter = cox_get_u64(r);
    return token;
}

void ledger_encode(struct cox_buf *b, const struct ledger *l)
{
    usage_encode(b, &l->usage);
    cox_put_u64(b, l->n_steps);
    cox_put_u32(b, l->n_unknown);
    for (uint32_t i = 0; i < l->n_unknown; i++) {
        put_token(b, l->unknown[i].token);
        cox_put_u64(b, l->unknown[i].tokens);
    }
    if (l->n_open == 0)
        return; /* a reader finds the end */
    cox_put_u32(b, l->n_open);
    for (uint32_t i = 0; i < l->n_open; i++) {
        put_token(b, l->open[i].token);
        cox_put_u64(b, l->open[i].reserved);
        cox_put_u64(b, l->open[i].guessed);
        cox_put_u32(b, l->open[i].n_calls);
    }
}

static struct open_calls *open_push(struct ledger *l, struct cox_token token)
{
    if (l->n_open == l->cap_open) {
        l->cap_open = l->cap_open == 0 ? 4 : l->cap_open * 2;
        l->open = cox_realloc(l->open, l->cap_open, sizeof l->open[0]);
    }
    struct open_calls *c = &l->open[l->n_open++];
    *c = (struct open_calls){ .token = token };
    return c;
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
        l->unknown[l->n_unknown].token = get_token(r);
        l->unknown[l->n_unknown].tokens = cox_get_u64(r);
    }
    n = cox_reader_left(r) > 0 ? cox_get_u32(r) : 0; /* before there were any: none */
    for (; n > 0 && !r->bad; n--) {
        struct open_calls *c = open_push(l, get_token(r));
        c->reserved = cox_get_u64(r);
        c->guessed = cox_get_u64(r);
        c->n_calls = cox_get_u32(r);
    }
}

/* ---- calls under way ---- */

static struct open_calls *open_find(const struct ledger *l, struct cox_token token, bool of_processes)
{
    for (uint32_t i = l != NULL ? l->n_open : 0; i-- > 0;) /* most end soon after they began */
        if (cox_token_eq(l->open[i].token, token) && (l->open[i].n_calls > 0) == of_processes)
            return &l->open[i];
    return NULL;
}

const struct open_calls *ledger_open(const struct ledger *l, struct cox_token token, bool of_processes)
{
    return open_find(l, token, of_processes);
}

bool ledger_has_calls(const struct ledger *l)
{
    for (uint32_t i = 0; l != NULL && i < l->n_open; i++)
        if (l->open[i].n_calls > 0)
            return true;
    return false;
}

void ledger_forget_open(struct ledger *l)
{
    if (l != NULL)
        l->n_open = 0;
}

static void open_remove(struct ledger *l, struct open_calls *c)
{
    *c = l->open[--l->n_open];
}

static bool attempt_begins(struct cox_task *t, struct cox_token token, const struct reservation *r)
{
    if (r->reserved == 0 || COX_PLANTED("reservation-not-durable"))
        return false;
    struct open_calls *c = open_push(ledger_of(t), token);
    c->reserved = r->reserved;
    c->guessed = r->guessed;
    return true;
}

static bool attempt_ends(struct cox_task *t, struct cox_token token)
{
    struct open_calls *c = open_find(t->ledger, token, false);
    if (c != NULL)
        open_remove(t->ledger, c);
    return c != NULL;
}

static bool process_calls(struct cox_task *t, struct cox_token token, const struct reservation *r)
{
    struct open_calls *c = open_find(ledger_of(t), token, true);
    if (c == NULL)
        c = open_push(t->ledger, token);
    c->n_calls++;
    c->reserved += r->reserved;
    c->guessed += r->guessed;
    return true;
}

bool ledger_apply(struct cox_task *t, const struct record *r)
{
    switch (r->type) {
    case RECORD_ASSIGNED:
        return attempt_begins(t, r->u.assigned.token, &r->u.assigned.call);
    case RECORD_ITEMS_ASSIGNED:
        return attempt_begins(t, r->u.items.token, &r->u.items.call);
    case RECORD_ATTEMPT_ENDED:
        return attempt_ends(t, r->u.ended.token);
    case RECORD_UNASSIGNED:
        return attempt_ends(t, r->u.unassigned.token);
    case RECORD_ITEMS_ENDED:
        return attempt_ends(t, r->u.items_ended.token);
    case RECORD_ITEMS_UNASSIGNED:
        return attempt_ends(t, r->u.items.token);
    case RECORD_CALL_BEGUN:
        return process_calls(t, r->u.call.token, &r->u.call.of);
    default:
        return false;
    }
}

/* Of calls whose end nobody knows. */
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

/* ---- records ---- */

static void calls_ended(struct ledger *l, const struct record_usage *u)
{
    struct open_calls *c = u->n_ended > 0 ? open_find(l, u->token, true) : NULL;
    if (c == NULL)
        return;
    if (u->n_ended >= c->n_calls) {
        open_remove(l, c);
        return;
    }
    c->n_calls -= u->n_ended;
    c->reserved -= u->released.reserved < c->reserved ? u->released.reserved : c->reserved;
    c->guessed -= u->released.guessed < c->guessed ? u->released.guessed : c->guessed;
}

static void usage_enters(struct ledger *l, const struct record *r, bool is_root, bool is_frame)
{
    const struct record_usage *u = &r->u.usage;
    uint32_t known = is_root ? unknown_find(l, u->token) : UINT32_MAX;
    usage_add(&l->usage, &u->usage);
    l->usage.wasted_tokens += u->guessed;
    l->usage.wasted_tokens -= u->settled < l->usage.wasted_tokens ? u->settled : l->usage.wasted_tokens;
    if (is_frame)
        calls_ended(l, u);
    l->n_steps += u->n_steps;
    if (!is_root)
        return;
    if (u->settled > 0 && known != UINT32_MAX)
        unknown_remove(l, known);
    if (u->guessed > 0)
        unknown_push(l, u->token, u->guessed);
}

static void usage_applies(struct cox_engine *e, uint64_t seq, const struct record *r, cox_task_id id)
{
    struct cox_task *t = cox_map64_get(&e->tasks, id);
    cox_task_id frame = r->u.usage.frame != 0 ? r->u.usage.frame : r->task;
    if (t == NULL || !t->has_header || t->entity.applied_seq >= seq)
        return;
    usage_enters(ledger_of(t), r, id == r->task, id == frame);
    entity_touch(e, &t->entity, seq);
}

void apply_usage(struct cox_engine *e, uint64_t seq, const struct record *r)
{
    struct cox_reader above = cox_reader(r->u.usage.above);
    usage_applies(e, seq, r, r->task);
    if (r->u.usage.frame != 0)
        usage_applies(e, seq, r, r->u.usage.frame);
    while (cox_reader_left(&above) >= sizeof(cox_task_id))
        usage_applies(e, seq, r, cox_get_u64(&above));
}

struct record usage_record(const struct cox_engine *e, struct cox_task *t, struct cox_token token)
{
    struct record r = { .type = RECORD_USAGE, .task = t->root->id, .wall_ms = e->now.wall_ms };
    r.u.usage.frame = t->root != t ? t->id : 0;
    r.u.usage.token = token;
    if (t->root == t || COX_PLANTED("accounts-between-not-charged"))
        return r;
    struct cox_buf above = { 0 };
    for (struct cox_task *a = budget_account(t); a != t->root; a = budget_above(a))
        if (a != t)
            cox_put_u64(&above, a->id);
    r.u.usage.above = cox_slice(cox_arena_dup(&e->fx->arena, above.data, above.len), above.len);
    cox_buf_fini(&above);
    return r;
}

/* ---- attempts ---- */

void ledger_charge(struct cox_engine *e, struct attempt *a, const struct cox_in_result *in, bool counts)
{
    if (in != NULL ? usage_is_none(&in->usage) : a->call.reserved == 0) { /* most attempts call no model */
        budget_release(e, a);
        return;
    }
    struct record r = usage_record(e, a->task, a->token);
    if (in == NULL)
        r.u.usage.guessed = a->call.guessed;
    else if (counts || COX_PLANTED("waste-counts-as-use"))
        r.u.usage.usage = bounded(&in->usage);
    else
        r.u.usage.usage = wasted(&in->usage);
    if (in != NULL || !COX_PLANTED("unknown-costs-nothing"))
        emit(e, &r);
    budget_release(e, a);
}

void ledger_late(struct cox_engine *e, const struct cox_in_result *in)
{
    struct cox_task *t = cox_map64_get(&e->tasks, in->ref.task);
    if (t == NULL)
        return; /* what was guessed of it stays */
    uint32_t known = unknown_find(t->root->ledger, in->ref.token);
    if (known == UINT32_MAX)
        return; /* it was charged when it ended */
    struct record r = usage_record(e, t, in->ref.token);
    r.u.usage.usage = wasted(&in->usage);
    r.u.usage.settled = COX_PLANTED("late-word-charged-twice") ? 0 : t->root->ledger->unknown[known].tokens;
    emit(e, &r);
    budget_changed(e, t);
    tasks_archive_again(e, t);
    changed(e, t->root, COX_IMAGE_NONE);
}

/* ---- calls of processes ---- */

void ledger_call(struct cox_engine *e, const struct cox_in_call *in)
{
    enum cox_answer why;
    struct attempt *a = attempt_find(e, in->ref, &why);
    if (a == NULL || a->cancelling)
        return;
    struct record r = { .type = RECORD_CALL_BEGUN, .task = a->task->id, .wall_ms = e->now.wall_ms };
    r.u.call.token = in->ref.token;
    r.u.call.of = (struct reservation){ in->reserved, in->guessed };
    emit(e, &r);
    budget_add(a->task, in->reserved);
}

/* How much of what its calls have reserved goes with those that have ended. */
static void call_ends(const struct cox_task *t, const struct cox_in_spend *in, struct record_usage *u)
{
    const struct open_calls *c = in->n_ended > 0 ? ledger_open(t->ledger, in->ref.token, true) : NULL;
    if (c == NULL)
        return;
    u->n_ended = in->n_ended < c->n_calls ? in->n_ended : c->n_calls;
    u->released = (struct reservation){ in->released, in->released_guess };
    if (u->n_ended == c->n_calls || u->released.reserved > c->reserved)
        u->released.reserved = c->reserved;
    if (u->n_ended == c->n_calls || u->released.guessed > c->guessed)
        u->released.guessed = c->guessed;
}

/* What they used is charged as it is reported, however the step ends, and though its task has ended. */
void ledger_spend(struct cox_engine *e, const struct cox_in_spend *in)
{
    enum cox_answer why;
    const struct attempt *a = attempt_find(e, in->ref, &why);
    struct cox_task *t = cox_map64_get(&e->tasks, in->ref.task);
    bool over = a == NULL || a->cancelling;
    struct record r = { .type = RECORD_USAGE };
    if (t != NULL) {
        r = usage_record(e, t, in->ref.token);
        call_ends(t, in, &r.u.usage);
    }
    if (t != NULL && (!usage_is_none(&in->usage) || r.u.usage.n_ended > 0)) {
        uint64_t released = r.u.usage.released.reserved;
        r.u.usage.usage = a != NULL ? bounded(&in->usage) : wasted(&in->usage);
        emit(e, &r);
        budget_sub(e, t, released);
        budget_changed(e, t);
        changed(e, t->root, COX_IMAGE_NONE);
    }
    over = over || budget_is_spent(t); /* also by others, while this one's calls go on */
    if (over && !COX_PLANTED("spends-for-ever")) {
        struct cox_action *out = act(e, COX_ACT_FENCED);
        out->u.attempt.session = in->session;
        out->u.attempt.ref = in->ref;
    }
    if (t != NULL)
        tasks_archive_again(e, t);
}

static void calls_unknown(struct cox_engine *e, struct cox_task *t)
{
    while (ledger_has_calls(t->ledger)) {
        const struct open_calls *c = t->ledger->open;
        while (c->n_calls == 0)
            c++;
        struct record r = usage_record(e, t, c->token);
        r.u.usage.guessed = c->guessed;
        r.u.usage.n_ended = c->n_calls;
        emit(e, &r);
    }
}

void ledger_recovered(struct cox_engine *e, struct cox_task *t)
{
    calls_unknown(e, t);
}

static uint64_t reserved_by_calls(const struct ledger *l)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < l->n_open; i++)
        sum += l->open[i].n_calls > 0 ? l->open[i].reserved : 0;
    return sum;
}

void ledgers_edge_back(struct cox_engine *e)
{
    struct cox_buf ids = { 0 };
    COX_LIST_FOR_EACH (it, &e->task_list) {
        const struct cox_task *t = COX_CONTAINER_OF(it, struct cox_task, in_tasks);
        if (ledger_has_calls(t->ledger))
            cox_put_u64(&ids, t->id);
    }
    struct cox_reader in = cox_reader(cox_buf_slice(&ids));
    while (cox_reader_left(&in) > 0) {
        struct cox_task *t = cox_map64_get(&e->tasks, cox_get_u64(&in));
        uint64_t reserved = reserved_by_calls(t->ledger);
        calls_unknown(e, t);
        budget_sub(e, t, reserved);
        tasks_archive_again(e, t); /* may be its end: frames come after what they are in */
    }
    cox_buf_fini(&ids);
}
