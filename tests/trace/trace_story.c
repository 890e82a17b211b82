#include "trace_state.h"

#include "cox/base/alloc.h"
#include "cox/json.h"
#include "trace_kept.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- the story ---- */

static void submit_in(struct trace *t, const char *tenant, const char *key, const char *document_json)
{
    struct cox_task_source source = { .document = cox_slice_str(document_json) };
    struct cox_buf image = { 0 };
    struct cox_violations v = { 0 };
    if (cox_task_compile(&source, &image, &v) != COX_OK)
        fail_msg("%s: %s", v.items[0].path, v.items[0].message);
    struct cox_input in = { .kind = COX_IN_SUBMIT };
    in.u.submit.request = ++t->next_request;
    in.u.submit.tenant = cox_slice_str(tenant);
    in.u.submit.key = cox_slice_str(key);
    in.u.submit.image = cox_buf_slice(&image);
    uint64_t h = cox_hash64(document_json, strlen(document_json));
    memcpy(in.u.submit.document.b, &h, sizeof h);
    step(t, &in);
    cox_buf_fini(&image);
    cox_violations_fini(&v);
}

void submit_keyed(struct trace *t, const char *key, const char *document_json)
{
    submit_in(t, "default", key, document_json);
}

void submit(struct trace *t, const char *document_json)
{
    submit_keyed(t, "", document_json);
}

void submit_of(struct trace *t, const char *tenant, const char *document_json)
{
    submit_in(t, tenant, "", document_json);
}

void cancel(struct trace *t, uint32_t task_no, const char *reason)
{
    struct cox_input in = { .kind = COX_IN_CANCEL };
    in.u.cancel.request = ++t->next_request;
    in.u.cancel.task = task_no;
    in.u.cancel.reason = cox_slice_str(reason);
    step(t, &in);
}

void set_paused(struct trace *t, uint32_t task_no, bool paused)
{
    struct cox_input in = { .kind = paused ? COX_IN_PAUSE : COX_IN_RESUME };
    in.u.of.request = ++t->next_request;
    in.u.of.task = task_no;
    step(t, &in);
}

size_t log_len(const struct trace *t)
{
    return t->log.len;
}

void set_clock_back(struct trace *t, int64_t ms)
{
    t->wall_back_ms += ms;
}

void stopped_ms(struct trace *t, int64_t ms)
{
    struct cox_input in = { .kind = COX_IN_GAP, .u.gap.ns = ms * 1000000 };
    t->mono_ms += ms;
    step(t, &in);
    step(t, &(struct cox_input){ .kind = COX_IN_TIMER });
}

void after_ms(struct trace *t, int64_t ms)
{
    int64_t until_ms = t->mono_ms + ms;
    for (;;) {
        step(t, &(struct cox_input){ .kind = COX_IN_TIMER });
        if (t->fx.wake_mono_ns > until_ms * 1000000)
            break;
        int64_t wake_ms = (t->fx.wake_mono_ns + 999999) / 1000000;
        t->mono_ms = wake_ms > t->mono_ms ? wake_ms : t->mono_ms;
    }
    t->mono_ms = until_ms;
    step(t, &(struct cox_input){ .kind = COX_IN_TIMER });
}

static size_t split(const char *text, char *copy, const char **ret, size_t max)
{
    size_t n = 0;
    if (text == NULL || *text == '\0')
        return 0;
    memcpy(copy, text, strlen(text) + 1);
    for (char *p = copy; p != NULL && n < max;) {
        char *comma = strchr(p, ',');
        if (comma != NULL)
            *comma++ = '\0';
        ret[n++] = p;
        p = comma;
    }
    return n;
}

/* "lint@1=1.4.2": a handler and its exact version. */
static struct cox_slice handler(const char *text, struct cox_slice *ret_version)
{
    const char *eq = strchr(text, '=');
    *ret_version = cox_slice_str(eq != NULL ? eq + 1 : NULL);
    return eq != NULL ? cox_slice(text, (size_t)(eq - text)) : cox_slice_str(text);
}

