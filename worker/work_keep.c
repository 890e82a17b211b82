/* What of an attempt's end is too large for a result, or belongs beside it. */
#include "unpack.h"
#include "work_state.h"

#include "cox/base/alloc.h"
#include "cox/base/log.h"
#include "cox/json.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void fit_output(struct work *w, struct done *d);

static void add_blob(struct work *w, const struct cox_hash *hash)
{
    for (size_t i = 0; i < w->n_blobs; i++)
        if (memcmp(&w->blobs[i], hash, sizeof(*hash)) == 0)
            return;
    w->blobs = cox_realloc(w->blobs, w->n_blobs + 1, sizeof(*w->blobs));
    w->blobs[w->n_blobs++] = *hash;
}

/* What was stored takes its place in the result. */
static void place(struct work *w, const struct store *s)
{
    const struct courier_job *job = s->job;
    struct cox_buf *out = s->done ? &s->done->output : &w->artifacts;

    add_blob(w, &job->hash);
    if (!s->done) {
        if (out->len > 0)
            out->data[out->len - 1] = ',';
        else
            cox_buf_append_str(out, "{");
        cox_buf_append_slice(out, cox_buf_slice(&s->name));
        cox_buf_append_str(out, ":");
        blob_put(out, &job->hash, job->len);
        cox_buf_append_str(out, "}");
    } else if (s->what == OUTCOME_OUTPUT) {
        cox_buf_clear(out);
        blob_put(out, &job->hash, job->len);
    } else {
        out->len--; /* the object's brace */
        cox_buf_append_str(out, s->what == OUTCOME_STDOUT ? ",\"stdout_blob\":" : ",\"stderr_blob\":");
        blob_put(out, &job->hash, job->len);
        cox_buf_append_str(out, "}");
    }
}

/* What cannot be stored fails what it is of: an item, or all of it. */
static void lose(struct work *w, struct done *d, enum cox_code code, struct cox_slice message)
{
    if (d)
        cox_buf_fini(&d->output);
    if (!d || !work_is_batch(w)) {
        work_fail(w, code, message);
        return;
    }
    cox_buf_clear(&d->message);
    cox_buf_append_slice(&d->message, message);
    d->code = code;
    d->status = COX_ATTEMPT_FAILED;
}

static void fail_store(struct work *w, const struct store *s)
{
    const struct courier_job *job = s->job;
    struct cox_buf message = { 0 };

    if (s->done && s->what != OUTCOME_OUTPUT) {
        /* The end of it is in the output: the step is not worth less for that. */
        cox_log(COX_LOG_WARN, "kept only the end of a step's output", "why", cox_buf_cstr(&s->job->message),
                NULL);
        return;
    }
    cox_buf_printf(&message, "cannot store %s: ", s->done ? "the output" : "an artifact");
    cox_buf_append_slice(&message, cox_buf_slice(&job->message));
    lose(w, s->done, job->code, cox_buf_slice(&message));
    cox_buf_fini(&message);
}

static void free_store(struct store *s)
{
    cox_buf_fini(&s->name);
    cox_free(s);
}

static void on_stored(struct courier_job *job, void *user)
{
    struct store *s = user;
    struct work *w = s ? s->work : NULL;

    if (!w) {
        courier_job_free(job);
        return;
    }
    if (job->code == COX_CODE_NONE)
        place(w, s);
    else
        fail_store(w, s);
    if (s->done && --s->done->n_stores == 0 && s->what != OUTCOME_OUTPUT)
        fit_output(w, s->done);
    for (size_t i = 0; i < w->n_stores; i++)
        if (w->stores[i] == s)
            w->stores[i] = w->stores[--w->n_stores];
    courier_job_free(job);
    free_store(s);
    w->n_storing--;
    work_proceed(w);
}

/* Takes over `fd` and `name`. */
static void store(struct work *w, int fd, struct done *done, enum outcome_file what, struct cox_buf name)
{
    struct store *s;

    if (!w->host->courier) {
        close(fd);
        cox_buf_fini(&name);
        if (!done || what == OUTCOME_OUTPUT)
            lose(w, done, COX_CODE_UNAVAILABLE,
                 cox_slice_str("this worker has nowhere to store large values"));
        return;
    }
    if (done)
        done->n_stores++;
    s = COX_NEW(struct store);
    *s = (struct store){ .work = w, .done = done, .what = what, .name = name };
    s->job = courier_job(w->host->courier, COURIER_STORE);
    s->job->fd = fd;
    cache_tenant(s->job->tenant, w->assign.tenant);
    s->job->attempt = w->assign.ref;
    s->job->is_json = done && what == OUTCOME_OUTPUT;
    if (!done || s->job->is_json) /* of text the handler has taken care */
        s->job->redactor = redactor_ref(w->secrets.redactor);
    s->job->on_done = on_stored;
    s->job->user = s;
    w->stores = cox_realloc(w->stores, w->n_stores + 1, sizeof(struct store *));
    w->stores[w->n_stores++] = s;
    w->n_storing++;
    courier_submit(s->job);
}

/* An output that is too long for the result moves to a file first. */
static void store_output(struct work *w, struct done *d)
{
    int fd = outcome_file(w->host->dir);

    if (fd < 0 || !outcome_write(fd, cox_buf_slice(&d->output))) {
        lose(w, d, COX_CODE_UNAVAILABLE,
             cox_slice_str("cannot keep the output: the worker's disk is not writable"));
        if (fd >= 0)
            close(fd);
        return;
    }
    cox_buf_fini(&d->output);
    store(w, fd, d, OUTCOME_OUTPUT, (struct cox_buf){ 0 });
}

