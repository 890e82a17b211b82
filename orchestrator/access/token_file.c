#include "token_file.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"
#include "cox/json.h"
#include "cox/yaml.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "roles.h"

#define FILE_LEN_MAX (16u << 20)

bool access_tenant_ok(struct cox_slice name)
{
    if (name.len == 0 || name.len > ACCESS_TENANT_LEN_MAX)
        return false;
    for (size_t i = 0; i < name.len; i++) {
        uint8_t c = name.data[i];
        bool word = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');

        if (!word && (i == 0 || (c != '-' && c != '_' && c != '.')))
            return false;
    }
    return true;
}

const struct access_token *access_tokens_find(const struct access_tokens *t, const struct cox_hash *sha256)
{
    const struct access_token *found = cox_mapb_get(&t->by_hash, cox_slice(sha256->b, sizeof(sha256->b)));

    return found && CRYPTO_memcmp(found->sha256.b, sha256->b, sizeof(sha256->b)) == 0 ? found : NULL;
}

bool access_token_has_tenant(const struct access_token *t, struct cox_slice tenant)
{
    for (size_t i = 0; i < t->n_tenants; i++)
        if (cox_slice_is(tenant, t->tenants[i]))
            return true;
    return t->n_tenants == 0;
}

static void token_fini(struct access_token *t)
{
    for (size_t i = 0; i < t->n_tenants; i++)
        cox_free(t->tenants[i]);
    cox_free(t->tenants);
    cox_free(t->name);
}

void access_tokens_fini(struct access_tokens *t)
{
    for (size_t i = 0; i < t->n; i++)
        token_fini(&t->items[i]);
    cox_free(t->items);
    cox_mapb_fini(&t->by_hash);
    *t = (struct access_tokens){ 0 };
}

/* ---- reading ---- */

struct reader {
    const struct cox_yaml *yaml;
    struct access_token *row;
    size_t index;
    struct cox_buf *error;
};

static bool fail(struct reader *r, const char *field, const char *why)
{
    struct cox_buf path = { 0 };

    cox_buf_printf(&path, "[%zu]%s%s", r->index, *field ? "." : "", field);
    cox_buf_printf(r->error, "line %u: %s: %s", cox_yaml_line(r->yaml, cox_buf_cstr(&path)),
                   *field ? field : "row", why);
    cox_buf_fini(&path);
    return false;
}

static bool is_text(struct cox_slice value)
{
    return cox_json_kind(value) == COX_JSON_STRING;
}

static bool read_hash(struct reader *r, struct cox_slice value)
{
    static const char digits[] = "0123456789abcdef";
    struct cox_slice hex = cox_json_inner(value);
    bool ok = is_text(value) && hex.len == 2 * sizeof(r->row->sha256.b);

    for (size_t i = 0; ok && i < hex.len; i++) {
        const char *digit = hex.data[i] ? strchr(digits, hex.data[i]) : NULL;
        unsigned v = digit ? (unsigned)(digit - digits) : 0;

        ok = digit;
        r->row->sha256.b[i / 2] = (uint8_t)(i % 2 == 0 ? v << 4 : r->row->sha256.b[i / 2] | v);
    }
    return ok || fail(r, "token_sha256", "expected 64 lower-case hex digits, as `cox admin token` prints");
}

static bool read_roles(struct reader *r, struct cox_slice value)
{
    if (cox_json_kind(value) != COX_JSON_ARRAY)
        return fail(r, "roles", "expected a list such as [submitter, reader]");
    for (struct cox_json_walk w = cox_json_walk(value); cox_json_next(&w);) {
        unsigned role = is_text(w.value) ? access_role_parse(cox_json_inner(w.value)) : 0;

        if (!role)
            return fail(r, "roles", "expected some of submitter, reader, approver, operator, admin, worker");
        r->row->roles |= role;
    }
    return r->row->roles != 0 || fail(r, "roles", "expected at least one");
}

static bool read_tenants(struct reader *r, struct cox_slice value)
{
    struct access_token *row = r->row;

    if (is_text(value) && cox_slice_is(cox_json_inner(value), "*"))
        return true;
    if (cox_json_kind(value) != COX_JSON_ARRAY)
        return fail(r, "tenants", "expected a list such as [alpha, beta], or \"*\"");
    for (struct cox_json_walk w = cox_json_walk(value); cox_json_next(&w);) {
        struct cox_slice name = cox_json_inner(w.value);

        if (!is_text(w.value) || !access_tenant_ok(name))
            return fail(r, "tenants", "expected names of 1 to 63 characters of a-z, 0-9, -, _ and .");
        if (row->n_tenants == ACCESS_TENANTS_MAX)
            return fail(r, "tenants", "more than 1,000");
        row->tenants = cox_realloc(row->tenants, row->n_tenants + 1, sizeof(*row->tenants));
        row->tenants[row->n_tenants++] = cox_strndup((const char *)name.data, name.len);
    }
    return row->n_tenants > 0 || fail(r, "tenants", "expected at least one");
}

static bool read_name(struct reader *r, struct cox_slice value)
{
    struct cox_buf text = { 0 };

    cox_json_unquote(&text, value);
    bool ok = is_text(value) && text.len > 0 && text.len <= 255 && !memchr(text.data, '\0', text.len);

    if (ok)
        r->row->name = cox_strndup((const char *)text.data, text.len);
    cox_buf_fini(&text);
    return ok || fail(r, "name", "expected 1 to 255 bytes of text");
}

