#include "fuzz_coxd.h"

#include "api/api.h"
#include "driver.h"
#include "fleet/fleet.h"

#include "cox/base/alloc.h"
#include "cox/base/log.h"
#include "cox/base/units.h"

#include <stdlib.h>
#include <string.h>

#define CALLS_MAX 64
#define TURNS_MAX 20000   /* of one moment; beyond, it goes in circles */
#define STEPS_MAX 60      /* of time that passes in one go */
#define STEPS_ALL_MAX 200 /* in all; then it passes in leaps */
#define STEPS_SLOW_MAX 12
#define START_WALL_MS 1767225600000LL
#define NS_PER_MS 1000000LL

struct fuzz_coxd {
    struct cox_store *store;
    struct cox_driver *driver;
    struct cox_fleet *fleet;
    struct cox_api *api;
    struct cox_access *access;
    struct cox_rpc_call *calls[CALLS_MAX];
    uint32_t n_calls;
    int n_steps; /* of time, left */
};

/* ---- the clock, by --wrap ---- */

static int64_t now_ns;

int64_t __wrap_cox_clock_mono_ns(void);
int64_t __wrap_cox_clock_mono_ns(void)
{
    return now_ns;
}

int64_t __wrap_cox_clock_wall_ms(void);
int64_t __wrap_cox_clock_wall_ms(void)
{
    return START_WALL_MS + now_ns / NS_PER_MS;
}

/* cox_driver_fatal leaves by it, which a fuzzer would not see. */
void __wrap__exit(int code) __attribute__((noreturn));
void __wrap__exit(int code)
{
    (void)code;
    abort();
}

/* ---- the clock behind metrics: a second of it costs more than most calls, so only who asks has it ---- */

static bool keeps_history;

void __real_cox_stats_start(struct cox_api *a);
void __wrap_cox_stats_start(struct cox_api *a);
void __wrap_cox_stats_start(struct cox_api *a)
{
    if (keeps_history)
        __real_cox_stats_start(a);
}

void __real_cox_stats_stop(struct cox_api *a);
void __wrap_cox_stats_stop(struct cox_api *a);
void __wrap_cox_stats_stop(struct cox_api *a)
{
    if (keeps_history)
        __real_cox_stats_stop(a);
}

/* ---- the compile thread ---- */

struct cox_compile {
    struct cox_list waiting;
};

struct cox_compile *cox_compile_create(void (*wake)(void *user), void *user)
{
    struct cox_compile *c = COX_NEW(struct cox_compile);

    (void)wake, (void)user;
    cox_list_init(&c->waiting);
    return c;
}

void cox_compile_destroy(struct cox_compile *c)
{
    COX_ASSERT(!c || cox_list_empty(&c->waiting));
    cox_free(c);
}

void cox_compile_submit(struct cox_compile *c, struct cox_work *w)
{
    cox_list_push_back(&c->waiting, &w->node);
}

bool cox_compile_full(const struct cox_compile *c)
{
    (void)c;
    return false;
}

void cox_compile_drain(struct cox_compile *c)
{
    struct cox_list ready;

    cox_list_init(&ready);
    while (!cox_list_empty(&c->waiting)) {
        struct cox_list *node = c->waiting.next;
        cox_list_remove(node);
        cox_list_push_back(&ready, node);
    }
    while (!cox_list_empty(&ready)) {
        struct cox_work *w = COX_CONTAINER_OF(ready.next, struct cox_work, node);
        cox_list_remove(&w->node);
        w->work(w);
        w->done(w);
    }
}

/* ---- hooks, as main.c has them ---- */

static void on_action(void *user, const struct cox_action *a)
{
    struct fuzz_coxd *c = user;

    if (a->kind == COX_ACT_REPLY)
        cox_api_act(c->api, a);
    else
        cox_fleet_act(c->fleet, a);
}

static void on_changed(void *user, const struct cox_action *a)
{
    cox_api_changed(((struct fuzz_coxd *)user)->api, a);
}

static void on_turn(void *user)
{
    cox_api_turn(((struct fuzz_coxd *)user)->api);
}

static void on_flush(void *user)
{
    cox_fleet_flush(((struct fuzz_coxd *)user)->fleet);
}

static void wake(void *user)
{
    (void)user;
}

/* ---- turns ---- */

