#include "servers.h"

#include "pipe.h"
#include "streams.h"

#include "cox/base/alloc.h"
#include "cox/base/map.h"
#include "cox/base/plant.h"
#include "cox/json.h"

#include <errno.h>
#include <openssl/evp.h>
#include <string.h>
#include <sys/stat.h>

#define KEY_LEN 32

struct mcp {
    struct handler_host *host;
    struct reach reach;
    struct janitor *janitor;
    const char *dir;
    uint32_t n_max;
    int64_t idle_ms, probe_ms;
    struct curl_loop loop;
    struct cox_mapb index; /* by key */
    struct cox_list idle;  /* longest unused first */
    struct cox_list busy;  /* and those that are doomed */
    struct cox_list leaving_pipes, leaving_streams;
    uint32_t n;      /* in `index` */
    uint64_t n_dirs; /* made so far */
};

struct mcp_server {
    struct cox_list link;
    struct mcp *all;
    uint8_t key[KEY_LEN];
    struct cox_buf task_id;
    struct mcp_client *client;
    struct mcp_pipe *pipe; /* one of these */
    struct mcp_streams *streams;
    char *own_dir;       /* NULL: none was made */
    struct event *timer; /* of the handshake, then of idleness, then of its end */
    uint32_t n_calls;
    int64_t idle_ms;
    bool doomed, probed_late;
};

/* ---------------------------------------------------------------- ends */

static void arm(struct mcp_server *s, int64_t ms)
{
    event_add(s->timer, &(struct timeval){ .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 });
}

void mcp_server_doom(struct mcp_server *s)
{
    struct mcp *m = s->all;

    if (s->doomed)
        return;
    s->doomed = true;
    m->n--;
    cox_mapb_remove(&m->index, cox_slice(s->key, KEY_LEN));
    cox_list_remove(&s->link);
    cox_list_push_back(&m->busy, &s->link);
    if (s->n_calls == 0)
        event_active(s->timer, EV_TIMEOUT, 0); /* not now: it may be what has called */
}

static void free_server(struct mcp_server *s, bool now)
{
    struct mcp *m = s->all;

    if (!s->doomed) {
        m->n--;
        cox_mapb_remove(&m->index, cox_slice(s->key, KEY_LEN));
    }
    if (s->pipe && now)
        mcp_pipe_destroy(s->pipe);
    else if (s->pipe)
        mcp_pipe_stop(s->pipe, &m->leaving_pipes);
    mcp_streams_stop(s->streams, &m->leaving_streams);
    mcp_client_destroy(s->client);
    if (s->own_dir)
        janitor_remove(m->janitor, s->own_dir);
    cox_list_remove(&s->link);
    event_free(s->timer);
    cox_buf_fini(&s->task_id);
    cox_free(s->own_dir);
    cox_free(s);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct mcp_server *s = arg;

    (void)fd;
    (void)what;
    if (s->doomed) {
        if (s->n_calls == 0)
            free_server(s, false);
    } else if (mcp_client_is_ready(s->client)) {
        if (s->n_calls == 0)
            mcp_server_doom(s);
    } else if (s->pipe && !s->probed_late) {
        s->probed_late = true;
        arm(s, MCP_HANDSHAKE_LIMIT_MS);
        mcp_client_probe_late(s->client);
    } else {
        mcp_client_gone(s->client, COX_CODE_UNAVAILABLE,
                        cox_slice_str("mcp: the server did not answer for 2 minutes"));
        mcp_server_doom(s);
    }
}

/* ---------------------------------------------------------------- what its client and its process tell */

static void on_send(void *user, const struct mcp_outgoing *message)
{
    struct mcp_server *s = user;

    if (s->pipe)
        mcp_pipe_send(s->pipe, message->text);
    else if (s->streams)
        mcp_streams_send(s->streams, message);
}

static void on_drop(void *user, uint64_t id)
{
    struct mcp_server *s = user;

    if (s->streams)
        mcp_streams_drop(s->streams, id);
}

static void on_ready(void *user)
{
    struct mcp_server *s = user;

    event_del(s->timer);
    if (s->n_calls == 0)
        arm(s, s->idle_ms);
    if (s->streams && !mcp_client_is_modern(s->client))
        mcp_streams_listen(s->streams);
}

static void on_broken(void *user)
{
    mcp_server_doom(user);
}

/* ---------------------------------------------------------------- begin */

