#include "trace_state.h"

#include "cox/base/alloc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- words to a task ---- */

void signal_task(struct trace *t, uint32_t task_no, const char *name, const char *json)
{
    struct cox_input in = { .kind = COX_IN_SIGNAL };
    in.u.signal.request = ++t->next_request;
    in.u.signal.task = task_no;
    in.u.signal.name = cox_slice_str(name);
    in.u.signal.payload = (struct cox_payload){ .kind = COX_PAYLOAD_INLINE,
                                                .bytes = cox_slice_str(json),
                                                .size = strlen(json) };
    step(t, &in);
}

void answer_approval(struct trace *t, uint32_t task_no, const char *address, bool yes, const char *comment)
{
    answer_approval_as(t, "", "", task_no, address, yes, comment);
}

void answer_approval_as(struct trace *t, const char *who, const char *roles, uint32_t task_no,
                        const char *address, bool yes, const char *comment)
{
    struct cox_input in = { .kind = COX_IN_APPROVE };
    in.u.approve.request = ++t->next_request;
    in.u.approve.task = task_no;
    in.u.approve.step = cox_slice_str(address);
    in.u.approve.approve = yes;
    in.u.approve.comment = cox_slice_str(comment);
    in.u.approve.by = cox_slice_str(who);
    in.u.approve.roles = cox_slice_str(roles);
    step(t, &in);
}

void message_task(struct trace *t, uint32_t task_no, const char *address, const char *text)
{
    struct cox_input in = { .kind = COX_IN_MESSAGE };
    in.u.message.request = ++t->next_request;
    in.u.message.task = task_no;
    in.u.message.step = cox_slice_str(address);
    in.u.message.text = cox_slice_str(text);
    step(t, &in);
}

void pause_task(struct trace *t, uint32_t task_no, bool pause)
{
    struct cox_input in = { .kind = pause ? COX_IN_PAUSE : COX_IN_RESUME };
    in.u.of.request = ++t->next_request;
    in.u.of.task = task_no;
    step(t, &in);
}

void want(struct trace *t, uint32_t task_no)
{
    struct cox_input in = { .kind = COX_IN_WANT };
    in.u.of.request = ++t->next_request;
    in.u.of.task = task_no;
    step(t, &in);
}

void cancel_step(struct trace *t, uint32_t task_no, const char *address)
{
    struct cox_input in = { .kind = COX_IN_CANCEL };
    in.u.cancel.request = ++t->next_request;
    in.u.cancel.task = task_no;
    in.u.cancel.step = cox_slice_str(address);
    step(t, &in);
}

/* ---- the state's part ---- */

void load(struct trace *t)
{
    struct cox_input in = { .kind = COX_IN_LOADED };
    const struct saved *s = saved_of(t, t->loading);
    assert_non_null(s);
    struct cox_buf bytes = { 0 };
    cox_buf_append_slice(&bytes, cox_buf_slice(&s->bytes)); /* what follows may forget it */
    in.u.loaded.task = t->loading.id;
    in.u.loaded.bytes = cox_buf_slice(&bytes);
    step(t, &in);
    cox_buf_fini(&bytes);
}

void trace_keep_archive(struct trace *t, const struct cox_action *a)
{
    struct cox_buf *b = COX_NEW(struct cox_buf);
    cox_buf_append_slice(b, a->u.archive.bytes);
    struct cox_buf *old = cox_map64_set(&t->archive, a->u.archive.task, b);
    if (old != NULL)
        cox_buf_fini(old);
    cox_free(old);
}

void trace_archive_fini(struct trace *t)
{
    size_t it = 0;
    uint64_t id;
    void *b;
    while (cox_map64_next(&t->archive, &it, &id, &b)) {
        cox_buf_fini(b);
        cox_free(b);
    }
    cox_map64_fini(&t->archive);
}

struct cox_slice archive_of(struct trace *t, uint32_t task_no)
{
    const struct cox_buf *b = cox_map64_get(&t->archive, task_no);
    return b != NULL ? cox_buf_slice(b) : cox_slice(NULL, 0);
}

void retry_task(struct trace *t, uint32_t task_no)
{
    struct cox_input in = { .kind = COX_IN_RETRY };
    struct cox_buf bytes = { 0 };
    cox_buf_append_slice(&bytes, archive_of(t, task_no));
    in.u.retry.request = ++t->next_request;
    in.u.retry.task = task_no;
    in.u.retry.archived = cox_buf_slice(&bytes);
    step(t, &in);
    cox_buf_fini(&bytes);
}

void fork_task(struct trace *t, uint32_t task_no, const char *at)
{
    struct cox_input in = { .kind = COX_IN_FORK };
    in.u.fork.request = ++t->next_request;
    in.u.fork.from = task_no;
    if (cox_engine_find(t->engine, task_no) == NULL)
        in.u.fork.archived = archive_of(t, task_no);
    in.u.fork.at = cox_slice_str(at);
    in.u.fork.tenant = cox_slice_str("default");
    step(t, &in);
}

/* ---- programs ---- */

void continues(struct trace *t, const char *worker, uint32_t task_no, const char *name,
               const char *asked_json)
{
    struct cox_input in = { .kind = COX_IN_RESULT };
    in.u.result.session = session_of(t, worker);
    in.u.result.ref = ref_of(t, task_no, name);
    in.u.result.status = COX_ATTEMPT_SUCCEEDED;
    in.u.result.cpu_us = RESULT_CPU_US;
    struct cox_buf asked = { 0 };
    cox_buf_append_str(&asked, asked_json);
    in.u.result.continuation = kept(t, &asked);
    step(t, &in);
    cox_buf_fini(&asked);
}
