/* How long an agent's conversation is, and what is done when it is too long: cox/turn.h, config.context. */
#include "agent.h"
#include "expand.h"

#include "cox/json.h"

#define BYTES_A_TOKEN 4u

static uint64_t len_of(const struct value *v)
{
    return v->payload.kind == COX_PAYLOAD_INLINE ? v->payload.bytes.len : v->payload.size;
}

/* What its last call was counted as, and a guess of what was said since. */
static uint64_t tokens_of(const struct agent *a)
{
    uint64_t len = a->tokens > 0 ? 0 : len_of(a->request) + len_of(a->tools);
    for (uint32_t i = a->tokens > 0 ? a->n_counted : 0; i < a->n_said; i++)
        len += len_of(a->said[i].value);
    return a->tokens + len / BYTES_A_TOKEN;
}

static bool may_leave_out(const struct agent_entry *entry)
{
    return entry->what == AGENT_RESULT && len_of(entry->value) > AGENT_LEFT_OUT_LEN_MIN;
}

void agent_leave_out(struct agent *a, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        struct agent_entry *entry = &a->said[i];
        uint64_t len = len_of(entry->value);
        struct cox_buf text = { 0 };
        if (!may_leave_out(entry))
            continue;
        cox_buf_printf(&text, "\"[left out: a result of %llu bytes]\"", (unsigned long long)len);
        cox_free(entry->value);
        entry->value = value_make(&(struct cox_payload){
            .kind = COX_PAYLOAD_INLINE, .bytes = cox_buf_slice(&text), .size = text.len });
        uint64_t less = (len - text.len) / BYTES_A_TOKEN;
        if (i < a->n_counted)
            a->tokens -= less < a->tokens ? less : a->tokens - (a->tokens > 0);
        cox_buf_fini(&text);
    }
}

/* The oldest results, until half of what there may be is free: each time the model reads all anew. What it
 * has not seen yet stays. 0: there is nothing to leave out. */
static uint32_t n_to_leave_out(const struct agent *a, uint64_t tokens, uint64_t max)
{
    uint64_t goal = (tokens < max ? tokens : max) / 2;
    uint32_t seen = a->n_said, n = 0;
    while (seen > 0 && a->said[seen - 1].what != AGENT_ANSWER && !COX_PLANTED("unseen-results-left-out"))
        seen--;
    for (uint32_t i = 0; i < seen && tokens > goal; i++) {
        if (!may_leave_out(&a->said[i]))
            continue;
        uint64_t less = len_of(a->said[i].value) / BYTES_A_TOKEN;
        tokens -= less < tokens ? less : tokens;
        n = i + 1;
    }
    return n;
}

static bool context_of(struct cox_slice config, uint64_t *ret_max, bool *ret_trims)
{
    struct cox_slice context, v;
    int64_t max = 0;
    if (!cox_json_member(config, "context", &context) || !cox_json_member(context, "max_tokens", &v) ||
        !cox_json_int(v, &max) || max <= 0)
        return false;
    *ret_max = (uint64_t)max;
    *ret_trims =
        cox_json_member(context, "on_full", &v) && cox_json_string_is(v, cox_slice_str("trim_tool_results"));
    return true;
}

bool agent_has_room(struct cox_engine *e, struct cox_task *t, uint32_t step, struct cox_slice config)
{
    const struct agent *a = task_step(t, step)->x->agent;
    struct cox_buf text = { 0 };
    uint64_t max, tokens;
    bool trims;
    if (!context_of(config, &max, &trims) || COX_PLANTED("context-without-end"))
        return true;
    while ((tokens = tokens_of(a)) > max || a->room == AGENT_ROOM_NONE) {
        uint32_t n = trims ? n_to_leave_out(a, tokens, max) : 0;
        if (n == 0) {
            cox_buf_printf(&text, "the conversation has about %llu tokens, of %llu (`context.max_tokens`)",
                           (unsigned long long)tokens, (unsigned long long)max);
            agent_fail(e, t, step, COX_CODE_CONTEXT_LENGTH, cox_buf_slice(&text));
            cox_buf_fini(&text);
            return false;
        }
        agent_say_fact(e, t, step, &(struct record_agent){ .what = AGENT_TRIMMED, .index = n });
    }
    return true;
}

bool agent_makes_room(struct cox_engine *e, struct cox_task *t, uint32_t step, struct cox_slice config)
{
    const struct agent *a = task_step(t, step)->x->agent;
    uint64_t max;
    bool trims;
    if (!context_of(config, &max, &trims) || !trims ||
        (a->room != AGENT_ROOM_SOME && !COX_PLANTED("refused-without-end")) ||
        n_to_leave_out(a, tokens_of(a), max) == 0)
        return false;
    agent_say_fact(e, t, step, &(struct record_agent){ .what = AGENT_REFUSED });
    return true;
}
