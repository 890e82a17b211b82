/* The other half of chat.h: what servers say. */
#include "chat.h"

#include "cox/json.h"

#include <string.h>

struct answer {
    struct chat_reader *r;
    struct chat_answer *a;
    struct cox_json_scan scan;
    struct cox_slice text; /* raw, of the first choice */
    /* Whatever stands at the top: vLLM once said its errors so, and TGI still says their type. */
    struct cox_slice message, type, code, object, error_type;
    struct cox_slice status; /* Google's word for an error */
    bool any;                /* choices or data are there */
};

/* A choice as its members come: which it is may be said last. */
struct choice {
    int64_t index;
    struct cox_slice text;
    enum chat_finish finish;
    struct cox_slice finish_raw;
    bool gave_up;
};

static bool is(struct cox_slice raw, const char *name)
{
    return cox_json_string_is(raw, cox_slice_str(name));
}

static bool take(struct answer *x, struct cox_slice *ret)
{
    return cox_json_scan_value(&x->scan, ret);
}

static bool is_text(struct cox_slice raw)
{
    return raw.len > 2 && raw.data[0] == '"';
}

/* What stands between the quotes of a string, or a number's digits; empty for anything else. */
static struct cox_slice bare(struct cox_slice raw)
{
    switch (cox_json_kind(raw)) {
    case COX_JSON_STRING:
        return cox_json_inner(raw);
    case COX_JSON_NUMBER:
        return raw;
    default:
        return cox_slice(NULL, 0);
    }
}

static bool count_of(struct cox_slice raw, uint64_t *ret)
{
    int64_t n;

    if (!cox_json_int(raw, &n) || n < 0)
        return false;
    *ret = (uint64_t)n;
    return true;
}

/* ---- usage ------------------------------------------------------------------------------------------ */

static void take_details(struct answer *x, struct chat_usage *u)
{
    struct cox_slice key, value;
    uint64_t n;

    while (cox_json_scan_next(&x->scan, &key)) {
        if (take(x, &value) && is(key, "cached_tokens") && count_of(value, &n))
            u->cached_tokens = (int64_t)n;
    }
}

/* One member of `usage`: OpenAI's names, those of its newer API, DeepSeek's for what was cached. */
static void take_usage_member(struct answer *x, struct cox_slice key, struct chat_usage *u)
{
    struct cox_slice value;
    uint64_t n;

    if ((is(key, "prompt_tokens_details") || is(key, "input_tokens_details")) &&
        cox_json_scan_kind(&x->scan) == COX_JSON_OBJECT && cox_json_scan_open(&x->scan)) {
        take_details(x, u);
        return;
    }
    if (!take(x, &value) || !count_of(value, &n))
        return;
    if (is(key, "prompt_tokens") || is(key, "input_tokens")) {
        u->input_tokens = n;
        u->has = true;
    } else if (is(key, "completion_tokens") || is(key, "output_tokens")) {
        u->output_tokens = n;
        u->has = true;
    } else if (is(key, "cached_tokens") || is(key, "prompt_cache_hit_tokens")) {
        u->cached_tokens = (int64_t)n;
    }
}

static void take_usage(struct answer *x)
{
    struct chat_usage u = { .cached_tokens = x->a->usage.cached_tokens };
    struct cox_slice key;

    if (cox_json_scan_kind(&x->scan) != COX_JSON_OBJECT || !cox_json_scan_open(&x->scan)) {
        (void)take(x, NULL);
        return;
    }
    while (cox_json_scan_next(&x->scan, &key))
        take_usage_member(x, key, &u);
    if (u.has)
        x->a->usage = u;
}

/* llama.cpp: cache_n tokens were there, prompt_n were read, predicted_n were made. It says so beside `usage`,
 * which has no word about the cache, or without one. */
