/* One task for each line of inputs: batches of submissions, then waiting for all of them. */
#include "for_each.h"
#include "task.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"
#include "cox/json.h"
#include "cox/limits.h"
#include "cox/wire.h"

#include <errno.h>
#include <string.h>

#define BATCH_LEN_MAX ((size_t)8 << 20) /* of a request: documents repeat in it */
#define CALL_TIMEOUT_MS 60000
#define WAIT_TASKS 100 /* asked about at once: their outputs share a message */
#define WAIT_SECONDS 5
#define PROGRESS_EVERY_NS 2000000000LL
#define BAR_EVERY_NS 100000000LL
#define FAILURES_SHOWN 10

/* A line that has become a task, or was refused. */
struct item {
    size_t line;
    char id[24]; /* empty: refused */
    bool existed;
    bool ended;
    Coxswain__V1__TaskStatus status;
};

struct each {
    struct cli *cli;
    struct cli_document document;
    struct cox_buf base; /* inputs of every line */
    char *prefix;        /* of keys */
    const char *path;
    FILE *in;
    size_t line;
    struct cox_buf text; /* of the line */
    bool at_end;

    Coxswain__V1__SubmitTaskRequest proto; /* what all requests have in common */
    Coxswain__V1__SubmitTaskRequest *requests;
    Coxswain__V1__SubmitTaskRequest **pointers;
    size_t *lines; /* of the requests */
    size_t n_requests;

    struct cox_buf items; /* struct item[], of the accepted lines */
    size_t n_refused, n_ended, n_failed;
    struct cli_listing listing;
    enum cli_exit worst;
    int64_t drawn_ns;
    struct cli_outage outage;
};

static struct item *item_at(const struct each *e, size_t i)
{
    return (struct item *)(void *)e->items.data + i;
}

static size_t n_items(const struct each *e)
{
    return e->items.len / sizeof(struct item);
}

/* ---- telling --------------------------------------------------------------------------------------------
 */

static void clear_bar(const struct each *e)
{
    if (e->cli->bar)
        fputs("\r\033[K", stderr);
}

static void draw(struct each *e, bool waiting)
{
    int64_t ns = cox_clock_mono_ns();

    if (e->cli->quiet || ns - e->drawn_ns < (e->cli->bar ? BAR_EVERY_NS : PROGRESS_EVERY_NS))
        return;
    e->drawn_ns = ns;
    if (waiting)
        fprintf(stderr, "%s%zu of %zu tasks ended, %zu did not succeed%s", e->cli->bar ? "\r\033[K" : "",
                e->n_ended, n_items(e), e->n_failed, e->cli->bar ? "" : "\n");
    else
        fprintf(stderr, "%s%zu submitted, %zu refused%s", e->cli->bar ? "\r\033[K" : "", n_items(e),
                e->n_refused, e->cli->bar ? "" : "\n");
    fflush(stderr);
}

static void put_head(struct cox_buf *json, size_t line, const char *id)
{
    cox_buf_printf(json, "{\"line\":%zu,\"id\":", line);
    cox_json_quote(json, cox_slice_str(id));
}

static void refuse(struct each *e, size_t line, int code, const char *message)
{
    struct cox_buf json = { 0 };
    enum cli_exit as = cli_exit_of(&(struct cox_rpc_error){ .status = (enum cox_rpc_status)code });

    e->n_refused++;
    e->worst = cli_worse(e->worst, as);
    clear_bar(e);
    fprintf(stderr, "%s:%zu: %s\n", e->path, line, message);
    if (!cli_structured(e->cli))
        return;
    put_head(&json, line, "");
    cox_buf_printf(&json, ",\"code\":\"%s\",\"message\":", cox_rpc_status_text((enum cox_rpc_status)code));
    cox_json_quote(&json, cox_slice_str(message));
    cox_buf_append_str(&json, "}");
    cli_listing_add(&e->listing, e->cli, "", cox_buf_slice(&json), 0, NULL);
    cox_buf_fini(&json);
}

static void accept(struct each *e, size_t line, const char *id, bool existed)
{
    struct item item = { .line = line, .existed = existed };

    snprintf(item.id, sizeof(item.id), "%s", id);
    cox_buf_append(&e->items, &item, sizeof(item));
    if (cli_has(e->cli, "wait") || cli_has(e->cli, "dry-run"))
        return; /* told when it has ended */
    if (cli_structured(e->cli)) {
        struct cox_buf json = { 0 };
        put_head(&json, line, id);
        cox_buf_printf(&json, ",\"existed\":%s}", existed ? "true" : "false");
        cli_listing_add(&e->listing, e->cli, id, cox_buf_slice(&json), 0, NULL);
        cox_buf_fini(&json);
    } else {
        printf("%s\n", id);
    }
}

