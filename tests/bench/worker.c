/* `cox-bench worker`: cox-worker's own agent and session over slots that do nothing. The session calls the
 * functions of worker/slots.h; those here take the place of worker/slots.c when this program is linked: what
 * a step gives is there as soon as it is started, on the loop's thread. */
#include "bench.h"

#include "worker/session.h"
#include "worker/slots.h"

#include "cox/base/alloc.h"
#include "cox/base/log.h"

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define DRAIN_TIMEOUT_MS 10000

/* ---- slots that do nothing ---- */

struct slots {
    uint32_t n_slots;
    bool holds;                           /* what is started runs until noop_end */
    uint32_t n_begun;                     /* in all */
    struct cox_buf output;                /* of every step; empty: null */
    struct cox_buf expected;              /* what a step must be given that is given anything */
    struct slots_reply *replies;          /* by slot: a slot has at most one attempt */
    struct cox_agent_item_result **items; /* by slot: of its batch */
    uint32_t *ended;                      /* a ring of slots whose reply waits */
    size_t n_ended, n_taken;              /* so far */
};

static void noop_init(struct slots *s, uint32_t n_slots, uint32_t result_len)
{
    *s = (struct slots){ .n_slots = n_slots };
    s->replies = cox_calloc(n_slots, sizeof(*s->replies));
    s->ended = cox_calloc(n_slots, sizeof(*s->ended));
    s->items = cox_calloc(n_slots, sizeof(*s->items));
    if (result_len > 0) {
        put_result(&s->output, result_len);
        cox_buf_append_str(&s->expected, "{\"prev\":");
        put_result(&s->expected, result_len);
        cox_buf_append_str(&s->expected, "}");
    }
}

static void noop_fini(struct slots *s)
{
    for (uint32_t i = 0; i < s->n_slots; i++)
        cox_free(s->items[i]);
    cox_free(s->items);
    cox_free(s->replies);
    cox_free(s->ended);
    cox_buf_fini(&s->output);
    cox_buf_fini(&s->expected);
}

static bool is_expected(const struct slots *s, struct cox_slice spec)
{
    static const char head[] = "{\"prev\":";

    return spec.len < sizeof(head) - 1 || memcmp(spec.data, head, sizeof(head) - 1) != 0 ||
           cox_slice_eq(spec, cox_buf_slice(&s->expected));
}

static void end_items(struct slots *s, uint32_t slot, const struct cox_agent_assign *assign,
                      struct cox_agent_result *result)
{
    struct cox_agent_item_result *items = cox_realloc(s->items[slot], assign->n_items, sizeof(*items));

    for (size_t i = 0; i < assign->n_items; i++)
        items[i] = (struct cox_agent_item_result){ .index = assign->items[i].index,
                                                   .status = COX_ATTEMPT_SUCCEEDED,
                                                   .output = cox_buf_slice(&s->output) };
    s->items[slot] = items;
    result->output = cox_slice(NULL, 0);
    result->items = items;
    result->n_items = assign->n_items;
}

void slots_start(struct slots *s, uint32_t slot, const struct cox_agent_assign *assign)
{
    struct cox_agent_result result = { .status = COX_ATTEMPT_SUCCEEDED, .output = cox_buf_slice(&s->output) };

    if (!is_expected(s, assign->spec_json))
        result = (struct cox_agent_result){ .status = COX_ATTEMPT_FAILED,
                                            .code = COX_CODE_INPUT_INVALID,
                                            .message = cox_slice_str("not what the step before it gave") };
    if (assign->n_items > 0)
        end_items(s, slot, assign, &result);
    s->replies[slot] =
        (struct slots_reply){ .kind = SLOTS_ENDED, .slot = slot, .ref = assign->ref, .result = result };
    s->n_begun++;
    if (!s->holds)
        s->ended[s->n_ended++ % s->n_slots] = slot;
}

/* Too late: it has ended, or will end. */
void slots_kill(struct slots *s, uint32_t slot)
{
    (void)s, (void)slot;
}

struct slots *noop_create_one(void)
{
    struct slots *s = COX_NEW(struct slots);

    noop_init(s, 1, 0);
    s->holds = true;
    return s;
}

void noop_destroy_one(struct slots *s)
{
    noop_fini(s);
    cox_free(s);
}

uint32_t noop_begun(const struct slots *s)
{
    return s->n_begun;
}

void noop_end(struct slots *s)
{
    if (s->holds && s->n_begun > 0)
        s->ended[s->n_ended++ % s->n_slots] = 0;
    s->holds = false;
}

