#include "tape.h"

#include "cox/base/alloc.h"
#include "cox/base/log.h"
#include "cox/base/map.h"
#include "cox/json.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define SHOWN_LEN 80u

struct entry {
    struct entry *next; /* the same request, asked again */
    unsigned line;
    struct chat_usage usage;
    struct cox_buf key, type, response; /* key: the api, a space, the request without white space */
};

struct tape {
    char *path;
    FILE *file; /* of a recording */
    struct entry **entries;
    size_t n_entries, cap_entries;
    struct cox_mapb by_key; /* to the one that answers next */
};

static const char *const apis[] = { [CHAT_COMPLETIONS] = "chat/completions",
                                    [CHAT_TEXT_COMPLETIONS] = "completions",
                                    [CHAT_EMBEDDINGS] = "embeddings" };

static void put_key(struct cox_buf *out, struct cox_slice api, struct cox_slice request)
{
    cox_buf_append_slice(out, api);
    cox_put_u8(out, ' ');
    cox_json_compact(out, request);
}

static struct cox_slice request_of(const struct entry *e)
{
    const uint8_t *space = memchr(e->key.data, ' ', e->key.len);
    size_t at = (size_t)(space - e->key.data) + 1;

    return cox_slice(e->key.data + at, e->key.len - at);
}

/* ---- recording ---- */

enum cox_err tape_record(const char *path, struct tape **ret, struct cox_buf *error)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600); /* what was said may be secret */
    FILE *f = fd < 0 ? NULL : fdopen(fd, "w");

    if (!f) {
        cox_buf_printf(error, "%s: %s", path, strerror(errno));
        return COX_ERR_IO;
    }
    struct tape *t = COX_NEW(struct tape);

    t->path = cox_strdup(path);
    t->file = f;
    *ret = t;
    return COX_OK;
}

static void put_text(struct cox_buf *line, const char *name, struct cox_slice text)
{
    cox_buf_printf(line, "\"%s\":", name);
    cox_json_quote(line, text);
}

void tape_put(struct tape *t, enum chat_api api, struct cox_slice model, struct cox_slice request,
              struct cox_slice type, struct cox_slice response, const struct chat_usage *usage)
{
    struct cox_buf line = { 0 };

    cox_buf_printf(&line, "{\"api\":\"%s\",", apis[api]);
    put_text(&line, "model", model);
    cox_buf_append_str(&line, ",\"request\":");
    cox_json_compact(&line, request);
    cox_buf_append_str(&line, ",");
    put_text(&line, "type", type);
    cox_buf_append_str(&line, ",");
    put_text(&line, "response", response);
    cox_buf_printf(&line,
                   ",\"usage\":{\"input_tokens\":%" PRIu64 ",\"output_tokens\":%" PRIu64
                   ",\"cached_tokens\":%" PRId64 "}}\n",
                   usage->input_tokens, usage->output_tokens, usage->cached_tokens);
    if (fwrite(line.data, 1, line.len, t->file) != line.len || fflush(t->file) != 0)
        cox_log(COX_LOG_ERROR, "cannot record a model call", "file", t->path, "why", strerror(errno), NULL);
    cox_buf_fini(&line);
}

/* ---- reading ---- */

static bool member_text(struct cox_slice line, const char *name, struct cox_buf *out)
{
    struct cox_slice value;

    if (!cox_json_member(line, name, &value) || cox_json_kind(value) != COX_JSON_STRING)
        return false;
    cox_json_unquote(out, value);
    return true;
}

static void read_usage(struct cox_slice line, struct chat_usage *ret)
{
    static const char *const names[] = { "input_tokens", "output_tokens", "cached_tokens" };
    int64_t n[3] = { 0 };
    struct cox_slice usage, value;

    if (!cox_json_member(line, "usage", &usage))
        return;
    for (size_t i = 0; i < 3; i++)
        if (cox_json_member(usage, names[i], &value) && (!cox_json_int(value, &n[i]) || n[i] < 0))
            n[i] = 0;
    *ret = (struct chat_usage){ true, (uint64_t)n[0], (uint64_t)n[1], n[2] };
}

