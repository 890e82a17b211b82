/* The configuration of models, from flags and from the file. */
#include "endpoint_text.h"
#include "endpoint_url.h"

#include "cox/base/alloc.h"
#include "cox/base/map.h"
#include "cox/config.h"
#include "cox/json.h"

#include <ctype.h>
#include <limits.h>
#include <string.h>

#define PER_TOKENS 1000000u
#define PRICE_MICROS_MAX 1000000000000000u /* a billion */
#define NAME_EXPECTED "a name of letters, digits and . _ - / : @ +, such as llama-3.1-8b"

static void texts_free(char **texts, size_t n)
{
    for (size_t i = 0; i < n; i++)
        cox_free(texts[i]);
    cox_free(texts);
}

void model_text_fini(struct model_text *m)
{
    cox_free(m->name);
    texts_free(m->aliases, m->n_aliases);
    texts_free(m->fallbacks, m->n_fallbacks);
    endpoints_free(m->endpoints, m->n_endpoints);
    cox_free(m->source);
    endpoint_text_fini(&m->found);
    *m = (struct model_text){ 0 };
}

size_t catalogue_text_models(const struct catalogue_text *t)
{
    return t->n_models;
}

void catalogue_text_free(struct catalogue_text *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->n_models; i++)
        model_text_fini(&t->models[i]);
    cox_free(t->models);
    cox_free(t);
}

static struct model_text *add_model(struct catalogue_text *t)
{
    if ((t->n_models & (t->n_models - 1)) == 0) /* a power of two: it is full */
        t->models = cox_realloc(t->models, t->n_models ? t->n_models * 2 : 1, sizeof(*t->models));
    t->models[t->n_models] = (struct model_text){ 0 };
    return &t->models[t->n_models++];
}

/* ---- names ---- */

static bool name_ok(struct cox_slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        if (!isalnum(s.data[i]) && (i == 0 || !s.data[i] || !strchr("._-/:@+", s.data[i])))
            return false;
    }
    return s.len > 0 && s.len <= CATALOGUE_NAME_LEN_MAX;
}

static bool read_name_text(struct config_reader *r, struct cox_slice value, char **ret)
{
    return config_text(r, value, CATALOGUE_NAME_LEN_MAX, NAME_EXPECTED, ret) &&
           (name_ok(cox_slice_str(*ret)) || config_expected(r, value, NAME_EXPECTED));
}

static bool read_name(struct config_reader *r, void *target, struct cox_slice value)
{
    return read_name_text(r, value, &((struct model_text *)target)->name);
}

struct names {
    char ***texts;
    size_t *n;
};

static bool read_one_name(struct config_reader *r, void *target, struct cox_slice value)
{
    struct names *names = target;
    char *text = NULL;

    if (!read_name_text(r, value, &text)) {
        cox_free(text);
        return false;
    }
    for (size_t i = 0; i < *names->n; i++) {
        if (strcmp((*names->texts)[i], text) == 0) {
            cox_free(text);
            return config_fail(r, "%.*s is there already", (int)value.len, (const char *)value.data);
        }
    }
    *names->texts = cox_realloc(*names->texts, *names->n + 1, sizeof(**names->texts));
    (*names->texts)[(*names->n)++] = text;
    return true;
}

static bool read_aliases(struct config_reader *r, void *target, struct cox_slice value)
{
    struct model_text *m = target;

    return config_list(r, value, &(struct names){ &m->aliases, &m->n_aliases }, CATALOGUE_NAMES_MAX,
                       read_one_name);
}

static bool read_fallbacks(struct config_reader *r, void *target, struct cox_slice value)
{
    struct model_text *m = target;

    return config_list(r, value, &(struct names){ &m->fallbacks, &m->n_fallbacks }, CATALOGUE_NAMES_MAX,
                       read_one_name);
}

/* ---- money ---- */

/* A decimal number times a million, exactly: "0.15", "1.5e-1"; false when it is none, or not whole then. */
static bool read_micros(struct cox_slice s, uint64_t *ret)
{
    uint64_t digits = 0;
    int64_t shift = 6, exponent = 0;
    size_t i = 0, n_digits = 0;
    bool fraction = false;

    for (; i < s.len && (isdigit(s.data[i]) || (s.data[i] == '.' && !fraction)); i++) {
        if (s.data[i] == '.') {
            fraction = true;
            continue;
        }
        if (digits > PRICE_MICROS_MAX * 1000)
            return false;
        digits = digits * 10 + (uint64_t)(s.data[i] - '0');
        shift -= fraction;
        n_digits++;
    }
    if (i < s.len && (s.data[i] == 'e' || s.data[i] == 'E')) {
        struct cox_slice rest = cox_slice(s.data + i + 1, s.len - i - 1);

        if (rest.len > 0 && rest.data[0] == '+')
            rest = cox_slice(rest.data + 1, rest.len - 1);
        if (!cox_json_int(rest, &exponent) || exponent < -30 || exponent > 30)
            return false;
        i = s.len;
    }
    for (shift += exponent; shift < 0 && digits % 10 == 0 && digits > 0; shift++)
        digits /= 10;
    for (; shift > 0 && digits <= PRICE_MICROS_MAX; shift--)
        digits *= 10;
    if (n_digits == 0 || i < s.len || digits > PRICE_MICROS_MAX || (shift < 0 && digits > 0))
        return false;
    *ret = digits;
    return true;
}

