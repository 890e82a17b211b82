/* What the task verbs share: submitting, following, and telling people about tasks. */
#ifndef CLI_TASK_H
#define CLI_TASK_H

#include "cli.h"
#include "document.h"

#include "coxswain/v1/task_service.pb-c.h"

/* ---- submit.c ---- */
/* clang-format off */
#define CLI_INPUT_OPTIONS \
    { "input", 0, "NAME=VALUE", "an input; JSON, unless the document says that it is a string; @FILE: what it holds" }, \
    { "inputs", 0, "FILE", "inputs, a JSON or YAML object; --input wins" }, \
    { "inputs-file", 0, "FILE", "the same as --inputs" }
#define CLI_SUBMIT_OPTIONS \
    CLI_INPUT_OPTIONS, \
    { "label", 'l', "NAME=VALUE", "a label" }, \
    { "key", 0, "KEY", "idempotency key: the same key and document is the same task" }
/* clang-format on */

/* Appends the inputs that --inputs-file and --input give for the document, a JSON object. Prints errors. */
enum cli_exit cli_put_inputs(const struct cli *cli, struct cox_slice document, struct cox_buf *out);

/* --label as labels of the request; freed by cli_free_labels in either case. Prints errors. */
enum cli_exit cli_add_labels(const struct cli *cli, Coxswain__V1__SubmitTaskRequest *request);
void cli_free_labels(Coxswain__V1__SubmitTaskRequest *request);

/* A key of our own makes it safe to submit again when the answer was lost. Freed by the caller. */
char *cli_random_key(void);

/* Submits the document of args[0] as the options say; *ret_response on CLI_OK. Prints errors. */
enum cli_exit cli_submit(struct cli *cli, Coxswain__V1__SubmitTaskResponse **ret_response);

/* ---- for_each.c ---- */
/* Submits the document of args[0] once for each line of --for-each, as the options say; waits with --wait. */
enum cli_exit cli_submit_each(struct cli *cli);

/* ---- follow.c ---- */
/* Follows a task until it has ended, over restarts of the orchestrator.
 *   deadline_ns  monotonic; COX_RPC_FOREVER: none
 *   ret_task     [out] the ended task on CLI_OK; its last known state or NULL otherwise; freed by the caller
 * CLI_OK whatever the task's end was; CLI_TIMED_OUT, CLI_INTERRUPTED; others with their error printed.
 * Progress goes to standard error; with `events`, each event goes to standard output as a line of JSON. */
enum cli_exit cli_follow(struct cli *cli, const char *id, int64_t deadline_ns, bool events,
                         Coxswain__V1__Task **ret_task);
/* The same with all steps as a tree, where standard error is a terminal. */
enum cli_exit cli_follow_tree(struct cli *cli, const char *id, int64_t deadline_ns,
                              Coxswain__V1__Task **ret_task);

/* ---- report.c ---- */
const char *cli_task_status(Coxswain__V1__TaskStatus status); /* "RUNNING" */
bool cli_task_ended(const Coxswain__V1__Task *task);
uint32_t cli_steps_in(const Coxswain__V1__Task *task, const char *status);
/* Exit code for an ended task. */
enum cli_exit cli_task_exit(const Coxswain__V1__Task *task);
/* A row of a list of tasks, and its heading. */
void cli_add_task_heading(struct cli_listing *l, const struct cli *cli);
void cli_add_task(struct cli_listing *l, const struct cli *cli, const Coxswain__V1__Task *task,
                  struct cox_slice json);
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
void cli_put_cost(struct cox_buf *out, const Coxswain__V1__Money *cost); /* "0.05 USD", "-": nothing */

/* ---- task_output.c ---- */

/* Appends the output of a step, or of the task when `step` is "", whatever its length; nothing for one that
 * has none. Anything but CLI_OK has been reported. */
enum cli_exit cli_fetch_output(struct cli *cli, const char *id, const char *step, struct cox_buf *ret);

/* ---- progress.c ---- */
struct cli_progress {
    struct cli *cli;
    const char *id;
    char name[64];
    uint32_t total;
    uint32_t counts[16];   /* by Coxswain__V1__StepStatus */
    int64_t start_ms;      /* wall time */
    int64_t drawn_ns;      /* monotonic: when the bar or the last summary line was shown */
    bool shown;            /* a bar is on the line */
    struct cli_tree *tree; /* shown instead of the bar; NULL: none */
    unsigned tree_lines;   /* of it on the terminal */
};
void cli_progress_init(struct cli_progress *p, struct cli *cli, const char *id);
void cli_progress_task(struct cli_progress *p, const Coxswain__V1__Task *task);
void cli_progress_step(struct cli_progress *p, const Coxswain__V1__Step *step);
void cli_progress_draw(struct cli_progress *p);
void cli_progress_clear(struct cli_progress *p);

#endif
