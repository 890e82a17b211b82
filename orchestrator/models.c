#include "models.h"

#include "cox/base/alloc.h"
#include "cox/json.h"

#include <string.h>

/* The line of what the error is about: its words begin with the place. */
static unsigned line_of(const struct cox_yaml *yaml, const char *error)
{
    const char *end = strstr(error, ": ");
    char *path = cox_strndup(error, end ? (size_t)(end - error) : 0);
    unsigned line = strncmp(path, "models", 6) == 0 ? cox_yaml_line(yaml, path) : 0;

    cox_free(path);
    return line;
}

enum cox_err coxd_models_read(const struct coxd_config *config, const struct cox_config *settings,
                              struct catalogue_text **ret, struct cox_buf *error)
{
    const struct cox_yaml *yaml = cox_config_file(settings);
    struct cox_slice models = { 0 };
    struct cox_buf why = { 0 };
    unsigned line;

    (void)cox_json_member(cox_buf_slice(&yaml->json), "models", &models);
    enum cox_err err = catalogue_parse(&config->models, config->models ? 1 : 0, models, ret, &why);

    if (err && (line = line_of(yaml, cox_buf_cstr(&why))) > 0)
        cox_buf_printf(error, "line %u: ", line);
    cox_buf_append_slice(error, cox_buf_slice(&why));
    cox_buf_fini(&why);
    return err;
}
