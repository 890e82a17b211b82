#include "cox/attach.h"
#include "cox/base/alloc.h"

struct cox_ref cox_attach_ref(const Coxswain__V1__AttemptRef *m)
{
    return (struct cox_ref){
        .task = m->task,
        .step = m->step,
        .token = { .epoch = m->token->epoch, .counter = m->token->counter },
    };
}

static bool is_ref(const Coxswain__V1__AttemptRef *ref)
{
    return ref && ref->token;
}

bool cox_attach_named(const Coxswain__V1__AttachResponse *m)
{
    bool ok = true;

    for (size_t i = 0; i < m->n_answers; i++)
        ok = ok && is_ref(m->answers[i]->ref);
    for (size_t i = 0; i < m->n_cancels; i++)
        ok = ok && is_ref(m->cancels[i]);
    for (size_t i = 0; i < m->n_assigns; i++)
        ok = ok && is_ref(m->assigns[i]->ref);
    for (size_t i = 0; i < m->n_logs_wanted; i++)
        ok = ok && is_ref(m->logs_wanted[i]->ref);
    for (size_t i = 0; i < m->n_fenced; i++)
        ok = ok && is_ref(m->fenced[i]);
    return ok;
}

static struct cox_slice slice_of(ProtobufCBinaryData b)
{
    return cox_slice(b.data, b.len);
}

static struct cox_agent_hint hint_of(const Coxswain__V1__CallHint *m)
{
    return (struct cox_agent_hint){
        .priority = m->priority,
        .critical_path_ms = m->critical_path_ms,
        .deadline_ms = m->deadline_ms,
        .siblings = m->siblings,
        .tokens_left = m->tokens_left,
        .output_tokens = m->output_tokens,
        .idempotent = m->idempotent,
    };
}

static void read_assign(const Coxswain__V1__Assign *m, cox_attach_feed *feed, void *user)
{
    struct cox_agent_input in = { .kind = COX_AGENT_ASSIGN };
    struct cox_agent_assign *assign = &in.u.assign;
    struct cox_agent_item *items = cox_calloc(m->n_items, sizeof(*items));

    assign->ref = cox_attach_ref(m->ref);
    assign->attempt = m->attempt;
    assign->timeout_ms = m->timeout_ms;
    assign->task_id = cox_slice_str(m->task_id);
    assign->step_name = cox_slice_str(m->step_name);
    assign->handler = cox_slice_str(m->handler);
    assign->spec_json = slice_of(m->spec_json);
    assign->idempotency_key = cox_slice_str(m->idempotency_key);
    assign->version = cox_slice_str(m->program_version);
    assign->continuation_json = slice_of(m->continuation_json);
    assign->artifacts_json = slice_of(m->artifacts_json);
    assign->workspace = cox_slice_str(m->workspace);
    assign->bundle = cox_slice_str(m->bundle);
    assign->tenant = cox_slice_str(m->tenant);
    if (m->resources)
        assign->resources = (struct cox_resources){ m->resources->cpu_milli, m->resources->memory_bytes,
                                                    m->resources->disk_bytes };
    if (m->workspace_home) {
        assign->home = m->workspace_home->number;
        assign->snapshot = cox_slice_str(m->workspace_home->snapshot);
        assign->tree = cox_slice_str(m->workspace_home->tree);
    }
    if (m->hint)
        assign->hint = hint_of(m->hint);
    for (size_t i = 0; i < m->n_items; i++)
        items[i] = (struct cox_agent_item){ .index = m->items[i]->index,
                                            .spec_json = slice_of(m->items[i]->spec_json) };
    assign->items = items;
    assign->n_items = m->n_items;
    feed(user, &in);
    cox_free(items);
}

static void read_ref(enum cox_agent_input_kind kind, const Coxswain__V1__AttemptRef *ref,
                     cox_attach_feed *feed, void *user)
{
    feed(user, &(struct cox_agent_input){ .kind = kind, .u.ref = cox_attach_ref(ref) });
}

void cox_attach_read(const Coxswain__V1__AttachResponse *m, cox_attach_feed *feed, void *user)
{
    if (m->welcome)
        feed(user, &(struct cox_agent_input){
                       .kind = COX_AGENT_WELCOME,
                       .u.welcome = { m->welcome->shard_uid, m->welcome->beat_ms, m->welcome->lost_ms } });
    for (size_t i = 0; i < m->n_answers; i++)
        read_ref(COX_AGENT_ANSWER, m->answers[i]->ref, feed, user);
    for (size_t i = 0; i < m->n_cancels; i++)
        read_ref(COX_AGENT_CANCEL, m->cancels[i], feed, user);
    for (size_t i = 0; i < m->n_assigns; i++)
        read_assign(m->assigns[i], feed, user);
    for (size_t i = 0; i < m->n_logs_wanted; i++)
        feed(user, &(struct cox_agent_input){
                       .kind = COX_AGENT_LOG_WANTED,
                       .u.log = { cox_attach_ref(m->logs_wanted[i]->ref), m->logs_wanted[i]->wanted } });
    if (m->drain)
        feed(user, &(struct cox_agent_input){ .kind = COX_AGENT_DRAIN });
    if (m->reconnect)
        feed(user, &(struct cox_agent_input){ .kind = COX_AGENT_RECONNECT });
}
