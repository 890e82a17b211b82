/* What applying, reading and deleting kept things have in common. */
#include "kept.h"

#include "cox/base/alloc.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* The caller has left; the answers that are on their way still come to us. */
static void on_gone(struct cox_op *op)
{
    (void)op;
}

static void on_reply(struct cox_requested *q, const struct cox_act_reply *reply);

void *cox_kept_create(struct cox_api *a, struct cox_rpc_call *call, const char *noun, size_t size)
{
    struct cox_kept_call *k = cox_calloc(1, size);

    cox_op_init(&k->op, a, call);
    k->op.on_gone = on_gone;
    k->noun = noun;
    k->requested.on_reply = on_reply;
    return k;
}

static void kept_free(struct cox_kept_call *k)
{
    if (k->free_own)
        k->free_own(k);
    cox_violations_fini(&k->violations);
    cox_buf_fini(&k->image);
    cox_op_fini(&k->op);
    cox_arena_fini(&k->arena);
    cox_free(k);
}

/* ---- answers ---- */

static void on_durable(struct cox_hold *h)
{
    struct cox_kept_call *k = COX_CONTAINER_OF(h, struct cox_kept_call, hold);

    if (k->error)
        cox_op_fail(&k->op, k->error);
    else
        cox_op_reply(&k->op, k->message);
    kept_free(k);
}

void cox_kept_answer(struct cox_kept_call *k)
{
    cox_driver_hold(k->op.api->driver, &k->hold, on_durable);
}

void cox_kept_fail(struct cox_kept_call *k, enum cox_rpc_status status, const char *reason, const char *fmt,
                   ...)
{
    struct cox_rpc_error *error = cox_arena_alloc(&k->arena, sizeof(*error));
    char *text = cox_arena_alloc(&k->arena, COX_ERROR_MESSAGE_LEN_MAX);
    va_list args;

    va_start(args, fmt);
    (void)cox_api_vtext(text, COX_ERROR_MESSAGE_LEN_MAX, fmt, args);
    va_end(args);
    *error = (struct cox_rpc_error){ .status = status, .reason = reason, .message = text };
    k->error = error;
}

void cox_kept_missing(struct cox_kept_call *k)
{
    cox_kept_fail(k, COX_RPC_NOT_FOUND, "NOT_FOUND", "no %s %.*s", k->noun, (int)k->name.len,
                  (const char *)k->name.data);
}

static void fail_now(struct cox_kept_call *k, const struct cox_rpc_error *error)
{
    cox_op_fail(&k->op, error);
    kept_free(k);
}

static void on_reply(struct cox_requested *q, const struct cox_act_reply *reply)
{
    struct cox_kept_call *k = COX_CONTAINER_OF(q, struct cox_kept_call, requested);
    struct cox_rpc_violation violation = { reply->place, reply->message };

    if (reply->err == COX_OK) {
        k->show(k);
        cox_kept_answer(k);
        return;
    }
    if (reply->err == COX_ERR_NOT_FOUND) {
        cox_kept_missing(k);
        fail_now(k, k->error);
        return;
    }
    fail_now(k,
             &(struct cox_rpc_error){ .status = cox_rpc_status_from_err(reply->err),
                                      .reason = reply->err == COX_ERR_FULL ? "TOO_MANY" : "INVALID_TASK",
                                      .message = reply->message ? reply->message : cox_err_text(reply->err),
                                      .violations = &violation,
                                      .n_violations = reply->place ? 1 : 0 });
}

void cox_kept_step(struct cox_kept_call *k, struct cox_input *in)
{
    cox_driver_step(k->op.api->driver, in);
}

/* ---- applying ---- */

void cox_kept_violation(struct cox_kept_call *k, const char *path, const char *fmt, ...)
{
    char text[COX_ERROR_MESSAGE_LEN_MAX];
    va_list args;

    va_start(args, fmt);
    (void)cox_api_vtext(text, sizeof(text), fmt, args);
    va_end(args);
    k->err = COX_ERR_INVALID;
    if (k->violations.n < COX_VIOLATIONS_MAX)
        k->violations.items[k->violations.n++] =
            (struct cox_violation){ .path = cox_strdup(path), .message = cox_strdup(text) };
}

static void work(struct cox_work *w)
{
    struct cox_kept_call *k = COX_CONTAINER_OF(w, struct cox_kept_call, work);

    k->err = cox_task_compile(&k->source, &k->image, &k->violations);
    if (!k->err)
        k->compiled(k);
}

static void done(struct cox_work *w)
{
    struct cox_kept_call *k = COX_CONTAINER_OF(w, struct cox_kept_call, work);

    if (k->err) {
        cox_op_fail_violations(&k->op, &k->violations);
        kept_free(k);
    } else {
        k->feed(k);
    }
}

void cox_kept_apply(struct cox_kept_call *k, ProtobufCBinaryData document, enum cox_source_kind kind)
{
    struct cox_compile *compile = cox_driver_compile(k->op.api->driver);

    if (document.len == 0 || document.len > COX_DOCUMENT_LEN_MAX) {
        fail_now(k, &(struct cox_rpc_error){ .status = COX_RPC_INVALID_ARGUMENT,
                                             .reason = "INVALID_TASK",
                                             .message = document.len == 0
                                                            ? "document: empty; expected one in JSON"
                                                            : "document: more than 4 MiB" });
        return;
    }
    k->source.kind = kind;
    k->source.document =
        cox_slice(cox_show_text(&k->arena, cox_slice(document.data, document.len)), document.len);
    k->work.work = work;
    k->work.done = done;
    k->work.len = document.len;
    cox_compile_submit(compile, &k->work);
}

/* ---- names and pages ---- */

static bool is_name(struct cox_slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = s.data[i];
        bool letter = (c >= 'a' && c <= 'z') || c == '_';
        if (!letter && (i == 0 || !((c >= '0' && c <= '9') || c == '-')))
            return false;
    }
    return s.len > 0 && s.len <= COX_NAME_LEN_MAX;
}

bool cox_kept_ref(const char *text, struct cox_slice *ret_name, uint32_t *ret_major)
{
    const char *at = strchr(text, '@');
    uint64_t major = 0;

    *ret_name = at ? cox_slice(text, (size_t)(at - text)) : cox_slice_str(text);
    for (const char *p = at ? at + 1 : ""; *p; p++) {
        if (*p < '0' || *p > '9' || major > UINT32_MAX)
            return false;
        major = major * 10 + (uint64_t)(*p - '0');
    }
    *ret_major = (uint32_t)major;
    return is_name(*ret_name) && major <= UINT32_MAX && (!at || major > 0);
}

uint32_t cox_kept_page(uint32_t asked)
{
    if (asked == 0)
        return COX_KEPT_PAGE_DEFAULT;
    return asked < COX_KEPT_PAGE_MAX ? asked : COX_KEPT_PAGE_MAX;
}
