/* CreateTaskToken: signed at once, sent when it is known that the caller's tenant has such a task. */
#include "internal.h"

#define LIFE_MS_DEFAULT (15 * 60 * 1000LL)

/* The answer is there already. */
static void build_nothing(struct cox_reading *r, const struct cox_engine *e, const struct cox_task *t)
{
    (void)r, (void)e, (void)t;
}

void cox_api_create_task_token(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__CreateTaskTokenRequest *m = (const Coxswain__V1__CreateTaskTokenRequest *)message;
    const Google__Protobuf__Duration *life = m->expires_in;
    bool sane =
        !life || (life->seconds >= 0 && life->seconds <= ACCESS_TASK_TOKEN_MS_MAX / 1000 && life->nanos >= 0);
    int64_t life_ms = life && sane ? life->seconds * 1000 + life->nanos / 1000000 : LIFE_MS_DEFAULT;
    struct cox_api *a = user;

    if (!sane || life_ms <= 0 || life_ms > ACCESS_TASK_TOKEN_MS_MAX) {
        cox_call_fail(call, COX_RPC_INVALID_ARGUMENT, "BAD_SPAN",
                      "expires_in: expected more than 0 and at most 24 h");
        return;
    }
    struct cox_reading *r = cox_reading_create(a, call, m->id);

    if (!r)
        return;
    Coxswain__V1__CreateTaskTokenResponse *answer = cox_arena_alloc(&r->arena, sizeof(*answer));
    struct cox_buf token = { 0 };

    coxswain__v1__create_task_token_response__init(answer);
    answer->expires_at = cox_show_time(
        &r->arena, cox_access_task_token(a->access, cox_access_caller(call), r->task, life_ms, &token));
    answer->token = cox_show_text(&r->arena, cox_buf_slice(&token));
    cox_buf_fini(&token);
    r->message = &answer->base;
    r->build = build_nothing;
    cox_reading_start(r);
}
