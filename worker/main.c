/* cox-worker: reads its options, then turns the session until the agent leaves. */
#include "config.h"
#include "jq_program.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#define EXIT_USAGE 2
#define FDS_A_SLOT                                                                                           \
    11 /* three pipes, a process, two more while it starts; files of output, an idle program                 \
        */
#define FDS_OWN 128

/* Descriptors 0 to 2 are open, so that no pipe gets such a number. */
static void open_standard_fds(void)
{
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

    while (fd >= 0 && fd <= 2)
        fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (fd > 2)
        close(fd);
}

/* Raised only as far as the slots need: steps inherit it. */
static void raise_fd_limit(int64_t slots)
{
    struct rlimit limit;
    rlim_t need = (rlim_t)slots * FDS_A_SLOT + FDS_OWN;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= need)
        return;
    limit.rlim_cur = need < limit.rlim_max ? need : limit.rlim_max;
    (void)!setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < need)
        cox_log(COX_LOG_WARN, "too few file descriptors for so many slots", "limit",
                COX_LOG_NUM(limit.rlim_cur), "need", COX_LOG_NUM(need), NULL);
}

/* All of them, in every thread: SIGTERM, SIGINT and SIGHUP are read from a descriptor, the rest is nobody's
 * business. What a bug raises (SIGSEGV ...) ends the process, blocked or not. */
static void block_signals(void)
{
    sigset_t all;

    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
}

/* Whole or not at all: whoever waits for the file reads it as soon as it is there. */
static void write_ready_file(void *user)
{
    const struct config *c = user;
    char *path;
    FILE *f;
    bool ok;

    if (!c->ready_file)
        return;
    path = cox_asprintf("%s.new", c->ready_file);
    f = fopen(path, "we");
    ok = f && fprintf(f, "{\"pid\":%d}\n", (int)getpid()) > 0;
    ok = f && fclose(f) == 0 && ok && rename(path, c->ready_file) == 0;
    if (!ok)
        cox_log(COX_LOG_ERROR, "cannot write the ready file", "path", c->ready_file, "error", strerror(errno),
                NULL);
    cox_free(path);
}

static void wake_loop(void *user)
{
    cox_rpc_loop_wake(user);
}

/* What takes effect at once, at the start and on SIGHUP. */
static void configure(const struct config *c)
{
    cox_log_init(c->log_level, c->log_format);
}

/* SIGHUP. A bad file is told and changes nothing. */
static void reload(struct config *c, struct slots *slots)
{
    struct cox_buf restart = { 0 }, error = { 0 };

    if (config_reload(c, &restart, &error)) {
        cox_log(COX_LOG_ERROR, "the configuration stays as it was", "why", cox_buf_cstr(&error), NULL);
    } else {
        configure(c);
        slots_secrets(slots, c->secrets);
        c->secrets = NULL;
        cox_log(COX_LOG_INFO, "read the configuration again", NULL);
        if (restart.len > 0)
            cox_log(COX_LOG_WARN, "changed keys that need a restart", "keys", cox_buf_cstr(&restart), NULL);
    }
    cox_buf_fini(&restart);
    cox_buf_fini(&error);
}

static const struct cox_tls_files *tls_of(const struct config *c)
{
    return c->tls.ca || c->tls.cert || c->tls.key ? &c->tls : NULL;
}

/* Better told now than at each attempt to attach. */
static bool check_tls(const struct config *c)
{
    struct cox_buf error = { 0 };
    bool ok = !tls_of(c) || cox_tls_check_client(tls_of(c), &error) == COX_OK;

    if (!ok)
        cox_log(COX_LOG_ERROR, "cannot speak TLS", "why", cox_buf_cstr(&error), NULL);
    cox_buf_fini(&error);
    return ok;
}

/* What the operator says of the host, and what the sandbox says. */
static size_t put_labels(const struct config *c, const struct sandbox *sandbox,
                         struct cox_attach_label ret[COX_WORKER_LABELS_MAX])
{
    const char *keys[SANDBOX_LABELS], *values[SANDBOX_LABELS];
    size_t n = c->n_labels;

    memcpy(ret, c->labels, n * sizeof(*ret));
    sandbox_labels(sandbox, keys, values);
    for (int i = 0; i < SANDBOX_LABELS; i++)
        ret[n++] = (struct cox_attach_label){ .key = keys[i], .value = values[i] };
    return n;
}

