/* Templates and schedules: documents that the orchestrator keeps. Their messages differ in names only, so
 * both go by their JSON forms. */
#include "document.h"
#include "verbs.h"

#include "cox/base/alloc.h"
#include "cox/json.h"
#include "cox/wire.h"

#include "coxswain/v1/schedule_service.pb-c.h"
#include "coxswain/v1/template_service.pb-c.h"

#include <string.h>

#define COLUMNS_MAX 4

struct kind {
    const ProtobufCServiceDescriptor *service;
    const char *noun;   /* the member of answers: "template" */
    const char *plural; /* of lists */
    const char *id;     /* the member of requests that names one */
    const char *methods[4];
    const char *columns[COLUMNS_MAX]; /* members shown */
    const char *heading[COLUMNS_MAX];
    size_t n_columns;
};
enum { APPLY, GET, LIST, DELETE };

static const struct kind templates = {
    .service = &coxswain__v1__template_service__descriptor,
    .noun = "template",
    .plural = "templates",
    .id = "ref",
    .methods = { "ApplyTemplate", "GetTemplate", "ListTemplates", "DeleteTemplate" },
    .columns = { "name", "major", "updated_at" },
    .heading = { "NAME", "MAJOR", "UPDATED" },
    .n_columns = 3,
};
static const struct kind schedules = {
    .service = &coxswain__v1__schedule_service__descriptor,
    .noun = "schedule",
    .plural = "schedules",
    .id = "name",
    .methods = { "ApplySchedule", "GetSchedule", "ListSchedules", "DeleteSchedule" },
    .columns = { "name", "next_run_at", "last_run_at", "last_task_id" },
    .heading = { "NAME", "NEXT", "LAST", "LAST TASK" },
    .n_columns = 4,
};

const struct cli_option cli_template_apply_options[] = { { 0 } };
const char cli_template_apply_help[] =
    "A template is a task document with `kind: template`; tasks run it by `task: {ref: NAME@MAJOR}`.\n\n"
    "Example:\n"
    "  cox template apply apply-patch.yaml\n";
const struct cli_option cli_template_get_options[] = { { 0 } };
const char cli_template_get_help[] =
    "Prints its document as YAML, which `apply` takes; -o json has the rest too.\n\n"
    "Examples:\n"
    "  cox template get apply-patch@3\n"
    "  cox template get apply-patch -o json | jq .updated_at\n";
const struct cli_option cli_template_list_options[] = { { 0 } };
const char cli_template_list_help[] = "Example:\n  cox template list\n";
const struct cli_option cli_template_delete_options[] = { { 0 } };
const char cli_template_delete_help[] = "Example:\n  cox template delete apply-patch@2\n";
const struct cli_option cli_schedule_apply_options[] = { { 0 } };
const char cli_schedule_apply_help[] =
    "A schedule is a task document with `kind: schedule` and a `schedule:`, such as\n"
    "`{cron: \"0 3 * * *\", time_zone: Europe/Berlin, overlap: skip}`.\n\n"
    "Example:\n"
    "  cox schedule apply nightly.yaml\n";
const struct cli_option cli_schedule_get_options[] = { { 0 } };
const char cli_schedule_get_help[] =
    "Prints its document as YAML, which `apply` takes; -o json has the rest too.\n\n"
    "Examples:\n"
    "  cox schedule get nightly\n"
    "  cox schedule get nightly -o json | jq .next_run_at\n";
const struct cli_option cli_schedule_list_options[] = { { 0 } };
const char cli_schedule_list_help[] = "Example:\n  cox schedule list\n";
const struct cli_option cli_schedule_delete_options[] = { { 0 } };
const char cli_schedule_delete_help[] = "Example:\n  cox schedule delete nightly\n";

/* ---- calls by JSON --------------------------------------------------------------------------------------
 */

/* The answer as JSON, `document` as what it is. */
static enum cli_exit call(struct cli *cli, const struct kind *k, int method, struct cox_buf *request_json,
                          struct cox_buf *ret_json, struct cox_rpc_error **ret_error)
{
    const ProtobufCMethodDescriptor *m =
        protobuf_c_service_descriptor_get_method_by_name(k->service, k->methods[method]);
    ProtobufCMessage *request = NULL, *response = NULL;
    struct cox_buf why = { 0 };

    *ret_error = NULL;
    if (cox_wire_from_json(m->input, cox_buf_slice(request_json), &request, &why)) {
        cli_error("%s", cox_buf_cstr(&why));
        cox_buf_fini(&why);
        return CLI_USAGE;
    }
    enum cli_exit code = cli_try(cli, k->service, m->name, request, true, 60000, &response, ret_error);

    if (!code) {
        cox_wire_put_json(ret_json, response);
        protobuf_c_message_free_unpacked(response, NULL);
    }
    protobuf_c_message_free_unpacked(request, NULL);
    return code;
}

