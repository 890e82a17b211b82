/* What the task verbs share: submitting, following, and telling people about tasks. */
#ifndef CLI_TASK_H
#define CLI_TASK_H

#include "cli.h"
#include "document.h"

#include "coxswain/v1/task_service.pb-c.h"

/* ---- submit.c ---- */
/* clang-format off */
#define CLI_INPUT_OPTIONS \
    { "input", 0, "NAME=VALUE", "an input; JSON, unless the document says that it is a string" }, \
    { "inputs-file", 0, "FILE", "inputs, a JSON or YAML object" }
#define CLI_SUBMIT_OPTIONS \
    CLI_INPUT_OPTIONS, \
    { "label", 'l', "NAME=VALUE", "a label" }, \
    { "key", 0, "KEY", "idempotency key: the same key and document is the same task" }
/* clang-format on */

/* Appends the inputs that --inputs-file and --input give for the document, a JSON object. Prints errors. */
enum cli_exit cli_put_inputs(const struct cli *cli, struct cox_slice document, struct cox_buf *out);

/* Submits the document of args[0] as the options say; *ret_response on CLI_OK. Prints errors. */
enum cli_exit cli_submit(struct cli *cli, Coxswain__V1__SubmitTaskResponse **ret_response);

/* ---- follow.c ---- */
/* Follows a task until it has ended, over restarts of the orchestrator.
 *   deadline_ns  monotonic; COX_RPC_FOREVER: none
 *   ret_task     [out] the ended task on CLI_OK; its last known state or NULL otherwise; freed by the caller
 * CLI_OK whatever the task's end was; CLI_TIMED_OUT, CLI_INTERRUPTED; others with their error printed.
 * Progress goes to standard error; with `events`, each event goes to standard output as a line of JSON. */
enum cli_exit cli_follow(struct cli *cli, const char *id, int64_t deadline_ns, bool events,
                         Coxswain__V1__Task **ret_task);

/* ---- report.c ---- */
const char *cli_task_status(Coxswain__V1__TaskStatus status); /* "RUNNING" */
bool cli_task_ended(const Coxswain__V1__Task *task);
uint32_t cli_steps_in(const Coxswain__V1__Task *task, const char *status);
/* Exit code for an ended task. */
enum cli_exit cli_task_exit(const Coxswain__V1__Task *task);
/* The task in the format that is wanted. */
void cli_print_task(const struct cli *cli, const Coxswain__V1__Task *task);
/* Text of the time between two moments; an absent `to` is now; "" for an absent `from`. */
void cli_put_between(struct cox_buf *out, const Google__Protobuf__Timestamp *from,
                     const Google__Protobuf__Timestamp *to);
const char *cli_step_name(const Coxswain__V1__Step *step); /* without the task */
/* What went wrong with a FAILED step and what to try next. */
void cli_put_failure(struct cli *cli, struct cox_buf *out, const char *task_id,
                     const Coxswain__V1__Step *step);
/* Reads a task that did not succeed and reports its failed steps on standard error. */
void cli_report_failures(struct cli *cli, const Coxswain__V1__Task *task);
/* Appends text on one line, without what a terminal would obey. */
void cli_put_line(struct cox_buf *out, struct cox_slice text);

/* ---- progress.c ---- */
struct cli_progress {
    struct cli *cli;
    const char *id;
    char name[64];
    uint32_t total;
    uint32_t counts[16]; /* by Coxswain__V1__StepStatus */
    int64_t start_ms;    /* wall time */
    int64_t drawn_ns;    /* monotonic: when the bar or the last summary line was shown */
    bool shown;          /* a bar is on the line */
};
void cli_progress_init(struct cli_progress *p, struct cli *cli, const char *id);
void cli_progress_task(struct cli_progress *p, const Coxswain__V1__Task *task);
void cli_progress_step(struct cli_progress *p, const Coxswain__V1__Step *step);
void cli_progress_draw(struct cli_progress *p);
void cli_progress_clear(struct cli_progress *p);

#endif