static bool read_amount(struct config_reader *r, struct cox_slice value, uint64_t *ret)
{
    bool quoted = cox_json_kind(value) == COX_JSON_STRING;

    if ((quoted || cox_json_kind(value) == COX_JSON_NUMBER) &&
        read_micros(quoted ? cox_json_inner(value) : value, ret))
        return true;
    return config_expected(r, value, "an amount such as 0.15, to the millionth; per_tokens says of how many");
}

struct price {
    struct model_price *price;
    bool has_cached;
};

static bool read_input(struct config_reader *r, void *target, struct cox_slice value)
{
    return read_amount(r, value, &((struct price *)target)->price->input_micros);
}

static bool read_output(struct config_reader *r, void *target, struct cox_slice value)
{
    return read_amount(r, value, &((struct price *)target)->price->output_micros);
}

static bool read_cached_input(struct config_reader *r, void *target, struct cox_slice value)
{
    struct price *p = target;

    p->has_cached = true;
    return read_amount(r, value, &p->price->cached_input_micros);
}

static bool read_currency(struct config_reader *r, void *target, struct cox_slice value)
{
    struct price *p = target;
    struct cox_slice text = cox_json_inner(value);
    bool ok = text.len >= 3 && text.len < sizeof(p->price->currency);

    for (size_t i = 0; ok && i < text.len; i++)
        ok = text.data[i] >= 'A' && text.data[i] <= 'Z';
    if (!ok)
        return config_expected(r, value, "a currency such as USD");
    memcpy(p->price->currency, text.data, text.len);
    p->price->currency[text.len] = '\0';
    return true;
}

static bool read_per_tokens(struct config_reader *r, void *target, struct cox_slice value)
{
    return config_count(r, value, 1, 1000000000, &((struct price *)target)->price->per_tokens);
}

static const struct config_field price_fields[] = {
    { "input", read_input },       { "output", read_output },         { "cached_input", read_cached_input },
    { "currency", read_currency }, { "per_tokens", read_per_tokens },
};

static bool read_price(struct config_reader *r, void *target, struct cox_slice value)
{
    struct model_price *price = &((struct model_text *)target)->price;
    struct price p = { .price = price };

    *price = (struct model_price){ .per_tokens = PER_TOKENS, .currency = "USD" };
    if (!config_object(r, value, &p, price_fields, sizeof(price_fields) / sizeof(price_fields[0])))
        return false;
    if (!p.has_cached)
        price->cached_input_micros = price->input_micros;
    return true;
}

/* ---- a model ---- */

static bool read_context_tokens(struct config_reader *r, void *target, struct cox_slice value)
{
    return config_count(r, value, 1, INT32_MAX, &((struct model_text *)target)->context_tokens);
}

static bool read_endpoints(struct config_reader *r, void *target, struct cox_slice value)
{
    struct model_text *m = target;

    endpoints_free(m->endpoints, m->n_endpoints);
    m->endpoints = NULL;
    m->n_endpoints = 0;
    return endpoints_read(r, value, &m->endpoints, &m->n_endpoints);
}

static bool read_source(struct config_reader *r, struct model_text *m, struct cox_slice value,
                        enum discovery_kind kind, const char *expected)
{
    if (m->discovery != DISCOVERY_NONE)
        return config_fail(r, "expected file or dns, not both");
    m->discovery = kind;
    return config_text(r, value, 4096, expected, &m->source);
}

static bool read_file(struct config_reader *r, void *target, struct cox_slice value)
{
    return read_source(r, target, value, DISCOVERY_FILE, "the name of a file with URLs");
}

#define DNS_EXPECTED "HOST:PORT, or the name of an SRV record such as _http._tcp.models.example"

static bool dns_ok(const char *text)
{
    struct cox_buf url = { 0 };
    const char *port = strrchr(text, ':');
    char *as_url = cox_asprintf("http://%s", text);
    bool ok = !strchr(text, '/') && endpoint_url_read(cox_slice_str(as_url), &url) &&
              (*text == '_' ? !port : port && port[1] && text[0] != '[');

    cox_free(as_url);
    cox_buf_fini(&url);
    return ok;
}

