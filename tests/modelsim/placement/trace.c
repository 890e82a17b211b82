/* The Mooncake traces: one request a line, with the ids of the 512-token blocks of its prompt. */
#include "world.h"

#include "cox/base/alloc.h"
#include "cox/json.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define TRACE_BLOCK_TOKENS 512u
#define SUB_BLOCKS (TRACE_BLOCK_TOKENS / BLOCK_TOKENS)
#define ROWS_MAX 1000000u
#define POPULAR                                                                                              \
    64u /* requests that have a block: then it is of a prompt that many share, not of a conversation */

static bool read_all(const char *path, struct cox_buf *out)
{
    gzFile f = gzopen(path, "re");
    int n = 1;

    if (!f)
        return false;
    while (n > 0) {
        cox_buf_reserve(out, 1u << 20);
        n = gzread(f, out->data + out->len, 1u << 20);
        out->len += n > 0 ? (size_t)n : 0;
    }
    gzclose(f);
    return n == 0 && out->len > 0;
}

static bool read_row(struct cox_slice line, struct trace_row *row, struct cox_buf *ids)
{
    struct cox_slice v;
    int64_t at, input, output, id;

    if (cox_json_check(line, NULL) != COX_OK || !cox_json_member(line, "timestamp", &v) ||
        !cox_json_int(v, &at) || !cox_json_member(line, "input_length", &v) || !cox_json_int(v, &input) ||
        !cox_json_member(line, "output_length", &v) || !cox_json_int(v, &output) ||
        !cox_json_member(line, "hash_ids", &v) || input < 1 || input > INT32_MAX || output > INT32_MAX)
        return false;
    row->at_ns = at * NS_PER_MS;
    row->input_tokens = (uint32_t)input;
    row->output_tokens = output > 0 ? (uint32_t)output : 1;
    struct cox_json_walk w = cox_json_walk(v);
    while (cox_json_next(&w)) {
        if (!cox_json_int(w.value, &id))
            return false;
        cox_put_u64(ids, (uint64_t)id + 1);
    }
    return true;
}

static void make_blocks(struct trace_row *row, const uint64_t *ids, uint32_t n_ids)
{
    uint32_t n = row->input_tokens / BLOCK_TOKENS;

    row->n_blocks = n < n_ids * SUB_BLOCKS ? n : n_ids * SUB_BLOCKS;
    row->blocks = cox_calloc(row->n_blocks + 1, sizeof(*row->blocks));
    for (uint32_t i = 0; i < row->n_blocks; i++)
        row->blocks[i] = mix64(ids[i / SUB_BLOCKS], i % SUB_BLOCKS);
}

/* The trace does not say which requests are of one conversation. A request that begins with all whole blocks
 * of an earlier one, of which at least the last is not one that very many share, goes on with that one's
 * conversation. */
static uint64_t infer_program(struct cox_map64 *ends, const struct cox_map64 *uses, const uint64_t *ids,
                              uint32_t n_ids, uint64_t fresh)
{
    uintptr_t program = 0;

    for (uint32_t i = n_ids; i > 0 && program == 0; i--) {
        if ((uintptr_t)cox_map64_get(uses, ids[i - 1]) <= POPULAR)
            program = (uintptr_t)cox_map64_get(ends, ids[i - 1]);
    }
    if (program == 0)
        program = (uintptr_t)fresh;
    if (n_ids > 1)
        cox_map64_set(ends, ids[n_ids - 2], (void *)program);
    return program;
}

static void infer_programs(struct trace *t, const struct cox_buf *ids, const uint32_t *n_ids)
{
    struct cox_map64 ends = { 0 }, uses = { 0 };
    const uint64_t *all = (const uint64_t *)(const void *)ids->data;
    size_t at = 0;

    for (size_t i = 0; i < ids->len / 8; i++)
        cox_map64_set(&uses, all[i], (void *)((uintptr_t)cox_map64_get(&uses, all[i]) + 1));
    for (size_t i = 0; i < t->n_rows; i++) {
        t->rows[i].program = infer_program(&ends, &uses, all + at, n_ids[i], i + 1);
        at += n_ids[i];
    }
    cox_map64_fini(&ends);
    cox_map64_fini(&uses);
}

bool trace_read(const char *path, struct trace *ret, struct cox_buf *error)
{
    struct cox_buf text = { 0 }, ids = { 0 };
    uint32_t *n_ids = cox_calloc(ROWS_MAX, sizeof(*n_ids));
    bool ok = read_all(path, &text);

    memset(ret, 0, sizeof(*ret));
    if (!ok)
        cox_buf_printf(error, "%s cannot be read", path);
    for (size_t at = 0; ok && at < text.len;) {
        uint8_t *eol = memchr(text.data + at, '\n', text.len - at);
        size_t end = eol ? (size_t)(eol - text.data) : text.len, had = ids.len;
        if (end > at) {
            ret->rows = cox_realloc(ret->rows, ret->n_rows + 1, sizeof(*ret->rows));
            struct trace_row *row = &ret->rows[ret->n_rows];
            memset(row, 0, sizeof(*row));
            ok = ret->n_rows < ROWS_MAX && read_row(cox_slice(text.data + at, end - at), row, &ids);
            n_ids[ret->n_rows] = (uint32_t)((ids.len - had) / 8);
            make_blocks(row, (const uint64_t *)(const void *)(ids.data + had), n_ids[ret->n_rows]);
            ret->n_rows++;
            ret->length_ns = row->at_ns;
            if (!ok)
                cox_buf_printf(error,
                               "%s: line %zu: timestamp, input_length, output_length, hash_ids are expected",
                               path, ret->n_rows);
        }
        at = end + 1;
    }
    if (ok)
        infer_programs(ret, &ids, n_ids);
    cox_free(n_ids);
    cox_buf_fini(&text);
    cox_buf_fini(&ids);
    return ok;
}

void trace_fini(struct trace *t)
{
    for (size_t i = 0; i < t->n_rows; i++)
        cox_free(t->rows[i].blocks);
    cox_free(t->rows);
}
