#include "document.h"

#include "cox/json.h"
#include "cox/limits.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* YAML may be longer than the JSON it stands for: comments, indentation. */
#define FILE_LEN_MAX (4 * (size_t)COX_DOCUMENT_LEN_MAX)

static bool ends_with(const char *s, const char *tail)
{
    size_t len = strlen(s), tail_len = strlen(tail);

    return len >= tail_len && strcmp(s + len - tail_len, tail) == 0;
}

static enum cli_exit read_all(struct cli_document *d, const char *path)
{
    FILE *in = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    size_t n = 1;

    if (!in) {
        cli_error("%s: %s", path, strerror(errno));
        return CLI_USAGE;
    }
    while (n > 0 && d->text.len <= FILE_LEN_MAX) {
        cox_buf_reserve(&d->text, 65536);
        n = fread(d->text.data + d->text.len, 1, 65536, in);
        d->text.len += n;
    }
    bool bad = ferror(in);

    if (bad)
        cli_error("%s: %s", path, strerror(errno));
    else if (d->text.len > FILE_LEN_MAX)
        cli_error("%s: expected a document of at most %zu MiB", path, FILE_LEN_MAX >> 20);
    if (in != stdin)
        fclose(in);
    return bad || d->text.len > FILE_LEN_MAX ? CLI_USAGE : CLI_OK;
}

enum cli_exit cli_document_load(struct cli_document *d, const char *path)
{
    struct cox_json_place place;

    *d = (struct cli_document){ .name = path };
    enum cli_exit code = read_all(d, path);

    if (code)
        return code;
    bool is_json = cox_json_check(cox_buf_slice(&d->text), &place) == COX_OK;

    if (ends_with(path, ".json")) {
        if (!is_json)
            fprintf(stderr, "%s:%u:%u: expected %s\n", path, place.line, place.column, place.expected);
        return is_json ? CLI_OK : CLI_USAGE;
    }
    d->is_yaml = !is_json || ends_with(path, ".yaml") || ends_with(path, ".yml");
    if (d->is_yaml && cox_yaml_parse(&d->yaml, cox_buf_slice(&d->text))) {
        fprintf(stderr, "%s:%zu:%zu: %s\n", path, d->yaml.error_line, d->yaml.error_column,
                cox_buf_cstr(&d->yaml.error));
        return CLI_USAGE;
    }
    return CLI_OK;
}

void cli_document_fini(struct cli_document *d)
{
    cox_buf_fini(&d->text);
    cox_yaml_fini(&d->yaml);
    cox_buf_fini(&d->pinned);
}

struct cox_slice cli_document_json(const struct cli_document *d)
{
    if (d->pinned.len > 0)
        return cox_buf_slice(&d->pinned);
    return cox_buf_slice(d->is_yaml ? &d->yaml.json : &d->text);
}

unsigned cli_document_line(const struct cli_document *d, const char *path, unsigned json_line)
{
    return d->is_yaml ? cox_yaml_line(&d->yaml, path) : json_line;
}

void cli_document_violation(const struct cli_document *d, const char *path, const char *message,
                            unsigned json_line)
{
    if (strncmp(message, "line ", 5) == 0) {
        char *end;
        unsigned long line = strtoul(message + 5, &end, 10);
        if (strncmp(end, ": ", 2) == 0) {
            json_line = (unsigned)line;
            message = end + 2;
        }
    }
    unsigned line = cli_document_line(d, path, json_line);

    fprintf(stderr, "%s:", d->name);
    if (line > 0)
        fprintf(stderr, "%u:", line);
    fprintf(stderr, " %s%s%s\n", path, *path ? ": " : "", message);
}

void cli_document_error(const struct cli *cli, const struct cli_document *d,
                        const struct cox_rpc_error *error)
{
    if (error->n_violations == 0) {
        cli_print_error(cli, error);
        return;
    }
    for (size_t i = 0; i < error->n_violations; i++)
        cli_document_violation(d, error->violations[i].field, error->violations[i].description, 0);
    cli_error("%s was not accepted", d->name);
}