/* What makes two servers one. Its secrets are in it: who was given others gets another server. */
static void make_key(const struct call_args *args, struct cox_slice spec, uint8_t ret[KEY_LEN])
{
    const struct cox_agent_assign *assign = args->assign;
    const struct cox_resources *res = &assign->resources;
    const int64_t numbers[] = { res->cpu_milli, res->memory_bytes, res->disk_bytes };
    const struct cox_slice parts[] = { assign->task_id, assign->bundle,
                                       cox_slice_str(assign->workspace.len > 0 ? args->dir : ""), spec,
                                       cox_slice(numbers, sizeof(numbers)) };
    EVP_MD_CTX *digest = EVP_MD_CTX_new();

    COX_ASSERT(digest && EVP_DigestInit_ex(digest, EVP_sha256(), NULL) == 1);
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        uint64_t len = parts[i].len;

        if (i == 0 && COX_PLANTED("mcp-shared-by-tasks"))
            continue;
        COX_ASSERT(EVP_DigestUpdate(digest, &len, sizeof(len)) == 1);
        if (len > 0)
            COX_ASSERT(EVP_DigestUpdate(digest, parts[i].data, len) == 1);
    }
    COX_ASSERT(EVP_DigestFinal_ex(digest, ret, NULL) == 1);
    EVP_MD_CTX_free(digest);
}

static void refuse(struct outcome *ret, enum cox_code code, struct cox_slice message)
{
    ret->code = code;
    outcome_say(ret, message);
}

static bool start_pipe(struct mcp_server *s, const struct call_args *args, struct cox_slice spec,
                       struct outcome *ret)
{
    struct mcp *m = s->all;
    const char *dir = args->dir, *why;
    struct cox_arena arena = { 0 };
    struct cox_buf message = { 0 };
    struct run_spec run;

    if (args->assign->workspace.len == 0) {
        s->own_dir = cox_asprintf("%s/m%llu", m->dir, (unsigned long long)++m->n_dirs);
        dir = s->own_dir;
        if (mkdir(dir, 0700) != 0)
            cox_buf_printf(&message, "mcp: cannot make a working directory: %s", strerror(errno));
    }
    if (message.len > 0) {
        refuse(ret, COX_CODE_UNAVAILABLE, cox_buf_slice(&message));
    } else if (run_spec_read_server(&arena, m->host->sandbox, args, spec, dir, &run, &why) != COX_OK) {
        refuse(ret, COX_CODE_INPUT_INVALID, cox_slice_str(why));
    } else if ((why = sandbox_why_not(m->host->sandbox, run.level)) != NULL) {
        cox_buf_printf(&message, "this worker cannot give the sandbox \"%s\": %s",
                       sandbox_level_text(run.level), why);
        refuse(ret, COX_CODE_UNAVAILABLE, cox_buf_slice(&message));
    } else {
        s->pipe =
            mcp_pipe_start(&(struct mcp_pipe_config){ .host = m->host,
                                                      .client = s->client,
                                                      .dir = dir,
                                                      .bundle_dir = args->bundle_dir,
                                                      .resources = &args->assign->resources,
                                                      .redactor = args->with_secrets ? args->redactor : NULL,
                                                      .on_gone = on_broken,
                                                      .user = s },
                           &run, &message);
        if (!s->pipe)
            refuse(ret, COX_CODE_UNAVAILABLE, cox_buf_slice(&message));
    }
    cox_buf_fini(&message);
    cox_arena_wipe(&arena);
    return s->pipe != NULL;
}

static bool start_streams(struct mcp_server *s, const struct call_args *args, struct cox_slice spec,
                          struct outcome *ret)
{
    struct mcp *m = s->all;
    struct cox_buf message = { 0 };

    s->streams = mcp_streams_start(
        &(struct mcp_streams_config){ .base = m->host->base,
                                      .loop = &m->loop,
                                      .reach = &m->reach,
                                      .client = s->client,
                                      .redactor = args->with_secrets ? args->redactor : NULL },
        spec, &message);
    if (!s->streams)
        refuse(ret, COX_CODE_INPUT_INVALID, cox_buf_slice(&message));
    cox_buf_fini(&message);
    return s->streams != NULL;
}

