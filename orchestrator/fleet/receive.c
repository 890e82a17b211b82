/* What workers say, turned into the engine's inputs, in the order of the message's fields. */
#include "session.h"

#include "../programs.h"

#include "../sha256.h"

#include "cox/attach.h"
#include "cox/base/alloc.h"
#include "cox/base/log.h"
#include "cox/base/plant.h"
#include "cox/json.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HANDLER_LEN_MAX 128u

static const char *wrong(struct cox_session *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static const char *wrong(struct cox_session *s, const char *fmt, ...)
{
    char *text = cox_arena_alloc(&s->fleet->arena, COX_ERROR_MESSAGE_LEN_MAX);
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, COX_ERROR_MESSAGE_LEN_MAX, fmt, args);
    va_end(args);
    return text;
}

bool cox_ref_read(const Coxswain__V1__AttemptRef *m, struct cox_ref *ret)
{
    if (!m || !m->token || m->task == 0)
        return false;
    *ret =
        (struct cox_ref){ .task = m->task, .step = m->step, .token = { m->token->epoch, m->token->counter } };
    return true;
}

static void feed(struct cox_session *s, enum cox_input_kind kind)
{
    cox_driver_step(s->fleet->driver, &(struct cox_input){ .kind = kind, .u.session.session = s->number });
}

/* ---- hello ---- */

static int by_name(const void *a, const void *b)
{
    const struct cox_label *x = a, *y = b;

    return cox_slice_cmp(x->name, y->name);
}

static int by_text(const void *a, const void *b)
{
    return cox_slice_cmp(*(const struct cox_slice *)a, *(const struct cox_slice *)b);
}

static const char *check_text(struct cox_session *s, const char *field, const char *text, size_t len_max)
{
    size_t len = strlen(text);

    if (len == 0)
        return wrong(s, "hello.%s: empty", field);
    if (len > len_max)
        return wrong(s, "hello.%s: %zu bytes, at most %zu", field, len, len_max);
    return NULL;
}

static const char *read_labels(struct cox_session *s, const Coxswain__V1__Hello *h, struct cox_in_attach *in)
{
    if (h->n_labels > COX_WORKER_LABELS_MAX)
        return wrong(s, "hello.labels: %zu, at most %u", h->n_labels, COX_WORKER_LABELS_MAX);
    struct cox_label *labels = cox_arena_alloc(&s->fleet->arena, (h->n_labels + 1) * sizeof(*labels));

    for (size_t i = 0; i < h->n_labels; i++) {
        labels[i] =
            (struct cox_label){ cox_slice_str(h->labels[i]->key), cox_slice_str(h->labels[i]->value) };
        if (labels[i].name.len == 0)
            return wrong(s, "hello.labels: a label without a name");
        if (labels[i].name.len > COX_LABEL_LEN_MAX || labels[i].value.len > COX_LABEL_LEN_MAX)
            return wrong(s, "hello.labels: a name or value of more than %u bytes", COX_LABEL_LEN_MAX);
    }
    qsort(labels, h->n_labels, sizeof(*labels), by_name);
    for (size_t i = 1; i < h->n_labels; i++) {
        if (cox_slice_eq(labels[i - 1].name, labels[i].name))
            return wrong(s, "hello.labels: \"%s\" is there twice", (const char *)labels[i].name.data);
    }
    in->labels = labels;
    in->n_labels = h->n_labels;
    return NULL;
}

static const char *read_handlers(struct cox_session *s, const Coxswain__V1__Hello *h,
                                 struct cox_in_attach *in)
{
    if (h->n_handlers == 0 || h->n_handlers > COX_WORKER_HANDLERS_MAX)
        return wrong(s, "hello.handlers: %zu, expected 1 to %u", h->n_handlers, COX_WORKER_HANDLERS_MAX);
    struct cox_slice *handlers = cox_arena_alloc(&s->fleet->arena, h->n_handlers * sizeof(*handlers));
    size_t n = 0;

    for (size_t i = 0; i < h->n_handlers; i++) {
        handlers[i] = cox_slice_str(h->handlers[i]);
        if (handlers[i].len == 0 || handlers[i].len > HANDLER_LEN_MAX)
            return wrong(s, "hello.handlers[%zu]: %zu bytes, expected 1 to %u", i, handlers[i].len,
                         HANDLER_LEN_MAX);
    }
    qsort(handlers, h->n_handlers, sizeof(*handlers), by_text);
    for (size_t i = 0; i < h->n_handlers; i++) {
        if (n == 0 || !cox_slice_eq(handlers[n - 1], handlers[i]))
            handlers[n++] = handlers[i];
    }
    in->handlers = handlers;
    in->n_handlers = n;
    return NULL;
}

