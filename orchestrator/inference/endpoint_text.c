/* Endpoints as they are written: in the configuration, and in files that are looked at again. */
#include "endpoint_text.h"

#include "endpoint_url.h"

#include "cox/base/alloc.h"
#include "cox/base/map.h"
#include "cox/json.h"
#include "cox/limits.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void endpoint_text_fini(struct endpoint_text *e)
{
    if (e->bearer)
        OPENSSL_cleanse(e->bearer, strlen(e->bearer));
    cox_free(e->bearer);
    cox_free(e->url);
    cox_free(e->upstream_model);
    cox_free(e->ca_file);
    *e = (struct endpoint_text){ 0 };
}

void endpoints_free(struct endpoint_text *endpoints, size_t n)
{
    for (size_t i = 0; i < n; i++)
        endpoint_text_fini(&endpoints[i]);
    cox_free(endpoints);
}

/* ---- fields ---- */

static bool read_url(struct config_reader *r, void *target, struct cox_slice value)
{
    struct endpoint_text *e = target;
    struct cox_buf url = { 0 };
    char *text = NULL;

    if (!config_text(r, value, ENDPOINT_URL_LEN_MAX, ENDPOINT_URL_EXPECTED, &text))
        return false;
    bool ok = endpoint_url_read(cox_slice_str(text), &url);

    if (ok) {
        cox_free(e->url);
        e->url = cox_strdup(cox_buf_cstr(&url));
    }
    cox_free(text);
    cox_buf_fini(&url);
    return ok || config_expected(r, value, ENDPOINT_URL_EXPECTED);
}

static bool read_upstream_model(struct config_reader *r, void *target, struct cox_slice value)
{
    struct endpoint_text *e = target;

    return config_text(r, value, CATALOGUE_NAME_LEN_MAX, "the name that this server has for the model",
                       &e->upstream_model);
}

static bool read_max_in_flight(struct config_reader *r, void *target, struct cox_slice value)
{
    struct endpoint_text *e = target;
    uint64_t n = 0;

    if (!config_count(r, value, 1, CATALOGUE_IN_FLIGHT_MAX, &n))
        return false;
    e->max_in_flight = (uint32_t)n;
    return true;
}

/* Whoever can write it can choose who pays. */
static bool read_key(struct config_reader *r, const char *path, uint8_t *text, size_t *ret_len)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    ssize_t n = 0;
    bool ok = fd >= 0 || config_fail(r, "%s: %s", path, strerrordesc_np(errno));

    if (!ok)
        r->err = COX_ERR_IO;
    if (ok && (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || (st.st_mode & (S_IWGRP | S_IWOTH))))
        ok = config_fail(r, "%s: not a plain file that only its owner may change; chmod go-w", path);
    while (ok && (n = read(fd, text + *ret_len, CATALOGUE_KEY_LEN_MAX + 1 - *ret_len)) > 0)
        *ret_len += (size_t)n;
    if (ok && (n < 0 || *ret_len > CATALOGUE_KEY_LEN_MAX))
        ok = config_fail(r, "%s: %s", path, n < 0 ? strerrordesc_np(errno) : "longer than 8 KiB");
    if (fd >= 0)
        (void)close(fd);
    return ok;
}

static bool read_api_key_file(struct config_reader *r, void *target, struct cox_slice value)
{
    struct endpoint_text *e = target;
    uint8_t text[CATALOGUE_KEY_LEN_MAX + 1];
    size_t from = 0, to = 0;
    char *path = NULL;
    bool ok = config_text(r, value, 4096, "the name of a file", &path) && read_key(r, path, text, &to);

    while (from < to && isspace(text[from]))
        from++;
    while (to > from && isspace(text[to - 1]))
        to--;
    for (size_t i = from; ok && i < to; i++)
        if (text[i] <= ' ' || text[i] >= 0x7f)
            ok = config_fail(r, "%s: expected one key and nothing else", path);
    if (ok && to == from)
        ok = config_fail(r, "%s: empty; expected a key", path);
    if (ok && !e->bearer)
        e->bearer = cox_strndup((const char *)text + from, to - from);
    OPENSSL_cleanse(text, sizeof(text));
    cox_free(path);
    return ok;
}

static bool read_ca_file(struct config_reader *r, void *target, struct cox_slice value)
{
    struct endpoint_text *e = target;

    if (!config_text(r, value, 4096, "the name of a file", &e->ca_file))
        return false;
    if (access(e->ca_file, R_OK) == 0)
        return true;
    (void)config_fail(r, "%s: %s", e->ca_file, strerrordesc_np(errno));
    r->err = COX_ERR_IO;
    return false;
}

const struct config_field endpoint_fields[ENDPOINT_FIELDS] = {
    { "url", read_url },
    { "upstream_model", read_upstream_model },
    { "max_in_flight", read_max_in_flight },
    { "api_key_file", read_api_key_file },
    { "ca_file", read_ca_file },
};
#define FOUND_FIELDS 3u /* what a file that is watched may say: the rest is the operator's */