static bool calls_turn(struct fuzz_coxd *c)
{
    bool any = false;

    for (uint32_t i = 0; i < c->n_calls; i++) {
        struct cox_rpc_call *call = c->calls[i];
        if (call && fuzz_rpc_turn(call))
            any = true;
        if (call && call->closed) {
            COX_ASSERT(call->left || !call->ended || call->status != COX_RPC_OK || call->m.gives_many ||
                       call->n_sent == 1);
            cox_free(call);
            c->calls[i] = NULL;
        }
    }
    return any;
}

static bool is_idle(const struct fuzz_coxd *c)
{
    return cox_driver_settled(c->driver) && fuzz_store_idle(c->store) &&
           cox_list_empty(&cox_driver_compile(c->driver)->waiting) && cox_driver_wake_ns(c->driver) > now_ns;
}

void fuzz_coxd_settle(struct fuzz_coxd *c)
{
    unsigned n = 0, quiet = 0;

    while (quiet < 2) {
        bool any = calls_turn(c);
        cox_driver_turn(c->driver, any);
        quiet = any || !is_idle(c) ? 0 : quiet + 1;
        if (n > TURNS_MAX / 2)
            now_ns += NS_PER_MS; /* a wait of the driver's own */
        COX_ASSERT(++n < TURNS_MAX);
    }
}

void fuzz_coxd_pass(struct fuzz_coxd *c, int64_t ms)
{
    int64_t until_ns = now_ns + ms * NS_PER_MS;

    for (int i = 0; now_ns < until_ns; i++) {
        int64_t next_ns = cox_driver_wake_ns(c->driver), api_ns = cox_api_wake_ns(c->api);

        next_ns = api_ns < next_ns ? api_ns : next_ns;
        if (next_ns <= now_ns)
            next_ns = now_ns + NS_PER_MS;
        now_ns = next_ns < until_ns && i < STEPS_MAX && c->n_steps-- > 0 ? next_ns : until_ns;
        fuzz_coxd_settle(c);
    }
}

/* ---- life ---- */

static void start(struct fuzz_coxd *c)
{
    const struct cox_driver_config config = {
        .store = "memory", .seed = 1, .checkpoint_len = 1 << 20, .wake = wake, .wake_user = c
    };
    const struct cox_driver_hooks hooks = { c, on_action, on_changed, on_turn, on_flush, NULL };
    struct cox_driver_recovery found;
    struct cox_buf error = { 0 };

    c->fleet = cox_fleet_create();
    c->api = cox_api_create();
    fuzz_store_use(c->store);
    COX_ASSERT(cox_access_create(&(struct cox_access_config){ .token_file = NULL }, &c->access, &error) ==
               COX_OK);
    COX_ASSERT(cox_driver_create(&config, &hooks, &c->driver, &found, &error) == COX_OK);
    cox_fleet_start(c->fleet, c->driver);
    cox_api_start(c->api, c->driver, c->fleet, c->access);
    fuzz_coxd_settle(c);
}

struct fuzz_coxd *fuzz_coxd_create(bool history, bool slow)
{
    struct fuzz_coxd *c = COX_NEW(struct fuzz_coxd);

    keeps_history = history;
    c->n_steps = slow ? STEPS_SLOW_MAX : STEPS_ALL_MAX;
    now_ns = 5000 * NS_PER_MS;
    cox_log_init(COX_LOG_ERROR, COX_LOG_TEXT);
    c->store = fuzz_store_create();
    start(c);
    return c;
}

/* Rule 1: the log alone gives the same state. */
static void check_replay(const struct fuzz_coxd *c)
{
    struct cox_engine *e = cox_engine_create(&(struct cox_engine_config){ .seed = 2 });
    uint64_t n;
    struct cox_slice log = fuzz_store_log(c->store, &n);

    cox_engine_check(cox_driver_engine(c->driver));
    COX_ASSERT(cox_engine_replay(e, 1, (uint32_t)n, log) == COX_OK);
    COX_ASSERT(cox_engine_hash(e) == cox_engine_hash(cox_driver_engine(c->driver)));
    cox_engine_destroy(e);
}