static void put_id_request(struct cox_buf *out, const struct kind *k, const char *id)
{
    cox_buf_printf(out, "{\"%s\":", k->id);
    cox_json_quote(out, cox_slice_str(id));
    cox_buf_append_str(out, "}");
}

/* ---- showing --------------------------------------------------------------------------------------------
 */

/* The document inside a kept thing, JSON; empty in lists. */
static void put_document(struct cox_buf *out, struct cox_slice thing)
{
    struct cox_slice raw;

    if (cox_json_member(thing, "document", &raw) && cox_json_kind(raw) == COX_JSON_OBJECT)
        cox_buf_append_slice(out, raw);
}

/* The thing with its document as JSON; without one in lists. */
static void put_thing(struct cox_buf *out, struct cox_slice thing)
{
    struct cox_buf document = { 0 };
    bool first = true;

    put_document(&document, thing);
    cox_put_u8(out, '{');
    for (struct cox_json_walk w = cox_json_walk(thing); cox_json_next(&w);) {
        bool is_document = cox_slice_is(w.key, "\"document\"");
        if (is_document && cox_json_check(cox_buf_slice(&document), NULL))
            continue;
        cox_buf_append_str(out, first ? "" : ",");
        cox_buf_append_slice(out, w.key);
        cox_put_u8(out, ':');
        cox_buf_append_slice(out, is_document ? cox_buf_slice(&document) : w.value);
        first = false;
    }
    cox_put_u8(out, '}');
    cox_buf_fini(&document);
}

static void put_text(struct cox_buf *out, struct cox_slice thing, const char *member)
{
    struct cox_slice raw;

    if (!cox_json_member(thing, member, &raw) || cox_json_kind(raw) == COX_JSON_NULL)
        return;
    if (cox_json_kind(raw) == COX_JSON_STRING)
        cox_json_unquote(out, raw);
    else
        cox_buf_append_slice(out, raw);
}

/* "name@major", or "name" of what has no versions. */
static void put_name(struct cox_buf *out, struct cox_slice thing)
{
    struct cox_slice raw;

    put_text(out, thing, "name");
    if (cox_json_member(thing, "major", &raw)) {
        cox_put_u8(out, '@');
        put_text(out, thing, "major");
    }
}

static void add(struct cli_listing *l, const struct cli *cli, const struct kind *k, struct cox_slice thing)
{
    struct cox_buf texts[COLUMNS_MAX] = { 0 }, name = { 0 }, json = { 0 };
    const char *cells[COLUMNS_MAX];

    for (size_t i = 0; i < k->n_columns; i++) {
        put_text(&texts[i], thing, k->columns[i]);
        cells[i] = cox_buf_cstr(&texts[i]);
    }
    put_name(&name, thing);
    put_thing(&json, thing);
    cli_listing_add(l, cli, cox_buf_cstr(&name), cox_buf_slice(&json), k->n_columns, cells);
    for (size_t i = 0; i < k->n_columns; i++)
        cox_buf_fini(&texts[i]);
    cox_buf_fini(&name);
    cox_buf_fini(&json);
}

/* ---- verbs ----------------------------------------------------------------------------------------------
 */

static enum cli_exit apply_one(struct cli *cli, const struct kind *k, const char *path, struct cli_listing *l)
{
    struct cli_document d;
    struct cox_buf request = { 0 }, answer = { 0 }, name = { 0 }, json = { 0 };
    struct cox_rpc_error *error = NULL;
    struct cox_slice thing;
    enum cli_exit code = cli_document_load(&d, path);

    if (!code)
        code = cli_document_pin(cli, &d, true);
    if (!code) {
        cox_buf_append_str(&request, "{\"document\":");
        cox_buf_append_slice(&request, cli_document_json(&d));
        cox_buf_append_str(&request, "}");
        code = call(cli, k, APPLY, &request, &answer, &error);
    }
    if (error)
        cli_document_error(cli, &d, error);
    if (!code && cox_json_member(cox_buf_slice(&answer), k->noun, &thing)) {
        put_name(&name, thing);
        put_thing(&json, thing);
        if (cli_structured(cli))
            cli_listing_add(l, cli, cox_buf_cstr(&name), cox_buf_slice(&json), 0, NULL);
        else
            printf("%s\n", cox_buf_cstr(&name));
        if (cli->format == CLI_TABLE || cli->format == CLI_WIDE)
            cli_note(cli, "%s %s is applied", k->noun, cox_buf_cstr(&name));
    }
    cox_rpc_error_free(error);
    cox_buf_fini(&request);
    cox_buf_fini(&answer);
    cox_buf_fini(&name);
    cox_buf_fini(&json);
    cli_document_fini(&d);
    return code;
}

static enum cli_exit apply(struct cli *cli, const struct kind *k)
{
    struct cli_listing l = { 0 };
    enum cli_exit worst = CLI_OK;