void attach_as(struct trace *t, const struct worker_spec *spec)
{
    char texts[3][512];
    const char *names[16];
    struct cox_slice handlers[16], versions[16];
    struct cox_label labels[16];
    struct cox_ref holds[16];
    struct cox_input in = { .kind = COX_IN_ATTACH };
    struct cox_in_attach *at = &in.u.attach;
    at->session = ++t->next_session;
    at->worker_id = cox_slice_str(spec->id);
    at->boot_id = cox_slice_str(spec->boot != NULL ? spec->boot : "boot1");
    at->slots = spec->slots;
    at->inner = spec->inner;
    at->resources = spec->resources;
    at->n_handlers = split(spec->handlers != NULL ? spec->handlers : "run", texts[0], names, 16);
    for (size_t i = 0; i < at->n_handlers; i++)
        handlers[i] = handler(names[i], &versions[i]);
    at->handlers = handlers;
    at->versions = versions;
    at->n_labels = split(spec->labels, texts[1], names, 16);
    for (size_t i = 0; i < at->n_labels; i++) {
        const char *eq = strchr(names[i], '=');
        labels[i] = (struct cox_label){ cox_slice(names[i], (size_t)(eq - names[i])), cox_slice_str(eq + 1) };
    }
    at->labels = labels;
    at->n_holds = split(spec->holds, texts[2], names, 16);
    for (size_t i = 0; i < at->n_holds; i++) {
        struct cox_task_view view;
        cox_task_view(cox_engine_find(t->engine, 1), &view);
        holds[i] = ref_of(t, 1, names[i]);
    }
    at->holds = holds;
    assert_true(t->n_parties < PARTIES_MAX);
    t->parties[t->n_parties].id = cox_strdup(spec->id);
    t->parties[t->n_parties++].session = at->session;
    step(t, &in);
    uint32_t n = spec->credit != 0 ? spec->credit : spec->slots;
    if (n > 0)
        credit(t, spec->id, n);
}

void attach(struct trace *t, const char *id, uint32_t slots)
{
    attach_as(t, &(struct worker_spec){ .id = id, .slots = slots });
}

static void session_input(struct trace *t, enum cox_input_kind kind, const char *id)
{
    struct cox_input in = { .kind = kind };
    in.u.session.session = session_of(t, id);
    step(t, &in);
}

void detach(struct trace *t, const char *id)
{
    session_input(t, COX_IN_DETACH, id);
}

void beat(struct trace *t, const char *id)
{
    session_input(t, COX_IN_BEAT, id);
}

void drain(struct trace *t, const char *id)
{
    session_input(t, COX_IN_DRAINING, id);
}

void policy(struct trace *t, const char *id, int what)
{
    struct cox_input in = { .kind = COX_IN_POLICY };
    in.u.policy.request = ++t->next_request;
    in.u.policy.worker_id = cox_slice_str(id);
    in.u.policy.what = what;
    step(t, &in);
}

void credit(struct trace *t, const char *id, uint64_t granted)
{
    struct cox_input in = { .kind = COX_IN_CREDIT };
    in.u.credit.session = session_of(t, id);
    in.u.credit.granted = granted;
    step(t, &in);
}

/* The newest batch that begins with the item: "scan[0]". */
static const struct batch *batch_of(const struct trace *t, const char *name)
{
    const char *bracket = strchr(name, '[');
    uint32_t first = (uint32_t)strtoul(bracket + 1, NULL, 10);
    for (size_t i = t->n_batches; i > 0; i--)
        if (t->batches[i - 1].first == first)
            return &t->batches[i - 1];
    fail_msg("no batch begins with %s", name);
    return NULL;
}

struct cox_ref ref_of(struct trace *t, uint32_t task_no, const char *name)
{
    if (strchr(name, '[') != NULL)
        return batch_of(t, name)->ref;
    const struct cox_task *task = cox_engine_find(t->engine, task_no);
    assert_non_null(task);
    struct cox_task_view view;
    struct cox_step_view sv;
    struct cox_attempt_view av;
    cox_task_view(task, &view);
    uint32_t index = cox_image_find_step(view.image, cox_slice_str(name));
    uint64_t item;
    if (index == COX_IMAGE_NONE) /* what a frame of it runs */
        task = cox_engine_find_step(t->engine, task, cox_slice_str(name), &index, &item);
    assert_non_null(task);
    cox_task_view(task, &view);
    cox_step_view(t->engine, task, index, &sv);
    assert_true(sv.n_attempts > 0);
    cox_attempt_view(t->engine, task, index, sv.n_attempts - 1, &av);
    return (struct cox_ref){ view.id, index, av.ref.token };
}

struct cox_token token_of(struct trace *t, uint32_t task_no, const char *name)
{
    return ref_of(t, task_no, name).token;
}

static void attempt_input(struct trace *t, enum cox_input_kind kind, const char *worker, const char *name)
{
    struct cox_input in = { .kind = kind };
    in.u.attempt.session = session_of(t, worker);
    in.u.attempt.ref = ref_of(t, 1, name);
    step(t, &in);
}