static bool read_dns(struct config_reader *r, void *target, struct cox_slice value)
{
    struct model_text *m = target;

    return read_source(r, m, value, DISCOVERY_DNS, DNS_EXPECTED) &&
           (dns_ok(m->source) || config_expected(r, value, DNS_EXPECTED));
}

static bool read_found(struct config_reader *r, struct model_text *m, struct cox_slice value, size_t field)
{
    return endpoint_fields[field].read(r, &m->found, value);
}

static bool read_found_1(struct config_reader *r, void *target, struct cox_slice value)
{
    return read_found(r, target, value, 1);
}

static bool read_found_2(struct config_reader *r, void *target, struct cox_slice value)
{
    return read_found(r, target, value, 2);
}

static bool read_found_3(struct config_reader *r, void *target, struct cox_slice value)
{
    return read_found(r, target, value, 3);
}

static bool read_found_4(struct config_reader *r, void *target, struct cox_slice value)
{
    return read_found(r, target, value, 4);
}

static bool read_discovery(struct config_reader *r, void *target, struct cox_slice value)
{
    const struct config_field fields[] = {
        { "file", read_file },
        { "dns", read_dns },
        { endpoint_fields[1].name, read_found_1 },
        { endpoint_fields[2].name, read_found_2 },
        { endpoint_fields[3].name, read_found_3 },
        { endpoint_fields[4].name, read_found_4 },
    };
    struct model_text *m = target;

    return config_object(r, value, m, fields, sizeof(fields) / sizeof(fields[0])) &&
           (m->discovery != DISCOVERY_NONE || config_fail(r, "expected file or dns"));
}

static const struct config_field model_fields[] = {
    { "name", read_name },           { "aliases", read_aliases },
    { "price", read_price },         { "context_tokens", read_context_tokens },
    { "endpoints", read_endpoints }, { "discovery", read_discovery },
    { "fallbacks", read_fallbacks },
};

static bool read_model(struct config_reader *r, void *target, struct cox_slice item)
{
    struct model_text *m = add_model(target);

    if (!config_object(r, item, m, model_fields, sizeof(model_fields) / sizeof(model_fields[0])))
        return false;
    if (!m->name)
        return config_fail(r, "no name; expected %s", NAME_EXPECTED);
    if (m->n_endpoints == 0 && m->discovery == DISCOVERY_NONE)
        return config_fail(r, "no endpoints; expected endpoints: [{url: ...}] or discovery: {file: ...}");
    return true;
}

/* ---- --model ---- */

#define FLAG_EXPECTED "NAME=URL[,URL...], such as llama=http://10.0.0.7:8000/v1"

static bool is_url(struct cox_slice s)
{
    return (s.len >= 7 && memcmp(s.data, "http://", 7) == 0) ||
           (s.len >= 8 && memcmp(s.data, "https://", 8) == 0);
}

static struct model_text *find(struct catalogue_text *t, struct cox_slice name)
{
    for (size_t i = 0; i < t->n_models; i++) {
        if (cox_slice_is(name, t->models[i].name))
            return &t->models[i];
    }
    return NULL;
}

static bool add_url(struct config_reader *r, struct model_text *m, struct cox_slice text)
{
    struct cox_buf url = { 0 };
    bool ok = endpoint_url_read(text, &url) || config_expected(r, text, ENDPOINT_URL_EXPECTED);

    for (size_t i = 0; ok && i < m->n_endpoints; i++) {
        if (cox_slice_is(cox_buf_slice(&url), m->endpoints[i].url))
            ok = config_fail(r, "%s is there already", m->endpoints[i].url);
    }
    if (ok && m->n_endpoints == CATALOGUE_ENDPOINTS_MAX)
        ok = config_fail(r, "more than %u endpoints", CATALOGUE_ENDPOINTS_MAX);
    if (ok) {
        m->endpoints = cox_realloc(m->endpoints, m->n_endpoints + 1, sizeof(*m->endpoints));
        m->endpoints[m->n_endpoints++] = (struct endpoint_text){ .url = cox_strdup(cox_buf_cstr(&url)) };
    }
    cox_buf_fini(&url);
    return ok;
}

/* The values of repeated flags may have been joined by commas: what begins as a URL belongs to the name
 * before. */
static bool read_piece(struct config_reader *r, struct catalogue_text *t, struct model_text **m,
                       struct cox_slice piece)
{
    const uint8_t *equals = piece.len > 0 ? memchr(piece.data, '=', piece.len) : NULL;
    struct cox_slice name = cox_slice(piece.data, equals ? (size_t)(equals - piece.data) : 0);

    if (is_url(piece))
        return *m ? add_url(r, *m, piece) : config_expected(r, piece, FLAG_EXPECTED);
    if (!equals || !name_ok(name))
        return config_expected(r, piece, FLAG_EXPECTED);
    *m = find(t, name);
    if (!*m) {
        *m = add_model(t);
        (*m)->name = cox_strndup((const char *)name.data, name.len);
    }
    return add_url(r, *m, cox_slice(equals + 1, piece.len - name.len - 1));
}

