#include "work.h"

#include "catalogue.h"
#include "unpack.h"
#include "work_state.h"

#include "handlers/http.h"
#include "handlers/pool.h"
#include "handlers/run.h"
#include "mcp/mcp.h"

#include "cox/base/alloc.h"
#include "cox/base/log.h"
#include "cox/base/units.h"
#include "cox/json.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool work_is_batch(const struct work *w)
{
    return w->assign.n_items > 0;
}

/* What every item of a batch has in common with it stands in each. */
static struct cox_slice first_spec(const struct work *w)
{
    return work_is_batch(w) ? w->assign.items[0].spec_json : w->assign.spec_json;
}

static void later(struct work *w)
{
    event_active(w->timer, EV_TIMEOUT, 0);
}

void work_fail(struct work *w, enum cox_code code, struct cox_slice message)
{
    struct outcome text;

    if (w->code != COX_CODE_NONE)
        return;
    w->code = code;
    outcome_init(&text);
    outcome_say(&text, message);
    cox_buf_append_slice(&w->message, cox_buf_slice(&text.message));
    outcome_fini(&text);
}

/* ---------------------------------------------------------------- tell */

/* Of an item whose output is still on its way when the batch is stopped nothing is said: it has none. */
static struct cox_agent_item_result *item_results(const struct work *w, size_t *ret_n)
{
    struct cox_agent_item_result *items = cox_calloc(w->n_done, sizeof(*items));

    for (const struct done *d = w->done; d < w->done + w->n_done; d++)
        if (d->n_stores == 0)
            items[(*ret_n)++] = (struct cox_agent_item_result){ .index = d->index,
                                                                .status = d->status,
                                                                .code = d->code,
                                                                .message = cox_buf_slice(&d->message),
                                                                .output = cox_buf_slice(&d->output) };
    return items;
}

static void tell(struct work *w)
{
    struct cox_agent_result result = { .code = w->code, .message = cox_buf_slice(&w->message) };
    struct cox_agent_item_result *items = work_is_batch(w) ? item_results(w, &result.n_items) : NULL;
    const struct done *only = !work_is_batch(w) && w->n_done > 0 ? &w->done[0] : NULL;

    w->ended = true;
    if (w->killed && result.code == COX_CODE_NONE)
        result.code = only && only->code != COX_CODE_NONE ? only->code : COX_CODE_CANCELLED;
    if (only) {
        result.output = cox_buf_slice(&only->output);
        if (result.code == COX_CODE_NONE || result.message.len == 0) {
            result.message = cox_buf_slice(&only->message);
            result.code = result.code == COX_CODE_NONE ? only->code : result.code;
        }
    }
    result.status = result.code == COX_CODE_NONE ? COX_ATTEMPT_SUCCEEDED : COX_ATTEMPT_FAILED;
    if (result.code == COX_CODE_NONE) {
        result.artifacts_json = cox_buf_slice(&w->artifacts);
        result.continuation_json = cox_buf_slice(&w->continuation);
    }
    result.items = items;
    result.files = w->files;
    result.blobs = w->blobs;
    result.n_blobs = w->n_blobs;
    result.has_exit_code = w->has_exit_code;
    result.exit_code = w->exit_code;
    result.cpu_us = w->cpu_us;
    result.max_rss_bytes = w->max_rss_bytes;
    if (w->started_ns)
        result.run_us = (uint64_t)(cox_clock_mono_ns() - w->started_ns) / 1000;
    work_log_more(w);
    w->host->ops->on_ended(w, &result, w->user);
    cox_free(items);
}

/* ---------------------------------------------------------------- call */

static const struct timeval *limit_of(const struct work *w, struct timeval *tv)
{
    *tv = (struct timeval){ .tv_sec = (time_t)(w->assign.timeout_ms / 1000),
                            .tv_usec = (suseconds_t)(w->assign.timeout_ms % 1000 * 1000) };
    return tv;
}

/* An item that ran out of time says so, whatever it made of its last moments. */
static void judge_item(struct work *w, struct done *d)
{
    if (!w->item_timed_out)
        return;
    d->code = COX_CODE_TIMEOUT;
    d->status = COX_ATTEMPT_TIMED_OUT;
    cox_buf_clear(&d->message);
    cox_buf_append_str(&d->message, "stopped after its time limit of ");
    cox_put_duration(&d->message, (int64_t)w->assign.timeout_ms);
}