void started(struct trace *t, const char *worker, const char *name)
{
    attempt_input(t, COX_IN_STARTED, worker, name);
}

void returned(struct trace *t, const char *worker, const char *name)
{
    attempt_input(t, COX_IN_RETURNED, worker, name);
}

static struct cox_input result(struct trace *t, uint32_t task_no, const char *worker, const char *name)
{
    struct cox_input in = { .kind = COX_IN_RESULT };
    in.u.result.session = session_of(t, worker);
    in.u.result.ref = ref_of(t, task_no, name);
    in.u.result.cpu_us = RESULT_CPU_US;
    in.u.result.run_us = RESULT_CPU_US;
    in.u.result.usage = t->used;
    t->used = (struct cox_usage){ 0 };
    in.u.result.files = t->files;
    t->files = (struct cox_files){ 0 };
    return in;
}

void saved(struct trace *t, uint32_t serial, const char *packs)
{
    size_t n = strlen(packs);
    assert_in_range(n, 1, sizeof t->packs / sizeof t->packs[0]);
    for (size_t i = 0; i < n; i++)
        t->packs[i] = upload(t, (uint8_t)packs[i]);
    t->files = (struct cox_files){ .told = true,
                                   .saved = true,
                                   .tree = t->packs[n - 1],
                                   .packs = t->packs,
                                   .n_packs = n,
                                   .size = 1000,
                                   .n_files = 10,
                                   .serial = serial };
}

void unsaved(struct trace *t, const char *why)
{
    t->files = (struct cox_files){ .told = true, .note = cox_slice_str(why) };
}

void used(struct trace *t, uint64_t input_tokens, uint64_t output_tokens, uint64_t cost_micros)
{
    t->used = (struct cox_usage){ .model_calls = 1,
                                  .input_tokens = input_tokens,
                                  .output_tokens = output_tokens,
                                  .cost_micros = cost_micros,
                                  .currency = "USD" };
}

void spend(struct trace *t, const char *worker, const char *name, uint64_t tokens)
{
    struct cox_input in = { .kind = COX_IN_SPEND };
    in.u.spend.session = session_of(t, worker);
    in.u.spend.ref = ref_of(t, 1, name);
    in.u.spend.usage = (struct cox_usage){ .model_calls = 1, .output_tokens = tokens };
    step(t, &in);
}

bool process_calls(struct trace *t, uint32_t task_no, const char *name, uint64_t len, uint64_t output_tokens)
{
    struct cox_input in = { .kind = COX_IN_CALL };
    const struct cox_call_asked asked = { len, output_tokens };
    struct cox_ref ref = ref_of(t, task_no, name);
    assert_int_not_equal(cox_engine_call_hint(t->engine, ref, &asked, &t->last_hint, &in.u.call), 0);
    if (t->last_hint.spent || t->last_hint.waits)
        return false;
    assert_true(t->n_calls < CALLS_MAX);
    t->calls[t->n_calls++] = in.u.call;
    step(t, &in);
    return true;
}

void process_called(struct trace *t, const char *worker, uint64_t tokens)
{
    struct cox_input in = { .kind = COX_IN_SPEND };
    assert_true(t->n_done_calls < t->n_calls);
    const struct cox_in_call *c = &t->calls[t->n_done_calls++];
    in.u.spend.session = session_of(t, worker);
    in.u.spend.ref = c->ref;
    in.u.spend.usage = (struct cox_usage){ .model_calls = 1, .output_tokens = tokens };
    in.u.spend.n_ended = 1;
    in.u.spend.released = c->reserved;
    in.u.spend.released_guess = c->guessed;
    step(t, &in);
}

void succeed_in(struct trace *t, uint32_t task_no, const char *worker, const char *name,
                const char *output_json)
{
    struct cox_input in = result(t, task_no, worker, name);
    in.u.result.status = COX_ATTEMPT_SUCCEEDED;
    in.u.result.output.kind = COX_PAYLOAD_INLINE;
    in.u.result.output.bytes = cox_slice_str(output_json);
    in.u.result.output.size = strlen(output_json);
    step(t, &in);
}

void succeed(struct trace *t, const char *worker, const char *name, const char *output_json)
{
    succeed_in(t, 1, worker, name, output_json);
}

