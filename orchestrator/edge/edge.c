/* The thread, its listener, and the way in and out. */
#include "internal.h"

#include "cox/base/alloc.h"
#include "cox/base/log.h"
#include "cox/base/units.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#define BACKLOG 512
#define GIVE_UP_S 2
#define ACCEPT_PAUSE_US 1000000
#define ACCEPTED_MAX 4u /* in a row: then it is the turn of those who are in */
#define CROWD_MIN 256u  /* connections that have been answered nothing yet */
#define CROWD_PAUSE_US 1000
#define DESCRIPTORS_KEPT 1536u

static void wake_edge(struct cox_edge *e)
{
    const uint64_t one = 1;
    ssize_t n = write(e->wake_fd, &one, sizeof(one));

    (void)n; /* full: it is awake anyway */
}

void edge_wake_engine(struct cox_edge *e)
{
    cox_rpc_loop_wake(e->config.loop);
}

static void wake_edge_of(void *user)
{
    wake_edge(user);
}

static void wake_engine_of(void *user)
{
    edge_wake_engine(user);
}

/* ---- the thread ---- */

static void close_idle(struct cox_edge *e)
{
    COX_LIST_FOR_EACH (it, &e->conns) {
        struct conn *c = COX_CONTAINER_OF(it, struct conn, node);
        if (conn_idle(c))
            conn_destroy(c);
    }
}

static void begin_to_stop(struct cox_edge *e)
{
    const struct timeval give_up = { GIVE_UP_S, 0 };

    if (e->listener)
        evconnlistener_free(e->listener);
    e->listener = NULL;
    if (cox_list_empty(&e->conns))
        event_base_loopbreak(e->base);
    else if (!event_pending(e->give_up, EV_TIMEOUT, NULL))
        event_add(e->give_up, &give_up);
}

static void on_woken(int fd, short what, void *arg)
{
    struct cox_edge *e = arg;
    uint64_t n;

    (void)what;
    if (read(fd, &n, sizeof(n)) < 0)
        return;
    call_edge_turn(e);
    if (atomic_load(&e->state) == EDGE_DRAINING) {
        if (!e->told_draining)
            edge_on_draining(e);
        e->told_draining = true;
        close_idle(e);
        edge_mind_calls(e);
    }
    if (atomic_load(&e->stop))
        begin_to_stop(e);
}

static void on_give_up(int fd, short what, void *arg)
{
    struct cox_edge *e = arg;

    (void)fd, (void)what;
    event_base_loopbreak(e->base);
}

static void rest(struct cox_edge *e, int64_t us)
{
    const struct timeval pause = { us / 1000000, us % 1000000 };

    e->resting = true;
    event_add(e->accept_again, &pause);
    conn_mind_listener(e);
}

static void on_accept_again(int fd, short what, void *arg)
{
    struct cox_edge *e = arg;

    (void)fd, (void)what;
    e->resting = false;
    e->n_accepted = 0;
    conn_mind_listener(e);
}

static void on_gathered(int fd, short what, void *arg)
{
    (void)fd, (void)what;
    conn_flush_gathered(arg);
}

/* Out of descriptors, most likely: others will free some. Who waits goes on waiting, and is told of meanwhile
 * by the kernel without end. */
static void on_accept_error(struct evconnlistener *listener, void *arg)
{
    (void)listener;
    cox_log(COX_LOG_WARN, "cannot accept an HTTP connection", "why", strerror(errno), NULL);
    rest(arg, ACCEPT_PAUSE_US);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *peer, int len,
                      void *arg)
{
    struct cox_edge *e = arg;
    const int at_once = 1;

    (void)len;
    /* Answers come in pieces: a second one would wait for the peer's word about the first, which waits, too.
     */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &at_once, sizeof(at_once));
    if (e->config.tls)
        fd = cox_tls_terminate(e->config.tls, fd, COX_TLS_HTTP);
    if (fd < 0) {
        on_accept_error(listener, e);
        return;
    }
    conn_accept(e, fd, peer);
    /* As long as some wait the listener would take them all; and where each takes another's place (here, or
     * among the handshakes), a crowd that comes back and back would have all of our time. */
    if (++e->n_accepted >= ACCEPTED_MAX)
        rest(e, e->n_ranked[ROOM_STRANGER] + e->n_ranked[ROOM_BEGUN] < CROWD_MIN ? 0 : CROWD_PAUSE_US);
}

static void stop_router(struct cox_edge *e);