static void entry_free(struct entry *e)
{
    cox_buf_fini(&e->key);
    cox_buf_fini(&e->type);
    cox_buf_fini(&e->response);
    cox_free(e);
}

static void add(struct tape *t, struct entry *e)
{
    struct entry *last = cox_mapb_get(&t->by_key, cox_buf_slice(&e->key));

    if (t->n_entries == t->cap_entries) {
        t->cap_entries = t->cap_entries ? t->cap_entries * 2 : 64;
        t->entries = cox_realloc(t->entries, t->cap_entries, sizeof(*t->entries));
    }
    t->entries[t->n_entries++] = e;
    while (last && last->next)
        last = last->next;
    if (last)
        last->next = e;
    else
        (void)cox_mapb_set(&t->by_key, cox_buf_slice(&e->key), e);
}

static bool read_line(struct tape *t, struct cox_slice line, unsigned number, struct cox_buf *error)
{
    struct cox_buf api = { 0 };
    struct cox_slice request;
    struct entry *e = COX_NEW(struct entry);
    bool ok = cox_json_check(line, NULL) == COX_OK && cox_json_member(line, "request", &request) &&
              cox_json_kind(request) == COX_JSON_OBJECT && member_text(line, "api", &api) &&
              member_text(line, "type", &e->type) && member_text(line, "response", &e->response);

    e->line = number;
    if (ok) {
        put_key(&e->key, cox_buf_slice(&api), request);
        read_usage(line, &e->usage);
        add(t, e);
    } else {
        cox_buf_printf(error,
                       "%s: line %u: expected {\"api\", \"model\", \"request\", \"type\", \"response\"}",
                       t->path, number);
        entry_free(e);
    }
    cox_buf_fini(&api);
    return ok;
}

static enum cox_err read_lines(struct tape *t, struct cox_slice text, struct cox_buf *error)
{
    for (unsigned number = 1; text.len > 0; number++) {
        const uint8_t *end = memchr(text.data, '\n', text.len);
        size_t len = end ? (size_t)(end - text.data) : text.len;
        struct cox_slice line = cox_json_trim(cox_slice(text.data, len));

        if (line.len > 0 && !read_line(t, line, number, error))
            return COX_ERR_INVALID;
        text = cox_slice(text.data + len + (end != NULL), text.len - len - (end != NULL));
    }
    return COX_OK;
}

enum cox_err tape_replay(const char *path, struct tape **ret, struct cox_buf *error)
{
    struct cox_buf text = { 0 };
    FILE *f = fopen(path, "re");
    size_t n = f != NULL;

    while (n > 0) {
        cox_buf_reserve(&text, 1 << 16);
        n = fread(text.data + text.len, 1, 1 << 16, f);
        text.len += n;
    }
    if (!f || ferror(f)) {
        cox_buf_printf(error, "%s: %s", path, strerror(errno));
        if (f)
            fclose(f);
        cox_buf_fini(&text);
        return COX_ERR_IO;
    }
    fclose(f);
    struct tape *t = COX_NEW(struct tape);

    t->path = cox_strdup(path);
    enum cox_err err = read_lines(t, cox_buf_slice(&text), error);

    cox_buf_fini(&text);
    if (err)
        tape_close(t);
    else
        *ret = t;
    return err;
}

void tape_close(struct tape *t)
{
    if (!t)
        return;
    if (t->file && fclose(t->file) != 0)
        cox_log(COX_LOG_ERROR, "cannot record model calls", "file", t->path, "why", strerror(errno), NULL);
    for (size_t i = 0; i < t->n_entries; i++)
        entry_free(t->entries[i]);
    cox_free(t->entries);
    cox_mapb_fini(&t->by_key);
    cox_free(t->path);
    cox_free(t);
}

bool tape_is_replay(const struct tape *t)
{
    return t->file == NULL;
}

/* ---- finding ---- */