void succeed_large(struct trace *t, const char *worker, const char *name, size_t len)
{
    struct cox_input in = result(t, 1, worker, name);
    char *text = cox_alloc(len + 2);
    memset(text, 'x', len + 2);
    text[0] = text[len + 1] = '"';
    in.u.result.status = COX_ATTEMPT_SUCCEEDED;
    in.u.result.output.kind = COX_PAYLOAD_STORED;
    in.u.result.output.bytes = cox_slice(text, len + 2);
    in.u.result.output.size = len + 2;
    uint64_t h = cox_hash64(text, len + 2);
    memcpy(in.u.result.output.hash.b, &h, sizeof h);
    step(t, &in);
    cox_free(text);
}

void fails_in(struct trace *t, uint32_t task_no, const char *worker, const char *name, enum cox_code code)
{
    struct cox_input in = result(t, task_no, worker, name);
    in.u.result.status = code == COX_CODE_TIMEOUT ? COX_ATTEMPT_TIMED_OUT : COX_ATTEMPT_FAILED;
    in.u.result.code = code;
    in.u.result.message = cox_slice_str("it broke");
    step(t, &in);
}

void fails(struct trace *t, const char *worker, const char *name, enum cox_code code)
{
    fails_in(t, 1, worker, name, code);
}

void cancelled_in(struct trace *t, uint32_t task_no, const char *worker, const char *name)
{
    struct cox_input in = result(t, task_no, worker, name);
    in.u.result.status = COX_ATTEMPT_CANCELLED;
    in.u.result.code = COX_CODE_CANCELLED;
    step(t, &in);
}

void cancelled(struct trace *t, const char *worker, const char *name)
{
    cancelled_in(t, 1, worker, name);
}

void report_token(struct trace *t, const char *worker, uint32_t task_no, uint32_t step_no,
                  struct cox_token token)
{
    struct cox_input in = { .kind = COX_IN_RESULT };
    in.u.result.session = session_of(t, worker);
    in.u.result.ref = (struct cox_ref){ task_no, step_no, token };
    in.u.result.status = COX_ATTEMPT_SUCCEEDED;
    in.u.result.usage = t->used;
    t->used = (struct cox_usage){ 0 };
    step(t, &in);
}

void archived(struct trace *t, uint32_t task_no)
{
    step(t, &(struct cox_input){ .kind = COX_IN_ARCHIVED, .u.task.task = task_no });
}

bool open_batch(const struct trace *t, size_t which, uint32_t *ret_first, uint32_t *ret_n)
{
    for (size_t i = 0; i < t->n_batches; i++) {
        if (t->batches[i].reported || which-- > 0)
            continue;
        *ret_first = t->batches[i].first;
        *ret_n = t->batches[i].n;
        return true;
    }
    return false;
}

void forget_batches(struct trace *t)
{
    t->n_batches = 0;
}

enum cox_answer last_answer(const struct trace *t)
{
    return t->last_answer;
}

size_t open_composes(const struct trace *t)
{
    return t->n_composes - t->n_done_composes;
}

size_t open_fetches(const struct trace *t)
{
    return t->n_fetches - t->n_done_fetches;
}

const char *last_continuation(struct trace *t)
{
    return cox_buf_cstr(&t->last_continuation);
}

struct cox_slice last_output(const struct trace *t)
{
    return cox_buf_slice(&t->last_output);
}

static void item_end(char *word, struct cox_item_result *ret)
{
    ret->status = *word == '!' ? COX_ATTEMPT_FAILED : COX_ATTEMPT_SUCCEEDED;
    if (*word == '!') {
        assert_true(cox_code_parse(cox_slice_str(word + 1), &ret->code));
        ret->message = cox_slice_str("it broke");
    } else {
        ret->output = cox_slice_str(word);
    }
}

void items(struct trace *t, const char *worker, const char *batch, const char *ends)
{
    const struct batch *b = batch_of(t, batch);
    struct cox_item_result *results = cox_calloc(b->n, sizeof results[0]);
    char *words = cox_strdup(ends), *rest = words, *word;
    struct cox_input in = result(t, 1, worker, batch);
    uint32_t index = b->first;
    while ((word = strtok_r(rest, " ", &rest)) != NULL) {
        assert_true(index < b->first + b->n);
        results[in.u.result.n_items].index = index++;
        if (strcmp(word, "-") != 0)
            item_end(word, &results[in.u.result.n_items++]);
    }
    in.u.result.status = COX_ATTEMPT_SUCCEEDED;
    in.u.result.items = results;
    ((struct batch *)(uintptr_t)b)->reported = true;
    step(t, &in);
    cox_free(results);
    cox_free(words);
}
