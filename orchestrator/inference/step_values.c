/* What of a model step is too large for a message: values that its request refers to, and its output. */
#include "steps_internal.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"
#include "cox/limits.h"

#define FETCHES_MAX 8u              /* of one call at a time */
#define FREE_LEN ((size_t)64 << 10) /* of a call, that does not count: small ones are never refused */

struct step_fetch {
    struct step_call *call;
    struct step_blob *blob; /* NULL: free */
    struct step_input_ref *ref;
};

bool step_values_hold(struct step_call *c, size_t len)
{
    struct steps *s = c->steps;
    size_t before = c->held_len;

    c->held_len = len > FREE_LEN ? len - FREE_LEN : 0;
    s->held_len = s->held_len - before + c->held_len;
    return c->held_len <= before || s->held_len <= s->config.held_len_max ||
           COX_PLANTED("answers-held-unbounded");
}

static struct cox_slice tenant_of(const struct step_call *c)
{
    return c->assign->tenant.len > 0 ? c->assign->tenant : cox_slice_str("default");
}

/* ---- what the request refers to ---- */

static void stop_fetching(struct step_call *c)
{
    for (unsigned i = 0; c->fetches && i < FETCHES_MAX; i++)
        step_blob_free(c->fetches[i].blob);
    cox_free(c->fetches);
    c->fetches = NULL;
    c->n_fetches = 0;
}

static void give_up(struct step_call *c)
{
    stop_fetching(c);
    step_call_end(c);
}

static void ask(struct step_call *c)
{
    struct cox_buf request = { 0 }, why = { 0 };
    enum cox_err err = step_input_put(&c->input, c->request, &request, &why);

    stop_fetching(c);
    step_input_fini(&c->input);
    (void)step_values_hold(c, 0);
    if (err == COX_OK) {
        step_call_ask(c, cox_buf_slice(&request));
    } else {
        if (err == COX_ERR_FULL)
            step_call_fail(c, COX_CODE_INPUT_INVALID,
                           "the request has more than %zu MiB with the values that it refers to",
                           STEP_INPUT_LEN_MAX >> 20);
        else
            step_call_fail(c, COX_CODE_INPUT_INVALID, "%s", cox_buf_cstr(&why));
        step_call_end(c);
    }
    cox_buf_fini(&request);
    cox_buf_fini(&why);
}

static void fetch_more(struct step_call *c);

static void on_fetched(void *user, enum cox_code code, const char *why)
{
    struct step_fetch *f = user;
    struct step_call *c = f->call;
    char name[COX_HASH_TEXT_MAX];

    if (code != COX_CODE_NONE) {
        cox_hash_format(&f->ref->hash, name);
        step_call_fail(c, code, "cannot fetch %s, which the request refers to: %s", name, why);
        give_up(c);
        return;
    }
    f->ref->bytes = *step_blob_bytes(f->blob);
    *step_blob_bytes(f->blob) = (struct cox_buf){ 0 };
    step_blob_free(f->blob);
    f->blob = NULL;
    c->n_fetches--;
    c->fetched_len += f->ref->bytes.len;
    if (!step_values_hold(c, c->fetched_len)) {
        step_call_fail(c, COX_CODE_UNAVAILABLE,
                       "the values of all model steps under way have more than %zu MiB",
                       c->steps->config.held_len_max >> 20);
        give_up(c);
        return;
    }
    fetch_more(c);
}

static void fetch(struct step_call *c, struct step_input_ref *ref)
{
    struct step_fetch *f = c->fetches;

    while (f->blob)
        f++;
    *f = (struct step_fetch){ .call = c, .ref = ref };
    f->blob = step_blob_get(c->steps, tenant_of(c), &ref->hash, STEP_INPUT_LEN_MAX, on_fetched, f);
    c->n_fetches++;
}

static void fetch_more(struct step_call *c)
{
    for (; c->next_ref < c->input.n_refs && c->n_fetches < FETCHES_MAX; c->next_ref++)
        if (c->input.refs[c->next_ref].first == c->next_ref)
            fetch(c, &c->input.refs[c->next_ref]);
    if (c->n_fetches == 0)
        ask(c);
}

void step_values_fetch(struct step_call *c)
{
    enum cox_err err = c->is_conversation ? step_input_find_said(&c->input, c->request)
                                          : step_input_find(&c->input, c->request);

    if (err != COX_OK) {
        step_call_fail(c, COX_CODE_INPUT_INVALID, "the request refers to more than %u values",
                       STEP_INPUT_REFS_MAX);
        step_call_end(c);
    } else if (c->input.n_refs == 0) {
        step_call_ask(c, c->request);
    } else {
        c->fetches = cox_calloc(FETCHES_MAX, sizeof(*c->fetches));
        fetch_more(c);
    }
}

/* ---- the output ---- */

static void put_reference(struct step_call *c)
{
    size_t len = c->output.len;
    char name[COX_HASH_TEXT_MAX];

    c->kept = step_blob_hash(c->keeping);
    c->is_kept = true;
    cox_hash_format(&c->kept, name);
    cox_buf_fini(&c->output);
    cox_buf_printf(&c->output, "{\"$blob\":\"%s\",\"size\":%zu}", name, len);
}

static void on_kept(void *user, enum cox_code code, const char *why)
{
    struct step_call *c = user;

    if (code == COX_CODE_NONE)
        put_reference(c);
    else
        step_call_fail(c, code, "cannot store the answer: %s", why);
    step_blob_free(c->keeping);
    c->keeping = NULL;
    step_call_end(c);
}

void step_values_keep(struct step_call *c)
{
    size_t len_max = c->assign->n_items > 0 ? COX_ITEM_OUTPUT_LEN_MAX : COX_LOGGED_PAYLOAD_LEN_MAX;

    if (c->output.len <= len_max || COX_PLANTED("model-output-unstored")) {
        step_call_end(c);
        return;
    }
    (void)step_values_hold(c, step_answer_len(&c->answer) + c->output.len); /* paid for: never refused */
    c->keeping = step_blob_put(c->steps, tenant_of(c), cox_buf_slice(&c->output), on_kept, c);
}

/* ---- the end ---- */

bool step_values_stop(struct step_call *c)
{
    bool any = c->fetches || c->keeping;

    stop_fetching(c);
    step_blob_free(c->keeping);
    c->keeping = NULL;
    return any;
}

void step_values_fini(struct step_call *c)
{
    (void)step_values_stop(c);
    (void)step_values_hold(c, 0);
    step_input_fini(&c->input);
}
