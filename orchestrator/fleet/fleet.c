/* Sessions: their table, their beginning and their end. */
#include "session.h"

#include "cox/base/alloc.h"
#include "cox/base/log.h"
#include "cox/base/plant.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#define TABLE_CAP_MIN 64u

/* ---- the table ---- */

static void table_grow(struct cox_fleet *f)
{
    uint32_t cap = (f->mask + 1) * 2;
    struct cox_session **table = cox_calloc(cap, sizeof(struct cox_session *));

    /* Numbers that differ under the old mask differ under the new one. */
    for (uint32_t i = 0; i <= f->mask; i++) {
        if (f->table[i])
            table[f->table[i]->number & (cap - 1)] = f->table[i];
    }
    cox_free(f->table);
    f->table = table;
    f->mask = cap - 1;
}

/* Numbers only rise; one whose place is taken is passed over. At most half of the places are. */
void cox_session_add(struct cox_fleet *f, struct cox_session *s)
{
    if (f->n_sessions >= f->mask / 2)
        table_grow(f);
    do
        f->last_number++;
    while (f->last_number == 0 || f->table[f->last_number & f->mask]);
    s->number = f->last_number;
    f->table[s->number & f->mask] = s;
    f->n_sessions++;
}

void cox_session_remove(struct cox_fleet *f, struct cox_session *s)
{
    f->table[s->number & f->mask] = NULL;
    f->n_sessions--;
}

struct cox_session *cox_session_find(const struct cox_fleet *f, uint32_t number)
{
    struct cox_session *s = f->table[number & f->mask];

    return s && s->number == number ? s : NULL;
}

/* ---- a session's life ---- */

/* The engine hears of the end at once; the stream itself may take longer. */
static void detach(struct cox_session *s)
{
    s->dead = true;
    cox_session_relays_end(s);
    if (!s->attached)
        return;
    s->attached = false;
    cox_driver_step(s->fleet->driver,
                    &(struct cox_input){ .kind = COX_IN_DETACH, .u.session.session = s->number });
    cox_log(COX_LOG_INFO, "worker detached", "worker", s->worker_id, "session", COX_LOG_NUM(s->number), NULL);
}

void cox_session_close(struct cox_session *s, enum cox_rpc_status status, const char *reason,
                       const char *message)
{
    if (s->dead)
        return;
    cox_log(COX_LOG_WARN, "session closed", "worker", s->worker_id ? s->worker_id : "", "session",
            COX_LOG_NUM(s->number), "why", message, NULL);
    cox_session_flush(s);
    detach(s);
    cox_rpc_fail(s->call, &(struct cox_rpc_error){ .status = status, .reason = reason, .message = message });
}

void cox_session_release(struct cox_session *s)
{
    if (s->call || s->n_working > 0)
        return;
    cox_list_remove(&s->dirty);
    cox_session_outgoing_fini(s);
    cox_free(s->worker_id);
    cox_free(s);
}

static void make_key(char ret[FLEET_KEY_TEXT_MAX])
{
    uint8_t random[FLEET_KEY_LEN];

    COX_ASSERT(getrandom(random, sizeof(random), 0) == (ssize_t)sizeof(random));
    for (size_t i = 0; i < FLEET_KEY_LEN; i++)
        snprintf(ret + 2 * i, 3, "%02x", random[i]);
}

static void on_open(struct cox_rpc_call *call, void *user)
{
    struct cox_fleet *f = user;

    if (f->draining) {
        cox_rpc_fail(call, &(struct cox_rpc_error){ .status = COX_RPC_UNAVAILABLE,
                                                    .reason = "DRAINING",
                                                    .message = "the orchestrator is stopping; dial again",
                                                    .retry_delay_ms = 500 });
        return;
    }
    struct cox_session *s = COX_NEW(struct cox_session);

    s->fleet = f;
    s->call = call;
    make_key(s->key);
    cox_list_init(&s->dirty);
    cox_list_init(&s->relays);
    cox_session_add(f, s);
    cox_rpc_call_set_user(call, s);
}

