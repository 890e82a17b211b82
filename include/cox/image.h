/* The flat image of a compiled task: read-only, relocatable, little-endian, checked once when opened.
 *
 * Why flat: it travels as one slice from the compile thread to the engine, into the log, the checkpoint and
 * the archive, and costs nothing to load. Layout is private to lib/task (image_layout.h);
 * everybody else uses these accessors. A new version of Coxswain opens every older image.
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
    bool expands;    /* some call is of a kind that no slot runs, or some step a map */
    bool has_inner;  /* some step is inner */
    bool has_models; /* some call is of kind model */
    uint32_t at[14]; /* private: section offsets */
};

/* Checks magic, version, bounds and every index, and fills the view. Errors: COX_ERR_CORRUPT. O(image). */
COX_MUST_CHECK enum cox_err cox_image_open(struct cox_image *ret, struct cox_slice bytes);

/* ---- the task ---- */
/* What a task may use at most, of itself and all that it begins. */
enum cox_budget {
    COX_BUDGET_TOKENS,
    COX_BUDGET_COST, /* millionths */
    COX_BUDGET_CPU,  /* microseconds */
    COX_BUDGET_STEPS,
    COX_BUDGET_NR
};
#define COX_BUDGET_NONE UINT64_MAX
struct cox_image_task {
    struct cox_slice name;
    struct cox_slice inputs_json; /* object, defaults filled in */
    uint32_t outputs_template;    /* template index, or COX_IMAGE_NONE: outputs are {} */
    int64_t deadline_ms;          /* budget.timeout from acceptance; 0: none */
    int32_t priority;             /* -100..100 */
    bool fail_fast;
    bool outputs_always; /* outputs are made though steps failed, and the task succeeds: steps of a program */
    uint32_t
        n_members; /* steps that run in the task's own frame: all but bodies of maps and what is in them */
    struct cox_slice bundle; /* "sha256:..." of the bundle, empty: none */
    uint64_t budget[COX_BUDGET_NR];
};
void cox_image_task(const struct cox_image *img, struct cox_image_task *ret);
void cox_image_label(const struct cox_image *img, uint32_t i, struct cox_slice *ret_name,
                     struct cox_slice *ret_value);

/* Templates named by `task` steps, each once: "name@major". */
uint32_t cox_image_n_refs(const struct cox_image *img);
struct cox_slice cox_image_ref(const struct cox_image *img, uint32_t i);

/* ---- steps, in the document's order; inner steps behind their owner ---- */
/* Values are in images: append only. */
enum cox_step_kind {
    COX_KIND_NONE,
    COX_KIND_RUN,
    COX_KIND_USES,
    COX_KIND_HTTP,
    COX_KIND_JQ,
    COX_KIND_TASK,
    COX_KIND_RACE,
    COX_KIND_WAIT,
    COX_KIND_APPROVAL,
    COX_KIND_MODEL,
    COX_KIND_MCP,
    COX_KIND_AGENT,
    COX_KIND_PLAN,
    COX_KIND_NR
};
const char *cox_step_kind_text(enum cox_step_kind k); /* "run" */
/* Run by a worker's slot. */
static inline bool cox_step_kind_is_worker(enum cox_step_kind k)
{
    return (k >= COX_KIND_RUN && k <= COX_KIND_JQ) || k == COX_KIND_MCP;
}
/* Has attempts: a worker's, or calls that the router makes, which to the engine is a worker that offers
 * "model". The others wait without. */
static inline bool cox_step_kind_is_leaf(enum cox_step_kind k)
{
    return cox_step_kind_is_worker(k) || k == COX_KIND_MODEL;
}

/* Where a step runs, relative to others. */
enum cox_affinity_kind {
    COX_AFFINITY_NONE,
    COX_AFFINITY_WORKSPACE, /* same worker, same files as `affinity_step` */
    COX_AFFINITY_STEP,      /* same worker */
    COX_AFFINITY_SPREAD     /* away from its like: steps of its class, or with the same `spread` text */
};

struct cox_image_step {
    struct cox_slice name;
    enum cox_step_kind kind;
    bool allow_failure;
    int32_t priority;      /* the step's own, or the task's */
    uint32_t n_needs;      /* explicit `needs` and references, each once */
    uint32_t n_dependants; /* steps that need this one */
    uint32_t condition;    /* template index of `if`; COX_IMAGE_NONE: success() */
    uint32_t call;         /* what to run */
    uint32_t fallback;     /* call index, or COX_IMAGE_NONE; under a map it is the whole step's, once */

    /* Inner steps: alternatives of a race, and the body of a map over a kind that no slot runs. They follow
     * their owner: indexes step + 1 .. step + n_inner belong to it, those of inner races included. They have
     * no `needs` (their owner has them) and do not begin by themselves: their owner opens them. Named after
     * it: "first.0", "first.0.1"; a map's body is "scan[]", what is in it "scan[].0"; an agent's are
     * "triage.model", "triage.approval", "triage.NAME" of a tool. Not found by name in expressions. */
    uint32_t owner;   /* COX_IMAGE_NONE: a step of the document's own */
    uint32_t n_inner; /* inner steps, of inner steps too */
    bool is_body; /* a map's or an agent's: instances of it are frames; it never runs in its owner's frame */