static void *run(void *arg)
{
    struct cox_edge *e = arg;

    event_base_dispatch(e->base);
    COX_LIST_FOR_EACH (it, &e->conns) {
        conn_destroy(COX_CONTAINER_OF(it, struct conn, node));
    }
    stop_router(e);
    return NULL;
}

/* ---- listening ---- */

static bool listen_on(struct cox_edge *e, const struct addrinfo *info)
{
    struct sockaddr_storage bound;
    socklen_t len = sizeof(bound);

    e->listener = evconnlistener_new_bind(e->base, on_accept, e,
                                          LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE,
                                          BACKLOG, info->ai_addr, (int)info->ai_addrlen);
    if (!e->listener)
        return false;
    evconnlistener_set_error_cb(e->listener, on_accept_error);
    if (getsockname(evconnlistener_get_fd(e->listener), (struct sockaddr *)&bound, &len))
        return false;
    e->port = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
                                                : ((struct sockaddr_in *)&bound)->sin_port);
    return true;
}

static enum cox_err bind_address(struct cox_edge *e, struct cox_buf *error)
{
    const char *address = e->config.address, *colon = strrchr(address, ':');
    const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV };
    struct addrinfo *found = NULL;

    if (!colon || colon == address) {
        cox_buf_printf(error, "%s is not HOST:PORT", address);
        return COX_ERR_INVALID;
    }
    bool six = address[0] == '[' && colon[-1] == ']';
    char *name = cox_strndup(address + six, (size_t)(colon - address) - (six ? 2 : 0));
    int bad = getaddrinfo(name, colon + 1, &hints, &found);

    e->host = cox_strndup(address, (size_t)(colon - address));
    cox_free(name);
    if (bad) {
        cox_buf_printf(error, "%s: %s", address, gai_strerror(bad));
        return COX_ERR_INVALID;
    }
    bool ok = listen_on(e, found);

    if (!ok)
        cox_buf_printf(error, "cannot listen on %s: %s", address, strerror(errno));
    freeaddrinfo(found);
    return ok ? COX_OK : COX_ERR_UNAVAILABLE;
}

/* Who calls services from here, for coxd itself, begins here. */
void edge_on_serving(struct cox_edge *e)
{
    e->attach = attach_create(e, e->router, e->attempts);
}

void edge_on_draining(struct cox_edge *e)
{
    if (e->attach)
        attach_shutdown(e->attach);
}

void edge_mind_calls(struct cox_edge *e)
{
    if (!e->told_draining || e->n_calling > 0 || (e->attach && !attach_is_over(e->attach)) ||
        atomic_exchange(&e->drained, true))
        return;
    edge_wake_engine(e);
}

static void on_spend(void *user)
{
    struct cox_edge *e = user;

    if (e->attach)
        attach_on_spend(e->attach);
}

/* A call takes two: its client's and its endpoint's. What is left is for the rest of coxd. */
static size_t calls_by_descriptors(void)
{
    struct rlimit limit = { 1024, 1024 };

    (void)getrlimit(RLIMIT_NOFILE, &limit);
    rlim_t n = limit.rlim_cur > 1000000 ? 1000000 : limit.rlim_cur;

    return n > 2 * DESCRIPTORS_KEPT ? (n - DESCRIPTORS_KEPT) / 2 : DESCRIPTORS_KEPT / 4;
}

static void start_router(struct cox_edge *e)
{
    e->calling_max = calls_by_descriptors();
    e->router =
        router_create(&(struct router_config){ .base = e->base,
                                               .policy = e->config.model_policy,
                                               .tape = e->config.tape,
                                               .seed = (uint64_t)cox_clock_mono_ns(),
                                               .timeouts = { .first_ms = e->config.first_token_ms } });
    e->attempts = attempts_create(&(struct attempts_config){ e->base, on_spend, e });
}

/* Calls end, and what they have spent is counted, before who counts goes. */
static void stop_router(struct cox_edge *e)
{
    attach_destroy(e->attach);
    e->attach = NULL;
    router_destroy(e->router);
    e->router = NULL;
    attempts_destroy(e->attempts);
    e->attempts = NULL;
}

static void apply_models(struct cox_edge *e, void *text)
{
    if (e->router)
        catalogue_apply(router_catalogue(e->router), text);
    else
        catalogue_text_free(text);
}

void cox_edge_models(struct cox_edge *e, struct catalogue_text *text)
{
    call_post(e, apply_models, text);
}

struct router *cox_edge_router(struct cox_edge *e)
{
    return e->router;
}

/* ---- the engine's thread ---- */

static char *dup_or_null(const char *s)
{
    return s ? cox_strdup(s) : NULL;
}

