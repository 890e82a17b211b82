/* wait and approval: steps that end when a time comes, or somebody says so. */
#include "expand.h"

#include "cox/base/units.h"
#include "cox/json.h"

#include <string.h>

/* ---- wait ---- */

static bool parse_until(struct cox_slice json, int64_t *ret_wall_ms)
{
    struct cox_buf text = { 0 };
    bool ok = cox_json_kind(json) == COX_JSON_STRING;
    if (ok) {
        cox_json_unquote(&text, json);
        ok = cox_parse_time(cox_buf_slice(&text), ret_wall_ms) == COX_OK;
    }
    cox_buf_fini(&text);
    return ok;
}

void wait_begin(struct cox_engine *e, struct cox_task *t, uint32_t step, struct cox_slice until_json)
{
    struct cox_image_call call;
    int64_t wake_wall_ms = 0;
    step_call(t, step, task_step(t, step), &call);
    if (call.wait == COX_WAIT_UNTIL && !parse_until(cox_json_trim(until_json), &wake_wall_ms)) {
        struct cox_buf text = { 0 };
        cox_buf_printf(&text, "wait.until came to %.*s, expected a time such as \"2026-01-02T03:04:05Z\"",
                       (int)(until_json.len < 100 ? until_json.len : 100), (const char *)until_json.data);
        step_refuse(e, t, step, COX_CODE_INPUT_INVALID, cox_buf_slice(&text));
        cox_buf_fini(&text);
        return;
    }
    if (call.wait == COX_WAIT_FOR)
        wake_wall_ms = e->now.wall_ms + call.wait_ms;
    if (wake_wall_ms < 1 && call.wait != COX_WAIT_SIGNAL)
        wake_wall_ms = 1; /* long past, and not "none" */
    waiting_begins(e, t, step, wake_wall_ms, call.ref);
    if (call.wait == COX_WAIT_SIGNAL)
        wait_listen(e, t, step);
}

static void end_well(struct cox_engine *e, struct cox_task *t, uint32_t step, struct cox_slice json,
                     uint64_t took_signal)
{
    struct record_ended en = { .status = COX_ATTEMPT_SUCCEEDED, .took_signal = took_signal };
    en.output = (struct cox_payload){ .kind = COX_PAYLOAD_INLINE, .bytes = json, .size = json.len };
    expand_end(e, t, step, &en);
}

/* A signal that came before the wait counts. */
void wait_listen(struct cox_engine *e, struct cox_task *t, uint32_t step)
{
    struct expansion *x = task_step(t, step)->x;
    const struct signal *sig = signal_find(t->root, cox_slice_str(x->detail));
    if (sig == NULL || COX_PLANTED("early-signal-lost")) {
        cox_list_push_back(&t->root->waiters, &x->in_waiters);
        return;
    }
    struct record_ended en = { .status = COX_ATTEMPT_SUCCEEDED, .took_signal = sig->number };
    if (sig->payload != NULL)
        en.output = sig->payload->payload;
    expand_end(e, t, step, &en);
}

/* The longest waiting of those that wait for it takes it. */
void wait_take(struct cox_engine *e, struct cox_task *root, struct cox_slice name)
{
    COX_LIST_FOR_EACH (it, &root->waiters) {
        struct expansion *x = COX_CONTAINER_OF(it, struct expansion, in_waiters);
        if (!cox_slice_eq(cox_slice_str(x->detail), name))
            continue;
        cox_list_remove(&x->in_waiters);
        wait_listen(e, step_page(x->step)->task, step_index(x->step));
        return;
    }
}

/* ---- approval ---- */

void approval_begin(struct cox_engine *e, struct cox_task *t, uint32_t step, struct cox_slice prompt_json)
{
    struct cox_image_call call;
    struct cox_buf prompt = { 0 };
    step_call(t, step, task_step(t, step), &call);
    prompt_json = cox_json_trim(prompt_json);
    if (cox_json_kind(prompt_json) == COX_JSON_STRING)
        cox_json_unquote(&prompt, prompt_json);
    else
        cox_buf_append_slice(&prompt, prompt_json); /* a prompt that is all one value is shown as it is */
    waiting_begins(e, t, step, call.wait_ms > 0 ? e->now.wall_ms + call.wait_ms : 0,
                   text_cut(cox_buf_slice(&prompt), COX_SIGNAL_LEN_MAX));
    cox_buf_fini(&prompt);
}