    uint32_t map;    /* map index, or COX_IMAGE_NONE. Of a leaf kind: `call` is run for each item. Of other
                        kinds: step + 1 is the body; `call` is COX_IMAGE_NONE */
    uint32_t extras; /* extras index, or COX_IMAGE_NONE: nothing of that */
    bool idempotent;
};

/* Fields that few steps have. */
struct cox_image_extras {
    enum cox_affinity_kind affinity;
    uint32_t affinity_step;   /* WORKSPACE, STEP */
    struct cox_slice spread;  /* SPREAD: its text; empty for `true` */
    uint32_t concurrency_key; /* template (a string), or COX_IMAGE_NONE */
    uint32_t concurrency_limit;
    uint32_t rate_key; /* template (a string), or COX_IMAGE_NONE */
    uint64_t rate_per_minute_milli;
    uint32_t artifacts; /* template of an object of strings, or COX_IMAGE_NONE */
};
uint32_t cox_image_n_extras(const struct cox_image *img); /* 0: no step has any */
void cox_image_extras(const struct cox_image *img, uint32_t extras, struct cox_image_extras *ret);

/* `map`: the step once for each item. */
struct cox_image_map {
    uint32_t over;         /* template: must come to a list; null is the empty list */
    uint32_t max_parallel; /* items at once; 0: no limit of its own */
    uint32_t batch;        /* items dispatched together, >= 1 */
    uint64_t tolerate;     /* failures: a count, or parts in a million of the items when tolerate_ppm */
    bool tolerate_ppm;
};
void cox_image_map(const struct cox_image *img, uint32_t map, struct cox_image_map *ret);

void cox_image_step(const struct cox_image *img, uint32_t step, struct cox_image_step *ret);
uint32_t cox_image_need(const struct cox_image *img, uint32_t step, uint32_t i);      /* i < n_needs */
uint32_t cox_image_dependant(const struct cox_image *img, uint32_t step, uint32_t i); /* i < n_dependants */
/* Step index by name, COX_IMAGE_NONE when there is none. O(log n). */
uint32_t cox_image_find_step(const struct cox_image *img, struct cox_slice name);

/* ---- calls: one way to run a step (its own, or its fallback's) ---- */
/* Inner steps of an agent, counted from its first; all are bodies, of which each call is an instance. */
enum {
    COX_TURN_MODEL, /* kind MODEL, its template the constant {}: what is said is the engine's to put together
                     */
    COX_TURN_APPROVAL, /* kind APPROVAL; prompt: args.prompt */
    COX_TURN_TOOLS     /* and on: calls with `args`; of an MCP server its list, then its call */
};
enum cox_wait_kind { COX_WAIT_NONE, COX_WAIT_FOR, COX_WAIT_UNTIL, COX_WAIT_SIGNAL };
enum cox_on_expire { COX_EXPIRE_FAIL, COX_EXPIRE_APPROVE, COX_EXPIRE_REJECT };
struct cox_image_call {
    enum cox_step_kind kind;
    enum cox_wait_kind wait;      /* WAIT */
    uint32_t class_index;         /* placement class within this image; COX_IMAGE_NONE unless a leaf kind */
    uint32_t spec_template;       /* leaf kinds: the handler's spec JSON. TASK: the inputs, an object.
                                     WAIT until: the time, a string (RFC 3339). APPROVAL: the prompt, a string.
                                     AGENT, PLAN: the first call of the model, as MODEL has it
                                     RACE, WAIT for, WAIT signal: COX_IMAGE_NONE */
    struct cox_slice ref;         /* TASK: "name@major". WAIT signal: its name. AGENT, PLAN: what cox/turn.h
                                     calls its config. else empty */
    int64_t wait_ms;              /* WAIT for: how long. APPROVAL: `expires`, 0: never */
    enum cox_on_expire on_expire; /* APPROVAL */
    uint32_t approvers;           /* APPROVAL: template, a constant list of strings; COX_IMAGE_NONE: anyone */
    uint32_t inner_first;  /* RACE: its alternatives are the inner steps inner_first .. inner_first + */
    uint32_t inner_n;      /* inner_n - 1, and the inner steps of those: next = i + 1 + n_inner(i).
                              AGENT, PLAN: COX_TURN_MODEL, COX_TURN_APPROVAL, then its tools', all
                              counted: a tool that is an agent has its own inner steps behind it */
    int64_t timeout_ms;    /* an attempt; 0: none */
    uint32_t max_attempts; /* >= 1 */
    int64_t initial_backoff_ms;
    int64_t max_backoff_ms;
    uint32_t multiplier_milli; /* 2000 is 2.0 */
    uint32_t retry_on;         /* bit 1u << enum cox_code */
};
void cox_image_call(const struct cox_image *img, uint32_t call, struct cox_image_call *ret);

/* ---- placement classes: steps of one shape share one queue ---- */
struct cox_image_class {
    struct cox_slice key; /* canonical bytes: equal keys are the same class in any image */
    struct cox_slice
        handler; /* "run", "http", "jq", "model", "name@major", or "bundle" for a program in one */
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
    bool reads_item;  /* item, index or args: another value for each instance */
    uint32_t n_steps; /* distinct steps it refers to */
};
void cox_image_template(const struct cox_image *img, uint32_t t, struct cox_image_template *ret);
uint32_t cox_image_template_step(const struct cox_image *img, uint32_t t, uint32_t i); /* i < n_steps */

#endif
