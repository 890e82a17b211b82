/* From a task document (JSON, TASK_FORMAT v1) to a flat image that the engine runs from.
 *
 * Compiling parses, checks every field with place and expectation, compiles expressions, resolves names to
 * indexes, and lays the result out as one relocatable block of bytes (image.h) that goes into the log as it
 * is: replay never parses a document. Pure: no I/O, no clock, no global state. Thread: any; coxd calls it on
 * its compile thread, because a 4 MiB document takes tens of milliseconds.
 */
#ifndef COX_TASK_H
#define COX_TASK_H

#include "cox/image.h"
#include "cox/limits.h"
#include "cox/types.h"

/* One thing that is wrong with a document. */
struct cox_violation {
    char *path;    /* "steps.scan.run.argv[0]"; "" is the document itself */
    char *message; /* what was found and what was expected */
    uint32_t line; /* 1-based line in the JSON text; 0 when not known */
};
struct cox_violations {
    struct cox_violation items[COX_VIOLATIONS_MAX];
    uint32_t n;      /* items used */
    uint32_t n_more; /* found beyond COX_VIOLATIONS_MAX */
};
void cox_violations_fini(struct cox_violations *v);

struct cox_label {
    struct cox_slice name;
    struct cox_slice value;
};

enum cox_source_kind {
    COX_SOURCE_TASK,     /* a document of kind task (or none) */
    COX_SOURCE_TEMPLATE, /* kind template. Empty inputs_json checks it: inputs it requires may be missing */
    COX_SOURCE_SCHEDULE, /* kind schedule: the task it makes */
    COX_SOURCE_STEPS,    /* a bare object of steps, made by a program: `inputs` is inputs_json as it is; its
                            outputs are {NAME: {"status", "output", "error"}}, made though steps failed */
    COX_SOURCE_PLAN /* {"steps", "output"} that a model made: as STEPS, but for `output`, which its outputs
                       are, and steps that fail, which fail it. `allow_json` says what may stand in it */
};

/* By the document's `kind`; TASK for what is no document, which compiling will say. O(document's top level).
 */
enum cox_source_kind cox_source_kind_of(struct cox_slice document);

/* What a user submits. All borrowed for the call. */
struct cox_task_source {
    enum cox_source_kind kind;
    struct cox_slice document;      /* JSON text */
    struct cox_slice inputs_json;   /* JSON object or empty: overrides defaults of `inputs` */
    const struct cox_label *labels; /* added to the document's; these win */
    size_t n_labels;
    struct cox_slice allow_json; /* PLAN: {"uses": ["code_*"], "kinds"?, "max_steps", "max_depth"}; empty: the
                                    defaults */
};

/* Compiles. On COX_OK `ret_image` holds the image (cox_image_open accepts it) and `v` is empty.
 * Errors: COX_ERR_INVALID with at least one violation; `ret_image` is empty then. `v` need not be
 * initialised; the caller calls cox_violations_fini in any case. Cost: O(document), a few microseconds a
 * step. */
COX_MUST_CHECK enum cox_err cox_task_compile(const struct cox_task_source *source, struct cox_buf *ret_image,
                                             struct cox_violations *v);

/* What a document of kind template or schedule says beside its task. Read after it compiled without a
 * violation; slices borrow from `document`'s text where they can and are else kept in `text`. */
struct cox_template_head {
    struct cox_buf text;
    struct cox_slice name;
    uint32_t major; /* the document's `version`, default 1 */
};
void cox_template_head(struct cox_slice document, struct cox_template_head *ret);
enum cox_overlap { COX_OVERLAP_SKIP, COX_OVERLAP_QUEUE, COX_OVERLAP_REPLACE };
struct cox_schedule_head {
    struct cox_buf text;
    struct cox_slice name;
    struct cox_slice cron;      /* five fields, checked */
    struct cox_slice time_zone; /* "UTC" by default; whether it exists is not checked here */
    enum cox_overlap overlap;
    int64_t catch_up_ms; /* missed runs no older than this are made up for; 0: none; INT64_MAX: all */
};
void cox_schedule_head(struct cox_slice document, struct cox_schedule_head *ret);

/* The image of the same task with other inputs (an object that replaces those it names, which the task must
 * have, each of the type it was declared with). Errors: as cox_task_compile. */
COX_MUST_CHECK enum cox_err cox_image_rebind(const struct cox_image *image, struct cox_slice inputs_json,
                                             struct cox_buf *ret_image, struct cox_violations *v);

/* ---- evaluation: pure, bounded by the cost fixed at compile time ---- */

/* What an expression sees of a step. */
struct cox_eval_step {
    enum cox_step_status status;
    struct cox_slice output_json; /* empty: null */
    enum cox_code code;           /* NONE: steps.X.error is null */
    struct cox_slice message;
    struct cox_slice errors_json;    /* of a map; empty: [] */
    struct cox_slice artifacts_json; /* empty: null */
};

struct cox_eval_env {
    void *user;
    /* Fills *ret for step `index`; slices live until the evaluation returns. */
    void (*step)(void *user, uint32_t index, struct cox_eval_step *ret);
    bool success;             /* success(): every dependency SUCCEEDED, or FAILED with allow_failure */
    bool failure;             /* failure(): some dependency FAILED without allow_failure */
    enum cox_code error_code; /* the root `error`, in a fallback; NONE: null */
    struct cox_slice error_message;
    struct cox_slice item_json; /* root `item`, or the name that `as` gave; empty: null */
    uint64_t item_index;        /* root `index` */
    struct cox_slice args_json; /* root `args`; empty: null */
    bool checked;               /* what `step` gives is known to be JSON: passing it on costs nothing */
    size_t len_max;             /* of the result; 0: COX_MESSAGE_LEN_MAX */
};

/* Evaluates template `index` of the image and appends the resulting JSON text to `out`.
 * Errors: COX_ERR_INVALID, and `error` holds a sentence that names the expression; `out` is as before.
 * Cost: bounded by COX_EXPR_COST_MAX and the sizes of the values it names. */
COX_MUST_CHECK enum cox_err cox_eval_template(const struct cox_image *image, uint32_t index,
                                              const struct cox_eval_env *env, struct cox_buf *out,
                                              struct cox_buf *error);

/* The same for an `if`: the value must be a bool (or null, which is false). */
COX_MUST_CHECK enum cox_err cox_eval_condition(const struct cox_image *image, uint32_t index,
                                               const struct cox_eval_env *env, bool *ret,
                                               struct cox_buf *error);

#endif
