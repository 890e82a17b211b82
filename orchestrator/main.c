/* coxd: puts the parts together, runs the loop, and takes them apart again.
 *
 * Threads: this one (gRPC's completion queue, the engine, everything in fleet/ and api/), the compile thread,
 * the edge's (HTTP), the store's, one that waits for signals, and gRPC's own. */
#include "access/access.h"
#include "api/api.h"
#include "config.h"
#include "driver.h"
#include "edge/edge.h"
#include "fleet/fleet.h"
#include "models.h"
#include "offline.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"
#include "cox/base/units.h"
#include "cox/engine_stats.h"
#include "cox/rpc.h"
#include "cox/tls.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define EXIT_USAGE 2
#define EVENTS_A_TURN 256
#define DRAIN_NS 2000000000LL       /* for peers to leave by themselves */
#define CHECKPOINT_NS 60000000000LL /* the last one; without it the next start replays more */
#define NS_PER_MS 1000000LL
#define SWEEP_EVERY_MS 5000
#define DAY_NS (86400 * INT64_C(1000000000))
#define EXPIRY_WARN_S (30 * 86400)

struct coxd {
    struct coxd_config config;
    struct cox_config *settings; /* the texts of `config`, for reading them again */
    struct cox_rpc_loop *loop;
    struct cox_driver *driver;
    struct cox_access *access;
    bool certificates; /* are identities: decided at the start */
    struct cox_fleet *fleet;
    struct cox_api *api;
    struct cox_tls *tls; /* NULL: plaintext */
    struct cox_edge *edge;
    struct tape *tape; /* of model calls; NULL: none */
    struct cox_rpc_server *server;
    struct cox_rpc_service *services;
    bool paused;
    pthread_t signal_thread;
    atomic_int signalled; /* 0, or the signal */
    atomic_bool hung_up;  /* SIGHUP: read the configuration again */
    atomic_bool leaving;  /* the signal thread's work is over */
    int64_t expiry_ns;    /* when to look at the certificate's end again */
};

/* ---- signals ---- */

static void signals_of_ours(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGHUP);
}

/* The first asks to stop in order; a second one does not want to wait: the log has everything. */
static void *wait_for_signals(void *arg)
{
    struct coxd *c = arg;
    sigset_t set;
    int sig;

    signals_of_ours(&set);
    while (sigwait(&set, &sig) == 0 && !atomic_load(&c->leaving)) {
        if (sig == SIGHUP)
            atomic_store(&c->hung_up, true);
        else if (atomic_exchange(&c->signalled, sig) != 0)
            _exit(128 + sig);
        cox_rpc_loop_wake(c->loop);
    }
    return NULL;
}