/* ---- submitting ------------------------------------------------------------------------------------------
 */

static void drop_request(struct each *e, size_t i)
{
    cox_free(e->requests[i].inputs_json);
    cox_free(e->requests[i].key);
}

/* Fills up the batch; what was not taken the last time is at its front. */
static enum cli_exit fill(struct each *e)
{
    size_t each_len = e->proto.document.len + 1024, len = e->n_requests * each_len;

    while (!e->at_end && e->n_requests < COX_BATCH_TASKS_MAX && (e->n_requests == 0 || len < BATCH_LEN_MAX)) {
        struct cox_buf inputs = { 0 }, error = { 0 };
        if (!cli_next_line(e->in, &e->text, &e->line)) {
            e->at_end = true;
            if (e->text.len == 0 && !ferror(e->in))
                break;
            cli_error("%s:%zu: %s", e->path, e->line,
                      e->text.len > 0 ? "expected a line of at most 4 MiB" : strerror(errno));
            return CLI_USAGE;
        }
        if (cli_merge_inputs(&inputs, cox_buf_slice(&e->base), cox_buf_slice(&e->text), &error)) {
            Coxswain__V1__SubmitTaskRequest *r = &e->requests[e->n_requests];
            *r = e->proto;
            r->inputs_json = cox_strdup(cox_buf_cstr(&inputs));
            r->key = cox_asprintf("%s/%zu", e->prefix, e->line);
            e->lines[e->n_requests++] = e->line;
            len += each_len + inputs.len;
        } else {
            refuse(e, e->line, COX_RPC_INVALID_ARGUMENT, cox_buf_cstr(&error));
        }
        cox_buf_fini(&inputs);
        cox_buf_fini(&error);
    }
    return CLI_OK;
}

static bool passes(int code)
{
    return code == COX_RPC_UNAVAILABLE || code == COX_RPC_RESOURCE_EXHAUSTED;
}

/* Takes the outcomes; what may succeed later stays in the batch. Whether something was settled. */
static bool settle(struct each *e, const Coxswain__V1__SubmitTasksResponse *answer)
{
    size_t n_left = 0, n = e->n_requests;

    for (size_t i = 0; i < n; i++) {
        const Coxswain__V1__SubmitTasksResponse__Result *r =
            i < answer->n_results ? answer->results[i] : NULL;
        if (!r || passes(r->code)) {
            e->requests[n_left] = e->requests[i];
            e->lines[n_left++] = e->lines[i];
            continue;
        }
        if (r->code == 0)
            accept(e, e->lines[i], r->id, r->existed);
        else
            refuse(e, e->lines[i], r->code, r->message);
        drop_request(e, i);
    }
    e->n_requests = n_left;
    return n_left < n;
}

static enum cli_exit send_batch(struct each *e)
{
    Coxswain__V1__SubmitTasksRequest request = COXSWAIN__V1__SUBMIT_TASKS_REQUEST__INIT;
    ProtobufCMessage *response = NULL;
    struct cox_rpc_error *error = NULL;

    for (size_t i = 0; i < e->n_requests; i++)
        e->pointers[i] = &e->requests[i];
    request.tasks = e->pointers;
    request.n_tasks = e->n_requests;
    enum cli_exit code = cli_try(e->cli, &coxswain__v1__task_service__descriptor, "SubmitTasks",
                                 &request.base, true, CALL_TIMEOUT_MS, &response, &error);

    if (error) {
        clear_bar(e);
        cli_document_error(e->cli, &e->document, error);
    }
    cox_rpc_error_free(error);
    if (code)
        return code;
    bool some = settle(e, (Coxswain__V1__SubmitTasksResponse *)response);

    protobuf_c_message_free_unpacked(response, NULL);
    draw(e, false);
    if (some) {
        e->outage = (struct cli_outage){ 0 };
        return CLI_OK;
    }
    return cli_outage_pause(
        e->cli, &e->outage,
        &(struct cox_rpc_error){ .status = COX_RPC_RESOURCE_EXHAUSTED,
                                 .message = (char *)(uintptr_t) "it takes no more tasks now" });
}

