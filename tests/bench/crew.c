/* `cox-bench crew`: thousands of simulated workers in one process, for scenarios that have them come back all
 * at once. Each is cox-worker's own agent and session, with a connection of its own and one slot; only its
 * slot is simulated: a step that is given to it runs until SIGUSR1 comes, across any number of streams.
 *
 * A line of JSON each time that all are attached, and when all have a step:
 *   {"attached":N,"ms":T}   T since the first of them was without a stream
 *   {"begun":N}             in all, over all streams: more than one each is a step given twice
 */
#include "bench.h"

#include "worker/session.h"
#include "worker/slots.h"

#include "cox/base/alloc.h"
#include "cox/base/log.h"
#include "cox/base/units.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WORKERS_MAX 15000u
#define EVENTS_MAX 4096
#define WAVE 250u                   /* so many dial at once */
#define LOOK_NS INT64_C(100000000)  /* signals do not wake the loop */
#define GATHER_NS INT64_C(10000000) /* thousands are looked at no more often than so */

struct hand {
    struct slots *slots;
    struct session *session;
    char id[32];
};

struct crew {
    const char *address;
    const struct cox_tls_files *tls; /* NULL: plaintext */
    struct cox_rpc_loop *loop;
    struct hand *hands;
    uint32_t n; /* of n_wanted, so far */
    uint32_t n_wanted;
    int64_t apart_since_ns; /* 0: all are attached */
    bool told_begun;
    char boot_id[32];
};

static volatile sig_atomic_t end_wanted, stop_wanted;

static void on_signal(int sig)
{
    if (sig == SIGUSR1)
        end_wanted = 1;
    else
        stop_wanted = 1;
}

static void join(struct crew *c, struct hand *h, uint32_t i)
{
    static const char *const handlers[] = { "noop@1" };

    snprintf(h->id, sizeof(h->id), "simulated-%05u", i);
    h->slots = noop_create_one();
    h->session =
        session_create(c->loop, h->slots,
                       &(struct session_config){ .agent = { .slots = 1,
                                                            .n_addresses = 1,
                                                            .drain_timeout_ms = COX_AGENT_DRAIN_TIMEOUT_MS,
                                                            .orphan_timeout_ms = COX_AGENT_ORPHAN_TIMEOUT_MS,
                                                            .seed = i + 1 },
                                                 .addresses = &c->address,
                                                 .tls = c->tls,
                                                 .worker_id = h->id,
                                                 .boot_id = c->boot_id,
                                                 .version = "bench",
                                                 .handlers = handlers,
                                                 .n_handlers = 1 });
}

static void say_attached(struct crew *c)
{
    uint32_t n = 0;
    int64_t now_ns = cox_clock_mono_ns();

    for (uint32_t i = 0; i < c->n; i++)
        n += session_state(c->hands[i].session) == SESSION_ATTACHED;
    if (n < c->n_wanted && c->apart_since_ns == 0)
        c->apart_since_ns = now_ns;
    if (n == c->n && c->n < c->n_wanted)
        for (uint32_t end = c->n + WAVE; c->n < end && c->n < c->n_wanted; c->n++)
            join(c, &c->hands[c->n], c->n);
    if (n < c->n_wanted || c->apart_since_ns == 0)
        return;
    printf("{\"attached\":%" PRIu32 ",\"ms\":%" PRId64 "}\n", n, (now_ns - c->apart_since_ns) / 1000000);
    c->apart_since_ns = 0;
}

static uint64_t n_begun(const struct crew *c)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < c->n; i++)
        n += noop_begun(c->hands[i].slots);
    return n;
}

static void say_begun(struct crew *c)
{
    uint64_t n = n_begun(c);

    if (n < c->n_wanted || c->told_begun)
        return;
    printf("{\"begun\":%" PRIu64 "}\n", n);
    c->told_begun = true;
}

/* When the loop is to return. One process dials no faster than it can greet: real workers are thousands of
 * processes. */
static int64_t wake_ns(const struct crew *c, uint32_t *ret_dialling)
{
    int64_t ns = cox_clock_mono_ns() + LOOK_NS;

    *ret_dialling = 0;
    for (uint32_t i = 0; i < c->n; i++) {
        enum session_state state = session_state(c->hands[i].session);
        *ret_dialling += state == SESSION_DIALLING;
        int64_t w = session_wake_ns(c->hands[i].session);
        ns = w < ns && (state != SESSION_APART || *ret_dialling < WAVE) ? w : ns;
    }
    return ns;
}

/* A turn of those for whom something has come, or whose time has. To look at each costs more than an event,
 * so events are gathered first. */
static void turn(struct crew *c)
{
    uint32_t n_dialling;
    int64_t until_ns = wake_ns(c, &n_dialling);
    size_t n = cox_rpc_loop_run_once(c->loop, until_ns, EVENTS_MAX);
    int64_t now_ns = cox_clock_mono_ns();

    for (int64_t gathered_ns = now_ns + GATHER_NS; n > 0 && now_ns < gathered_ns;
         now_ns = cox_clock_mono_ns())
        cox_rpc_loop_run_once(c->loop, gathered_ns, EVENTS_MAX);
    for (uint32_t i = 0; i < c->n; i++) {
        struct session *s = c->hands[i].session;
        bool apart = session_state(s) == SESSION_APART;
        if (end_wanted)
            noop_end(c->hands[i].slots);
        if ((!end_wanted && session_wake_ns(s) > now_ns) || (apart && n_dialling >= WAVE))
            continue;
        session_after(s);
        n_dialling += apart && session_state(s) == SESSION_DIALLING;
    }
    say_attached(c);
    say_begun(c);
    fflush(stdout);
}

static void leave(struct crew *c)
{
    printf("{\"begun\":%" PRIu64 ",\"left\":true}\n", n_begun(c));
    fflush(stdout);
    _exit(0); /* thousands of farewells, of which none is of use to anybody */
}

int crew_main(int argc, char **argv)
{
    struct crew c = { 0 };
    struct sigaction action = { .sa_handler = on_signal };

    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--addr") == 0)
            c.address = argv[i + 1];
        else if (strcmp(argv[i], "--tls") == 0)
            c.tls = tls_files_in(argv[i + 1], "worker");
        else if (strcmp(argv[i], "--workers") == 0)
            c.n_wanted = (uint32_t)strtoul(argv[i + 1], NULL, 10);
    }
    if ((argc != 5 && argc != 7) || !c.address || c.n_wanted == 0 || c.n_wanted > WORKERS_MAX) {
        complain("usage: cox-bench crew --addr ADDR --workers N [--tls DIR]");
        return 2;
    }
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    cox_log_init(COX_LOG_ERROR, COX_LOG_TEXT);
    cox_rpc_init();
    c.loop = cox_rpc_loop_create();
    snprintf(c.boot_id, sizeof(c.boot_id), "%ld", (long)getpid());
    c.hands = cox_calloc(c.n_wanted, sizeof(*c.hands));
    while (!stop_wanted)
        turn(&c);
    leave(&c);
    return 0;
}
