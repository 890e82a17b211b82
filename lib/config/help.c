#include "cox/base/alloc.h"
#include "cox/config.h"

#include <ctype.h>
#include <string.h>

#define COLUMN "  %-32s %s"

void cox_config_put_variable(struct cox_buf *out, const char *name)
{
    cox_buf_append_str(out, "COX_");
    for (; *name; name++)
        cox_put_u8(out, *name == '-' ? '_' : (uint8_t)toupper((unsigned char)*name));
}

static void put_row(struct cox_buf *out, const char *name, const char *value, const char *help)
{
    char *left = cox_asprintf("--%s%s%s", name, value ? " " : "", value ? value : "");

    cox_buf_printf(out, COLUMN, left, help);
    cox_free(left);
}

void cox_config_put_help(struct cox_buf *out, const struct cox_config_program *program)
{
    cox_buf_append_str(out, program->intro);
    for (size_t i = 0; i < program->n_keys; i++) {
        const struct cox_config_key *k = &program->keys[i];
        put_row(out, k->name, k->value, k->help);
        if (k->value && k->fallback && *k->fallback)
            cox_buf_printf(out, " (default %s)", k->fallback);
        if (k->flags & COX_CONFIG_RELOADS)
            cox_buf_append_str(out, " *");
        cox_put_u8(out, '\n');
    }
    put_row(out, "config", "FILE", "read these settings from a YAML file: data_dir for --data-dir\n");
    put_row(out, "help", NULL, "this text\n");
    put_row(out, "version", NULL, "the version\n\n");
    cox_buf_append_str(out,
                       "Each flag is also a variable: --log-level is COX_LOG_LEVEL. A flag wins over its "
                       "variable, that over the file.\n"
                       "SIGHUP reads the file again; what is marked * changes then, the rest needs a "
                       "restart.\n");
    cox_buf_append_str(out, program->outro);
}

void cox_config_put_markdown(struct cox_buf *out, const struct cox_config_program *program)
{
    cox_buf_append_str(out, "| flag | variable | default | reloads | means |\n|---|---|---|---|---|\n");
    for (size_t i = 0; i < program->n_keys; i++) {
        const struct cox_config_key *k = &program->keys[i];
        cox_buf_printf(out, "| `--%s%s%s` | `", k->name, k->value ? " " : "", k->value ? k->value : "");
        cox_config_put_variable(out, k->name);
        cox_buf_printf(out, "` | %s | %s | ", k->fallback ? k->fallback : "",
                       k->flags & COX_CONFIG_RELOADS ? "yes" : "");
        for (const char *s = k->help; *s; s++) {
            if (*s == '|')
                cox_put_u8(out, '\\');
            cox_put_u8(out, (uint8_t)*s);
        }
        cox_buf_append_str(out, " |\n");
    }
}