static enum cli_exit submit_all(struct each *e)
{
    enum cli_exit code = fill(e);

    while (!code && e->n_requests > 0) {
        code = send_batch(e);
        if (!code)
            code = fill(e);
    }
    clear_bar(e);
    if (!code && !e->cli->quiet)
        cli_note(e->cli, "%zu %s, %zu refused", n_items(e),
                 cli_has(e->cli, "dry-run") ? "valid" : "submitted", e->n_refused);
    if (code)
        cli_note(e->cli, "     %zu were submitted. Go on with the same command and --key %s", n_items(e),
                 e->prefix);
    return code;
}

/* ---- waiting ---------------------------------------------------------------------------------------------
 */

static void put_task(struct cox_buf *json, const struct item *item, const Coxswain__V1__Task *task)
{
    put_head(json, item->line, item->id);
    cox_buf_printf(json, ",\"status\":\"%s\",\"outputs\":%s,\"error\":", cli_task_status(task->status),
                   *task->outputs_json ? task->outputs_json : "null");
    if (task->error && *task->error->code)
        cox_wire_put_json(json, &task->error->base);
    else
        cox_buf_append_str(json, "null");
    cox_buf_append_str(json, "}");
}

static void ended(struct each *e, struct item *item, const Coxswain__V1__Task *task)
{
    struct cox_buf json = { 0 };

    item->ended = true;
    item->status = task->status;
    e->n_ended++;
    if (cli_task_exit(task) != CLI_OK) {
        e->worst = cli_worse(e->worst, CLI_TASK_FAILED);
        if (e->n_failed++ < FAILURES_SHOWN) {
            clear_bar(e);
            fprintf(stderr, "%s:%zu: %s %s: %s%s%s\n", e->path, item->line, item->id,
                    cli_task_status(task->status), task->error ? task->error->code : "",
                    task->error && *task->error->step ? " in " : "", task->error ? task->error->step : "");
        }
    }
    if (cli_structured(e->cli)) {
        put_task(&json, item, task);
        cli_listing_add(&e->listing, e->cli, item->id, cox_buf_slice(&json), 0, NULL);
    } else {
        clear_bar(e);
        printf("%s\n", item->id);
    }
    cox_buf_fini(&json);
}

/* One question about the first tasks that have not ended, from `first` on. */
static enum cli_exit ask(struct each *e, size_t first, size_t *ret_next, int64_t wait_s)
{
    Coxswain__V1__BatchGetTasksRequest request = COXSWAIN__V1__BATCH_GET_TASKS_REQUEST__INIT;
    Google__Protobuf__Duration wait = GOOGLE__PROTOBUF__DURATION__INIT;
    ProtobufCMessage *response = NULL;
    char *ids[WAIT_TASKS];
    size_t indexes[WAIT_TASKS], i = first;

    for (; i < n_items(e) && request.n_ids < WAIT_TASKS; i++) {
        if (item_at(e, i)->ended)
            continue;
        indexes[request.n_ids] = i;
        ids[request.n_ids++] = item_at(e, i)->id;
    }
    *ret_next = i;
    request.ids = ids;
    wait.seconds = wait_s;
    request.wait = &wait;
    if (request.n_ids == 0)
        return CLI_OK;
    enum cli_exit code = cli_call(e->cli, &coxswain__v1__task_service__descriptor, "BatchGetTasks",
                                  &request.base, true, &response);

    if (code)
        return code;
    const Coxswain__V1__BatchGetTasksResponse *answer = (const Coxswain__V1__BatchGetTasksResponse *)response;

    for (size_t k = 0; k < answer->n_tasks && k < request.n_ids; k++) {
        const Coxswain__V1__Task *task = answer->tasks[k];
        bool gone = task->status == COXSWAIN__V1__TASK_STATUS__TASK_STATUS_UNSPECIFIED;
        if (gone || cli_task_ended(task))
            ended(e, item_at(e, indexes[k]), task);
    }
    protobuf_c_message_free_unpacked(response, NULL);
    draw(e, true);
    return CLI_OK;
}

/* Of those that go on the ids are told, which are nowhere else. */
static void list_others(struct each *e)
{
    for (size_t i = 0; i < n_items(e) && cli_structured(e->cli); i++) {
        const struct item *item = item_at(e, i);
        struct cox_buf json = { 0 };
        if (item->ended)
            continue;
        put_head(&json, item->line, item->id);
        cox_buf_append_str(&json, ",\"status\":null,\"outputs\":null,\"error\":null}");
        cli_listing_add(&e->listing, e->cli, item->id, cox_buf_slice(&json), 0, NULL);
        cox_buf_fini(&json);
    }
}