static void take_timings(struct answer *x)
{
    struct cox_slice key, value;
    uint64_t cache = 0, prompt = 0, predicted = 0, n;
    bool cache_said = false, has = false;

    if (cox_json_scan_kind(&x->scan) != COX_JSON_OBJECT || !cox_json_scan_open(&x->scan)) {
        (void)take(x, NULL);
        return;
    }
    while (cox_json_scan_next(&x->scan, &key)) {
        if (!take(x, &value) || !count_of(value, &n))
            continue;
        if (is(key, "cache_n")) {
            cache = n;
            cache_said = true;
        } else if (is(key, "prompt_n")) {
            prompt = n;
            has = true;
        } else if (is(key, "predicted_n")) {
            predicted = n;
        }
    }
    if (cache_said && x->a->usage.cached_tokens < 0)
        x->a->usage.cached_tokens = (int64_t)(cache & INT64_MAX);
    if (has && !x->a->usage.has) {
        x->a->usage.has = true;
        x->a->usage.input_tokens = prompt + cache;
        x->a->usage.output_tokens = predicted;
    }
}

/* ---- choices ---------------------------------------------------------------------------------------- */

void chat_finished_add(struct chat_finished *to, const struct chat_finished *more)
{
    for (size_t i = 0; i < CHAT_CHOICES_TOLD / 64; i++)
        to->set[i] |= more->set[i];
    to->n_beyond += more->n_beyond;
}

uint32_t chat_finished_count(const struct chat_finished *f)
{
    uint32_t n = f->n_beyond;

    for (size_t i = 0; i < CHAT_CHOICES_TOLD / 64; i++)
        n += (uint32_t)__builtin_popcountll(f->set[i]);
    return n;
}

/* The server has given up: SGLang and vLLM when they abort what runs, DeepSeek when it has no room for it. */
static bool gives_up(struct cox_slice raw)
{
    return is(raw, "abort") || is(raw, "error") || is(raw, "insufficient_system_resource");
}

/* Not all say null while a choice goes on: some say "". */
static enum chat_finish finish_of(struct cox_slice raw)
{
    if (!is_text(raw))
        return CHAT_FINISH_NONE;
    if (is(raw, "stop") || is(raw, "eos_token") || is(raw, "stop_sequence"))
        return CHAT_FINISH_STOP;
    if (is(raw, "length"))
        return CHAT_FINISH_LENGTH;
    if (is(raw, "tool_calls") || is(raw, "function_call"))
        return CHAT_FINISH_TOOLS;
    return CHAT_FINISH_OTHER;
}

/* A name begins a call; the pieces of its arguments that follow have neither name nor id. */
static bool lacks_id(struct cox_slice call)
{
    struct cox_json_walk w = cox_json_walk(call);
    bool has_id = false, has_name = false;
    struct cox_slice name;

    while (cox_json_next(&w)) {
        if (is(w.key, "id"))
            has_id = cox_json_kind(w.value) != COX_JSON_NULL && !is(w.value, "");
        else if (is(w.key, "function"))
            has_name = cox_json_member(w.value, "name", &name) && is_text(name);
    }
    return has_name && !has_id;
}

static void take_calls(struct answer *x)
{
    struct cox_slice key, call;

    if (cox_json_scan_kind(&x->scan) != COX_JSON_ARRAY || !cox_json_scan_open(&x->scan)) {
        (void)take(x, NULL);
        return;
    }
    while (cox_json_scan_next(&x->scan, &key)) {
        if (!take(x, &call))
            return;
        x->a->has_content = true;
        x->a->ids_missing = x->a->ids_missing || lacks_id(call);
    }
}

/* `message` or `delta`. */
static void take_message(struct answer *x, struct choice *c)
{
    static const char *const contents[] = { "reasoning_content", "reasoning", "refusal", "function_call",
                                            "audio" };
    struct cox_slice key, value;

    if (cox_json_scan_kind(&x->scan) != COX_JSON_OBJECT || !cox_json_scan_open(&x->scan)) {
        (void)take(x, NULL);
        return;
    }
    while (cox_json_scan_next(&x->scan, &key)) {
        if (is(key, "tool_calls")) {
            take_calls(x);
            continue;
        }
        if (!take(x, &value))
            return;
        /* `""`, `null`, `[]` and `{}` have nothing in them. */
        bool filled = value.len > 2 && value.data[0] != 'n';

        if (is(key, "content")) {
            c->text = value;
            x->a->has_content = x->a->has_content || filled;
        }
        for (size_t i = 0; filled && i < sizeof(contents) / sizeof(contents[0]); i++)
            x->a->has_content = x->a->has_content || is(key, contents[i]);
    }
}