static void take_continuation(struct work *w, struct done *d, struct outcome *o)
{
    if (o->continuation.len == 0)
        return;
    if (work_is_batch(w)) {
        d->code = COX_CODE_OUTPUT_INVALID;
        cox_buf_append_str(&d->message, "a program that is mapped cannot ask to be called again");
        return;
    }
    w->continuation = o->continuation;
    o->continuation = (struct cox_buf){ 0 };
}

static void on_done(struct call *call, struct outcome *o)
{
    struct work *w = call->user;
    struct done *d = &w->done[w->n_done];

    event_del(w->timer);
    work_redact(w->secrets.redactor ? w->secrets.redactor : w->key_redactor, o);
    d->index = work_is_batch(w) ? w->assign.items[w->n_done].index : 0;
    d->code = o->code;
    d->message = o->message;
    d->output = o->output;
    o->message = o->output = (struct cox_buf){ 0 };
    take_continuation(w, d, o);
    d->status = d->code == COX_CODE_NONE ? COX_ATTEMPT_SUCCEEDED : COX_ATTEMPT_FAILED;
    judge_item(w, d);
    w->cpu_us += o->cpu_us;
    if (o->max_rss_bytes > w->max_rss_bytes)
        w->max_rss_bytes = o->max_rss_bytes;
    w->has_exit_code = o->has_exit_code && !work_is_batch(w);
    w->exit_code = o->exit_code;
    if (!w->killed) {
        w->n_done++;
        work_keep_call(w, d, o);
    } else if (!work_is_batch(w)) {
        w->n_done++;
        if (work_is_too_long(w, d->output.len)) /* nobody stores it any more, and no message holds it */
            cox_buf_fini(&d->output);
    } else {
        cox_buf_fini(&d->message);
        cox_buf_fini(&d->output);
    }
    call->ops->destroy(call);
    w->call = NULL;
    work_proceed(w);
}

static void on_call_log(struct call *call, enum livelog_stream stream, struct cox_slice data)
{
    struct work *w = call->user;

    livelog_append(&w->log, stream, data);
    work_log_more(w);
}

/* The first call is about to be made: all that was fetched for it is there. */
static void begin(struct work *w)
{
    w->started_ns = cox_clock_mono_ns();
    if (w->gateway)
        gateway_offer(w->gateway, w->blob_files, w->secrets.redactor);
    if (w->gateway && !w->secrets.redactor)
        w->key_redactor = redactor_create_plain(cox_slice_str(gateway_key(w->gateway)));
}

static void start_call(struct work *w)
{
    bool batch = work_is_batch(w);
    struct call_args args = { .assign = &w->assign,
                              .spec = batch ? w->assign.items[w->n_done].spec_json : w->assign.spec_json,
                              .dir = w->dir,
                              .spool_dir = w->host->dir,
                              .bundle_dir = w->bundle_dir,
                              .blobs_dir = w->blobs_dir,
                              .blobs = w->blob_files,
                              .index = batch ? &w->assign.items[w->n_done].index : NULL };
    struct cox_slice input;
    struct timeval tv;

    if (work_secrets_fill(&w->secrets, args.spec, &args.spec) != COX_OK) {
        work_fail(w, COX_CODE_INPUT_INVALID, cox_slice_str("secrets: expected a spec with places for them"));
        later(w);
        return;
    }
    input = args.spec;
    if (!w->started_ns)
        begin(w);
    args.redactor = w->secrets.redactor ? w->secrets.redactor : w->key_redactor;
    args.with_secrets = w->secrets.redactor != NULL;
    args.gateway = w->gateway;
    w->item_timed_out = false;
    if (cox_slice_is(w->assign.handler, "bundle") && !cox_json_member(args.spec, "input", &input))
        input = cox_slice_str("null");
    if (w->program)
        w->call = pool_call(w->host->pool, w->program, &args, input, on_done, on_call_log, w);
    else if (cox_slice_is(w->assign.handler, "http"))
        w->call = http_call(w->host->http, &args, on_done, on_call_log, w);
    else if (cox_slice_is(w->assign.handler, "mcp"))
        w->call = mcp_call(w->host->mcp, &args, on_done, on_call_log, w);
    else
        w->call = run_start(&w->host->handlers, &args, on_done, on_call_log, w);
    work_secrets_forget(&w->secrets);
    if (batch && w->assign.timeout_ms > 0)
        event_add(w->timer, limit_of(w, &tv));
}

