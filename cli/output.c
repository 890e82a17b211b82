#include "cli.h"

#include "cox/json.h"
#include "cox/wire.h"

#include <stdarg.h>
#include <string.h>

#define INDENT 2
#define COLUMNS_MAX 16

void cli_error(const char *fmt, ...)
{
    va_list args;

    fflush(stdout);
    fputs("cox: ", stderr);
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
}

void cli_note(const struct cli *cli, const char *fmt, ...)
{
    va_list args;

    if (cli->quiet)
        return;
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
}

bool cli_structured(const struct cli *cli)
{
    return cli->format == CLI_JSON || cli->format == CLI_JSONL || cli->format == CLI_YAML;
}

/* ---- YAML ------------------------------------------------------------------------------------------- */

/* True for a raw string that reads the same without its quotes: words of letters that are no null or boolean.
 */
static bool is_plain(struct cox_slice raw)
{
    static const char *const words[] = { "\"null\"", "\"true\"", "\"false\"", "\"yes\"",
                                         "\"no\"",   "\"on\"",   "\"off\"" };
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_";
    static const char others[] = "0123456789-./";

    if (raw.len < 4) /* "y" and "n" are booleans to YAML 1.1 */
        return false;
    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
        if (raw.len == strlen(words[i]) && strncasecmp((const char *)raw.data, words[i], raw.len) == 0)
            return false;
    }
    for (size_t i = 1; i + 1 < raw.len; i++) {
        char c = (char)raw.data[i];
        if (!c || !(strchr(letters, c) || (i > 1 && strchr(others, c))))
            return false;
    }
    return true;
}

static void put_yaml_scalar(struct cox_buf *out, struct cox_slice raw)
{
    if (cox_json_kind(raw) == COX_JSON_STRING && is_plain(raw))
        raw = cox_slice(raw.data + 1, raw.len - 2);
    cox_json_compact(out, raw);
}

/* A value after "key:" or "-". Depth is bounded by cox_json_check. */
static void put_yaml(struct cox_buf *out, struct cox_slice json, int depth, bool after_dash)
{
    enum cox_json_kind kind = cox_json_kind(json);
    bool first = true;

    if (kind != COX_JSON_OBJECT && kind != COX_JSON_ARRAY) {
        cox_buf_append_str(out, depth > 0 ? " " : "");
        put_yaml_scalar(out, cox_json_trim(json));
        cox_put_u8(out, '\n');
        return;
    }
    for (struct cox_json_walk w = cox_json_walk(json); cox_json_next(&w); first = false) {
        if (first && after_dash)
            cox_put_u8(out, ' ');
        else if (first && depth > 0)
            cox_put_u8(out, '\n');
        if (!first || !after_dash)
            cox_buf_printf(out, "%*s", depth * INDENT, "");
        if (kind == COX_JSON_ARRAY) {
            cox_put_u8(out, '-');
        } else {
            put_yaml_scalar(out, w.key);
            cox_put_u8(out, ':');
        }
        put_yaml(out, w.value, depth + 1, kind == COX_JSON_ARRAY);
    }
    if (first) {
        cox_buf_append_str(out, depth > 0 ? " " : "");
        cox_buf_append_str(out, kind == COX_JSON_ARRAY ? "[]\n" : "{}\n");
    }
}

void cli_put_yaml(struct cox_buf *out, struct cox_slice json)
{
    put_yaml(out, json, 0, false);
}

/* ---- values ----------------------------------------------------------------------------------------- */

void cli_print_json(const struct cli *cli, struct cox_slice json)
{
    struct cox_buf out = { 0 };

    if (cli->format == CLI_YAML) {
        put_yaml(&out, json, 0, false);
    } else {
        if (cli->format == CLI_JSONL)
            cox_json_compact(&out, json);
        else
            cox_json_pretty(&out, json, INDENT);
        cox_put_u8(&out, '\n');
    }
    fwrite(out.data, 1, out.len, stdout);
    cox_buf_fini(&out);
}

void cli_print_message(const struct cli *cli, const ProtobufCMessage *message)
{
    struct cox_buf json = { 0 };

    cox_wire_put_json(&json, message);
    cli_print_json(cli, cox_buf_slice(&json));
    cox_buf_fini(&json);
}

/* ---- tables ----------------------------------------------------------------------------------------- */

void cli_table_row(struct cli_table *t, size_t n, const char *const *cells)
{
    COX_ASSERT(n <= COLUMNS_MAX && (t->n_cells == 0 || n == t->n_columns));
    t->n_columns = n;
    t->n_cells += n;
    for (size_t i = 0; i < n; i++) {
        const char *cell = cells[i] && *cells[i] ? cells[i] : "-";
        cox_buf_append(&t->text, cell, strlen(cell) + 1);
    }
}