static void take_finish(struct answer *x, const struct choice *c)
{
    struct chat_answer *a = x->a;

    if (c->finish == CHAT_FINISH_NONE)
        return;
    a->finish = a->finish == CHAT_FINISH_NONE ? c->finish : a->finish;
    if (c->gave_up) {
        a->gave_up = true;
        a->error_message = cox_json_inner(c->finish_raw);
    }
    if (c->index >= 0 && c->index < (int64_t)CHAT_CHOICES_TOLD)
        a->finished.set[c->index / 64] |= UINT64_C(1) << c->index % 64;
    else
        a->finished.n_beyond++;
}

static void take_choice(struct answer *x, int64_t position)
{
    struct choice c = { .index = position };
    struct cox_slice key, value;

    if (cox_json_scan_kind(&x->scan) != COX_JSON_OBJECT || !cox_json_scan_open(&x->scan)) {
        (void)take(x, NULL);
        return;
    }
    while (cox_json_scan_next(&x->scan, &key)) {
        if (is(key, "delta") || is(key, "message")) {
            take_message(x, &c);
            continue;
        }
        if (!take(x, &value))
            return;
        if (is(key, "index")) {
            (void)cox_json_int(value, &c.index);
        } else if (is(key, "text")) {
            c.text = value;
            x->a->has_content = x->a->has_content || is_text(value);
        } else if (is(key, "finish_reason")) {
            c.finish = finish_of(value);
            c.finish_raw = value;
            c.gave_up = gives_up(value);
        }
    }
    take_finish(x, &c);
    if (c.index == 0 && is_text(c.text))
        x->text = c.text;
}

static void take_choices(struct answer *x, bool embeddings)
{
    struct cox_slice key;
    int64_t n = 0;

    if (cox_json_scan_kind(&x->scan) != COX_JSON_ARRAY || !cox_json_scan_open(&x->scan)) {
        (void)take(x, NULL);
        return;
    }
    x->any = true;
    while (cox_json_scan_next(&x->scan, &key)) {
        if (embeddings)
            (void)take(x, NULL);
        else
            take_choice(x, n);
        n++;
    }
    x->a->has_choices = x->a->has_choices || n > 0;
    x->a->has_content = x->a->has_content || (embeddings && n > 0);
}

/* ---- errors and the whole --------------------------------------------------------------------------- */

/* What errors are called by OpenAI, vLLM, SGLang (the names of openai-python's exceptions), llama.cpp, TGI,
 * Anthropic and Google, and the status that goes with it. */
static const struct {
    const char *name;
    int status;
} names[] = {
    { "invalid_request_error", 400 },
    { "BadRequestError", 400 },
    { "context_length_exceeded", 400 },
    { "exceed_context_size_error", 400 },
    { "INVALID_ARGUMENT", 400 },
    { "FAILED_PRECONDITION", 400 },
    { "invalid_api_key", 401 },
    { "authentication_error", 401 },
    { "AuthenticationError", 401 },
    { "UNAUTHENTICATED", 401 },
    { "permission_error", 403 },
    { "PermissionDeniedError", 403 },
    { "PERMISSION_DENIED", 403 },
    { "model_not_found", 404 },
    { "not_found_error", 404 },
    { "NotFoundError", 404 },
    { "NOT_FOUND", 404 },
    { "request_too_large", 413 },
    { "UnprocessableEntityError", 422 },
    { "validation", 422 },
    { "rate_limit_exceeded", 429 },
    { "insufficient_quota", 429 },
    { "rate_limit_error", 429 },
    { "RateLimitError", 429 },
    { "RESOURCE_EXHAUSTED", 429 },
    { "overloaded", 429 },
    { "overloaded_error", 503 },
    { "unavailable_error", 503 },
    { "ServiceUnavailableError", 503 },
    { "UNAVAILABLE", 503 },
    { "GatewayTimeout", 504 },
    { "timeout_error", 504 },
    { "DEADLINE_EXCEEDED", 504 },
};