static void on_message(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    struct cox_session *s = cox_rpc_call_user(call);

    (void)user;
    if (!s || s->dead)
        return;
    const char *wrong = cox_session_receive(s, (const Coxswain__V1__AttachRequest *)message);

    if (wrong)
        cox_session_close(s, COX_RPC_INVALID_ARGUMENT, "PROTOCOL", wrong);
}

static void on_half_close(struct cox_rpc_call *call, void *user)
{
    struct cox_session *s = cox_rpc_call_user(call);

    (void)user;
    if (!s || s->dead)
        return;
    cox_session_flush(s);
    detach(s);
    cox_rpc_finish(call);
}

static void on_closed(struct cox_rpc_call *call, const struct cox_rpc_error *status, void *user)
{
    struct cox_session *s = cox_rpc_call_user(call);

    (void)status, (void)user;
    if (!s)
        return;
    detach(s);
    cox_session_remove(s->fleet, s);
    s->call = NULL;
    cox_session_release(s);
}

/* ---- the fleet ---- */

static const struct cox_rpc_method methods[] = {
    { "Attach",
      { .on_open = on_open,
        .on_message = on_message,
        .on_half_close = on_half_close,
        .on_closed = on_closed } },
};

struct cox_fleet *cox_fleet_create(void)
{
    struct cox_fleet *f = COX_NEW(struct cox_fleet);

    f->table = cox_calloc(TABLE_CAP_MIN, sizeof(struct cox_session *));
    f->mask = TABLE_CAP_MIN - 1;
    cox_list_init(&f->dirty);
    f->service = (struct cox_rpc_service){
        .descriptor = &coxswain__v1__worker_service__descriptor,
        .methods = methods,
        .n_methods = sizeof(methods) / sizeof(methods[0]),
        .user = f,
    };
    return f;
}

void cox_fleet_destroy(struct cox_fleet *f)
{
    if (!f)
        return;
    cox_arena_fini(&f->arena);
    cox_free(f->models_url);
    cox_free(f->table);
    cox_free(f);
}

void cox_fleet_start(struct cox_fleet *f, struct cox_driver *d)
{
    f->driver = d;
}

const struct cox_rpc_service *cox_fleet_service(struct cox_fleet *f)
{
    return &f->service;
}

/* In a time that tells nothing of where they differ. */
static bool is_key(const char *key, struct cox_slice said)
{
    uint8_t differs = 0;

    if (!said.data || said.len != strlen(key))
        return false;
    for (size_t i = 0; i < said.len; i++)
        differs |= (uint8_t)key[i] ^ said.data[i];
    return differs == 0;
}

bool cox_fleet_holds(const struct cox_fleet *f, struct cox_ref ref, struct cox_slice key, const char *tenant)
{
    struct cox_slice whose = { 0 };
    uint32_t number = cox_engine_attempt_session(cox_driver_engine(f->driver), ref, &whose);
    const struct cox_session *s = number ? cox_session_find(f, number) : NULL;

    if (!s || s->dead || (!cox_slice_is(whose, tenant) && !COX_PLANTED("lease-of-another-tenant")))
        return false;
    return is_key(s->key, key) || COX_PLANTED("lease-of-another-worker");
}

void cox_fleet_serve_models(struct cox_fleet *f, const char *url)
{
    bool same = strcmp(f->models_url ? f->models_url : "", url) == 0;

    cox_free(f->models_url);
    f->models_url = cox_strdup(url);
    if (!same)
        cox_fleet_say_reconnect(f);
}

struct cox_fleet_workspaces cox_fleet_workspaces(const struct cox_fleet *f, uint32_t session)
{
    const struct cox_session *s = cox_session_find(f, session);

    return s ? s->workspaces : (struct cox_fleet_workspaces){ 0 };
}

const char *cox_fleet_peer(const struct cox_fleet *f, uint32_t session)
{
    const struct cox_session *s = cox_session_find(f, session);

    return s && s->call ? cox_rpc_call_peer(s->call) : "";
}