static enum cli_exit wait_all(struct each *e)
{
    int64_t timeout_ms, deadline_ns;
    enum cli_exit code = cli_get_duration(e->cli, "timeout", 0, &timeout_ms);

    deadline_ns = timeout_ms > 0 ? cox_clock_mono_ns() + timeout_ms * 1000000 : INT64_MAX;
    while (!code && e->n_ended < n_items(e)) {
        int64_t left_s = (deadline_ns - cox_clock_mono_ns()) / 1000000000 + 1;
        size_t before = e->n_ended;
        if (cox_clock_mono_ns() >= deadline_ns)
            code = CLI_TIMED_OUT;
        for (size_t i = 0; i < n_items(e) && !code;) /* those that come later may have ended before */
            code = ask(e, i, &i, e->n_ended > before ? 0 : left_s < WAIT_SECONDS ? left_s : WAIT_SECONDS);
    }
    clear_bar(e);
    if (e->n_failed > FAILURES_SHOWN)
        cli_note(e->cli, "and %zu more", e->n_failed - FAILURES_SHOWN);
    if (!code)
        cli_note(e->cli, "%zu tasks ended, %zu did not succeed", e->n_ended, e->n_failed);
    else
        cli_note(e->cli, "%zu of %zu tasks ended; the others go on", e->n_ended, n_items(e));
    list_others(e);
    return code;
}

/* ---- the whole -------------------------------------------------------------------------------------------
 */

static enum cli_exit begin(struct each *e)
{
    struct cli *cli = e->cli;
    enum cli_exit code = cli_document_load(&e->document, cli->args[0]);

    e->path = cli_get(cli, "for-each");
    if (!code && strcmp(e->path, "-") == 0 && strcmp(cli->args[0], "-") == 0) {
        cli_error("the document and --for-each cannot both be standard input");
        code = CLI_USAGE;
    }
    if (!code)
        code = cli_put_inputs(cli, cli_document_json(&e->document), &e->base);
    if (!code) {
        e->in = strcmp(e->path, "-") == 0 ? stdin : fopen(e->path, "rbe");
        if (!e->in) {
            cli_error("--for-each %s: %s", e->path, strerror(errno));
            code = CLI_USAGE;
        }
    }
    if (!code)
        code = cli_document_pin(cli, &e->document, !cli_has(cli, "dry-run"));
    if (!code)
        code = cli_add_labels(cli, &e->proto);
    struct cox_slice document = cli_document_json(&e->document);

    e->proto.document = (ProtobufCBinaryData){ document.len, (uint8_t *)(uintptr_t)document.data };
    e->proto.dry_run = cli_has(cli, "dry-run");
    e->prefix = cli_get(cli, "key") ? cox_strdup(cli_get(cli, "key")) : cli_random_key();
    e->requests = cox_calloc(COX_BATCH_TASKS_MAX, sizeof(*e->requests));
    e->pointers = cox_calloc(COX_BATCH_TASKS_MAX, sizeof(*e->pointers));
    e->lines = cox_calloc(COX_BATCH_TASKS_MAX, sizeof(*e->lines));
    return code;
}

static void end(struct each *e)
{
    for (size_t i = 0; i < e->n_requests; i++)
        drop_request(e, i);
    if (e->in && e->in != stdin)
        fclose(e->in);
    cox_free(e->requests);
    cox_free(e->pointers);
    cox_free(e->lines);
    cox_free(e->prefix);
    cli_free_labels(&e->proto);
    cli_document_fini(&e->document);
    cox_buf_fini(&e->base);
    cox_buf_fini(&e->text);
    cox_buf_fini(&e->items);
}

enum cli_exit cli_submit_each(struct cli *cli)
{
    struct each e = { .cli = cli,
                      .proto = COXSWAIN__V1__SUBMIT_TASK_REQUEST__INIT,
                      .drawn_ns = cox_clock_mono_ns() };
    enum cli_exit code = begin(&e);

    if (!code)
        code = submit_all(&e);
    if (!code && cli_has(cli, "wait") && !cli_has(cli, "dry-run"))
        code = wait_all(&e);
    if (cli_structured(cli))
        cli_listing_finish(&e.listing, cli, "results");
    code = cli_worse(code, e.worst);
    end(&e);
    return code;
}