static int status_of_name(struct cox_slice name)
{
    for (size_t i = 0; name.len > 0 && i < sizeof(names) / sizeof(names[0]); i++)
        if (cox_slice_is(name, names[i].name))
            return names[i].status;
    return 0;
}

static int status_of_number(struct cox_slice number)
{
    int64_t n;

    return cox_json_int(number, &n) && n >= 400 && n <= 599 ? (int)n : 0;
}

/* A number says it best, then the name of what exactly is wrong. */
static int error_status_of(const struct chat_answer *a, struct cox_slice status)
{
    const int said[] = { status_of_number(a->error_code), status_of_number(status),
                         status_of_name(a->error_code), status_of_name(a->error_type),
                         status_of_name(status) };

    for (size_t i = 0; i < sizeof(said) / sizeof(said[0]); i++)
        if (said[i] > 0)
            return said[i];
    return 500;
}

static void take_error(struct answer *x)
{
    enum cox_json_kind kind = cox_json_scan_kind(&x->scan);
    struct cox_slice key, value;

    if (kind != COX_JSON_OBJECT || !cox_json_scan_open(&x->scan)) {
        if (!take(x, &value) || kind == COX_JSON_NULL)
            return;
        x->a->is_error = true;
        x->a->error_message = bare(value);
        return;
    }
    x->a->is_error = true;
    while (cox_json_scan_next(&x->scan, &key)) {
        if (!take(x, &value))
            return;
        if (is(key, "message"))
            x->a->error_message = bare(value);
        else if (is(key, "type"))
            x->a->error_type = bare(value);
        else if (is(key, "code"))
            x->a->error_code = bare(value);
        else if (is(key, "status"))
            x->status = bare(value);
    }
}

static void take_top(struct answer *x, struct cox_slice key, bool embeddings)
{
    struct cox_slice value;

    if (is(key, "choices")) {
        take_choices(x, false);
    } else if (is(key, "data") && embeddings) {
        take_choices(x, true);
    } else if (is(key, "usage")) {
        take_usage(x);
    } else if (is(key, "timings")) {
        take_timings(x);
    } else if (is(key, "error")) {
        take_error(x);
    } else if (take(x, &value)) {
        if (is(key, "message"))
            x->message = bare(value);
        else if (is(key, "type"))
            x->type = bare(value);
        else if (is(key, "code"))
            x->code = bare(value);
        else if (is(key, "error_type"))
            x->error_type = bare(value);
        else if (is(key, "object"))
            x->object = value;
    }
}

static void settle(struct answer *x)
{
    struct chat_answer *a = x->a;

    if (!x->any && is(x->object, "error")) {
        a->is_error = true;
        a->error_message = x->message;
        a->error_type = x->type;
        a->error_code = x->code;
    } else if (a->is_error && a->error_type.len == 0) {
        a->error_type = x->error_type;
    }
    if (a->is_error) {
        a->error_status = error_status_of(a, x->status);
        a->error_is_any = a->error_status == 400 && cox_slice_is(a->error_type, "BadRequestError");
    } else if (a->gave_up) { /* in error_message, which reason it gave */
        a->error_status = 503;
    }
    if (x->text.len > 0) {
        a->text = cox_json_inner(x->text);
        if (memchr(a->text.data, '\\', a->text.len)) {
            cox_buf_clear(&x->r->text);
            cox_json_unescape(&x->r->text, a->text);
            a->text = cox_buf_slice(&x->r->text);
        }
    }
}