/* It has no directories, and nothing to bring or take. */
void slots_release(struct slots *s, struct cox_slice task_id)
{
    (void)s, (void)task_id;
}

void slots_workspaces(const struct slots *s, struct workspaces_use *ret)
{
    (void)s;
    *ret = (struct workspaces_use){ 0 };
}

void slots_aim(struct slots *s, const char *address, const char *session, const char *models_url)
{
    (void)s, (void)address, (void)session, (void)models_url;
}

void slots_log(struct slots *s, uint32_t slot, bool wanted)
{
    (void)s, (void)slot, (void)wanted;
}

struct slots_reply *slots_take(struct slots *s)
{
    return s->n_taken < s->n_ended ? &s->replies[s->ended[s->n_taken++ % s->n_slots]] : NULL;
}

void slots_reply_free(struct slots *s, struct slots_reply *reply)
{
    (void)s, (void)reply;
}

/* ---- signals ---- */

struct stop {
    struct cox_rpc_loop *loop;
    atomic_bool wanted;
};

static void *await_signal(void *user)
{
    struct stop *stop = user;
    sigset_t set;
    int signal;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigwait(&set, &signal);
    atomic_store(&stop->wanted, true);
    cox_rpc_loop_wake(stop->loop);
    return NULL;
}

/* ---- the program ---- */

struct worker_options {
    const char *orchestrator;
    const char *id;
    uint32_t slots;
    uint32_t result_len;
    const char *tls_dir; /* NULL: plaintext */
};

static bool read_options(struct worker_options *o, int argc, char **argv)
{
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *name = argv[i], *value = argv[i + 1];
        unsigned long n = strtoul(value, NULL, 10);
        if (strcmp(name, "--orchestrator") == 0)
            o->orchestrator = value;
        else if (strcmp(name, "--id") == 0)
            o->id = value;
        else if (strcmp(name, "--slots") == 0 && n > 0 && n <= COX_WORKER_SLOTS_MAX)
            o->slots = (uint32_t)n;
        else if (strcmp(name, "--result-len") == 0 && n <= COX_INLINE_PAYLOAD_LEN_MAX)
            o->result_len = (uint32_t)n;
        else if (strcmp(name, "--tls") == 0)
            o->tls_dir = value;
        else
            return false;
    }
    return argc % 2 == 1 && o->orchestrator;
}

static void run(const struct worker_options *o)
{
    static const char *const handlers[] = { "noop@1" };
    char boot_id[32];
    struct session_config config = { .agent = { .slots = o->slots,
                                                .n_addresses = 1,
                                                .drain_timeout_ms = DRAIN_TIMEOUT_MS,
                                                .orphan_timeout_ms = COX_AGENT_ORPHAN_TIMEOUT_MS,
                                                .seed = (uint64_t)getpid() },
                                     .addresses = &o->orchestrator,
                                     .tls = tls_files_in(o->tls_dir, "worker"),
                                     .worker_id = o->id,
                                     .boot_id = boot_id,
                                     .version = "bench",
                                     .handlers = handlers,
                                     .n_handlers = 1 };
    struct stop stop = { .loop = cox_rpc_loop_create() };
    struct slots slots;
    bool at_once = false;
    pthread_t thread;

    snprintf(boot_id, sizeof(boot_id), "%ld", (long)getpid());
    noop_init(&slots, o->slots, o->result_len);
    struct session *session = session_create(stop.loop, &slots, &config);

    COX_ASSERT(pthread_create(&thread, NULL, await_signal, &stop) == 0);
    /* What a turn's end has started has ended already, and what is asked for here is done in the next turn:
     * in both cases that one only looks, and does not wait. */
    while (session_turn(session, at_once || slots.n_taken < slots.n_ended ? 0 : COX_RPC_FOREVER)) {
        at_once = atomic_exchange(&stop.wanted, false);
        if (at_once)
            session_shutdown(session);
    }
    pthread_kill(thread, SIGTERM); /* if it still waits */
    pthread_join(thread, NULL);
    session_destroy(session);
    cox_rpc_loop_destroy(stop.loop);
    noop_fini(&slots);
}

int worker_main(int argc, char **argv)
{
    struct worker_options o = { .id = "bench", .slots = 16 };
    sigset_t set;

    if (!read_options(&o, argc, argv)) {
        complain("usage: cox-bench worker --orchestrator ADDR [--slots N] [--id ID] [--result-len N] "
                 "[--tls DIR]");
        return 2;
    }
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    cox_log_init(COX_LOG_WARN, COX_LOG_TEXT);
    cox_rpc_init();
    run(&o);
    cox_rpc_fini();
    return 0;
}