static void answered(struct cox_engine *e, struct cox_task *t, uint32_t step, bool approved,
                     struct cox_slice comment, struct cox_slice by, const char *why)
{
    struct cox_buf json = { 0 };
    if (!approved) {
        cox_buf_append_str(&json, why);
        if (by.len > 0)
            cox_buf_printf(&json, " by %.*s", (int)by.len, (const char *)by.data);
        if (comment.len > 0)
            cox_buf_printf(&json, ": %.*s", (int)comment.len, (const char *)comment.data);
        expand_fail(e, t, step, COX_CODE_DENIED, cox_buf_slice(&json));
        cox_buf_fini(&json);
        return;
    }
    cox_buf_append_str(&json, "{\"approved\":true,\"by\":");
    cox_json_quote(&json, by);
    cox_buf_append_str(&json, ",\"comment\":");
    cox_json_quote(&json, comment);
    cox_buf_append_str(&json, "}");
    end_well(e, t, step, cox_buf_slice(&json), 0);
    cox_buf_fini(&json);
}

/* `roles`: names, each after a space. */
static bool has_role(struct cox_slice roles, struct cox_slice role)
{
    while (roles.len > 0) {
        const uint8_t *name = roles.data + 1, *end = roles.data + roles.len;
        const uint8_t *next = memchr(name, ' ', (size_t)(end - name));
        next = next != NULL ? next : end;
        if (cox_slice_eq(cox_slice(name, (size_t)(next - name)), role))
            return true;
        roles = cox_slice(next, (size_t)(end - next));
    }
    return false;
}

/* `approver`: "role:NAME" or "user:NAME". */
static bool is_approver(struct cox_slice approver, const struct cox_in_approve *in)
{
    struct cox_slice name = cox_slice(approver.data + 5, approver.len - 5);
    return approver.data[0] == 'u' ? cox_slice_eq(name, in->by) : has_role(in->roles, name);
}

static bool may_answer(struct cox_slice approvers_json, const struct cox_in_approve *in)
{
    struct cox_json_walk w = cox_json_walk(approvers_json);
    struct cox_buf approver = { 0 };
    bool may = false;
    while (!may && cox_json_next(&w)) {
        cox_buf_clear(&approver);
        cox_json_unquote(&approver, w.value);
        may = is_approver(cox_buf_slice(&approver), in);
    }
    cox_buf_fini(&approver);
    return may;
}

/* NULL: they may. Else who might, for whoever asks in vain. */
static const char *why_not_theirs(struct cox_engine *e, const struct cox_image *image, uint32_t approvers,
                                  const struct cox_in_approve *in)
{
    struct cox_image_template list;
    struct cox_buf why = { 0 };
    if (approvers == COX_IMAGE_NONE || in->by.len == 0)
        return NULL;
    cox_image_template(image, approvers, &list);
    if (may_answer(list.json, in) || COX_PLANTED("anyone-approves"))
        return NULL;
    cox_buf_printf(&why, "the approval is for %.*s", (int)list.json.len, (const char *)list.json.data);
    const char *text = (const char *)cox_arena_dup(&e->fx->arena, cox_buf_cstr(&why), why.len + 1);
    cox_buf_fini(&why);
    return text;
}

enum cox_err approval_answer(struct cox_engine *e, struct cox_task *t, uint32_t step,
                             const struct cox_in_approve *in, const char **ret_message)
{
    const struct step *s = task_step(t, step);
    struct cox_image_call call;
    step_call(t, step, s, &call);
    if (call.kind != COX_KIND_APPROVAL) {
        *ret_message = "the step is no approval";
        return COX_ERR_INVALID;
    }
    if (s->status != COX_STEP_WAITING) {
        *ret_message = cox_step_status_final((enum cox_step_status)s->status)
                           ? "it has been answered already"
                           : "it does not wait for an answer yet";
        return COX_ERR_INVALID;
    }
    *ret_message = why_not_theirs(e, &t->image, call.approvers, in);
    if (*ret_message != NULL)
        return COX_ERR_DENIED;
    answered(e, t, step, in->approve, in->comment, in->by, "rejected");
    return COX_OK;
}

/* ---- time ---- */

void wait_over(struct cox_engine *e, struct cox_task *t, uint32_t step)
{
    struct cox_image_call call;
    step_call(t, step, task_step(t, step), &call);
    if (call.kind != COX_KIND_APPROVAL) {
        end_well(e, t, step, cox_slice_str("null"), 0);
    } else if (call.on_expire == COX_EXPIRE_FAIL) {
        expand_fail(e, t, step, COX_CODE_EXPIRED, cox_slice_str("nobody answered in time"));
    } else {
        answered(e, t, step, call.on_expire == COX_EXPIRE_APPROVE || COX_PLANTED("approval-expires-as-yes"),
                 cox_slice_str("nobody answered in time"), cox_slice(NULL, 0), "rejected");
    }
}