/* The exact version of each handler "name@major" that a program stands behind. */
static const char *read_programs(struct cox_session *s, const Coxswain__V1__Hello *h,
                                 struct cox_in_attach *in)
{
    if (h->n_programs > COX_WORKER_HANDLERS_MAX)
        return wrong(s, "hello.programs: %zu, at most %u", h->n_programs, COX_WORKER_HANDLERS_MAX);
    struct cox_slice *versions = cox_arena_alloc(&s->fleet->arena, (in->n_handlers + 1) * sizeof(*versions));

    memset(versions, 0, in->n_handlers * sizeof(*versions));
    for (size_t i = 0; i < h->n_programs; i++) {
        const Coxswain__V1__Program *p = h->programs[i];
        size_t major_len = strcspn(p->version, ".");
        char name[HANDLER_LEN_MAX + 1];
        int len = snprintf(name, sizeof(name), "%s@%.*s", p->name, (int)(major_len < 32 ? major_len : 32),
                           p->version);
        if (strlen(p->version) > COX_PROGRAM_VERSION_LEN_MAX)
            return wrong(s, "hello.programs[%zu].version: %zu bytes, at most %u", i, strlen(p->version),
                         COX_PROGRAM_VERSION_LEN_MAX);
        struct cox_slice handler = cox_slice(name, len < (int)sizeof(name) ? (size_t)len : sizeof(name) - 1);
        const struct cox_slice *found =
            bsearch(&handler, in->handlers, in->n_handlers, sizeof(*in->handlers), by_text);
        if (!found)
            continue;
        versions[found - in->handlers] = cox_slice_str(p->version);
        cox_programs_put(cox_driver_programs(s->fleet->driver), handler, cox_slice_str(p->description),
                         cox_slice(p->input_schema_json.data, p->input_schema_json.len));
    }
    in->versions = versions;
    return NULL;
}

static const char *read_holds(struct cox_session *s, const Coxswain__V1__Hello *h, struct cox_in_attach *in)
{
    if (h->shard_uid != cox_driver_uid(s->fleet->driver))
        return NULL;
    struct cox_ref *holds = cox_arena_alloc(&s->fleet->arena, (h->n_holds + 1) * sizeof(*holds));

    for (size_t i = 0; i < h->n_holds; i++) {
        if (!cox_ref_read(h->holds[i], &holds[i]))
            return wrong(s, "hello.holds[%zu]: no task or no token", i);
    }
    in->holds = holds;
    in->n_holds = h->n_holds;
    return NULL;
}

static const char *read_resources(struct cox_session *s, const Coxswain__V1__Hello *h,
                                  struct cox_in_attach *in)
{
    const Coxswain__V1__Resources *r = h->resources;

    if (!r)
        return NULL;
    if (r->cpu_milli < 0 || r->memory_bytes < 0 || r->disk_bytes < 0)
        return wrong(s, "hello.resources: a negative amount");
    in->resources = (struct cox_resources){ r->cpu_milli, r->memory_bytes, r->disk_bytes };
    return NULL;
}