/* ---- a list ---- */

struct endpoints {
    struct endpoint_text *items;
    size_t n, cap;
    const struct config_field *fields;
    size_t n_fields;
    struct cox_mapb seen; /* "URL upstream_model" */
};

static struct endpoint_text *add(struct endpoints *l)
{
    if (l->n == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 8;
        l->items = cox_realloc(l->items, l->cap, sizeof(*l->items));
    }
    l->items[l->n] = (struct endpoint_text){ 0 };
    return &l->items[l->n++];
}

static bool is_first(struct config_reader *r, struct endpoints *l, const struct endpoint_text *e)
{
    struct cox_buf key = { 0 };

    cox_buf_printf(&key, "%s %s", e->url, e->upstream_model ? e->upstream_model : "");
    bool known = cox_mapb_set(&l->seen, cox_buf_slice(&key), l) != NULL;

    cox_buf_fini(&key);
    return !known || config_fail(r, "%s is there already", e->url);
}

static bool read_endpoint(struct config_reader *r, void *target, struct cox_slice item)
{
    struct endpoints *l = target;
    struct endpoint_text *e = add(l);

    if (cox_json_kind(item) == COX_JSON_STRING ? !read_url(r, e, item)
                                               : !config_object(r, item, e, l->fields, l->n_fields))
        return false;
    return (e->url || config_fail(r, "no url; expected %s", ENDPOINT_URL_EXPECTED)) && is_first(r, l, e);
}

static bool take(struct endpoints *l, bool ok, struct endpoint_text **ret, size_t *ret_n)
{
    cox_mapb_fini(&l->seen);
    if (ok) {
        *ret = l->items;
        *ret_n = l->n;
    } else {
        endpoints_free(l->items, l->n);
    }
    return ok;
}

bool endpoints_read(struct config_reader *r, struct cox_slice value, struct endpoint_text **ret,
                    size_t *ret_n)
{
    struct endpoints l = { .fields = endpoint_fields, .n_fields = ENDPOINT_FIELDS };

    return take(&l, config_list(r, value, &l, CATALOGUE_ENDPOINTS_MAX, read_endpoint), ret, ret_n);
}

/* ---- a file that is watched ---- */

static bool read_line(struct config_reader *r, struct endpoints *l, struct cox_slice line)
{
    struct cox_buf url = { 0 };

    if (line.len == 0 || line.data[0] == '#')
        return true;
    if (l->n == CATALOGUE_ENDPOINTS_MAX)
        return config_fail(r, "more than %u", CATALOGUE_ENDPOINTS_MAX);
    struct endpoint_text *e = add(l);
    bool ok = endpoint_url_read(line, &url);

    if (ok)
        e->url = cox_strdup(cox_buf_cstr(&url));
    cox_buf_fini(&url);
    return ok ? is_first(r, l, e) : config_expected(r, line, ENDPOINT_URL_EXPECTED);
}

static bool read_lines(struct config_reader *r, struct endpoints *l, struct cox_slice text)
{
    bool ok = text.len > 0 || config_fail(r, "empty; expected URLs, or [] for none");

    for (size_t at = 0, line = 1; ok && at < text.len; line++) {
        const uint8_t *end = memchr(text.data + at, '\n', text.len - at);
        size_t to = end ? (size_t)(end - text.data) : text.len;

        r->path.len = 0;
        cox_buf_printf(&r->path, "line %zu", line);
        size_t from = at, until = to;

        while (from < until && isspace(text.data[from]))
            from++;
        while (until > from && isspace(text.data[until - 1]))
            until--;
        ok = read_line(r, l, cox_slice(text.data + from, until - from));
        at = to + 1;
    }
    return ok;
}

enum cox_err endpoints_parse(struct cox_slice text, struct endpoint_text **ret, size_t *ret_n,
                             struct cox_buf *error)
{
    struct config_reader r = { .error = error };
    struct endpoints l = { .fields = endpoint_fields, .n_fields = FOUND_FIELDS };
    struct cox_slice json = cox_json_trim(text);
    struct cox_json_place place;
    bool ok;

    if (text.len > COX_DOCUMENT_LEN_MAX)
        ok = config_fail(&r, "longer than %u MiB", COX_DOCUMENT_LEN_MAX >> 20);
    else if (json.len == 0 || json.data[0] != '[')
        ok = read_lines(&r, &l, text);
    else if (cox_json_check(json, &place))
        ok = config_fail(&r, "column %u of line %u of the JSON: expected %s", place.column, place.line,
                         place.expected);
    else
        ok = config_list(&r, json, &l, CATALOGUE_ENDPOINTS_MAX, read_endpoint);
    cox_buf_fini(&r.path);
    (void)take(&l, ok, ret, ret_n);
    return r.err;
}
