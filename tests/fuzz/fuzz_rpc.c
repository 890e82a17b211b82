#include "fuzz_coxd.h"

#include "cox/base/units.h"
#include "cox/json.h"
#include "cox/limits.h"
#include "cox/wire.h"

#include <string.h>

/* What leaves must be readable by any reader: packed, as JSON, as UTF-8. */
static void check_message(const ProtobufCMessage *m)
{
    struct cox_buf json = { 0 }, packed = { 0 };

    protobuf_c_message_pack(m, cox_buf_extend(&packed, protobuf_c_message_get_packed_size(m)));
    ProtobufCMessage *again = protobuf_c_message_unpack(m->descriptor, NULL, packed.len, packed.data);

    COX_ASSERT(again);
    cox_wire_put_json(&json, again);
    COX_ASSERT(cox_json_check(cox_buf_slice(&json), NULL) == COX_OK);
    COX_ASSERT(cox_utf8_ok(cox_buf_slice(&json)));
    protobuf_c_message_free_unpacked(again, NULL);
    cox_buf_fini(&json);
    cox_buf_fini(&packed);
}

static void check_text(const char *text)
{
    COX_ASSERT(!text || cox_utf8_ok(cox_slice_str(text)));
}

static void check_error(const struct cox_rpc_error *e)
{
    COX_ASSERT(e->status > COX_RPC_OK && e->status <= COX_RPC_UNAUTHENTICATED);
    COX_ASSERT(e->status != COX_RPC_INTERNAL && e->status != COX_RPC_UNKNOWN);
    COX_ASSERT(e->message && e->message[0] && e->retry_delay_ms >= 0);
    check_text(e->message);
    check_text(e->reason);
    for (size_t i = 0; i < e->n_violations; i++) {
        check_text(e->violations[i].field);
        check_text(e->violations[i].description);
        COX_ASSERT(e->violations[i].description && e->violations[i].description[0]);
    }
}

enum cox_err cox_rpc_send(struct cox_rpc_call *call, const ProtobufCMessage *message)
{
    size_t len = protobuf_c_message_get_packed_size(message);

    if (call->ended || call->left)
        return COX_ERR_CANCELLED;
    if (call->outbox_len > 0 && call->outbox_len + len > COX_OUTBOX_LEN_MAX)
        return COX_ERR_FULL;
    COX_ASSERT(message->descriptor == call->m.output);
    COX_ASSERT(call->m.gives_many || call->n_sent == 0);
    check_message(message);
    call->outbox_len += len;
    call->n_sent++;
    return COX_OK;
}

size_t cox_rpc_outbox_len(const struct cox_rpc_call *call)
{
    return call->outbox_len;
}

void cox_rpc_finish(struct cox_rpc_call *call)
{
    if (call->ended || call->left)
        return;
    COX_ASSERT(call->m.gives_many || call->n_sent == 1);
    call->ended = true;
}

void cox_rpc_reply(struct cox_rpc_call *call, const ProtobufCMessage *message)
{
    if (call->ended || call->left)
        return;
    COX_ASSERT(cox_rpc_send(call, message) == COX_OK);
    cox_rpc_finish(call);
}

void cox_rpc_fail(struct cox_rpc_call *call, const struct cox_rpc_error *error)
{
    if (call->ended || call->left)
        return;
    check_error(error);
    call->ended = true;
    call->status = error->status;
}

void cox_rpc_cancel(struct cox_rpc_call *call, const struct cox_rpc_error *error)
{
    call->outbox_len = 0;
    cox_rpc_fail(call, error);
}

void cox_rpc_pause_reads(struct cox_rpc_call *call)
{
    (void)call;
}

void cox_rpc_resume_reads(struct cox_rpc_call *call)
{
    (void)call;
}

void *cox_rpc_call_user(const struct cox_rpc_call *call)
{
    return call->user;
}

void cox_rpc_call_set_user(struct cox_rpc_call *call, void *user)
{
    call->user = user;
}

/* Nobody is asked who they are: all are the local identity. */
void *cox_rpc_call_caller(const struct cox_rpc_call *call)
{
    (void)call;
    return NULL;
}

void cox_rpc_call_set_caller(struct cox_rpc_call *call, void *caller)
{
    (void)call, (void)caller;
}

struct cox_slice cox_rpc_call_metadata(const struct cox_rpc_call *call, const char *key)
{
    (void)call, (void)key;
    return cox_slice(NULL, 0);
}

size_t cox_rpc_call_metadata_count(const struct cox_rpc_call *call, const char *key)
{
    (void)call, (void)key;
    return 0;
}

const struct cox_tls_certificate *cox_rpc_call_certificate(struct cox_rpc_call *call)
{
    (void)call;
    return NULL;
}

const char *cox_rpc_call_peer(struct cox_rpc_call *call)
{
    (void)call;
    return "ipv4:127.0.0.1:7";
}

bool cox_rpc_call_inside(const struct cox_rpc_call *call)
{
    (void)call;
    return false;
}

bool fuzz_rpc_turn(struct cox_rpc_call *call)
{
    const struct cox_rpc_handlers *h = &call->m.method->handlers;
    bool over = call->ended || call->left;

    if (call->closed)
        return false;
    if (call->outbox_len > 0 || over) {
        bool drained = call->outbox_len > 0 && !over;
        call->outbox_len = 0;
        if (drained && h->on_drained)
            h->on_drained(call, call->m.service->user);
        if (over) {
            const struct cox_rpc_error status = { .status = call->ended ? COX_RPC_OK : COX_RPC_CANCELLED };
            call->closed = true;
            if (h->on_closed)
                h->on_closed(call, &status, call->m.service->user);
        }
        return true;
    }
    return false;
}