static const char *receive_hello(struct cox_session *s, const Coxswain__V1__Hello *h)
{
    struct cox_input in = { .kind = COX_IN_ATTACH };
    const char *bad;

    if ((bad = check_text(s, "worker_id", h->worker_id, COX_WORKER_ID_LEN_MAX)) ||
        (bad = check_text(s, "boot_id", h->boot_id, COX_WORKER_ID_LEN_MAX)))
        return bad;
    if (strcmp(h->worker_id, COX_ATTACH_ROUTER_ID) == 0 && !cox_rpc_call_inside(s->call) &&
        !COX_PLANTED("router-by-name"))
        return wrong(s, "hello.worker_id: \"%s\" is coxd's own", COX_ATTACH_ROUTER_ID);
    if (strlen(h->version) > COX_WORKER_ID_LEN_MAX)
        return wrong(s, "hello.version: more than %u bytes", COX_WORKER_ID_LEN_MAX);
    in.u.attach.inner = cox_rpc_call_inside(s->call);
    if (h->slots == 0 || h->slots > COX_WORKER_SLOTS_MAX)
        return wrong(s, "hello.slots: %u, expected 1 to %u", h->slots, COX_WORKER_SLOTS_MAX);
    if ((bad = read_labels(s, h, &in.u.attach)) || (bad = read_handlers(s, h, &in.u.attach)) ||
        (bad = read_programs(s, h, &in.u.attach)) || (bad = read_resources(s, h, &in.u.attach)) ||
        (bad = read_holds(s, h, &in.u.attach)))
        return bad;
    for (size_t i = 0; i < in.u.attach.n_handlers && !in.u.attach.inner; i++) {
        if (cox_slice_is(in.u.attach.handlers[i], "model"))
            return "hello.handlers: \"model\" is offered by the orchestrator's router alone";
    }
    s->inner = in.u.attach.inner;
    s->worker_id = cox_strdup(h->worker_id);
    s->attached = true;
    in.u.attach.session = s->number;
    in.u.attach.worker_id = cox_slice_str(h->worker_id);
    in.u.attach.boot_id = cox_slice_str(h->boot_id);
    in.u.attach.version = cox_slice_str(h->version);
    in.u.attach.slots = h->slots;
    cox_session_send_welcome(s, cox_driver_uid(s->fleet->driver));
    cox_driver_step(s->fleet->driver, &in);
    cox_log(COX_LOG_INFO, "worker attached", "worker", s->worker_id, "session", COX_LOG_NUM(s->number),
            "slots", COX_LOG_NUM(h->slots), "holds", COX_LOG_NUM(in.u.attach.n_holds), "peer",
            cox_rpc_call_peer(s->call), NULL);
    return NULL;
}

/* ---- results ---- */

#define SMALL_LEN_MAX ((size_t)64 << 10) /* of JSON in one result that is checked on the engine's thread */

/* A result whose values are checked and hashed on the compile thread. Its arena owns all that `in` refers to.
 */
struct large_result {
    struct cox_space space; /* of the task */
    struct cox_work work;
    struct cox_session *session;
    struct cox_input in;
    size_t output_inline_len;
    struct cox_arena arena;
};

static enum cox_code code_of(enum cox_attempt_status status, const char *text)
{
    enum cox_code code;

    if (status == COX_ATTEMPT_SUCCEEDED)
        return COX_CODE_NONE;
    if (text && cox_code_parse(cox_slice_str(text), &code))
        return code;
    if (status == COX_ATTEMPT_TIMED_OUT)
        return COX_CODE_TIMEOUT;
    return status == COX_ATTEMPT_CANCELLED ? COX_CODE_CANCELLED : COX_CODE_INTERNAL;
}

static bool ends_attempt(int status)
{
    return status == COX_ATTEMPT_SUCCEEDED || status == COX_ATTEMPT_FAILED ||
           status == COX_ATTEMPT_TIMED_OUT || status == COX_ATTEMPT_CANCELLED;
}

/* ---- values: what a worker calls a success without a valid output is none ---- */

struct complaint {
    enum cox_code code; /* NONE: nothing is wrong */
    struct cox_slice message;
};