/* ---------------------------------------------------------------- the way */

static bool calls_left(const struct work *w)
{
    return w->n_done < w->n_calls && w->code == COX_CODE_NONE && !w->killed;
}

static bool wants_artifacts(const struct work *w)
{
    return w->assign.artifacts_json.len > 0 && !w->artifacts_begun && !w->killed &&
           w->code == COX_CODE_NONE && !work_is_batch(w) && w->n_done == 1 &&
           w->done[0].code == COX_CODE_NONE && w->continuation.len == 0;
}

/* No process of it is left that may ask. */
static void close_gateway(struct work *w)
{
    if (!w->gateway)
        return;
    gateway_revoke(w->gateway);
    work_keep_stored(w);
}

void work_proceed(struct work *w)
{
    if (w->ended || w->call || w->n_fetching > 0)
        return;
    if (calls_left(w)) {
        if (w->n_storing < WORK_STORES_MAX)
            start_call(w);
        return;
    }
    close_gateway(w);
    if (wants_artifacts(w))
        work_keep_artifacts(w);
    if (w->use.workspace && w->started_ns && !w->save_begun && !w->killed)
        work_keep_files(w);
    if ((w->n_storing == 0 && !w->saving) || w->killed)
        tell(w);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct work *w = arg;

    (void)fd;
    (void)what;
    if (w->call) {
        w->item_timed_out = true;
        w->call->ops->kill(w->call);
    } else {
        work_proceed(w);
    }
}

void work_kill(struct work *w)
{
    if (w->killed || w->ended)
        return;
    w->killed = true;
    if (w->gateway)
        gateway_revoke(w->gateway);
    if (w->call) {
        w->call->ops->kill(w->call);
        return;
    }
    w->n_fetching = 0; /* what still comes is of no use */
    later(w);
}

/* ---------------------------------------------------------------- prepare */

static void on_fetched(struct courier_job *job, void *user)
{
    struct work *w = user;

    if (!w) {
        courier_job_free(job);
        return;
    }
    for (size_t i = 0; i < w->n_fetches; i++)
        if (w->fetches[i] == job)
            w->fetches[i] = NULL;
    if (job->code != COX_CODE_NONE) {
        work_fail(w, job->code, cox_buf_slice(&job->message));
    } else {
        w->held = cox_realloc(w->held, w->n_held + 1, sizeof(struct cache_entry *));
        w->held[w->n_held++] = job->entry;
        if (job->kind == COURIER_FETCH_BUNDLE)
            w->bundle_dir = cache_path(job->entry);
        else
            w->blob_files[w->n_blob_files++] = cache_path(job->entry);
        job->entry = NULL;
        if (job->program)
            w->program = job->program;
        job->program = NULL;
    }
    courier_job_free(job);
    if (w->killed || w->ended)
        return;
    w->n_fetching--;
    work_proceed(w);
}

static struct courier_job *fetch(struct work *w, enum courier_kind kind, const char *hex)
{
    struct courier_job *job;

    if (!w->host->courier) {
        work_fail(w, COX_CODE_UNAVAILABLE,
                  cox_slice_str("this worker has no orchestrator to fetch blobs from"));
        return NULL;
    }
    job = courier_job(w->host->courier, kind);
    memcpy(job->hex, hex, sizeof(job->hex));
    cache_tenant(job->tenant, w->assign.tenant);
    job->attempt = w->assign.ref;
    job->on_done = on_fetched;
    job->user = w;
    w->fetches = cox_realloc(w->fetches, w->n_fetches + 1, sizeof(struct courier_job *));
    w->fetches[w->n_fetches++] = job;
    w->n_fetching++;
    return job;
}