enum cox_err chat_answer_read(struct chat_reader *r, enum chat_api api, struct cox_slice json,
                              struct chat_answer *ret)
{
    struct chat_answer a = { .usage = { .cached_tokens = -1 } };
    struct answer x = { .r = r, .a = &a, .scan = cox_json_scan(json) };
    struct cox_slice key;

    if (cox_json_scan_kind(&x.scan) != COX_JSON_OBJECT || !cox_json_scan_open(&x.scan))
        return COX_ERR_INVALID;
    while (cox_json_scan_next(&x.scan, &key))
        take_top(&x, key, api == CHAT_EMBEDDINGS);
    if (!cox_json_scan_end(&x.scan))
        return COX_ERR_INVALID;
    settle(&x);
    *ret = a;
    return COX_OK;
}

/* ---- ids that are missing --------------------------------------------------------------------------- */

struct mend {
    struct cox_buf *out;
    const uint8_t *done; /* up to here is in `out` */
    uint64_t seed;
};

/* splitmix64. */
static uint64_t mixed(uint64_t x)
{
    x += 0x9e3779b97f4a7c15;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

static void copy_to(struct mend *m, const uint8_t *p)
{
    cox_buf_append(m->out, m->done, (size_t)(p - m->done));
    m->done = p;
}

static void put_id(struct mend *m, int64_t choice, int64_t index)
{
    uint64_t a = mixed(mixed(m->seed ^ mixed((uint64_t)choice)) ^ mixed(~(uint64_t)index)), b = mixed(a);
    uint8_t bytes[12];

    memcpy(bytes, &a, 8);
    memcpy(bytes + 8, &b, 4);
    cox_buf_append_str(m->out, "\"call_");
    cox_buf_append_hex(m->out, bytes, sizeof(bytes));
    cox_put_u8(m->out, '"');
}

static int64_t index_of(struct cox_slice object, int64_t position)
{
    struct cox_slice value;
    int64_t index;

    return cox_json_member(object, "index", &value) && cox_json_int(value, &index) ? index : position;
}

static void mend_call(struct mend *m, struct cox_slice call, int64_t choice, int64_t position)
{
    struct cox_slice id;
    int64_t index = index_of(call, position);

    if (!lacks_id(call))
        return;
    if (cox_json_member(call, "id", &id)) {
        copy_to(m, id.data);
        put_id(m, choice, index);
        m->done = id.data + id.len;
    } else {
        copy_to(m, call.data + 1);
        cox_buf_append_str(m->out, "\"id\":");
        put_id(m, choice, index);
        cox_put_u8(m->out, ',');
    }
}

static void mend_message(struct mend *m, struct cox_slice message, int64_t choice)
{
    struct cox_json_walk members = cox_json_walk(message);

    while (cox_json_next(&members)) {
        struct cox_json_walk calls = cox_json_walk(members.value);

        if (members.key.len == 0 || !is(members.key, "tool_calls") ||
            cox_json_kind(members.value) != COX_JSON_ARRAY)
            continue;
        for (int64_t i = 0; cox_json_next(&calls); i++)
            mend_call(m, calls.value, choice, i);
    }
}

static void mend_choices(struct mend *m, struct cox_slice choices)
{
    struct cox_json_walk w = cox_json_walk(choices);

    for (int64_t i = 0; cox_json_next(&w); i++) {
        struct cox_json_walk members = cox_json_walk(w.value);
        int64_t choice = index_of(w.value, i);

        while (cox_json_next(&members)) {
            if (is(members.key, "delta") || is(members.key, "message"))
                mend_message(m, members.value, choice);
        }
    }
}

void chat_answer_mend(struct cox_slice json, uint64_t seed, struct cox_buf *out)
{
    struct mend m = { .out = out, .done = json.data, .seed = seed };
    struct cox_json_walk w = cox_json_walk(json);

    while (cox_json_next(&w)) {
        if (is(w.key, "choices") && cox_json_kind(w.value) == COX_JSON_ARRAY)
            mend_choices(&m, w.value);
    }
    copy_to(&m, json.data + json.len);
}
