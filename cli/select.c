/* Tasks by label, status and age: what `task list` shows and what verbs act on with -l. */
#include "select.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"
#include "cox/limits.h"
#include "cox/wire.h"

#include <string.h>
#include <strings.h>

/* "7d" is so long before now; else a time. */
static enum cli_exit get_time(const struct cli *cli, const char *option, Google__Protobuf__Timestamp *ret,
                              Google__Protobuf__Timestamp **ret_used)
{
    const char *value = cli_get(cli, option);
    int64_t ms;

    if (!value)
        return CLI_OK;
    if (cox_parse_duration_ms(cox_slice_str(value), &ms) == COX_OK) {
        ms = cox_clock_wall_ms() - ms;
    } else if (cox_parse_time(cox_slice_str(value), &ms)) {
        cli_error("--%s: expected a duration such as 2h, or a time such as 2026-01-02T03:04:05Z, found %s",
                  option, value);
        return CLI_USAGE;
    }
    google__protobuf__timestamp__init(ret);
    ret->seconds = ms / 1000;
    ret->nanos = (int32_t)(ms % 1000 * 1000000);
    *ret_used = ret;
    return CLI_OK;
}

static bool add_status(struct cli_select *s, const char *word, size_t len)
{
    for (int v = 1; v <= (int)COXSWAIN__V1__TASK_STATUS__TASK_STATUS_CANCELLED; v++) {
        const char *text = cox_wire_enum_text(&coxswain__v1__task_status__descriptor, v);
        if (text && strlen(text) == len && strncasecmp(text, word, len) == 0) {
            s->statuses[s->request.n_statuses++] = (Coxswain__V1__TaskStatus)v;
            return true;
        }
    }
    return false;
}

static enum cli_exit get_statuses(const struct cli *cli, struct cli_select *s)
{
    for (size_t i = 0; i < cli->n_given; i++) {
        if (strcmp(cli->given[i].option->name, "status") != 0)
            continue;
        for (const char *p = cli->given[i].value; *p;) {
            size_t len = strcspn(p, ",");
            if (s->request.n_statuses == CLI_STATUSES_MAX || !add_status(s, p, len)) {
                cli_error(
                    "--status: expected PENDING, RUNNING, WAITING, PAUSED, SUCCEEDED, FAILED or CANCELLED, "
                    "found %.*s",
                    (int)len, p);
                return CLI_USAGE;
            }
            p += len + (p[len] == ',');
        }
    }
    return CLI_OK;
}

static enum cli_exit get_labels(const struct cli *cli, struct cli_select *s)
{
    s->request.labels = cox_calloc(cli->n_given + 1, sizeof(*s->request.labels));
    for (size_t i = 0; i < cli->n_given; i++) {
        const char *given = cli->given[i].value, *equals = strchr(given, '=');
        if (strcmp(cli->given[i].option->name, "label") != 0)
            continue;
        if (!equals || equals == given) {
            cli_error("--label: expected NAME=VALUE, found %s", given);
            return CLI_USAGE;
        }
        Coxswain__V1__ListTasksRequest__LabelsEntry *e = COX_NEW(Coxswain__V1__ListTasksRequest__LabelsEntry);
        coxswain__v1__list_tasks_request__labels_entry__init(e);
        e->key = cox_strndup(given, (size_t)(equals - given));
        e->value = cox_strdup(equals + 1);
        s->request.labels[s->request.n_labels++] = e;
    }
    return CLI_OK;
}

enum cli_exit cli_select_init(struct cli_select *s, const struct cli *cli)
{
    *s = (struct cli_select){ .request = COXSWAIN__V1__LIST_TASKS_REQUEST__INIT };
    s->request.statuses = s->statuses;
    enum cli_exit code = get_labels(cli, s);

    if (!code)
        code = get_statuses(cli, s);
    if (!code)
        code = get_time(cli, "since", &s->after, &s->request.created_after);
    if (!code)
        code = get_time(cli, "before", &s->before, &s->request.created_before);
    return code;
}

void cli_select_statuses(struct cli_select *s, unsigned mask)
{
    for (int v = 1; v <= (int)COXSWAIN__V1__TASK_STATUS__TASK_STATUS_CANCELLED && mask; v++) {
        if (mask & CLI_STATUS(v))
            s->statuses[s->request.n_statuses++] = (Coxswain__V1__TaskStatus)v;
    }
}

void cli_select_fini(struct cli_select *s)
{
    for (size_t i = 0; i < s->request.n_labels; i++) {
        cox_free(s->request.labels[i]->key);
        cox_free(s->request.labels[i]->value);
        cox_free(s->request.labels[i]);
    }
    cox_free(s->request.labels);
}

enum cli_exit cli_select_each(struct cli *cli, struct cli_select *s, uint32_t limit,
                              void (*on_task)(void *user, const Coxswain__V1__Task *task), void *user,
                              bool *ret_more)
{
    char *token = cox_strdup("");
    uint32_t left = limit;
    enum cli_exit code = CLI_OK;

    *ret_more = true;
    while (*ret_more && left > 0 && !code) {
        ProtobufCMessage *response = NULL;
        s->request.page_token = token;
        s->request.page_size = left < COX_BATCH_TASKS_MAX ? left : COX_BATCH_TASKS_MAX;
        code = cli_call(cli, &coxswain__v1__task_service__descriptor, "ListTasks", &s->request.base, true,
                        &response);
        if (code)
            break;
        const Coxswain__V1__ListTasksResponse *page = (const Coxswain__V1__ListTasksResponse *)response;
        for (size_t i = 0; i < page->n_tasks && left > 0; i++, left--)
            on_task(user, page->tasks[i]);
        cox_free(token);
        token = cox_strdup(page->next_page_token);
        *ret_more = *token != '\0';
        protobuf_c_message_free_unpacked(response, NULL);
    }
    cox_free(token);
    return code;
}