static struct complaint complain(struct cox_arena *arena, enum cox_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static struct complaint complain(struct cox_arena *arena, enum cox_code code, const char *fmt, ...)
{
    char text[COX_ERROR_MESSAGE_LEN_MAX];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    return (struct complaint){ code, cox_slice(cox_arena_dup(arena, text, strlen(text)), strlen(text)) };
}

static struct complaint check_json(struct cox_arena *arena, const char *what, struct cox_slice json,
                                   size_t len_max)
{
    struct cox_json_place at;

    if (json.len > len_max)
        return complain(arena, COX_CODE_OUTPUT_TOO_LARGE, "the %s has %zu bytes; at most %zu fit", what,
                        json.len, len_max);
    if (json.len > 0 && cox_json_check(json, &at) != COX_OK)
        return complain(arena, COX_CODE_OUTPUT_INVALID,
                        "the %s is not JSON: expected %s at line %u, column %u", what, at.expected, at.line,
                        at.column);
    return (struct complaint){ 0 };
}

static struct complaint check_value(struct cox_arena *arena, const char *what, size_t inline_len_max,
                                    struct cox_payload *p)
{
    struct complaint c = check_json(arena, what, p->bytes, COX_LOGGED_PAYLOAD_LEN_MAX);

    if (c.code != COX_CODE_NONE) {
        *p = (struct cox_payload){ .kind = COX_PAYLOAD_NONE };
    } else if (p->bytes.len > inline_len_max) {
        p->kind = COX_PAYLOAD_STORED;
        p->hash = cox_sha256(p->bytes);
    }
    return c;
}

static void check_item(struct cox_arena *arena, struct cox_item_result *item)
{
    struct complaint c = check_json(arena, "output", item->output, COX_ITEM_OUTPUT_LEN_MAX);

    if (c.code == COX_CODE_NONE)
        return;
    item->output = cox_slice(NULL, 0);
    if (item->status != COX_ATTEMPT_SUCCEEDED)
        return;
    item->status = COX_ATTEMPT_FAILED;
    item->code = c.code;
    item->message = c.message;
}

static struct complaint check_blobs(struct cox_arena *arena, struct cox_store *store,
                                    const struct cox_space *space, const struct cox_in_result *r)
{
    char text[COX_HASH_TEXT_MAX];
    uint64_t size;

    for (size_t i = 0; i < r->n_blobs; i++) {
        if (cox_blob_known(store, space, &r->blobs[i], &size))
            continue;
        cox_hash_format(&r->blobs[i], text);
        return complain(arena, COX_CODE_OUTPUT_INVALID, "the result refers to %s, which was not uploaded",
                        text);
    }
    return (struct complaint){ 0 };
}

/* What was not uploaded cannot be restored, whatever the worker says. */
static void check_files(struct cox_arena *arena, struct cox_store *store, const struct cox_space *space,
                        struct cox_files *files)
{
    char text[COX_HASH_TEXT_MAX];
    struct complaint c;
    uint64_t size;

    for (size_t i = 0; files->saved && i < files->n_packs; i++) {
        if (cox_blob_known(store, space, &files->packs[i], &size))
            continue;
        cox_hash_format(&files->packs[i], text);
        c = complain(arena, COX_CODE_OUTPUT_INVALID, "its worker did not upload %s", text);
        files->saved = false;
        files->note = c.message;
    }
}

/* An output that is nothing but a reference to an uploaded blob is that blob: whoever reads it sees the
 * value. */
static void resolve_output(struct cox_store *store, const struct cox_space *space, struct cox_in_result *r)
{
    struct cox_slice name;
    struct cox_buf text = { 0 };
    struct cox_hash hash;
    uint64_t size;

    if (r->n_blobs == 0 || r->output.kind != COX_PAYLOAD_INLINE ||
        !cox_json_member(r->output.bytes, "$blob", &name) || cox_json_kind(name) != COX_JSON_STRING)
        return;
    cox_json_unquote(&text, name);
    bool ours = cox_hash_parse(cox_buf_slice(&text), &hash) && cox_blob_known(store, space, &hash, &size);

    cox_buf_fini(&text);
    for (size_t i = 0; ours && i < r->n_blobs; i++) {
        if (memcmp(&r->blobs[i], &hash, sizeof(hash)) == 0)
            r->output = (struct cox_payload){ .kind = COX_PAYLOAD_STORED, .hash = hash, .size = size };
    }
}

/* What an output may have that is not named by its content: an agent would copy it into its own record, and
 * each of its turns again. */
static size_t output_inline_len_max(const struct cox_session *s, const struct cox_in_result *r)
{
    return cox_engine_in_agent(cox_driver_engine(s->fleet->driver), r->ref.task) ? COX_TURN_KEPT_LEN_MIN
                                                                                 : COX_INLINE_PAYLOAD_LEN_MAX;
}

/* Checks every value, and names the large ones by content. Thread: any. */
static void settle(struct cox_arena *arena, struct cox_store *store, const struct cox_space *space,
                   size_t output_inline_len, struct cox_in_result *r)
{
    struct complaint found[4] = {
        check_value(arena, "output", output_inline_len, &r->output),
        check_value(arena, "list of artifacts", COX_INLINE_PAYLOAD_LEN_MAX, &r->artifacts),
        check_value(arena, "continuation", COX_INLINE_PAYLOAD_LEN_MAX, &r->continuation),
        check_blobs(arena, store, space, r)
    };

    check_files(arena, store, space, &r->files);
    for (size_t i = 0; i < r->n_items; i++)
        check_item(arena, (struct cox_item_result *)(uintptr_t)&r->items[i]); /* ours: made by read_items */
    for (size_t i = 0; i < sizeof(found) / sizeof(*found); i++) {
        if (found[i].code == COX_CODE_NONE || r->status != COX_ATTEMPT_SUCCEEDED)
            continue;
        r->status = COX_ATTEMPT_FAILED;
        r->code = found[i].code;
        r->message = found[i].message;
        r->continuation = (struct cox_payload){ .kind = COX_PAYLOAD_NONE };
    }
    if (r->status == COX_ATTEMPT_SUCCEEDED)
        resolve_output(store, space, r);
}

static void large_work(struct cox_work *w)
{
    struct large_result *l = COX_CONTAINER_OF(w, struct large_result, work);

    settle(&l->arena, cox_driver_store(l->session->fleet->driver), &l->space, l->output_inline_len,
           &l->in.u.result);
}

static void large_done(struct cox_work *w)
{
    struct large_result *l = COX_CONTAINER_OF(w, struct large_result, work);
    struct cox_session *s = l->session;

    cox_driver_step(s->fleet->driver, &l->in);
    s->n_working--;
    cox_session_release(s);
    cox_arena_fini(&l->arena);
    cox_free(l);
}

static void keep(struct cox_arena *arena, struct cox_slice *s)
{
    *s = cox_slice(cox_arena_dup(arena, s->data, s->len), s->len);
}

static void large_start(struct cox_session *s, const struct cox_input *in, size_t output_inline_len,
                        size_t len)
{
    struct large_result *l = COX_NEW(struct large_result);
    struct cox_in_result *r = &l->in.u.result;

    l->in = *in;
    l->session = s;
    l->output_inline_len = output_inline_len;
    l->space = cox_driver_space(s->fleet->driver, r->ref.task);
    keep(&l->arena, &r->output.bytes);
    keep(&l->arena, &r->artifacts.bytes);
    keep(&l->arena, &r->continuation.bytes);
    keep(&l->arena, &r->message);
    keep(&l->arena, &r->files.note);
    r->files.packs = cox_arena_dup(&l->arena, r->files.packs, r->files.n_packs * sizeof(*r->files.packs));
    r->blobs = cox_arena_dup(&l->arena, r->blobs, r->n_blobs * sizeof(*r->blobs));
    struct cox_item_result *items = cox_arena_dup(&l->arena, r->items, r->n_items * sizeof(*r->items));

    r->items = items;
    for (size_t i = 0; i < r->n_items; i++) {
        keep(&l->arena, &items[i].output);
        keep(&l->arena, &items[i].message);
    }
    l->work = (struct cox_work){ .work = large_work, .done = large_done, .len = len };
    s->n_working++;
    cox_compile_submit(cox_driver_compile(s->fleet->driver), &l->work);
}

/* ---- the message ---- */

static struct cox_slice cut_message(const char *text)
{
    size_t len = strlen(text);

    if (len > COX_ERROR_MESSAGE_LEN_MAX) {
        len = COX_ERROR_MESSAGE_LEN_MAX;
        while (len > 0 && ((uint8_t)text[len] & 0xc0) == 0x80) /* not inside a character */
            len--;
    }
    return cox_slice(text, len);
}

static struct cox_payload inline_value(const ProtobufCBinaryData *json)
{
    struct cox_payload p = { .kind = COX_PAYLOAD_NONE };

    if (json->len > 0)
        p = (struct cox_payload){ .kind = COX_PAYLOAD_INLINE,
                                  .bytes = cox_slice(json->data, json->len),
                                  .size = json->len };
    return p;
}

static const char *read_items(struct cox_session *s, const Coxswain__V1__Result *m, size_t at,
                              struct cox_in_result *r, size_t *len)
{
    struct cox_item_result *items = cox_arena_alloc(&s->fleet->arena, (m->n_items + 1) * sizeof(*items));

    if (m->n_items > COX_MAP_BATCH_MAX)
        return wrong(s, "results[%zu].items: %zu, at most %u", at, m->n_items, COX_MAP_BATCH_MAX);
    for (size_t i = 0; i < m->n_items; i++) {
        const Coxswain__V1__ItemResult *from = m->items[i];

        if (!ends_attempt(from->status))
            return wrong(s, "results[%zu].items[%zu].status: %d is not how a worker ends an item", at, i,
                         (int)from->status);
        items[i] =
            (struct cox_item_result){ .index = from->index,
                                      .status = (enum cox_attempt_status)from->status,
                                      .output = cox_slice(from->output_json.data, from->output_json.len) };
        items[i].code = code_of(items[i].status, from->error ? from->error->code : NULL);
        if (items[i].status != COX_ATTEMPT_SUCCEEDED && from->error)
            items[i].message = cut_message(from->error->message);
        *len += items[i].output.len + items[i].message.len + sizeof(*items);
    }
    r->items = items;
    r->n_items = m->n_items;
    return NULL;
}

static const char *read_hashes(struct cox_session *s, char **texts, size_t n, size_t at, const char *field,
                               const struct cox_hash **ret)
{
    struct cox_hash *hashes = cox_arena_alloc(&s->fleet->arena, (n + 1) * sizeof(*hashes));

    for (size_t i = 0; i < n; i++) {
        if (!cox_hash_parse(cox_slice_str(texts[i]), &hashes[i]))
            return wrong(s, "results[%zu].%s[%zu]: expected \"sha256:\" and 64 hex digits", at, field, i);
    }
    *ret = hashes;
    return NULL;
}

static const char *read_files(struct cox_session *s, const Coxswain__V1__WorkspaceState *m, size_t at,
                              struct cox_files *files)
{
    if (!m)
        return NULL;
    files->told = true;
    files->note = cut_message(m->note);
    files->saved = m->n_packs > 0;
    if (!files->saved)
        return NULL;
    if (m->n_packs > COX_SNAPSHOT_PACKS_MAX)
        return wrong(s, "results[%zu].workspace.packs: %zu, at most %u", at, m->n_packs,
                     COX_SNAPSHOT_PACKS_MAX);
    if (!cox_hash_parse(cox_slice_str(m->tree), &files->tree))
        return wrong(s, "results[%zu].workspace.tree: expected \"sha256:\" and 64 hex digits", at);
    files->n_packs = m->n_packs;
    files->size = m->size;
    files->n_files = m->files;
    files->serial = m->serial;
    return read_hashes(s, m->packs, m->n_packs, at, "workspace.packs", &files->packs);
}

static uint64_t count(int64_t n)
{
    return n > 0 ? (uint64_t)n : 0;
}

static struct cox_usage read_usage(const Coxswain__V1__Usage *m)
{
    struct cox_usage u = { 0 };

    if (!m)
        return u;
    u.model_calls = count(m->model_calls);
    u.input_tokens = count(m->input_tokens);
    u.output_tokens = count(m->output_tokens);
    u.cached_tokens = count(m->cached_input_tokens);
    u.wasted_tokens = count(m->wasted_tokens);
    u.cost_micros = m->cost ? count(m->cost->micros) : 0;
    if (m->cost)
        snprintf(u.currency, sizeof(u.currency), "%s", m->cost->currency);
    return u;
}

static const char *receive_result(struct cox_session *s, const Coxswain__V1__Result *m, size_t i)
{
    struct cox_input in;
    struct cox_in_result *r = &in.u.result;
    const char *bad;

    in.kind = COX_IN_RESULT;
    memset(r, 0, sizeof(*r));
    if (!cox_ref_read(m->ref, &r->ref))
        return wrong(s, "results[%zu].ref: no task or no token", i);
    r->status = (enum cox_attempt_status)m->status;
    if (!ends_attempt(m->status))
        return wrong(s, "results[%zu].status: %d is not how a worker ends an attempt", i, (int)m->status);
    r->session = s->number;
    r->code = code_of(r->status, m->error ? m->error->code : NULL);
    if (r->status != COX_ATTEMPT_SUCCEEDED && m->error)
        r->message = cut_message(m->error->message);
    r->has_exit_code = m->exit_code != NULL;
    r->exit_code = m->exit_code ? m->exit_code->value : 0;
    r->cpu_us = m->cpu_us;
    r->run_us = m->run_us;
    if (s->inner) /* a worker makes no model calls of its own, and charges nobody */
        r->usage = read_usage(m->usage);
    r->output = inline_value(&m->output_json);
    r->artifacts = inline_value(&m->artifacts_json);
    r->continuation = inline_value(&m->continue_json);
    size_t len = m->output_json.len + m->artifacts_json.len + m->continue_json.len;
    size_t output_inline_len = output_inline_len_max(s, r);
    bool stored = m->output_json.len > output_inline_len ||
                  m->artifacts_json.len > COX_INLINE_PAYLOAD_LEN_MAX ||
                  m->continue_json.len > COX_INLINE_PAYLOAD_LEN_MAX;

    r->n_blobs = m->n_blobs;
    if ((bad = read_items(s, m, i, r, &len)) ||
        (bad = read_hashes(s, m->blobs, m->n_blobs, i, "blobs", &r->blobs)) ||
        (bad = read_files(s, m->workspace, i, &r->files)))
        return bad;
    if (stored || len > SMALL_LEN_MAX || r->n_blobs > 0 || r->files.saved) {
        large_start(s, &in, output_inline_len, len);
        return NULL;
    }
    settle(&s->fleet->arena, NULL, NULL, output_inline_len, r);
    cox_driver_step(s->fleet->driver, &in);
    return NULL;
}

/* ---- the rest ---- */

static const char *receive_refs(struct cox_session *s, enum cox_input_kind kind, const char *field,
                                Coxswain__V1__AttemptRef **refs, size_t n)
{
    struct cox_input in = { .kind = kind };

    in.u.attempt.session = s->number;
    for (size_t i = 0; i < n; i++) {
        if (!cox_ref_read(refs[i], &in.u.attempt.ref))
            return wrong(s, "%s[%zu]: no task or no token", field, i);
        cox_driver_step(s->fleet->driver, &in);
    }
    return NULL;
}

static const char *receive_credit(struct cox_session *s, const Coxswain__V1__Credit *credit)
{
    struct cox_input in = { .kind = COX_IN_CREDIT };

    if (credit->granted < s->granted)
        return wrong(s, "credit.granted: %llu after %llu; it never falls",
                     (unsigned long long)credit->granted, (unsigned long long)s->granted);
    s->granted = credit->granted;
    in.u.credit.session = s->number;
    in.u.credit.granted = credit->granted;
    cox_driver_step(s->fleet->driver, &in);
    return NULL;
}

/* A worker's word about another's attempt would be one about another's money. */
static const char *receive_spends(struct cox_session *s, const Coxswain__V1__AttachRequest *m)
{
    struct cox_input in = { .kind = COX_IN_SPEND };

    if (m->n_spends > 0 && !s->inner)
        return "spends: are the orchestrator's router's to report";
    in.u.spend.session = s->number;
    for (size_t i = 0; i < m->n_spends; i++) {
        if (!cox_ref_read(m->spends[i]->ref, &in.u.spend.ref))
            return wrong(s, "spends[%zu].ref: no task or no token", i);
        in.u.spend.usage = read_usage(m->spends[i]->usage);
        in.u.spend.n_ended = m->spends[i]->ended_calls;
        in.u.spend.released = m->spends[i]->released_tokens;
        in.u.spend.released_guess = m->spends[i]->released_guess;
        cox_driver_step(s->fleet->driver, &in);
    }
    return NULL;
}

const char *cox_session_receive(struct cox_session *s, const Coxswain__V1__AttachRequest *m)
{
    const char *bad;

    if (!m->hello != s->attached)
        return s->attached ? "hello: sent twice" : "hello: missing in the first message";
    if (m->hello && (bad = receive_hello(s, m->hello)))
        return bad;
    feed(s, COX_IN_BEAT);
    if ((bad = receive_refs(s, COX_IN_STARTED, "started", m->started, m->n_started)))
        return bad;
    for (size_t i = 0; i < m->n_results; i++) {
        if ((bad = receive_result(s, m->results[i], i)))
            return bad;
    }
    if ((bad = receive_refs(s, COX_IN_RETURNED, "returned", m->returned, m->n_returned)))
        return bad;
    if (m->credit && (bad = receive_credit(s, m->credit)))
        return bad;
    if ((bad = receive_spends(s, m)))
        return bad;
    for (size_t i = 0; i < m->n_logs; i++)
        cox_session_relay(s, m->logs[i]);
    if (m->workspaces)
        s->workspaces = (struct cox_fleet_workspaces){ .n = m->workspaces->count,
                                                       .n_unsaved = m->workspaces->unsaved,
                                                       .len = m->workspaces->bytes };
    if (m->draining)
        feed(s, COX_IN_DRAINING);
    return NULL;
}