static bool read_expires(struct reader *r, struct cox_slice value)
{
    return (is_text(value) && cox_parse_time(cox_json_inner(value), &r->row->expires_wall_ms) == COX_OK) ||
           fail(r, "expires", "expected a time such as 2027-01-01T00:00:00Z");
}

static const struct {
    const char *name;
    bool (*read)(struct reader *r, struct cox_slice value);
    bool optional;
} fields[] = {
    { "name", read_name, false },       { "token_sha256", read_hash, false }, { "roles", read_roles, false },
    { "tenants", read_tenants, false }, { "expires", read_expires, true },
};
#define N_FIELDS (sizeof(fields) / sizeof(fields[0]))

static bool read_row(struct reader *r, struct cox_slice row)
{
    bool seen[N_FIELDS] = { false };

    if (cox_json_kind(row) != COX_JSON_OBJECT)
        return fail(r, "", "expected name, token_sha256, roles, tenants and, perhaps, expires");
    for (struct cox_json_walk w = cox_json_walk(row); cox_json_next(&w);) {
        size_t i = 0;

        while (i < N_FIELDS && !cox_json_string_is(w.key, cox_slice_str(fields[i].name)))
            i++;
        if (i == N_FIELDS)
            return fail(r, "", "a key that is none of name, token_sha256, roles, tenants and expires");
        seen[i] = true;
        if (!fields[i].read(r, w.value))
            return false;
    }
    for (size_t i = 0; i < N_FIELDS; i++)
        if (!seen[i] && !fields[i].optional)
            return fail(r, "",
                        i == 0   ? "no name"
                        : i == 1 ? "no token_sha256"
                        : i == 2 ? "no roles"
                                 : "no tenants; \"*\" means all");
    /* Steps of every tenant may be placed on every worker. */
    if ((r->row->roles & ACCESS_WORKER) && r->row->n_tenants > 0)
        return fail(r, "tenants", "a worker gets the steps of all tenants; expected \"*\"");
    return true;
}

static bool read_rows(struct access_tokens *t, struct reader *r, struct cox_slice json)
{
    size_t cap = 0;

    for (struct cox_json_walk w = cox_json_walk(json); cox_json_next(&w); r->index++) {
        if (t->n == ACCESS_TOKENS_MAX)
            return fail(r, "", "more than 10,000 tokens");
        if (t->n == cap) {
            cap = cap ? cap * 2 : 16;
            t->items = cox_realloc(t->items, cap, sizeof(*t->items));
        }
        r->row = &t->items[t->n++];
        *r->row = (struct access_token){ .expires_wall_ms = INT64_MAX };
        if (!read_row(r, w.value))
            return false;
    }
    for (r->index = 0; r->index < t->n; r->index++) {
        struct access_token *row = &t->items[r->index];

        if (cox_mapb_set(&t->by_hash, cox_slice(row->sha256.b, sizeof(row->sha256.b)), row))
            return fail(r, "token_sha256", "an earlier row has the same");
    }
    return true;
}

enum cox_err access_tokens_parse(struct cox_slice text, struct access_tokens *ret, struct cox_buf *error)
{
    struct cox_yaml y = { 0 };
    struct reader r = { .yaml = &y, .error = error };
    enum cox_err err = cox_yaml_parse(&y, text);
    struct cox_slice json = cox_json_trim(cox_buf_slice(&y.json));

    *ret = (struct access_tokens){ 0 };
    if (err) {
        cox_buf_printf(error, "line %zu: %s", y.error_line, cox_buf_cstr(&y.error));
    } else if (cox_json_kind(json) != COX_JSON_ARRAY && cox_json_kind(json) != COX_JSON_NULL) {
        cox_buf_append_str(error, "line 1: expected a list, a row a token");
        err = COX_ERR_INVALID;
    } else if (!read_rows(ret, &r, json)) {
        err = COX_ERR_INVALID;
    }
    if (err)
        access_tokens_fini(ret);
    cox_yaml_fini(&y);
    return err;
}

/* Whoever can write it can be anybody. */
static bool is_private(int fd, struct cox_buf *error)
{
    struct stat st;

    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & (S_IWGRP | S_IWOTH)) == 0)
        return true;
    cox_buf_append_str(error, "not a plain file that only its owner may change; chmod go-w");
    return false;
}

enum cox_err access_tokens_read(const char *path, struct access_tokens *ret, struct cox_buf *error)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct cox_buf text = { 0 };
    enum cox_err err = COX_OK;
    ssize_t n = 1;

    *ret = (struct access_tokens){ 0 };
    cox_buf_printf(error, "%s: ", path);
    if (fd < 0) {
        cox_buf_append_str(error, strerrordesc_np(errno));
        return COX_ERR_IO;
    }
    if (!is_private(fd, error))
        err = COX_ERR_INVALID;
    while (!err && n > 0) {
        size_t from = text.len;

        n = read(fd, cox_buf_extend(&text, 65536), 65536);
        text.len = from + (n > 0 ? (size_t)n : 0);
        if (n < 0 || text.len > FILE_LEN_MAX) {
            cox_buf_append_str(error, n < 0 ? strerrordesc_np(errno) : "more than 16 MiB");
            err = n < 0 ? COX_ERR_IO : COX_ERR_INVALID;
        }
    }
    (void)close(fd);
    if (!err)
        err = access_tokens_parse(cox_buf_slice(&text), ret, error);
    cox_buf_fini(&text);
    return err;
}
