#include "call_log.h"

#include "cox/json.h"
#include "cox/limits.h"

void call_log_begin(struct call_log *l, struct call *call, const struct redactor *redactor)
{
    call_log_fini(l);
    l->call = call;
    l->tail.len_max = COX_STDIO_TAIL_LEN_MAX;
    l->redact.of = redactor;
}

static void put(struct call_log *l, struct cox_slice data)
{
    if (data.len == 0)
        return;
    tail_append(&l->tail, data);
    l->call->on_log(l->call, LIVELOG_STDERR, data);
}

void call_log_take(struct call_log *l, struct cox_slice data)
{
    struct cox_buf clean = { 0 };

    if (l->redact.of) {
        redact_feed(&l->redact, data, &clean);
        data = cox_buf_slice(&clean);
    }
    put(l, data);
    cox_buf_fini(&clean);
}

void call_log_end(struct call_log *l)
{
    struct cox_buf rest = { 0 };

    redact_end(&l->redact, &rest);
    put(l, cox_buf_slice(&rest));
    cox_buf_fini(&rest);
}

void call_log_keep(const struct call_log *l, struct outcome *o)
{
    struct cox_slice log = tail_slice(&l->tail);

    if (o->code == COX_CODE_NONE || log.len == 0)
        return;
    cox_buf_clear(&o->output);
    cox_buf_append_str(&o->output, "{\"stderr\":");
    cox_json_quote(&o->output, log);
    cox_buf_append_str(&o->output, "}");
}

void call_log_fini(struct call_log *l)
{
    tail_fini(&l->tail);
    redact_fini(&l->redact);
    *l = (struct call_log){ 0 };
}
