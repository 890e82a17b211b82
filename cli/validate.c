#include "task.h"
#include "verbs.h"

#include "cox/json.h"
#include "cox/task.h"

const struct cli_option cli_validate_options[] = {
    CLI_INPUT_OPTIONS,
    { 0 },
};
const char cli_validate_help[] =
    "Compiles the document as the orchestrator would, here. Exits 2 when "
    "something is wrong, with a line for each\n"
    "thing: FILE:LINE: PATH: what was expected. Required inputs need not be given.\n\n"
    "Examples:\n"
    "  cox validate docs/examples/*.yaml\n"
    "  cox validate task.yaml -o json | jq '.violations[].path'\n";

static void print_violations(const struct cli *cli, const struct cli_document *d,
                             const struct cox_violations *v)
{
    struct cox_buf out = { 0 };

    if (!cli_structured(cli)) {
        for (uint32_t i = 0; i < v->n; i++)
            cli_document_violation(d, v->items[i].path, v->items[i].message, v->items[i].line);
        if (v->n_more > 0)
            fprintf(stderr, "%s: and %u more\n", d->name, v->n_more);
        return;
    }
    cox_buf_printf(&out, "{\"valid\":%s,\"violations\":[", v->n == 0 ? "true" : "false");
    for (uint32_t i = 0; i < v->n; i++) {
        cox_buf_append_str(&out, i > 0 ? ",{\"path\":" : "{\"path\":");
        cox_json_quote(&out, cox_slice_str(v->items[i].path));
        cox_buf_append_str(&out, ",\"message\":");
        cox_json_quote(&out, cox_slice_str(v->items[i].message));
        cox_buf_printf(&out, ",\"line\":%u}", cli_document_line(d, v->items[i].path, v->items[i].line));
    }
    cox_buf_printf(&out, "],\"more\":%u}", v->n_more);
    cli_print_json(cli, cox_buf_slice(&out));
    cox_buf_fini(&out);
}

/* A value of the declared type; null for a declaration that compiling will refuse. */
static const char *sample_of(struct cox_slice declared)
{
    static const char *const samples[][2] = { { "\"string\"", "\"\"" }, { "\"integer\"", "0" },
                                              { "\"number\"", "0" },    { "\"boolean\"", "false" },
                                              { "\"array\"", "[]" },    { "\"object\"", "{}" } };
    struct cox_slice type;

    for (size_t i = 0; i < sizeof(samples) / sizeof(*samples); i++) {
        if (cox_json_member(declared, "type", &type) && cox_slice_is(type, samples[i][0]))
            return samples[i][1];
    }
    return "null";
}

/* A document is valid whatever its inputs will be: those that are required and not given get a sample.
 * `inputs` is an object; its end is written anew. */
static void add_samples(struct cox_slice document, struct cox_buf *inputs)
{
    struct cox_slice declarations, found;
    struct cox_buf name = { 0 };

    if (!cox_json_member(document, "inputs", &declarations) || cox_json_kind(declarations) != COX_JSON_OBJECT)
        return;
    for (struct cox_json_walk w = cox_json_walk(declarations); cox_json_next(&w);) {
        cox_buf_clear(&name);
        cox_json_unquote(&name, w.key);
        if (cox_json_member(w.value, "default", &found) ||
            cox_json_member(cox_buf_slice(inputs), cox_buf_cstr(&name), &found))
            continue;
        inputs->len--;
        cox_buf_append_str(inputs, inputs->len > 1 ? "," : "");
        cox_buf_append_slice(inputs, w.key);
        cox_buf_printf(inputs, ":%s}", sample_of(w.value));
    }
    cox_buf_fini(&name);
}

static enum cli_exit check(struct cli *cli, const struct cli_document *d)
{
    struct cox_violations violations = { 0 };
    struct cox_buf image = { 0 }, inputs = { 0 };
    enum cli_exit code = cli_put_inputs(cli, cli_document_json(d), &inputs);

    if (!code) {
        add_samples(cli_document_json(d), &inputs);
        struct cox_task_source source = { .kind = cox_source_kind_of(cli_document_json(d)),
                                          .document = cli_document_json(d),
                                          .inputs_json = cox_buf_slice(&inputs) };
        code = cox_task_compile(&source, &image, &violations) ? CLI_USAGE : CLI_OK;
        if (code || cli_structured(cli))
            print_violations(cli, d, &violations);
        else
            cli_note(cli, "%s is valid", d->name);
    }
    cox_buf_fini(&inputs);
    cox_buf_fini(&image);
    cox_violations_fini(&violations);
    return code;
}

enum cli_exit cli_validate(struct cli *cli)
{
    enum cli_exit worst = CLI_OK;

    for (size_t i = 0; i < cli->n_args; i++) {
        struct cli_document d;
        enum cli_exit code = cli_document_load(&d, cli->args[i]);
        if (!code)
            code = cli_document_pin(cli, &d, false);
        if (!code)
            code = check(cli, &d);
        cli_document_fini(&d);
        worst = worst ? worst : code;
    }
    return worst;
}