static void fetch_bundle(struct work *w)
{
    bool is_program = cox_slice_is(w->assign.handler, "bundle");
    char hex[BLOB_HEX_LEN + 1];
    struct courier_job *job;
    char *path = is_program ? work_spec_program(first_spec(w)) : NULL;

    if (is_program && !path)
        work_fail(w, COX_CODE_INPUT_INVALID, cox_slice_str("path: expected that of a program in the bundle"));
    if (w->assign.bundle.len == 0 && is_program)
        work_fail(w, COX_CODE_INPUT_INVALID, cox_slice_str("the task has no bundle to find the program in"));
    else if (w->assign.bundle.len > 0 && !blob_parse(w->assign.bundle, hex))
        work_fail(w, COX_CODE_INPUT_INVALID, cox_slice_str("bundle: expected sha256: and 64 hex digits"));
    else if (w->assign.bundle.len > 0 && w->code == COX_CODE_NONE &&
             (job = fetch(w, COURIER_FETCH_BUNDLE, hex)) != NULL) {
        job->path = path;
        path = NULL;
    }
    cox_free(path);
}

static void fetch_blobs(struct work *w)
{
    struct blob_refs *refs = COX_NEW(struct blob_refs);
    enum cox_err err = blob_find(w->assign.spec_json, refs);

    for (size_t i = 0; err != COX_ERR_FULL && i < w->assign.n_items; i++)
        err = blob_find(w->assign.items[i].spec_json, refs);
    if (err != COX_ERR_FULL)
        err = blob_find(w->assign.continuation_json, refs);
    if (err == COX_ERR_FULL)
        work_fail(w, COX_CODE_INPUT_INVALID, cox_slice_str("the input refers to more than 256 blobs"));
    w->blob_files = cox_calloc(refs->n + 1, sizeof(*w->blob_files));
    for (size_t i = 0; w->code == COX_CODE_NONE && i < refs->n; i++)
        fetch(w, COURIER_FETCH_BLOB, refs->hex[i]);
    if (refs->n > 0 && w->n_fetches > 0)
        w->blobs_dir =
            cache_dir(courier_cache(w->host->courier), CACHE_BLOB, w->fetches[w->n_fetches - 1]->tenant);
    cox_free(refs);
}

static void on_secrets(void *user, enum cox_code code, struct cox_slice message)
{
    struct work *w = user;

    if (code != COX_CODE_NONE)
        work_fail(w, code, message);
    if (w->killed || w->ended)
        return;
    w->n_fetching--;
    work_proceed(w);
}

static void on_restored(struct workspace_use *use, enum cox_code code, struct cox_slice why)
{
    struct work *w = COX_CONTAINER_OF(use, struct work, use);
    struct cox_buf message = { 0 };

    if (code != COX_CODE_NONE) {
        cox_buf_append_str(&message, "cannot restore the workspace: ");
        cox_buf_append_slice(&message, why);
        work_fail(w, code, cox_buf_slice(&message));
        cox_buf_fini(&message);
    }
    if (w->killed || w->ended)
        return;
    w->n_fetching--;
    work_proceed(w);
}

static void await_files(struct work *w)
{
    if (!w->use.workspace || workspace_is_ready(&w->use))
        return;
    w->use.on_done = on_restored;
    w->n_fetching++;
    workspace_await(&w->use);
}

static void find_program(struct work *w)
{
    struct cox_buf message = { 0 };
    enum cox_code code = work_find_program(w->host, &w->assign, &w->program, &message);

    if (code != COX_CODE_NONE)
        work_fail(w, code, cox_buf_slice(&message));
    cox_buf_fini(&message);
}