static void signals_block(void)
{
    sigset_t set;

    signals_of_ours(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static void signals_start(struct coxd *c)
{
    COX_ASSERT(pthread_create(&c->signal_thread, NULL, wait_for_signals, c) == 0);
}

static void signals_stop(struct coxd *c)
{
    atomic_store(&c->leaving, true);
    pthread_kill(c->signal_thread, SIGTERM);
    pthread_join(c->signal_thread, NULL);
}

/* ---- the driver's hooks ---- */

static void wake(void *user)
{
    struct coxd *c = user;

    cox_rpc_loop_wake(c->loop);
}

static void on_action(void *user, const struct cox_action *a)
{
    struct coxd *c = user;

    if (a->kind == COX_ACT_REPLY)
        cox_api_act(c->api, a);
    else
        cox_fleet_act(c->fleet, a);
}

static void on_changed(void *user, const struct cox_action *a)
{
    struct coxd *c = user;

    cox_api_changed(c->api, a);
}

static void put_in_use(void *user, struct cox_buf *out)
{
    struct coxd *c = user;

    cox_api_put_in_use(c->api, out);
}

static void on_turn(void *user)
{
    struct coxd *c = user;

    cox_api_turn(c->api);
}

static void on_flush(void *user)
{
    struct coxd *c = user;

    cox_fleet_flush(c->fleet);
}

/* ---- the certificate ---- */

/* Once a day, from a month before its end on. */
static void warn_of_expiry(struct coxd *c)
{
    int64_t left_s = c->tls ? cox_tls_stats(c->tls).expires_s - cox_clock_wall_ms() / 1000 : INT64_MAX;

    c->expiry_ns = cox_clock_mono_ns() + DAY_NS;
    if (left_s <= 0)
        cox_log(COX_LOG_ERROR, "the certificate has expired: clients refuse it", "file", c->config.tls_cert,
                NULL);
    else if (left_s < EXPIRY_WARN_S)
        cox_log(COX_LOG_WARN, "the certificate expires soon", "file", c->config.tls_cert, "hours_left",
                COX_LOG_NUM(left_s / 3600), NULL);
}

/* ---- the configuration ---- */

/* What takes effect at once, at the start and on SIGHUP. */
static void configure(const struct coxd_config *config)
{
    cox_log_init(config->log_level, config->log_format);
}

static void reload_access(struct coxd *c)
{
    struct cox_buf error = { 0 };

    if (cox_access_reload(c->access, &error))
        cox_log(COX_LOG_ERROR, "the tokens stay as they were", "why", cox_buf_cstr(&error), NULL);
    else if (c->config.token_file)
        cox_log(COX_LOG_INFO, "read the tokens again", "file", c->config.token_file, NULL);
    cox_buf_fini(&error);
}

static struct cox_tls_files tls_files(const struct coxd_config *config)
{
    return (struct cox_tls_files){ config->tls_cert, config->tls_key, config->tls_ca };
}

/* Also when their names are the same: certificates are renewed in their place. */
static void reload_tls(struct coxd *c)
{
    const struct cox_tls_files files = tls_files(&c->config);
    struct cox_buf error = { 0 };

    if (!c->tls && (files.cert || files.key || files.ca))
        cox_log(COX_LOG_WARN, "TLS begins with a restart", NULL);
    else if (c->tls && !files.cert)
        cox_log(COX_LOG_WARN, "TLS ends with a restart", NULL);
    else if (c->tls && !files.ca == c->certificates && !COX_PLANTED("ca-without-roles"))
        /* Whoever has one would be let in, and then not asked what they may; or nobody be let in any more. */
        cox_log(COX_LOG_ERROR,
                "TLS stays as it was: certificates of clients are asked for, or not, from a restart on",
                NULL);
    else if (c->tls && cox_tls_reload(c->tls, &files, &error))
        cox_log(COX_LOG_ERROR, "TLS stays as it was", "why", cox_buf_cstr(&error), NULL);
    else if (c->tls) {
        cox_log(COX_LOG_INFO, "read the certificate again", "file", files.cert, NULL);
        warn_of_expiry(c);
    }
    cox_buf_fini(&error);
}

/* Where processes of steps have models called: at our HTTP port, if there is anything to call. */
static void tell_workers_of_models(struct coxd *c, bool any)
{
    char *url = any && strcmp(c->config.http, "off") != 0
                    ? c->config.http_advertise
                          ? cox_strdup(c->config.http_advertise)
                          : cox_asprintf("%s://*:%d", c->tls ? "https" : "http", cox_edge_port(c->edge))
                    : cox_strdup("");

    cox_fleet_serve_models(c->fleet, url);
    cox_free(url);
}

/* At the start and on SIGHUP. */
static enum cox_err apply_models(struct coxd *c)
{
    struct catalogue_text *text;
    struct cox_buf error = { 0 };
    enum cox_err err = coxd_models_read(&c->config, c->settings, &text, &error);

    if (err) {
        cox_log(COX_LOG_ERROR, "cannot read the models", "why", cox_buf_cstr(&error), NULL);
    } else {
        tell_workers_of_models(c, catalogue_text_models(text) > 0);
        cox_edge_models(c->edge, text);
    }
    cox_buf_fini(&error);
    return err;
}

/* A bad file is told and changes nothing. */
static void reload_config(struct coxd *c)
{
    struct coxd_config next = { 0 };
    struct cox_buf restart = { 0 }, error = { 0 };

    if (cox_config_reload(c->settings, &next, &restart, &error)) {
        cox_log(COX_LOG_ERROR, "the configuration stays as it was", "why", cox_buf_cstr(&error), NULL);
    } else {
        c->config = next;
        configure(&c->config);
        (void)apply_models(c); /* said why; the models stay as they were */
        cox_driver_limit(c->driver, next.retention_ms, (uint64_t)next.min_free, (uint64_t)next.memory_limit);
        cox_log(COX_LOG_INFO, "read the configuration again", NULL);
        if (restart.len > 0)
            cox_log(COX_LOG_WARN, "changed keys that need a restart", "keys", cox_buf_cstr(&restart), NULL);
    }
    cox_buf_fini(&restart);
    cox_buf_fini(&error);
}

static void reload(struct coxd *c)
{
    bool has_file = cox_config_file(c->settings)->json.len > 0;

    reload_access(c);
    if (has_file || (!c->config.token_file && !c->tls)) /* else those were meant: there is no other file */
        reload_config(c);
    reload_tls(c);
}

/* ---- the loop ---- */

/* While our queues are full, nothing is read; peers are held by flow control. */
static void pressure(struct coxd *c)
{
    bool full = cox_driver_full(c->driver);

    if (!c->server || full == c->paused)
        return;
    c->paused = full;
    if (full)
        cox_rpc_server_pause_reads(c->server);
    else
        cox_rpc_server_resume_reads(c->server);
}

static void turn(struct coxd *c, int64_t until_ns)
{
    int64_t driver_ns = cox_driver_wake_ns(c->driver);
    int64_t api_ns = cox_api_wake_ns(c->api);

    if (driver_ns < until_ns)
        until_ns = driver_ns;
    if (api_ns < until_ns)
        until_ns = api_ns;
    if (cox_access_wake_ns(c->access) < until_ns)
        until_ns = cox_access_wake_ns(c->access);
    if (c->tls && c->expiry_ns < until_ns)
        until_ns = c->expiry_ns;
    size_t n = cox_rpc_loop_run_once(c->loop, until_ns, EVENTS_A_TURN);

    if (c->edge)
        cox_edge_turn(c->edge);
    cox_access_turn(c->access);
    cox_driver_turn(c->driver, n);
    pressure(c);
    if (c->tls && cox_clock_mono_ns() >= c->expiry_ns)
        warn_of_expiry(c);
}

/* ---- beginning ---- */

static enum cox_err start_access(struct coxd *c)
{
    struct cox_buf error = { 0 };

    c->certificates = c->config.tls_ca != NULL;
    enum cox_err err = cox_access_create(
        &(struct cox_access_config){ .token_file = c->config.token_file, .certificates = c->certificates },
        &c->access, &error);

    if (err)
        cox_log(COX_LOG_ERROR, "cannot read the tokens", "why", cox_buf_cstr(&error), NULL);
    cox_buf_fini(&error);
    return err;
}

/* Once the data directory is there, and ours. */
static enum cox_err keep_task_token_key(struct coxd *c)
{
    struct cox_buf error = { 0 };
    enum cox_err err = COX_OK;

    if (strcmp(c->config.store, "memory") != 0) {
        char *path = cox_asprintf("%s/task-token.key", c->config.data_dir);

        err = cox_access_keep_key(c->access, path, &error);
        cox_free(path);
    }
    if (err)
        cox_log(COX_LOG_ERROR, "cannot keep the key for tasks' tokens", "why", cox_buf_cstr(&error), NULL);
    cox_buf_fini(&error);
    return err;
}

static struct router_stats *read_router(void *edge)
{
    return router_stats(cox_edge_router(edge));
}

static enum cox_err start_driver(struct coxd *c)
{
    const struct cox_driver_config config = {
        .store = c->config.store,
        .data_dir = c->config.data_dir,
        .seed = (uint64_t)cox_clock_mono_ns(),
        .checkpoint_len = (uint64_t)c->config.checkpoint_bytes,
        .retention_ms = c->config.retention_ms,
        .min_free = (uint64_t)c->config.min_free,
        .memory_limit = (uint64_t)c->config.memory_limit,
        .sweep_every_ms = SWEEP_EVERY_MS,
        .wake = wake,
        .wake_user = c,
    };
    const struct cox_driver_hooks hooks = { c, on_action, on_changed, on_turn, on_flush, put_in_use };
    struct cox_driver_recovery found;
    struct cox_engine_stats stats;
    struct cox_buf error = { 0 };
    enum cox_err err = cox_driver_create(&config, &hooks, &c->driver, &found, &error);

    if (err) {
        cox_log(COX_LOG_ERROR, "cannot start", "why", error.len ? cox_buf_cstr(&error) : cox_err_text(err),
                NULL);
        cox_buf_fini(&error);
        return err;
    }
    cox_api_set_router(c->api, read_router, c->edge);
    cox_fleet_start(c->fleet, c->driver);
    cox_api_start(c->api, c->driver, c->fleet, c->access);
    if ((err = keep_task_token_key(c)))
        return err;
    cox_engine_stats(cox_driver_engine(c->driver), &stats);
    cox_log(COX_LOG_INFO, "recovered", "entities", COX_LOG_NUM(found.n_entities), "records",
            COX_LOG_NUM(found.n_records), "last_seq", COX_LOG_NUM(found.last_seq), "tasks",
            COX_LOG_NUM(stats.n_live_tasks), "steps", COX_LOG_NUM(stats.n_live_steps), "took_ms",
            COX_LOG_NUM(found.took_ms), NULL);
    while (
        !cox_driver_settled(c->driver)) /* the epoch's record and what had ended, before anybody is heard */
        turn(c, COX_RPC_FOREVER);
    return COX_OK;
}

static void put_metric(struct cox_buf *out, const char *name, const char *type, const char *help,
                       int64_t value)
{
    cox_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n%s %" PRId64 "\n", name, help, name, type, name, value);
}

static void put_tls_metrics(struct cox_tls *tls, struct cox_buf *out)
{
    const struct cox_tls_stats stats = cox_tls_stats(tls);

    put_metric(out, "cox_tls_certificate_expires_timestamp_seconds", "gauge",
               "When the certificate of coxd, or one of its chain, ends, since 1970", stats.expires_s);
    put_metric(out, "cox_tls_connections", "gauge", "Connections with TLS, handshakes included",
               (int64_t)stats.n_open);
    put_metric(out, "cox_tls_handshakes_total", "counter", "Handshakes that went well",
               (int64_t)stats.n_done);
    put_metric(out, "cox_tls_handshakes_refused_total", "counter", "Handshakes that one side refused",
               (int64_t)stats.n_failed);
    put_metric(out, "cox_tls_handshakes_given_up_total", "counter",
               "Handshakes that took too long, gave way to newer ones or hung up", (int64_t)stats.n_given_up);
}

static void put_metrics(void *user, struct cox_buf *out)
{
    struct coxd *c = user;

    cox_metrics_text(c->api, out);
    if (c->tls)
        put_tls_metrics(c->tls, out);
}

static const struct cox_rpc_error *refuses(void *user, struct cox_slice authorization,
                                           const struct cox_tls_certificate *certificate, const char *service,
                                           const char *method)
{
    struct coxd *c = user;

    return cox_access_refuses(c->access, authorization, certificate, service, method);
}

static const struct cox_rpc_error *admits(void *user, struct cox_slice authorization,
                                          const struct cox_tls_certificate *certificate,
                                          struct cox_slice tenant, const char *service, const char *method,
                                          char ret_tenant[64])
{
    struct coxd *c = user;

    return cox_access_admits(c->access, authorization, certificate, tenant, service, method, ret_tenant);
}

static bool is_ready(void *user, struct cox_buf *ret_why)
{
    struct coxd *c = user;

    if (cox_driver_full(c->driver))
        cox_buf_append_str(ret_why, "the queues are full");
    else if (!cox_driver_ready(c->driver))
        cox_buf_append_str(ret_why, "there is too little room on the disk, or in memory, to take more work");
    return ret_why->len == 0;
}

static bool find_attempt(void *user, const struct cox_edge_claim *claim, struct cox_edge_attempt *ret)
{
    struct coxd *c = user;
    const char *tenant = *claim->tenant ? claim->tenant : ACCESS_DEFAULT_TENANT;
    const struct cox_call_asked asked = { claim->len, claim->output_tokens };
    struct cox_input in = { .kind = COX_IN_CALL };
    struct cox_call_hint hint;
    cox_task_id root =
        cox_engine_call_hint(cox_driver_engine(c->driver), claim->ref, &asked, &hint, &in.u.call);

    if (root == 0 || !cox_fleet_holds(c->fleet, claim->ref, cox_slice_str(claim->session), tenant))
        return false;
    cox_task_id_format(root, ret->program);
    ret->priority = hint.priority;
    ret->critical_path_ms = hint.critical_path_ms;
    ret->deadline_ms = hint.deadline_ms;
    ret->spent = hint.spent && !COX_PLANTED("process-calls-beyond-budget");
    ret->waits = hint.waits;
    ret->output_tokens = hint.output_tokens;
    ret->reserved = in.u.call.reserved;
    ret->guessed = in.u.call.guessed;
    if (!ret->spent && !ret->waits)
        cox_driver_step(c->driver, &in);
    return true;
}

struct once_durable {
    struct cox_hold hold;
    void (*fn)(void *arg);
    void *arg;
};

static void on_durable(struct cox_hold *hold)
{
    struct once_durable *w = COX_CONTAINER_OF(hold, struct once_durable, hold);

    w->fn(w->arg);
    cox_free(w);
}

static void when_durable(void *user, void (*fn)(void *arg), void *arg)
{
    const struct coxd *c = user;
    struct once_durable *w = COX_NEW(struct once_durable);

    w->fn = fn;
    w->arg = arg;
    cox_driver_hold(c->driver, &w->hold, on_durable);
}

static enum cox_err start_tls(struct coxd *c)
{
    const struct cox_tls_files files = tls_files(&c->config);
    struct cox_buf error = { 0 };
    enum cox_err err = COX_OK;

    if (files.cert || files.key || files.ca)
        err = cox_tls_create(&files, &c->tls, &error);
    if (err)
        cox_log(COX_LOG_ERROR, "cannot speak TLS", "why", cox_buf_cstr(&error), NULL);
    cox_buf_fini(&error);
    warn_of_expiry(c);
    return err;
}

static enum cox_err start_tape(struct coxd *c)
{
    struct cox_buf error = { 0 };
    enum cox_err err = COX_OK;

    if (c->config.model_record && c->config.model_replay) {
        err = COX_ERR_INVALID;
        cox_buf_append_str(&error, "model-record and model-replay: expected one of the two");
    } else if (c->config.model_record) {
        err = tape_record(c->config.model_record, &c->tape, &error);
    } else if (c->config.model_replay) {
        err = tape_replay(c->config.model_replay, &c->tape, &error);
    }
    if (err)
        cox_log(COX_LOG_ERROR, "cannot record or replay model calls", "why", cox_buf_cstr(&error), NULL);
    cox_buf_fini(&error);
    return err;
}

/* Workers say the name that they were told to call it by (--http-advertise): it need not be listed as well.
 */
static char *known_hosts(const struct coxd_config *config)
{
    const char *hosts = config->http_hosts ? config->http_hosts : "";
    const char *name = config->http_advertise ? strstr(config->http_advertise, "://") : NULL;

    if (!name)
        return cox_strdup(hosts);
    name += 3;
    return cox_asprintf("%s%s%.*s", hosts, *hosts ? "," : "", (int)strcspn(name, ":/"), name);
}

/* Before recovery, so that probes hear that it is under way. */
static enum cox_err start_edge(struct coxd *c)
{
    bool listens = strcmp(c->config.http, "off") != 0;
    char *hosts = known_hosts(&c->config);
    const struct cox_edge_config config = {
        .address = listens ? c->config.http : NULL,
        .hosts = *hosts ? hosts : NULL,
        .cors_origins = c->config.cors_origins,
        .tls = c->tls,
        .version = coxd_config_program.version,
        .loop = c->loop,
        .metrics = put_metrics,
        .refuses = refuses,
        .admits = admits,
        .model_policy = c->config.model_policy,
        .first_token_ms = c->config.model_first_token_ms,
        .tape = c->tape,
        .drain_ms = c->config.drain_timeout_ms,
        .ready = is_ready,
        .attempt = find_attempt,
        .when_durable = when_durable,
        .user = c,
    };
    struct cox_buf error = { 0 };
    enum cox_err err = cox_edge_create(&config, &c->edge, &error);

    cox_free(hosts);
    if (err)
        cox_log(COX_LOG_ERROR, "cannot listen", "http", c->config.http, "why", cox_buf_cstr(&error), NULL);
    cox_buf_fini(&error);
    return err;
}

static enum cox_err start_server(struct coxd *c)
{
    size_t n;
    const struct cox_rpc_service *api = cox_api_services(c->api, &n);
    enum cox_err err;

    c->services = cox_calloc(n + 1, sizeof(*c->services));
    memcpy(c->services, api, n * sizeof(*c->services));
    c->services[n] = *cox_fleet_service(c->fleet);
    err = cox_rpc_server_create(c->loop,
                                &(struct cox_rpc_server_config){ .address = c->config.grpc,
                                                                 .services = c->services,
                                                                 .n_services = n + 1,
                                                                 .admit = cox_access_admit,
                                                                 .released = cox_access_released,
                                                                 .admit_user = c->access,
                                                                 .tls = c->tls },
                                &c->server);
    if (err)
        cox_log(COX_LOG_ERROR, "cannot listen", "grpc", c->config.grpc, "why",
                err == COX_ERR_UNAVAILABLE
                    ? "the port is in use, or not an address of this host; port 0 picks a free one"
                    : cox_err_text(err),
                NULL);
    else
        cox_rpc_server_set_serving(c->server, true);
    if (!err && c->edge)
        cox_edge_serve(c->edge, c->server);
    return err;
}

/* What was asked for, with the port that it became. */
static char *address(const char *asked, int port)
{
    return cox_asprintf("%.*s:%d", (int)(strrchr(asked, ':') - asked), asked, port);
}

/* Whole or not at all: readers poll for it. */
static enum cox_err write_ready_file(const struct coxd *c, const char *grpc, const char *http)
{
    enum cox_err err = COX_ERR_IO;

    if (!c->config.ready_file)
        return COX_OK;
    char *path = cox_asprintf("%s.%d", c->config.ready_file, (int)getpid());
    FILE *f = fopen(path, "we");

    if (f) {
        fprintf(f, "{\"grpc\":\"%s\",\"http\":\"%s\",\"pid\":%d}\n", grpc, http, (int)getpid());
        bool written = fflush(f) == 0 && !ferror(f);
        if (fclose(f) == 0 && written && rename(path, c->config.ready_file) == 0)
            err = COX_OK;
    }
    if (err) {
        cox_log(COX_LOG_ERROR, "cannot write the ready file", "file", c->config.ready_file, "why",
                strerror(errno), NULL);
        unlink(path);
    }
    cox_free(path);
    return err;
}

/* ---- end ---- */

/* Who has begun a call of a model has paid for a part of its answer. */
static void drain_calls(struct coxd *c)
{
    int64_t until_ns = cox_clock_mono_ns() + c->config.drain_timeout_ms * NS_PER_MS;

    cox_edge_drain(c->edge);
    while (!cox_edge_drained(c->edge) && cox_clock_mono_ns() < until_ns && !COX_PLANTED("stops-at-once"))
        turn(c, until_ns);
    if (!cox_edge_drained(c->edge))
        cox_log(COX_LOG_WARN, "model calls are cut off: they took longer than --drain-timeout", NULL);
    cox_edge_leave(c->edge);
}

/* Peers are told and have a moment to leave; then what the engine knows is saved, so that the next start is
 * quick. What cannot be saved in time is in the log. */
static void stop(struct coxd *c)
{
    cox_log(COX_LOG_INFO, "stopping", "signal", strsignal(atomic_load(&c->signalled)), NULL);
    cox_rpc_server_set_serving(c->server, false);
    if (c->edge)
        drain_calls(c);
    cox_api_drain(c->api);
    cox_fleet_drain(c->fleet);
    cox_rpc_server_drain(c->server);
    int64_t until_ns = cox_clock_mono_ns() + DRAIN_NS;

    while (cox_rpc_server_calls(c->server) > 0 && cox_clock_mono_ns() < until_ns)
        turn(c, until_ns);
    cox_rpc_server_destroy(c->server);
    c->server = NULL;
    until_ns = cox_clock_mono_ns() + CHECKPOINT_NS;
    cox_driver_checkpoint(c->driver);
    while ((!cox_driver_settled(c->driver) || cox_driver_checkpointing(c->driver)) &&
           cox_clock_mono_ns() < until_ns)
        turn(c, until_ns);
    cox_log(COX_LOG_INFO, "stopped", NULL);
}

static int run(struct coxd *c)
{
    int code = EXIT_FAILURE;

    c->loop = cox_rpc_loop_create();
    c->fleet = cox_fleet_create();
    c->api = cox_api_create();
    signals_start(c);
    if (start_access(c) || start_tls(c) || start_tape(c) || start_edge(c) || apply_models(c) ||
        start_driver(c) || start_server(c))
        goto out;
    char *grpc = address(c->config.grpc, cox_rpc_server_port(c->server));
    char *http = cox_edge_port(c->edge) ? address(c->config.http, cox_edge_port(c->edge)) : cox_strdup("");
    enum cox_err err = write_ready_file(c, grpc, http);

    if (!err)
        cox_log(COX_LOG_INFO, "serving", "grpc", grpc, "http", http, "store", c->config.store, NULL);
    cox_free(grpc);
    cox_free(http);
    if (err)
        goto out;
    while (!atomic_load(&c->signalled)) {
        if (atomic_exchange(&c->hung_up, false))
            reload(c);
        turn(c, COX_RPC_FOREVER);
    }
    stop(c);
    code = EXIT_SUCCESS;
out:
    cox_rpc_server_destroy(c->server);
    cox_api_set_router(c->api, NULL, NULL);
    cox_edge_destroy(c->edge);
    tape_close(c->tape);
    cox_tls_destroy(c->tls);
    cox_driver_destroy(c->driver);
    cox_api_destroy(c->api);
    cox_fleet_destroy(c->fleet);
    signals_stop(c);
    cox_rpc_loop_destroy(c->loop);
    cox_access_destroy(c->access);
    cox_free(c->services);
    return code;
}

/* Peers may have more connections than the usual soft limit lets in; nothing is started that inherits it. */
static void raise_fd_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    (void)!setrlimit(RLIMIT_NOFILE, &limit);
}

int main(int argc, char **argv)
{
    static struct coxd c;

    enum cox_config_outcome outcome = coxd_config_read(&c.config, argc, argv, stderr, &c.settings);
    int code = outcome == COX_CONFIG_EXIT_OK ? EXIT_SUCCESS : EXIT_USAGE;

    if (outcome == COX_CONFIG_RUN && c.config.restore) {
        code = cox_offline_restore(c.config.restore, c.config.data_dir);
    } else if (outcome == COX_CONFIG_RUN && c.config.verify) {
        code = cox_offline_verify(c.config.data_dir);
    } else if (outcome == COX_CONFIG_RUN && c.config.lift) {
        code = cox_offline_lift(c.config.data_dir, c.config.lift);
    } else if (outcome == COX_CONFIG_RUN) {
        configure(&c.config);
        raise_fd_limit();
        signals_block();
        cox_rpc_init();
        code = run(&c);
        cox_rpc_fini();
    }
    cox_config_destroy(c.settings);
    return code;
}