static void copy_config(struct cox_edge *e, const struct cox_edge_config *config)
{
    e->config = *config;
    e->config.address = dup_or_null(config->address);
    e->config.hosts = dup_or_null(config->hosts);
    e->config.cors_origins = dup_or_null(config->cors_origins);
    e->config.version = cox_strdup(config->version ? config->version : "0");
    e->server = cox_asprintf("coxd/%s", e->config.version);
}

static void edge_free(struct cox_edge *e)
{
    stop_router(e);
    openai_fini(e);
    if (e->listener)
        evconnlistener_free(e->listener);
    event_free(e->woken);
    event_free(e->give_up);
    event_free(e->accept_again);
    event_free(e->gathered);
    event_base_free(e->base);
    cox_map64_fini(&e->networks);
    call_fini(e);
    lane_fini(&e->to_engine);
    lane_fini(&e->to_edge);
    close(e->wake_fd);
    cox_buf_fini(&e->openapi);
    cox_free((char *)(uintptr_t)e->config.address);
    cox_free((char *)(uintptr_t)e->config.hosts);
    cox_free((char *)(uintptr_t)e->config.cors_origins);
    cox_free((char *)(uintptr_t)e->config.version);
    cox_free(e->server);
    cox_free(e->host);
    cox_free(e);
}

static void *resize(void *p, size_t size)
{
    return cox_realloc(p, 1, size);
}

enum cox_err cox_edge_create(const struct cox_edge_config *config, struct cox_edge **ret,
                             struct cox_buf *error)
{
    struct cox_edge *e = COX_NEW(struct cox_edge);

    copy_config(e, config);
    cox_list_init(&e->conns);
    cox_list_init(&e->calls);
    cox_list_init(&e->claims);
    cox_list_init(&e->gathering);
    atomic_init(&e->state, EDGE_STARTING);
    atomic_init(&e->stop, false);
    atomic_init(&e->drained, false);
    atomic_init(&e->held_len, 0);
    e->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    COX_ASSERT(e->wake_fd >= 0);
    lane_init(&e->to_engine, wake_engine_of, wake_edge_of, e);
    lane_init(&e->to_edge, wake_edge_of, wake_engine_of, e);
    /* Else a part of an answer that found no memory would be missing from it, and nobody would know. */
    event_set_mem_functions(cox_alloc, resize, cox_free);
    e->base = event_base_new();
    COX_ASSERT(e->base);
    e->woken = event_new(e->base, e->wake_fd, EV_READ | EV_PERSIST, on_woken, e);
    e->give_up = event_new(e->base, -1, 0, on_give_up, e);
    e->accept_again = event_new(e->base, -1, 0, on_accept_again, e);
    e->gathered = event_new(e->base, -1, 0, on_gathered, e);
    event_add(e->woken, NULL);
    start_router(e);
    enum cox_err err = e->config.address ? bind_address(e, error) : COX_OK;

    if (err) {
        edge_free(e);
        return err;
    }
    COX_ASSERT(pthread_create(&e->thread, NULL, run, e) == 0);
    (void)pthread_setname_np(e->thread, "cox-edge"); /* shown by ps and perf */
    *ret = e;
    return COX_OK;
}

int cox_edge_port(const struct cox_edge *e)
{
    return e->port;
}

static void on_serving(struct cox_edge *e, void *arg)
{
    (void)arg;
    if (atomic_load(&e->state) == EDGE_SERVING)
        edge_on_serving(e);
}

void cox_edge_serve(struct cox_edge *e, struct cox_rpc_server *server)
{
    e->rpc = server;
    atomic_store(&e->state, EDGE_SERVING);
    call_post(e, on_serving, NULL);
}

void cox_edge_turn(struct cox_edge *e)
{
    call_engine_turn(e);
}

void cox_edge_drain(struct cox_edge *e)
{
    atomic_store(&e->state, EDGE_DRAINING);
    wake_edge(e);
}

bool cox_edge_drained(const struct cox_edge *e)
{
    return atomic_load(&e->drained);
}

/* A request whose head came before may have its body only when the server is gone: it begins no call then. */
void cox_edge_leave(struct cox_edge *e)
{
    e->rpc = NULL;
}

void cox_edge_destroy(struct cox_edge *e)
{
    if (!e)
        return;
    atomic_store(&e->state, EDGE_DRAINING);
    e->rpc = NULL;
    call_engine_turn(e);
    atomic_store(&e->stop, true);
    wake_edge(e);
    pthread_join(e->thread, NULL);
    edge_free(e);
}