/* Characters, not bytes: what aligns columns for all but wide scripts. */
static int width_of(const char *s)
{
    int width = 0;

    for (; *s; s++)
        width += (*s & 0xc0) != 0x80;
    return width;
}

/* Values come from users and workers: control characters must not reach the terminal. */
static void print_cell(const char *cell, int pad, FILE *out)
{
    for (const char *s = cell; *s; s++)
        fputc((unsigned char)*s < 0x20 || *s == 0x7f ? ' ' : *s, out);
    fprintf(out, "%*s", pad, "");
}

void cli_table_print(struct cli_table *t, FILE *out)
{
    int widths[COLUMNS_MAX] = { 0 };
    const char *cell = (const char *)t->text.data;

    for (size_t i = 0; i < t->n_cells; i++, cell += strlen(cell) + 1) {
        int width = width_of(cell);
        if (width > widths[i % t->n_columns])
            widths[i % t->n_columns] = width;
    }
    cell = (const char *)t->text.data;
    for (size_t i = 0; i < t->n_cells; i++, cell += strlen(cell) + 1) {
        bool last = i % t->n_columns == t->n_columns - 1;
        print_cell(cell, last ? 0 : widths[i % t->n_columns] - width_of(cell) + 2, out);
        if (last)
            fputc('\n', out);
    }
    cox_buf_fini(&t->text);
    *t = (struct cli_table){ 0 };
}

/* ---- lists ------------------------------------------------------------------------------------------ */

void cli_listing_add(struct cli_listing *l, const struct cli *cli, const char *name, struct cox_slice json,
                     size_t n_cells, const char *const *cells)
{
    l->n++;
    if (cli->format == CLI_NAME) {
        printf("%s\n", name);
    } else if (cli->format == CLI_JSONL) {
        cli_print_json(cli, json);
    } else if (cli_structured(cli)) {
        cox_buf_append_str(&l->json, l->json.len > 0 ? "," : "");
        cox_buf_append_slice(&l->json, json);
    } else {
        cli_table_row(&l->table, n_cells, cells);
    }
}

void cli_listing_finish(struct cli_listing *l, const struct cli *cli, const char *plural)
{
    struct cox_buf all = { 0 };

    if (cli->format == CLI_TABLE || cli->format == CLI_WIDE) {
        cli_table_print(&l->table, stdout);
    } else if (cli->format == CLI_JSON || cli->format == CLI_YAML) {
        cox_buf_printf(&all, "{\"%s\":[", plural);
        cox_buf_append_slice(&all, cox_buf_slice(&l->json));
        cox_buf_append_str(&all, l->beside.len > 0 ? "]," : "]");
        cox_buf_append_slice(&all, cox_buf_slice(&l->beside));
        cox_buf_append_str(&all, "}");
        cli_print_json(cli, cox_buf_slice(&all));
    }
    cox_buf_fini(&all);
    cox_buf_fini(&l->beside);
    cox_buf_fini(&l->json);
    cox_buf_fini(&l->table.text);
}

enum cli_exit cli_worse(enum cli_exit a, enum cli_exit b)
{
    return a > b ? a : b;
}

void cli_report_done(const struct cli *cli, struct cli_listing *l, const char *id, enum cli_exit code,
                     const char *done, const char *status, const struct cox_rpc_error *error)
{
    struct cox_buf json = { 0 };
    const char *why = error ? error->message : NULL;

    if (error)
        cli_print_error_of(cli, id, error);
    if (cli_structured(cli)) {
        cox_buf_append_str(&json, "{\"id\":");
        cox_json_quote(&json, cox_slice_str(id));
        cox_buf_printf(&json, ",\"exit_code\":%d,\"code\":\"%s\",\"message\":", (int)code,
                       error ? cox_rpc_status_text(error->status) : "OK");
        cox_json_quote(&json, cox_slice_str(why ? why : ""));
        if (status) {
            cox_buf_append_str(&json, ",\"status\":");
            cox_json_quote(&json, cox_slice_str(status));
        }
        cox_buf_append_str(&json, "}");
        cli_listing_add(l, cli, id, cox_buf_slice(&json), 0, NULL);
    } else if (!code) {
        printf("%s\n", id);
        if (cli->format != CLI_NAME)
            cli_note(cli, "%s is %s", id, status ? status : done);
    }
    cox_buf_fini(&json);
}
