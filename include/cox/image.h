/* The flat image of a compiled task: read-only, relocatable, little-endian, checked once when opened.
 *
 * Why flat: it travels as one slice from the compile thread to the engine, into the log, the checkpoint and
 * the archive, and costs nothing to load. Layout is private to lib/task/image.c (writer and reader side by
 * side); everybody else uses these accessors. A new version of Coxswain opens every older image.
 * Indexes are checked by cox_image_open; passing an index out of range afterwards is a bug (asserted).
 * Thread: any, an image never changes. Cost: O(1) an accessor, no allocation.
 */
#ifndef COX_IMAGE_H
#define COX_IMAGE_H

#include "cox/types.h"

#include <stdbool.h>

#define COX_IMAGE_NONE UINT32_MAX

struct cox_image { /* a view; the bytes are the caller's */
    struct cox_slice bytes;
    uint32_t n_steps;
    uint32_t n_calls;
    uint32_t n_classes;
    uint32_t n_templates;
    uint32_t n_labels;
    uint32_t at[8]; /* private: section offsets */
};

/* Checks magic, version, bounds and every index, and fills the view. Errors: COX_ERR_CORRUPT. O(image). */
COX_MUST_CHECK enum cox_err cox_image_open(struct cox_image *ret, struct cox_slice bytes);

/* ---- the task ---- */
struct cox_image_task {
    struct cox_slice name;
    struct cox_slice inputs_json; /* object, defaults filled in */
    uint32_t outputs_template;    /* template index, or COX_IMAGE_NONE: outputs are {} */
    int64_t deadline_ms;          /* budget.timeout from acceptance; 0: none */
    int32_t priority;             /* -100..100 */
    bool fail_fast;
};
void cox_image_task(const struct cox_image *img, struct cox_image_task *ret);
void cox_image_label(const struct cox_image *img, uint32_t i, struct cox_slice *ret_name,
                     struct cox_slice *ret_value);

/* ---- steps, in the document's order ---- */
enum cox_step_kind { COX_KIND_NONE, COX_KIND_RUN, COX_KIND_USES, COX_KIND_NR };
const char *cox_step_kind_text(enum cox_step_kind k); /* "run" */

struct cox_image_step {
    struct cox_slice name;
    enum cox_step_kind kind;
    bool allow_failure;
    int32_t priority;      /* the step's own, or the task's */
    uint32_t n_needs;      /* explicit `needs` and references, each once */
    uint32_t n_dependants; /* steps that need this one */
    uint32_t condition;    /* template index of `if`; COX_IMAGE_NONE: success() */
    uint32_t call;         /* what to run */
    uint32_t fallback;     /* call index, or COX_IMAGE_NONE */
};
void cox_image_step(const struct cox_image *img, uint32_t step, struct cox_image_step *ret);
uint32_t cox_image_need(const struct cox_image *img, uint32_t step, uint32_t i);      /* i < n_needs */
uint32_t cox_image_dependant(const struct cox_image *img, uint32_t step, uint32_t i); /* i < n_dependants */
/* Step index by name, COX_IMAGE_NONE when there is none. O(log n). */
uint32_t cox_image_find_step(const struct cox_image *img, struct cox_slice name);

/* ---- calls: one way to run a step (its own, or its fallback's) ---- */
struct cox_image_call {
    enum cox_step_kind kind;
    uint32_t class_index;   /* placement class within this image */
    uint32_t spec_template; /* evaluates to the handler's spec JSON */
    int64_t timeout_ms;     /* an attempt; 0: none */
    uint32_t max_attempts;  /* >= 1 */
    int64_t initial_backoff_ms;
    int64_t max_backoff_ms;
    uint32_t multiplier_milli; /* 2000 is 2.0 */
    uint32_t retry_on;         /* bit 1u << enum cox_code */
};
void cox_image_call(const struct cox_image *img, uint32_t call, struct cox_image_call *ret);

/* ---- placement classes: steps of one shape share one queue ---- */
struct cox_image_class {
    struct cox_slice key;           /* canonical bytes: equal keys are the same class in any image */
    struct cox_slice handler;       /* "run" or "name@major" */
    struct cox_resources resources; /* 0 fields: not asked for */
    uint32_t n_requires;
};
void cox_image_class(const struct cox_image *img, uint32_t cls, struct cox_image_class *ret);
/* Requirement i of a class: the label must equal `value` (or differ from it, when `negated`). A missing
 * label equals nothing. */
void cox_image_require(const struct cox_image *img, uint32_t cls, uint32_t i, struct cox_slice *ret_label,
                       struct cox_slice *ret_value, bool *ret_negated);

/* ---- templates: JSON values with expressions inside ---- */
struct cox_image_template {
    bool is_const; /* no expression: `json` is the value */
    struct cox_slice json;
    bool reads_inputs;
    bool reads_error;
    uint32_t n_steps; /* distinct steps it refers to */
};
void cox_image_template(const struct cox_image *img, uint32_t t, struct cox_image_template *ret);
uint32_t cox_image_template_step(const struct cox_image *img, uint32_t t, uint32_t i); /* i < n_steps */

#endif