bool work_is_too_long(const struct work *w, size_t len)
{
    if (!work_is_batch(w))
        return len > COX_LOGGED_PAYLOAD_LEN_MAX;
    return len > COX_ITEM_OUTPUT_LEN_MAX || (w->inline_len > WORK_INLINE_LEN_MAX && len > WORK_SMALL_LEN_MAX);
}

/* Once its parts have their places in it. */
static void fit_output(struct work *w, struct done *d)
{
    if (work_is_too_long(w, d->output.len))
        store_output(w, d);
    else
        w->inline_len += d->output.len;
}

/* A blob stands for a value only when it is JSON, and what a process stores may be anything. */
static bool is_stored(const struct work *w, struct cox_slice output)
{
    const struct cox_hash *stored;
    size_t n = w->gateway ? gateway_stored(w->gateway, &stored) : 0;
    char asked[BLOB_HEX_LEN + 1], hex[BLOB_HEX_LEN + 1];
    bool is = false;

    if (n == 0 || output.len == 0 || cox_json_kind(output) != COX_JSON_OBJECT || !blob_ref(output, asked))
        return false;
    for (size_t i = 0; i < n; i++) {
        blob_hex(&stored[i], hex);
        is |= strcmp(hex, asked) == 0;
    }
    return is;
}

void work_keep_call(struct work *w, struct done *d, struct outcome *o)
{
    if (is_stored(w, cox_buf_slice(&d->output)))
        lose(
            w, d, COX_CODE_OUTPUT_INVALID,
            cox_slice_str("the output is nothing but a blob that was stored: expected an object that has it, "
                          "{\"file\": {\"$blob\": ...}}"));
    for (enum outcome_file what = 0; what < OUTCOME_FILE_NR; what++)
        if (o->files[what] >= 0) {
            store(w, o->files[what], d, what, (struct cox_buf){ 0 });
            o->files[what] = -1;
        }
    if (d->n_stores == 0)
        fit_output(w, d);
}

/* One file of the working directory; false when it is not there. */
static bool keep_artifact(struct work *w, int dir_fd, struct cox_slice raw_name, struct cox_slice raw_path)
{
    struct cox_buf path = { 0 }, name = { 0 }, message = { 0 };
    int fd;

    cox_json_unquote(&path, raw_path);
    cox_buf_append_slice(&name, raw_name);
    fd = memchr(cox_buf_cstr(&path), 0, path.len) ? -1 : open_within(dir_fd, cox_buf_cstr(&path));
    if (fd < 0) {
        cox_buf_append_str(&message, "artifact ");
        cox_buf_append_slice(&message, raw_name);
        cox_buf_printf(
            &message, ": expected a file \"%.300s\" in the working directory: %s", cox_buf_cstr(&path),
            errno == EINVAL || errno == ELOOP ? "not a path of a file within it" : strerror(errno));
        work_fail(w, COX_CODE_OUTPUT_INVALID, cox_buf_slice(&message));
        cox_buf_fini(&name);
    } else {
        store(w, fd, NULL, OUTCOME_OUTPUT, name);
    }
    cox_buf_fini(&path);
    cox_buf_fini(&message);
    return fd >= 0;
}

void work_keep_artifacts(struct work *w)
{
    int dir_fd = open(w->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    size_t n = 0;
    bool ok = dir_fd >= 0;

    w->artifacts_begun = true;
    if (!ok)
        work_fail(w, COX_CODE_OUTPUT_INVALID, cox_slice_str("artifacts: the working directory is gone"));
    for (struct cox_json_walk it = cox_json_walk(w->assign.artifacts_json); ok && cox_json_next(&it); n++) {
        ok = n < WORK_ARTIFACTS_MAX && keep_artifact(w, dir_fd, it.key, it.value);
        if (n == WORK_ARTIFACTS_MAX)
            work_fail(w, COX_CODE_INPUT_INVALID, cox_slice_str("artifacts: expected at most 256"));
    }
    if (dir_fd >= 0)
        close(dir_fd);
}

void work_keep_stored(struct work *w)
{
    const struct cox_hash *stored;
    size_t n = gateway_stored(w->gateway, &stored);

    for (size_t i = 0; i < n; i++)
        add_blob(w, &stored[i]);
}

void work_drop_stores(struct work *w)
{
    for (size_t i = 0; i < w->n_stores; i++) {
        atomic_store(&w->stores[i]->job->cancelled, true);
        w->stores[i]->job->user = NULL;
        free_store(w->stores[i]);
    }
    cox_free(w->stores);
}

/* ---------------------------------------------------------------- a shared workspace */

/* That it cannot be saved is not the step's fault: it is told, and the files are where they are. */
static void on_saved(struct workspace_use *use, enum cox_code code, struct cox_slice why)
{
    struct work *w = COX_CONTAINER_OF(use, struct work, use);

    w->saving = false;
    if (code == COX_CODE_NONE) {
        const struct cox_hash *packs;

        workspace_saved(use, &w->files_note, &w->files);
        packs = w->files.packs;
        w->packs = cox_calloc(w->files.n_packs + 1, sizeof(*w->packs));
        memcpy(w->packs, packs, w->files.n_packs * sizeof(*w->packs));
        w->files.packs = w->packs;
    } else {
        cox_buf_append_slice(&w->files_note, why);
        w->files = (struct cox_agent_files){ .told = true };
        cox_log(COX_LOG_WARN, "a workspace was not saved", "why", cox_buf_cstr(&w->files_note), NULL);
    }
    w->files.note = cox_buf_slice(&w->files_note);
    work_proceed(w);
}

void work_keep_files(struct work *w)
{
    w->save_begun = true;
    w->use.on_done = on_saved;
    w->saving = workspace_save(&w->use);
}