static struct mcp_server *start(struct mcp *m, const struct call_args *args, struct cox_slice spec,
                                const uint8_t key[KEY_LEN], struct outcome *ret)
{
    static const struct mcp_client_ops ops = {
        .send = on_send, .drop = on_drop, .ready = on_ready, .broken = on_broken
    };
    struct mcp_server *s = COX_NEW(struct mcp_server);
    struct cox_slice value;
    bool http = cox_json_member(spec, "url", &value);
    bool ok;

    s->all = m;
    memcpy(s->key, key, KEY_LEN);
    s->idle_ms = args->assign->workspace.len > 0 ? MCP_WORKSPACE_IDLE_MS : MCP_IDLE_MS;
    if (m->idle_ms)
        s->idle_ms = m->idle_ms;
    cox_list_init(&s->link);
    cox_buf_append_slice(&s->task_id, args->assign->task_id);
    s->timer = evtimer_new(m->host->base, on_timer, s);
    s->client = mcp_client_create(&ops, s, http);
    cox_mapb_set(&m->index, cox_slice(s->key, KEY_LEN), s);
    m->n++;
    ok = http ? start_streams(s, args, spec, ret) : start_pipe(s, args, spec, ret);
    if (!ok) {
        free_server(s, true);
        return NULL;
    }
    arm(s, http ? MCP_HANDSHAKE_LIMIT_MS : m->probe_ms);
    return s;
}

struct mcp_server *mcp_server_hold(struct mcp *m, const struct call_args *args, struct cox_slice spec,
                                   struct outcome *ret)
{
    uint8_t key[KEY_LEN];
    struct mcp_server *s;

    make_key(args, spec, key);
    s = cox_mapb_get(&m->index, cox_slice(key, KEY_LEN));
    if (!s && m->n >= m->n_max && !cox_list_empty(&m->idle))
        mcp_server_doom(COX_CONTAINER_OF(m->idle.next, struct mcp_server, link));
    if (!s)
        s = start(m, args, spec, key, ret);
    if (!s)
        return NULL;
    if (mcp_client_is_ready(s->client))
        event_del(s->timer);
    s->n_calls++;
    cox_list_remove(&s->link);
    cox_list_push_back(&m->busy, &s->link);
    return s;
}

void mcp_server_release(struct mcp_server *s)
{
    if (--s->n_calls > 0)
        return;
    if (s->doomed) {
        event_active(s->timer, EV_TIMEOUT, 0);
        return;
    }
    cox_list_remove(&s->link);
    cox_list_push_back(&s->all->idle, &s->link);
    if (mcp_client_is_ready(s->client))
        arm(s, s->idle_ms);
}

struct mcp_client *mcp_server_client(const struct mcp_server *s)
{
    return s->client;
}

uint32_t mcp_server_n_calls(const struct mcp_server *s)
{
    return s->n_calls;
}

/* ---------------------------------------------------------------- life */

struct handler_host *mcp_host(const struct mcp *m)
{
    return m->host;
}

void mcp_forget(struct mcp *m, struct cox_slice task_id)
{
    struct cox_list *lists[] = { &m->idle, &m->busy };

    for (size_t i = 0; i < 2; i++)
        COX_LIST_FOR_EACH (it, lists[i]) {
            struct mcp_server *s = COX_CONTAINER_OF(it, struct mcp_server, link);

            if (cox_slice_eq(cox_buf_slice(&s->task_id), task_id))
                mcp_server_doom(s);
        }
}

uint32_t mcp_n_servers(const struct mcp *m)
{
    return m->n;
}

struct mcp *mcp_create(const struct mcp_config *config)
{
    struct mcp *m = COX_NEW(struct mcp);

    m->host = config->host;
    m->reach = *config->reach;
    m->janitor = config->janitor;
    m->dir = config->dir;
    m->n_max = config->n_max;
    m->idle_ms = config->idle_ms;
    m->probe_ms = config->probe_ms ? config->probe_ms : MCP_PROBE_MS;
    cox_list_init(&m->idle);
    cox_list_init(&m->busy);
    cox_list_init(&m->leaving_pipes);
    cox_list_init(&m->leaving_streams);
    curl_loop_init(&m->loop, m->host->base, mcp_streams_on_done);
    return m;
}

void mcp_destroy(struct mcp *m)
{
    struct cox_list *lists[2];

    if (!m)
        return;
    lists[0] = &m->idle;
    lists[1] = &m->busy;
    for (size_t i = 0; i < 2; i++)
        while (!cox_list_empty(lists[i]))
            free_server(COX_CONTAINER_OF(lists[i]->next, struct mcp_server, link), true);
    mcp_pipe_kill_all(&m->leaving_pipes);
    mcp_streams_kill_all(&m->leaving_streams);
    curl_loop_fini(&m->loop);
    cox_mapb_fini(&m->index);
    cox_free(m);
}