    for (size_t i = 0; i < cli->n_args && worst != CLI_INTERRUPTED; i++)
        worst = cli_worse(worst, apply_one(cli, k, cli->args[i], &l));
    if (cli_structured(cli))
        cli_listing_finish(&l, cli, k->plural);
    return worst;
}

static enum cli_exit get(struct cli *cli, const struct kind *k)
{
    struct cox_buf request = { 0 }, answer = { 0 }, text = { 0 };
    struct cox_rpc_error *error = NULL;
    struct cox_slice thing = { 0 };

    put_id_request(&request, k, cli->args[0]);
    enum cli_exit code = call(cli, k, GET, &request, &answer, &error);

    if (error)
        cli_print_error(cli, error);
    if (!code && cox_json_member(cox_buf_slice(&answer), k->noun, &thing)) {
        if (cli->format == CLI_NAME) {
            put_name(&text, thing);
            printf("%s\n", cox_buf_cstr(&text));
        } else if (cli_structured(cli)) {
            put_thing(&text, thing);
            cli_print_json(cli, cox_buf_slice(&text));
        } else {
            struct cox_buf yaml = { 0 };
            put_document(&text, thing);
            if (cox_json_check(cox_buf_slice(&text), NULL) == COX_OK)
                cli_put_yaml(&yaml, cox_buf_slice(&text));
            fwrite(yaml.data, 1, yaml.len, stdout);
            cox_buf_fini(&yaml);
        }
    }
    cox_rpc_error_free(error);
    cox_buf_fini(&request);
    cox_buf_fini(&answer);
    cox_buf_fini(&text);
    return code;
}

/* One page; *token becomes the next one's. */
static enum cli_exit list_page(struct cli *cli, const struct kind *k, struct cox_buf *token,
                               struct cli_listing *l)
{
    struct cox_buf request = { 0 }, answer = { 0 };
    struct cox_rpc_error *error = NULL;
    struct cox_slice things = { 0 };

    cox_buf_append_str(&request, "{\"page_size\":1000,\"page_token\":");
    cox_json_quote(&request, cox_buf_slice(token));
    cox_buf_append_str(&request, "}");
    enum cli_exit code = call(cli, k, LIST, &request, &answer, &error);

    if (error)
        cli_print_error(cli, error);
    cox_buf_clear(token);
    if (!code && cox_json_member(cox_buf_slice(&answer), k->plural, &things)) {
        for (struct cox_json_walk w = cox_json_walk(things); cox_json_next(&w);)
            add(l, cli, k, w.value);
        put_text(token, cox_buf_slice(&answer), "next_page_token");
    }
    cox_rpc_error_free(error);
    cox_buf_fini(&request);
    cox_buf_fini(&answer);
    return code;
}

static enum cli_exit list(struct cli *cli, const struct kind *k)
{
    struct cli_listing l = { 0 };
    struct cox_buf token = { 0 };
    enum cli_exit code;

    cli_table_row(&l.table, k->n_columns, k->heading);
    do
        code = list_page(cli, k, &token, &l);
    while (!code && token.len > 0);
    if (!code)
        cli_listing_finish(&l, cli, k->plural);
    cox_buf_fini(&l.table.text);
    cox_buf_fini(&l.json);
    cox_buf_fini(&token);
    return code;
}

static enum cli_exit delete (struct cli *cli, const struct kind *k) {
    struct cli_listing l = { 0 }; enum cli_exit worst = CLI_OK;

    for (size_t i = 0; i < cli->n_args && worst != CLI_INTERRUPTED; i++){
        struct cox_buf request = { 0 }, answer = { 0 }; struct cox_rpc_error *error = NULL;
        put_id_request(&request, k, cli->args[i]);
        enum cli_exit code = call(cli, k, DELETE, &request, &answer, &error);
        cli_report_done(cli, &l, cli->args[i], code, "deleted", NULL, error); worst = cli_worse(worst, code);
        cox_rpc_error_free(error); cox_buf_fini(&request); cox_buf_fini(&answer); }
if (cli_structured(cli)) cli_listing_finish(&l, cli, "results");
return worst;
}

enum cli_exit cli_template_apply(struct cli *cli)
{
    return apply(cli, &templates);
}
enum cli_exit cli_template_get(struct cli *cli)
{
    return get(cli, &templates);
}
enum cli_exit cli_template_list(struct cli *cli)
{
    return list(cli, &templates);
}
enum cli_exit cli_template_delete(struct cli *cli)
{
    return delete (cli, &templates);
}
enum cli_exit cli_schedule_apply(struct cli *cli)
{
    return apply(cli, &schedules);
}
enum cli_exit cli_schedule_get(struct cli *cli)
{
    return get(cli, &schedules);
}
enum cli_exit cli_schedule_list(struct cli *cli)
{
    return list(cli, &schedules);
}
enum cli_exit cli_schedule_delete(struct cli *cli)
{
    return delete (cli, &schedules);
}