static void prepare(struct work *w)
{
    struct cox_slice handler = w->assign.handler;
    bool is_http = cox_slice_is(handler, "http") && w->host->http;
    bool is_mcp = cox_slice_is(handler, "mcp") && w->host->mcp;
    bool is_here = cox_slice_is(handler, "run") || is_http || is_mcp;

    if (!is_here && !cox_slice_is(handler, "bundle"))
        find_program(w);
    /* Before secrets are asked for: it is kept out of the same places. */
    if (w->code == COX_CODE_NONE && w->host->gateway && !is_http && !is_mcp && !cox_slice_is(handler, "jq"))
        w->gateway = gateway_admit(w->host->gateway, &w->assign);
    if (w->code == COX_CODE_NONE && !work_make_dir(w->host, &w->assign, w->own_dir, &w->use, &w->dir)) {
        struct cox_buf message = { 0 };

        cox_buf_printf(&message, "cannot make a working directory: %s", strerror(errno));
        work_fail(w, COX_CODE_UNAVAILABLE, cox_buf_slice(&message));
        cox_buf_fini(&message);
    }
    if (w->code == COX_CODE_NONE)
        fetch_bundle(w);
    if (w->code == COX_CODE_NONE)
        fetch_blobs(w);
    w->secrets.on_done = on_secrets;
    w->secrets.user = w;
    if (w->code == COX_CODE_NONE)
        w->n_fetching += work_secrets_ask(&w->secrets, w->host->secrets, w->assign.tenant, first_spec(w),
                                          w->gateway ? gateway_key(w->gateway) : "");
    if (w->code == COX_CODE_NONE)
        await_files(w);
    for (size_t i = 0; i < w->n_fetches; i++)
        courier_submit(w->fetches[i]);
    if (w->n_fetching == 0 && w->code == COX_CODE_NONE)
        start_call(w);
    else if (w->n_fetching == 0)
        later(w);
}

/* ---------------------------------------------------------------- log */

void work_log_more(struct work *w)
{
    enum livelog_stream stream;
    struct cox_slice data;
    bool dropped;

    while (w->log_wanted && livelog_peek(&w->log, &stream, &data, &dropped) &&
           w->host->ops->on_log(w, stream, data, dropped, w->user))
        livelog_advance(&w->log);
}

void work_log(struct work *w, bool wanted)
{
    w->log_wanted = wanted;
    if (!wanted)
        return;
    livelog_rewind(&w->log);
    work_log_more(w);
}

/* ---------------------------------------------------------------- life */

struct work *work_start(struct work_host *host, const struct cox_agent_assign *assign, void *user)
{
    struct work *w = COX_NEW(struct work);

    w->host = host;
    w->user = user;
    cox_agent_copy_assign(&w->body, &w->assign, assign);
    w->own_dir = cox_asprintf("%s/a%llu", host->dir, (unsigned long long)++host->n_works);
    w->n_calls = work_is_batch(w) ? assign->n_items : 1;
    w->done = cox_calloc(w->n_calls, sizeof(*w->done));
    w->timer = evtimer_new(host->handlers.base, on_timer, w);
    livelog_init(&w->log, host->log_len_max);
    prepare(w);
    return w;
}

static void drop_jobs(struct work *w)
{
    for (size_t i = 0; i < w->n_fetches; i++)
        if (w->fetches[i]) {
            atomic_store(&w->fetches[i]->cancelled, true);
            w->fetches[i]->user = NULL;
        }
    work_drop_stores(w);
    cox_free(w->fetches);
}

void work_destroy(struct work *w)
{
    if (!w)
        return;
    if (w->call)
        w->call->ops->destroy(w->call);
    drop_jobs(w);
    gateway_attempt_free(w->gateway);
    redactor_unref(w->key_redactor);
    for (size_t i = 0; i < w->n_held; i++)
        cache_release(courier_cache(w->host->courier), w->held[i]);
    if (w->use.workspace)
        workspace_release(&w->use);
    else
        janitor_remove(w->host->janitor, w->own_dir);
    for (size_t i = 0; i < w->n_calls; i++) {
        cox_buf_fini(&w->done[i].message);
        cox_buf_fini(&w->done[i].output);
    }
    work_secrets_fini(&w->secrets);
    program_unref(w->program);
    event_free(w->timer);
    livelog_fini(&w->log);
    cox_free(w->done);
    cox_free(w->held);
    cox_free(w->blobs);
    cox_free(w->blob_files);
    cox_free(w->own_dir);
    cox_free(w->blobs_dir);
    cox_buf_fini(&w->artifacts);
    cox_buf_fini(&w->files_note);
    cox_free(w->packs);
    cox_buf_fini(&w->continuation);
    cox_buf_fini(&w->message);
    cox_buf_fini(&w->body);
    cox_free(w);
}
