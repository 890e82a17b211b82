#include "select.h"
#include "verbs.h"

#include "cox/wire.h"

#define LIMIT_DEFAULT 100

const struct cli_option cli_task_list_options[] = {
    CLI_SELECT_OPTIONS,
    { "limit", 0, "N", "at most so many (default 100)" },
    { "all", 'a', NULL, "all of them" },
    { 0 },
};
const char cli_task_list_help[] = "Examples:\n"
                                  "  cox task list\n"
                                  "  cox task list -l team=sec --status FAILED --since 24h\n"
                                  "  cox task list --all -o jsonl | jq -r 'select(.name == \"audit\").id'\n"
                                  "  cox task list --status RUNNING -o name\n";

struct list {
    const struct cli *cli;
    struct cli_listing listing;
};

static void on_task(void *user, const Coxswain__V1__Task *task)
{
    struct list *l = user;
    struct cox_buf json = { 0 };

    if (cli_structured(l->cli))
        cox_wire_put_json(&json, &task->base);
    cli_add_task(&l->listing, l->cli, task, cox_buf_slice(&json));
    cox_buf_fini(&json);
}

enum cli_exit cli_task_list(struct cli *cli)
{
    struct list l = { .cli = cli };
    struct cli_select s;
    uint32_t limit = LIMIT_DEFAULT;
    bool more = false;
    enum cli_exit code = cli_select_init(&s, cli);

    if (!code)
        code = cli_get_count(cli, "limit", LIMIT_DEFAULT, &limit);
    if (!code) {
        cli_add_task_heading(&l.listing, cli);
        code = cli_select_each(cli, &s, cli_has(cli, "all") ? UINT32_MAX : limit, on_task, &l, &more);
    }
    if (!code) {
        size_t n = l.listing.n;
        cli_listing_finish(&l.listing, cli, "tasks");
        if (more)
            cli_note(cli, "these are the newest %zu; --limit N or --all shows more", n);
    }
    cox_buf_fini(&l.listing.table.text);
    cox_buf_fini(&l.listing.json);
    cli_select_fini(&s);
    return code;
}