/* How many messages, from the first on, are the same. */
static size_t n_same(struct cox_slice a, struct cox_slice b, struct cox_slice *ret_a, struct cox_slice *ret_b)
{
    struct cox_slice list_a = { 0 }, list_b = { 0 };
    size_t n = 0;

    *ret_a = *ret_b = cox_slice(NULL, 0);
    if (!cox_json_member(a, "messages", &list_a) || !cox_json_member(b, "messages", &list_b))
        return 0;
    struct cox_json_walk x = cox_json_walk(list_a), y = cox_json_walk(list_b);
    bool has_x = cox_json_next(&x), has_y = cox_json_next(&y);

    for (; has_x && has_y && cox_slice_eq(x.value, y.value); n++) {
        has_x = cox_json_next(&x);
        has_y = cox_json_next(&y);
    }
    *ret_a = has_x ? x.value : cox_slice(NULL, 0);
    *ret_b = has_y ? y.value : cox_slice(NULL, 0);
    return n;
}

/* The first member that the two do not have alike. */
static void put_other_member(struct cox_buf *why, struct cox_slice asked, struct cox_slice recorded)
{
    for (int turn = 0; turn < 2; turn++) {
        struct cox_slice one = turn ? recorded : asked, other = turn ? asked : recorded, value;

        for (struct cox_json_walk w = cox_json_walk(one); cox_json_next(&w);) {
            struct cox_buf name = { 0 };

            cox_json_unquote(&name, w.key);
            bool same = cox_json_member(other, cox_buf_cstr(&name), &value) && cox_slice_eq(value, w.value);

            if (!same)
                cox_buf_printf(why, "its `%s` differs", cox_buf_cstr(&name));
            cox_buf_fini(&name);
            if (!same)
                return;
        }
    }
    cox_buf_append_str(why, "its members stand in another order");
}

static void put_shown(struct cox_buf *why, struct cox_slice message)
{
    if (message.len == 0)
        cox_buf_append_str(why, "none");
    else
        cox_buf_printf(why, "%.*s%s", (int)(message.len < SHOWN_LEN ? message.len : SHOWN_LEN),
                       (const char *)message.data, message.len > SHOWN_LEN ? "..." : "");
}

static void explain(const struct tape *t, struct cox_slice asked, struct cox_buf *why)
{
    const struct entry *nearest = NULL;
    struct cox_slice a, b;
    size_t best = 0;

    for (size_t i = 0; i < t->n_entries; i++) {
        size_t n = 2 * n_same(asked, request_of(t->entries[i]), &a, &b) + ((a.len == 0) == (b.len == 0));

        if (!nearest || n > best) {
            nearest = t->entries[i];
            best = n;
        }
    }
    cox_buf_printf(why, "%s has no answer to this call", t->path);
    if (!nearest)
        return;
    best = n_same(asked, request_of(nearest), &a, &b);
    cox_buf_printf(why, "; nearest is line %u: ", nearest->line);
    if (a.len == 0 && b.len == 0) {
        put_other_member(why, asked, request_of(nearest));
        return;
    }
    cox_buf_printf(why, "messages[%zu] differs: recorded is ", best);
    put_shown(why, b);
    cox_buf_append_str(why, ", asked ");
    put_shown(why, a);
}

bool tape_find(struct tape *t, enum chat_api api, struct cox_slice request, struct tape_answer *ret,
               struct cox_buf *why)
{
    struct cox_buf key = { 0 };

    put_key(&key, cox_slice_str(apis[api]), request);
    struct entry *e = cox_mapb_get(&t->by_key, cox_buf_slice(&key));

    if (e) {
        *ret = (struct tape_answer){ cox_buf_slice(&e->type), cox_buf_slice(&e->response), e->usage };
        if (e->next)
            (void)cox_mapb_set(&t->by_key, cox_buf_slice(&key), e->next);
    } else {
        size_t at = strlen(apis[api]) + 1;

        explain(t, cox_slice(key.data + at, key.len - at), why);
    }
    cox_buf_fini(&key);
    return e != NULL;
}
