/* What of a model step is too large for a message: values that its request refers to, and its output. */
#include "steps_internal.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"
#include "cox/json.h"
#include "cox/limits.h"

#define FETCHES_MAX 8u              /* of one call at a time */
#define FREE_LEN ((size_t)64 << 10) /* of a call, that does not count: small ones are never refused */

struct step_fetch {
    struct step_call *call;
    struct step_blob *blob; /* NULL: free */
    struct cox_hash hash;
    bool is_part; /* of the conversation; else of the request's references */
    uint32_t at;  /* which */
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

/* ---- fetching ---- */

static void stop_fetching(struct step_call *c)
{
    for (unsigned i = 0; c->fetches && i < FETCHES_MAX; i++)
        step_blob_free(c->fetches[i].blob);
    cox_free(c->fetches);
    c->fetches = NULL;
    c->n_fetches = 0;
}

static void drop_said(struct step_call *c)
{
    for (uint32_t i = 0; c->said && i < c->conversation.n_parts; i++)
        said_release(&c->steps->said, c->said[i]);
    cox_free(c->said);
    c->said = NULL;
    conversation_fini(&c->conversation);
    cox_buf_fini(&c->begun);
}

static void drop_all(struct step_call *c)
{
    stop_fetching(c);
    step_input_fini(&c->input);
    drop_said(c);
    (void)step_values_hold(c, 0);
}

static void go_on(struct step_call *c);
static bool take_part(struct step_call *c, uint32_t part, struct cox_buf *bytes);

static bool take(struct step_fetch *f, struct cox_buf *bytes)
{
    struct step_call *c = f->call;

    c->fetched_len += bytes->len;
    if (!step_values_hold(c, c->fetched_len)) {
        step_call_fail(c, COX_CODE_UNAVAILABLE,
                       "the values of all model steps under way have more than %zu MiB",
                       c->steps->config.held_len_max >> 20);
        return false;
    }
    if (f->is_part)
        return take_part(c, f->at, bytes);
    c->input.refs[f->at].bytes = *bytes;
    *bytes = (struct cox_buf){ 0 };
    return true;
}

static void on_fetched(void *user, enum cox_code code, const char *why)
{
    struct step_fetch *f = user;
    struct step_call *c = f->call;
    char name[COX_HASH_TEXT_MAX];

    if (code != COX_CODE_NONE) {
        cox_hash_format(&f->hash, name);
        step_call_fail(c, code, "cannot fetch %s, which the request refers to: %s", name, why);
        drop_all(c);
        step_call_end(c);
        return;
    }
    struct cox_buf bytes = *step_blob_bytes(f->blob);

    *step_blob_bytes(f->blob) = (struct cox_buf){ 0 };
    step_blob_free(f->blob);
    f->blob = NULL;
    c->n_fetches--;
    if (take(f, &bytes)) {
        go_on(c);
    } else {
        drop_all(c);
        step_call_end(c);
    }
    cox_buf_fini(&bytes);
}

static void fetch(struct step_call *c, struct step_fetch what)
{
    struct step_fetch *f;

    if (!c->fetches)
        c->fetches = cox_calloc(FETCHES_MAX, sizeof(*c->fetches));
    f = c->fetches;
    while (f->blob)
        f++;
    *f = what;
    f->call = c;
    f->blob = step_blob_get(c->steps, tenant_of(c), &f->hash, STEP_INPUT_LEN_MAX, on_fetched, f);
    c->n_fetches++;
}

/* ---- what a request refers to ---- */

static bool find_refs(struct step_call *c)
{
    if (step_input_find(&c->input, c->request) == COX_OK)
        return true;
    step_call_fail(c, COX_CODE_INPUT_INVALID, "the request refers to more than %u values",
                   STEP_INPUT_REFS_MAX);
    return false;
}

static void fetch_refs(struct step_call *c)
{
    for (; c->next_ref < c->input.n_refs && c->n_fetches < FETCHES_MAX; c->next_ref++)
        if (c->input.refs[c->next_ref].first == c->next_ref)
            fetch(c, (struct step_fetch){ .hash = c->input.refs[c->next_ref].hash, .at = c->next_ref });
}

/* Appends the request with what it refers to. */
static bool put_refs(struct step_call *c, struct cox_buf *out)
{
    struct cox_buf why = { 0 };
    enum cox_err err = step_input_put(&c->input, c->request, out, &why);

    if (err == COX_ERR_FULL)
        step_call_fail(c, COX_CODE_INPUT_INVALID,
                       "the request has more than %zu MiB with the values that it refers to",
                       STEP_INPUT_LEN_MAX >> 20);
    else if (err != COX_OK)
        step_call_fail(c, COX_CODE_INPUT_INVALID, "%s", cox_buf_cstr(&why));
    cox_buf_fini(&why);
    return err == COX_OK;
}

static void ask(struct step_call *c)
{
    struct cox_buf request = { 0 };
    bool ok = put_refs(c, &request);

    drop_all(c);
    if (ok)
        step_call_ask(c, cox_buf_slice(&request));
    else
        step_call_end(c);
    cox_buf_fini(&request);
}

void step_values_fetch(struct step_call *c)
{
    if (!find_refs(c))
        step_call_end(c);
    else if (c->input.n_refs == 0)
        step_call_ask(c, c->request);
    else
        go_on(c);
}

/* ---- an agent's turn ---- */

static bool damaged(struct step_call *c)
{
    step_call_fail(c, COX_CODE_INTERNAL, "what was said so far is damaged");
    return false;
}

static bool has_said(struct step_call *c, uint32_t part, struct said *said)
{
    c->said[part] = said;
    c->said_len += said->text.bytes.len;
    if (c->said_len <= STEP_INPUT_LEN_MAX)
        return true;
    step_call_fail(c, COX_CODE_CONTEXT_LENGTH,
                   "the conversation has more than %zu MiB by its part %u of %u, and no model is asked with "
                   "more",
                   STEP_INPUT_LEN_MAX >> 20, part + 1, c->conversation.n_parts);
    return false;
}

static bool render(struct step_call *c, uint32_t part, struct cox_slice value)
{
    const struct conversation_part *p = &c->conversation.parts[part];
    struct conversation_text text;

    if (conversation_render(p->place, value, &text) != COX_OK) {
        cox_buf_fini(&text.bytes);
        return damaged(c);
    }
    return has_said(c, part, said_add(&c->steps->said, tenant_of(c), p, &text));
}

/* The first request may name values itself, which are fetched before it is rendered. */
static bool begin_request(struct step_call *c, struct cox_slice spec)
{
    if (!cox_json_member(spec, "request", &c->request) || cox_json_kind(c->request) != COX_JSON_OBJECT)
        return damaged(c);
    return find_refs(c);
}

static bool take_part(struct step_call *c, uint32_t part, struct cox_buf *bytes)
{
    if (cox_json_check(cox_buf_slice(bytes), NULL) != COX_OK)
        return damaged(c);
    if (part > 0)
        return render(c, part, cox_json_trim(cox_buf_slice(bytes)));
    c->begun = *bytes;
    *bytes = (struct cox_buf){ 0 };
    return begin_request(c, cox_buf_slice(&c->begun));
}

/* False: it fails. */
static bool find_part(struct step_call *c, uint32_t part)
{
    const struct conversation_part *p = &c->conversation.parts[part];
    struct said *said =
        COX_PLANTED("said-again-and-again") ? NULL : said_find(&c->steps->said, tenant_of(c), p);

    if (said)
        return has_said(c, part, said);
    if (p->is_kept)
        fetch(c, (struct step_fetch){ .hash = p->hash, .is_part = true, .at = part });
    else
        return part == 0 ? begin_request(c, p->value) : render(c, part, p->value);
    return true;
}

static bool render_request(struct step_call *c)
{
    struct cox_buf whole = { 0 };
    bool ok;

    cox_buf_append_str(&whole, "{\"request\":");
    ok = put_refs(c, &whole);
    cox_buf_append_str(&whole, "}");
    ok = ok && render(c, 0, cox_buf_slice(&whole));
    cox_buf_fini(&whole);
    return ok;
}

static void converse(struct step_call *c)
{
    const struct conversation_text **texts = cox_calloc(c->conversation.n_parts, sizeof(struct cox_buf *));
    struct cox_buf body = { 0 };

    for (uint32_t i = 0; i < c->conversation.n_parts; i++)
        texts[i] = &c->said[i]->text;
    conversation_put(&c->conversation, texts, c->assign->hint.output_tokens, &body);
    cox_free(texts);
    drop_all(c);
    step_call_send(c, &body);
}

/* False: it fails. */
static bool go_on_said(struct step_call *c)
{
    fetch_refs(c);
    if (c->n_fetches > 0 && !c->said[0])
        return true;
    if (!c->said[0] && !render_request(c))
        return false;
    for (; c->next_part < c->conversation.n_parts && c->n_fetches < FETCHES_MAX; c->next_part++)
        if (!find_part(c, c->next_part))
            return false;
    if (c->n_fetches == 0)
        converse(c);
    return true;
}

static void go_on(struct step_call *c)
{
    if (c->conversation.n_parts > 0) {
        if (!go_on_said(c)) {
            drop_all(c);
            step_call_end(c);
        }
        return;
    }
    fetch_refs(c);
    if (c->n_fetches == 0)
        ask(c);
}

void step_values_converse(struct step_call *c, struct cox_slice conversation)
{
    bool ok = conversation_read(&c->conversation, conversation) == COX_OK;

    if (!ok) {
        (void)damaged(c);
    } else {
        c->said = cox_calloc(c->conversation.n_parts, sizeof(struct said *));
        ok = find_part(c, 0);
        c->next_part = 1;
    }
    if (ok) {
        go_on(c);
        return;
    }
    drop_all(c);
    step_call_end(c);
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

    drop_all(c);
    step_blob_free(c->keeping);
    c->keeping = NULL;
    return any;
}

void step_values_fini(struct step_call *c)
{
    (void)step_values_stop(c);
}