/* In the order in which coxd stops: who waits is told to ask again, nobody is left without an answer. */
static void stop(struct fuzz_coxd *c)
{
    fuzz_coxd_settle(c);
    cox_api_drain(c->api);
    cox_fleet_drain(c->fleet);
    fuzz_coxd_settle(c);
    for (uint32_t i = 0; i < c->n_calls; i++)
        COX_ASSERT(!c->calls[i] || c->calls[i]->m.gives_many || c->calls[i]->m.takes_many ||
                   !c->calls[i]->said);
    for (uint32_t i = 0; i < c->n_calls; i++)
        fuzz_coxd_cancel(c, i);
    fuzz_coxd_settle(c);
    check_replay(c);
    cox_driver_destroy(c->driver);
    cox_api_destroy(c->api);
    cox_access_destroy(c->access);
    cox_fleet_destroy(c->fleet);
    for (uint32_t i = 0; i < c->n_calls; i++)
        COX_ASSERT(!c->calls[i]);
}

void fuzz_coxd_destroy(struct fuzz_coxd *c)
{
    stop(c);
    fuzz_store_free(c->store);
    cox_free(c);
}

void fuzz_coxd_restart(struct fuzz_coxd *c)
{
    stop(c);
    start(c);
}

void fuzz_coxd_checkpoint(struct fuzz_coxd *c)
{
    cox_driver_checkpoint(c->driver);
    fuzz_coxd_settle(c);
    COX_ASSERT(!cox_driver_checkpointing(c->driver));
}

/* ---- calls ---- */

static bool find_in(const struct cox_rpc_service *s, struct cox_slice name, struct fuzz_method *ret)
{
    static const char *const gives_many[] = { "WatchTask", "GetLogs", "WatchStats", "StreamIsActive",
                                              "GetBlob",   "Backup",  "Attach" };

    for (size_t i = 0; i < s->n_methods; i++) {
        if (!cox_slice_is(name, s->methods[i].name))
            continue;
        const ProtobufCMethodDescriptor *d =
            protobuf_c_service_descriptor_get_method_by_name(s->descriptor, s->methods[i].name);
        *ret = (struct fuzz_method){
            .service = s, .method = &s->methods[i], .input = d->input, .output = d->output
        };
        ret->takes_many = cox_slice_is(name, "Attach") || cox_slice_is(name, "PutBlob");
        for (size_t k = 0; k < sizeof(gives_many) / sizeof(*gives_many); k++)
            ret->gives_many |= cox_slice_is(name, gives_many[k]);
        return true;
    }
    return false;
}

bool fuzz_coxd_find(struct fuzz_coxd *c, struct cox_slice name, struct fuzz_method *ret)
{
    size_t n;
    const struct cox_rpc_service *s = cox_api_services(c->api, &n);

    for (size_t i = 0; i < n; i++) {
        if (find_in(&s[i], name, ret))
            return true;
    }
    return find_in(cox_fleet_service(c->fleet), name, ret);
}

void fuzz_coxd_call(struct fuzz_coxd *c, const struct fuzz_method *m)
{
    if (c->n_calls == CALLS_MAX)
        return;
    struct cox_rpc_call *call = COX_NEW(struct cox_rpc_call);

    call->m = *m;
    c->calls[c->n_calls++] = call;
    if (m->method->handlers.on_open)
        m->method->handlers.on_open(call, m->service->user);
}

uint32_t fuzz_coxd_n_calls(const struct fuzz_coxd *c)
{
    return c->n_calls;
}

static struct cox_rpc_call *live(const struct fuzz_coxd *c, uint32_t call)
{
    struct cox_rpc_call *found = call < c->n_calls ? c->calls[call] : NULL;

    return found && !found->ended && !found->left ? found : NULL;
}

const struct fuzz_method *fuzz_coxd_method(const struct fuzz_coxd *c, uint32_t call)
{
    const struct cox_rpc_call *found = live(c, call);

    return found ? &found->m : NULL;
}

void fuzz_coxd_send(struct fuzz_coxd *c, uint32_t number, const ProtobufCMessage *message)
{
    struct cox_rpc_call *call = live(c, number);

    if (!call || call->half_closed || (call->said && !call->m.takes_many))
        return;
    call->said = true;
    call->m.method->handlers.on_message(call, message, call->m.service->user);
}

void fuzz_coxd_half_close(struct fuzz_coxd *c, uint32_t number)
{
    struct cox_rpc_call *call = live(c, number);

    if (!call || call->half_closed || !call->m.takes_many)
        return;
    call->half_closed = true;
    if (call->m.method->handlers.on_half_close)
        call->m.method->handlers.on_half_close(call, call->m.service->user);
}

void fuzz_coxd_cancel(struct fuzz_coxd *c, uint32_t number)
{
    struct cox_rpc_call *call = live(c, number);

    if (call)
        call->left = true;
}