static bool read_flag(struct config_reader *r, struct catalogue_text *t, struct cox_slice flag)
{
    struct model_text *m = NULL;
    bool ok = true;

    for (size_t at = 0; ok && at <= flag.len;) {
        const uint8_t *comma = at < flag.len ? memchr(flag.data + at, ',', flag.len - at) : NULL;
        size_t to = comma ? (size_t)(comma - flag.data) : flag.len;

        ok = read_piece(r, t, &m, cox_slice(flag.data + at, to - at));
        at = to + 1;
    }
    return ok;
}

/* ---- the whole ---- */

static bool claim(struct config_reader *r, struct cox_mapb *names, const char *name, struct model_text *m)
{
    return !cox_mapb_set(names, cox_slice_str(name), m) ||
           config_fail(r, "%s is the name or an alias of a model already", name);
}

static bool check_fallbacks(struct config_reader *r, const struct cox_mapb *names,
                            const struct catalogue_text *t, const struct model_text *m)
{
    for (size_t i = 0; i < m->n_fallbacks; i++) {
        const struct model_text *other = cox_mapb_get(names, cox_slice_str(m->fallbacks[i]));
        const char *nearest = NULL;
        unsigned best = COX_CONFIG_NEAR;
        size_t mark = config_enter(r, "fallbacks");

        (void)config_enter_item(r, i);
        if (other == m)
            return config_fail(r, "%s is the model itself", m->fallbacks[i]);
        for (size_t k = 0; !other && k < t->n_models; k++)
            cox_config_consider(m->fallbacks[i], t->models[k].name, &nearest, &best);
        if (!other)
            return config_fail(r, "%s is no model%s%s%s", m->fallbacks[i], nearest ? "; did you mean " : "",
                               nearest ? nearest : "", nearest ? "?" : "");
        config_leave(r, mark);
    }
    return true;
}

/* Of one model after the other: names that are unique, fallbacks that there are. The first `n_flags` are of
 * flags. */
static bool check(struct config_reader *r, struct catalogue_text *t, size_t n_flags)
{
    struct cox_mapb names = { 0 };
    bool ok = true;

    for (int pass = 0; ok && pass < 2; pass++) {
        for (size_t i = 0; ok && i < t->n_models; i++) {
            struct model_text *m = &t->models[i];

            r->path.len = 0;
            if (i < n_flags)
                cox_buf_append_str(&r->path, "--model");
            else
                cox_buf_printf(&r->path, "models[%zu]", i - n_flags);
            ok = pass == 1 ? check_fallbacks(r, &names, t, m) : claim(r, &names, m->name, m);
            for (size_t k = 0; ok && pass == 0 && k < m->n_aliases; k++)
                ok = claim(r, &names, m->aliases[k], m);
        }
    }
    cox_mapb_fini(&names);
    return ok;
}

enum cox_err catalogue_parse(const char *const *flags, size_t n_flags, struct cox_slice models_json,
                             struct catalogue_text **ret, struct cox_buf *error)
{
    struct config_reader r = { .error = error };
    struct catalogue_text *t = COX_NEW(struct catalogue_text);
    size_t mark = config_enter(&r, "--model");
    bool ok = true;

    for (size_t i = 0; ok && i < n_flags; i++)
        ok = read_flag(&r, t, cox_slice_str(flags[i]));
    size_t n_by_flags = t->n_models;

    if (ok) {
        config_leave(&r, mark);
        (void)config_enter(&r, "models");
        models_json = cox_json_trim(models_json);
        ok = models_json.len == 0 || cox_json_kind(models_json) == COX_JSON_NULL ||
             config_list(&r, models_json, t, CATALOGUE_MODELS_MAX, read_model);
    }
    ok = ok && check(&r, t, n_by_flags);
    cox_buf_fini(&r.path);
    if (ok)
        *ret = t;
    else
        catalogue_text_free(t);
    return r.err;
}

uint64_t model_cost_micros(const struct model_price *price, uint64_t input_tokens, uint64_t cached_tokens,
                           uint64_t output_tokens)
{
    uint64_t cached = cached_tokens < input_tokens ? cached_tokens : input_tokens;
    unsigned __int128 sum = (unsigned __int128)(input_tokens - cached) * price->input_micros +
                            (unsigned __int128)cached * price->cached_input_micros +
                            (unsigned __int128)output_tokens * price->output_micros;

    if (price->per_tokens > 1)
        sum = (sum + price->per_tokens - 1) / price->per_tokens;
    return sum > UINT64_MAX ? UINT64_MAX : (uint64_t)sum;
}
