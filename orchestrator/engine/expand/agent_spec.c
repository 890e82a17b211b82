/* What a turn's call of the model is: what was said so far, by reference. */
#include "agent.h"
#include "expand.h"

#include "cox/json.h"

#include <string.h>

static void put_value(struct cox_buf *out, const struct value *v)
{
    if (v->payload.kind == COX_PAYLOAD_INLINE) {
        cox_buf_append_slice(out, v->payload.bytes);
        return;
    }
    cox_buf_append_str(out, "{\"$blob\":\"sha256:");
    cox_buf_append_hex(out, v->payload.hash.b, sizeof v->payload.hash.b);
    cox_buf_printf(out, "\",\"size\":%llu}", (unsigned long long)v->payload.size);
}

static void put_entry(struct cox_buf *out, const struct agent_entry *entry)
{
    static const char *const names[] = {
        [AGENT_ANSWER] = "answer", [AGENT_RESULT] = "result", [AGENT_TEXT] = "text"
    };
    cox_buf_printf(out, "{\"%s\":", names[entry->what]);
    put_value(out, entry->value);
    if (entry->value->payload.kind != COX_PAYLOAD_INLINE) /* a value may look like a reference */
        cox_buf_append_str(out, ",\"kept\":true");
    if (entry->what == AGENT_RESULT) {
        cox_buf_append_str(out, ",\"id\":");
        cox_json_quote(out, cox_slice_str(entry->id));
    }
    cox_buf_append_str(out, "}");
}

/* The agent whose turn's call of the model this step is; NULL: it is none. */
static const struct agent *speaker(const struct cox_task *t, uint32_t step)
{
    if (step != t->first || !frame_is_agents(t) || AGENT_ITEM_N(t->parent_item) != AGENT_N_MODEL ||
        AGENT_ITEM_TURN(t->parent_item) == 0)
        return NULL;
    return task_step(t->parent, t->parent_step)->x->agent;
}

static uint64_t named_len(const struct value *v)
{
    return v->payload.kind == COX_PAYLOAD_STORED ? v->payload.size : 0;
}

uint64_t agent_said_elsewhere(const struct cox_task *t, uint32_t step)
{
    const struct agent *a = speaker(t, step);
    uint64_t len = 0;
    if (a == NULL)
        return 0;
    for (uint32_t i = 0; i < a->n_said; i++)
        len += named_len(a->said[i].value);
    return len + named_len(a->request) + named_len(a->tools);
}

bool agent_spec(struct cox_engine *e, const struct cox_task *t, uint32_t step, struct cox_slice *ret)
{
    struct cox_buf out = { 0 };
    const struct agent *a = speaker(t, step);
    if (a == NULL)
        return false;
    cox_buf_append_str(&out, "{\"conversation\":{\"request\":");
    put_value(&out, a->request);
    cox_buf_append_str(&out, ",\"tools\":");
    put_value(&out, a->tools);
    cox_buf_append_str(&out, ",\"said\":[");
    for (uint32_t i = 0; i < a->n_said; i++) {
        if (i > 0)
            cox_buf_append_str(&out, ",");
        put_entry(&out, &a->said[i]);
    }
    cox_buf_append_str(&out, "]}}");
    *ret = cox_slice(cox_arena_dup(&e->fx->arena, out.data, out.len), out.len);
    cox_buf_fini(&out);
    return true;
}