static void serve(struct cox_rpc_loop *loop, struct slots *slots, struct catalogue *catalogue,
                  const struct sandbox *sandbox, struct config *c, const char *boot_id, uint64_t seed)
{
    static const char *const handlers[] = { "run", "http", "jq", "mcp", "bundle" };
    struct cox_attach_label labels[COX_WORKER_LABELS_MAX];
    struct session_config config = {
        .agent = { .slots = (uint32_t)c->slots,
                   .resources = c->resources,
                   .n_addresses = (uint32_t)c->n_addresses,
                   .drain_timeout_ms = c->drain_timeout_ms,
                   .orphan_timeout_ms = c->orphan_timeout_ms,
                   .idle_exit_ms = c->idle_exit_ms,
                   .seed = seed },
        .addresses = c->addresses,
        .worker_id = c->worker_id,
        .boot_id = boot_id,
        .version = COX_VERSION,
        .labels = labels,
        .n_labels = put_labels(c, sandbox, labels),
        .handlers = handlers,
        .n_handlers = sizeof(handlers) / sizeof(handlers[0]),
        .token_file = c->token_file,
        .tls = tls_of(c),
        .catalogue = catalogue,
        .on_attached = write_ready_file,
        .user = c,
    };
    struct session *session = session_create(loop, slots, &config);

    while (session_turn(session, COX_RPC_FOREVER)) {
        if (!slots_hung_up(slots))
            continue;
        reload(c, slots);
        catalogue_reload(catalogue);
    }
    session_destroy(session);
}

/* A worker that cannot keep its own promise does not begin. */
static struct sandbox *make_sandbox(const struct config *c)
{
    struct sandbox *s = sandbox_create(&(struct sandbox_config){ .least = c->sandbox,
                                                                 .work_dir = c->work_dir,
                                                                 .read = c->sandbox_read,
                                                                 .n_read = c->n_sandbox_read,
                                                                 .cgroups = &(struct cgroups_config){ 0 } });
    const char *why = sandbox_why_not(s, c->sandbox);

    if (!why)
        return s;
    cox_log(COX_LOG_ERROR, "this host cannot give the sandbox that --sandbox asks for", "level",
            sandbox_level_text(c->sandbox), "why", why, NULL);
    sandbox_destroy(s);
    return NULL;
}

static int run(struct config *c)
{
    struct sandbox *sandbox = make_sandbox(c);
    struct cox_rpc_loop *loop;
    struct catalogue *catalogue;
    struct slots *slots;
    uint64_t random[2];
    char boot_id[17];
    int code = EXIT_SUCCESS;

    if (!sandbox || getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
        return EXIT_FAILURE;
    snprintf(boot_id, sizeof(boot_id), "%016llx", (unsigned long long)random[0]);
    raise_fd_limit(c->slots);
    cox_rpc_init();
    loop = cox_rpc_loop_create();
    catalogue = catalogue_create(&(struct catalogue_config){
        .dirs = c->handler_dirs, .n_dirs = c->n_handler_dirs, .on_changed = wake_loop, .user = loop });
    if (slots_create(&(struct slots_config){ .n_slots = (uint32_t)c->slots,
                                             .work_dir = c->work_dir,
                                             .boot_id = boot_id,
                                             .catalogue = catalogue,
                                             .tls = tls_of(c),
                                             .sandbox = sandbox,
                                             .secrets = c->secrets,
                                             .secrets_dir = c->secrets_dir,
                                             .self = "/proc/self/exe",
                                             .with_blobs = true,
                                             .token_file = c->token_file,
                                             .cache_len_max = (uint64_t)c->cache_len_max,
                                             .with_snapshots = !c->no_snapshots,
                                             .workspace_ttl_ms = c->workspace_ttl_ms,
                                             .workspace_len_max = (uint64_t)c->workspace_len_max,
                                             .reach = c->reach,
                                             .on_reply = wake_loop,
                                             .user = loop },
                     &slots) == COX_OK) {
        c->secrets = NULL;
        serve(loop, slots, catalogue, sandbox, c, boot_id, random[1]);
        slots_destroy(slots);
    } else {
        cox_log(COX_LOG_ERROR, "cannot use the work directory", "path", c->work_dir, "error", strerror(errno),
                NULL);
        code = EXIT_FAILURE;
    }
    catalogue_destroy(catalogue);
    cox_rpc_loop_destroy(loop);
    cox_rpc_fini();
    sandbox_destroy(sandbox);
    return code;
}

/* Steps and sandboxes have working directories of their own. Freed by cox_free. */
static char *absolute(const char *path)
{
    char here[4096];

    return path[0] == '/' || !getcwd(here, sizeof(here)) ? cox_strdup(path)
                                                         : cox_asprintf("%s/%s", here, path);
}

int main(int argc, char **argv)
{
    struct config config;
    enum cox_config_outcome outcome;
    int code = EXIT_SUCCESS;

    open_standard_fds();
    if (argc == 3 && strcmp(argv[1], SLOTS_JQ_ARGUMENT) == 0 && strcmp(argv[2], "--serve") == 0)
        return jq_main();
    outcome = config_read(&config, argc, argv);
    if (outcome == COX_CONFIG_EXIT_USAGE)
        code = EXIT_USAGE;
    if (outcome == COX_CONFIG_RUN) {
        block_signals();
        configure(&config);
        char *work_dir = absolute(config.work_dir);

        config.work_dir = work_dir;
        code = check_tls(&config) ? run(&config) : EXIT_FAILURE;
        cox_free(work_dir);
    }
    config_fini(&config);
    return code;
}
