#include "work_prepare.h"

#include "catalogue.h"
#include "secret_spec.h"
#include "wiped.h"

#include "cox/base/alloc.h"
#include "cox/base/err.h"
#include "cox/base/plant.h"
#include "cox/json.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

char *work_spec_program(struct cox_slice text)
{
    struct secret_spec s;

    secret_spec_read(text, &s);
    return blob_program_path(s.spec);
}

enum cox_code work_find_program(const struct work_host *host, const struct cox_agent_assign *assign,
                                struct program **ret, struct cox_buf *message)
{
    struct cox_slice handler = assign->handler, version = assign->version;
    struct program *p = NULL;

    if (cox_slice_is(handler, "jq") && host->jq)
        p = program_ref(host->jq);
    else if (host->catalogue)
        p = catalogue_find(host->catalogue, handler);
    *ret = p;
    if (!p) {
        cox_buf_printf(message, "this worker has no handler \"%.*s\"", (int)handler.len,
                       (const char *)handler.data);
        return COX_CODE_INPUT_INVALID;
    }
    if (version.len > 0 && !cox_slice_is(version, p->version)) {
        cox_buf_printf(message, "this worker has version %s of %s; the task is pinned to %.*s", p->version,
                       p->handler, (int)version.len, (const char *)version.data);
        return COX_CODE_UNAVAILABLE;
    }
    return COX_CODE_NONE;
}

bool work_make_dir(struct work_host *host, const struct cox_agent_assign *assign, const char *own_dir,
                   struct workspace_use *use, const char **ret_dir)
{
    bool shared;

    *ret_dir = own_dir;
    if (assign->workspace.len == 0 || !host->workspaces)
        return mkdir(own_dir, 0700) == 0 ||
               (errno == ENOENT && host->remake_dir && host->remake_dir(host) && mkdir(own_dir, 0700) == 0);
    shared = workspaces_hold(host->workspaces, assign, use);
    if (!shared && errno == ENOENT && host->remake_dir && host->remake_dir(host))
        shared = workspaces_hold(host->workspaces, assign, use);
    *ret_dir = shared ? workspace_dir(use) : NULL;
    return shared;
}

/* ---------------------------------------------------------------- secrets */

static void on_looked_up(struct secret_job *job, void *user)
{
    struct work_secrets *ws = user;

    if (!ws) {
        secret_job_free(job);
        return;
    }
    ws->waiting = false;
    ws->redactor = job->redactor;
    job->redactor = NULL;
    ws->on_done(ws->user, job->code, cox_buf_slice(&job->message));
}

bool work_secrets_ask(struct work_secrets *ws, struct secrets *from, struct cox_slice tenant,
                      struct cox_slice spec, const char *key)
{
    struct secret_spec s;

    if (!from || !secret_spec_read(spec, &s))
        return false;
    ws->job = secret_job(tenant, s.n);
    for (size_t i = 0; i < s.n; i++) {
        struct cox_buf name = { 0 };

        cox_json_unquote(&name, s.references[i]);
        ws->job->names[i] = cox_strdup(cox_buf_cstr(&name));
        cox_buf_fini(&name);
    }
    wiped_reserve(&ws->job->also, strlen(key) + 1);
    cox_buf_append_str(&ws->job->also, key);
    ws->job->on_done = on_looked_up;
    ws->job->user = ws;
    ws->asked = ws->waiting = true;
    secrets_submit(from, ws->job);
    return true;
}

/* All items of a batch were made from one document: their secrets are those of the first. */
static bool is_the_same(const struct secret_job *job, const struct secret_spec *s)
{
    bool same = job->n == s->n;

    for (size_t i = 0; same && i < s->n; i++)
        same = cox_json_string_is(s->references[i], cox_slice_str(job->names[i]));
    return same;
}

enum cox_err work_secrets_fill(struct work_secrets *ws, struct cox_slice spec, struct cox_slice *ret)
{
    struct cox_slice values[SECRET_SPEC_KEYS_MAX];
    struct secret_spec s;

    *ret = spec;
    if (!ws->asked)
        return COX_OK;
    if (!secret_spec_read(spec, &s) || !is_the_same(ws->job, &s))
        return COX_ERR_INVALID;
    for (size_t i = 0; i < s.n; i++)
        values[i] = cox_buf_slice(&ws->job->values[i]);
    work_secrets_forget(ws);
    if (secret_spec_fill(&s, values, &ws->spec) != COX_OK)
        return COX_ERR_INVALID;
    *ret = cox_buf_slice(&ws->spec);
    return COX_OK;
}

void work_secrets_forget(struct work_secrets *ws)
{
    wiped_fini(&ws->spec);
}

void work_redact(const struct redactor *r, struct outcome *o)
{
    if (!r || COX_PLANTED("redact-nothing"))
        return;
    redact_text(r, &o->message);
    redact_json(r, &o->output);
    redact_json(r, &o->continuation);
}

void work_secrets_fini(struct work_secrets *ws)
{
    if (ws->job && ws->waiting)
        ws->job->user = NULL;
    else if (ws->job)
        secret_job_free(ws->job);
    redactor_unref(ws->redactor);
    wiped_fini(&ws->spec);
}
