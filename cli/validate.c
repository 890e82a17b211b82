#include "document.h"
#include "verbs.h"

#include "cox/json.h"
#include "cox/task.h"

const struct cli_option cli_validate_options[] = {
    { "inputs-file", 0, "FILE", "check with these inputs, a JSON or YAML object" },
    { 0 },
};
const char cli_validate_help[] = "Compiles the document as the orchestrator would, here. Exits 2 when "
                                 "something is wrong, with a line for each\n"
                                 "thing: FILE:LINE: PATH: what was expected.\n\n"
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

static enum cli_exit check(struct cli *cli, const struct cli_document *d, struct cox_slice inputs)
{
    struct cox_task_source source = { .document = cli_document_json(d), .inputs_json = inputs };
    struct cox_violations violations = { 0 };
    struct cox_buf image = { 0 };
    enum cox_err err = cox_task_compile(&source, &image, &violations);

    if (err || cli_structured(cli))
        print_violations(cli, d, &violations);
    else
        cli_note(cli, "%s is valid", d->name);
    cox_buf_fini(&image);
    cox_violations_fini(&violations);
    return err ? CLI_USAGE : CLI_OK;
}

enum cli_exit cli_validate(struct cli *cli)
{
    struct cli_document inputs = { 0 };
    enum cli_exit worst = CLI_OK;

    if (cli_has(cli, "inputs-file"))
        worst = cli_document_load(&inputs, cli_get(cli, "inputs-file"));
    bool usable = worst == CLI_OK;

    for (size_t i = 0; i < cli->n_args && usable; i++) {
        struct cli_document d;
        enum cli_exit code = cli_document_load(&d, cli->args[i]);
        if (!code)
            code = check(cli, &d, cli_document_json(&inputs));
        cli_document_fini(&d);
        worst = worst ? worst : code;
    }
    cli_document_fini(&inputs);
    return worst;
}
