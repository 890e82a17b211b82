/* One compilation, and what its files share. Files: compile.c (the task), step.c, call.c (one way to run a
 * step), template.c (JSON with expressions inside), expr_parse.c (one expression), graph.c (edges). */
#ifndef COX_TASK_COMPILE_H
#define COX_TASK_COMPILE_H

#include "code.h"
#include "fields.h"
#include "image_write.h"

#include "cox/task.h"

struct u32s { /* a growing list of indexes */
    uint32_t *v;
    uint32_t n;
    uint32_t cap;
};
void u32s_add(struct u32s *s, uint32_t v);

struct retry {
    uint32_t max_attempts;
    int64_t initial_backoff_ms;
    int64_t max_backoff_ms;
    uint32_t multiplier_milli;
    uint32_t on;
};

/* The template being built. */
struct draft {
    struct cox_buf raw; /* JSON text not yet in code */
    struct cox_buf code;
    struct u32s refs;
    bool reads_inputs;
    bool reads_error;
    uint32_t cost;
    uint32_t serial; /* of this template, from 1 */
};

struct compiler {
    const struct cox_task_source *source;
    struct report report;
    struct image_writer image;
    json_t *document;

    /* inputs: values are in the pool, so an expression that reads one reads it as a constant */
    struct cox_mapb input_by_name; /* -> index + 1 */
    struct image_str *inputs;
    const char **input_names;
    uint32_t n_inputs;
    struct image_str inputs_json;

    /* defaults for calls, from `defaults` */
    int64_t timeout_ms;
    struct retry retry;
    int32_t priority;

    const char **step_names; /* [n_steps] */
    uint32_t *sorted;        /* [n_steps]: step indexes by name */
    uint32_t n_steps;
    uint32_t *needs_at; /* [n_steps + 1] into needs */
    struct u32s needs;
    uint32_t *seen_by_step;     /* [n_steps]: the last step (index + 1) that needed it */
    uint32_t *seen_by_template; /* [n_steps]: the last template (serial) that named it */
    struct draft draft;
    struct cox_buf scratch;
};

/* Where an expression stands. */
struct scope {
    uint32_t step;  /* whose it is; COX_IMAGE_NONE in `outputs` */
    bool condition; /* in `if` */
    bool fallback;
};

/* json.c */
/* Parses `text` strictly. NULL after reporting what is wrong. `what` names the text in messages, `place` is
 * where it stands. */
json_t *json_parse(struct report *r, const struct place *place, struct cox_slice text, const char *what);
void json_put(struct cox_buf *out, const json_t *value); /* compact */

/* compile.c */
uint32_t compiler_find_step(const struct compiler *c, struct cox_slice name); /* COX_IMAGE_NONE: none */
/* Notes that the step of `scope` and the current template need `step`. */
void compiler_refer(struct compiler *c, const struct scope *scope, uint32_t step);

/* inputs.c */
void compile_inputs(struct compiler *c, const struct place *at, json_t *declared);

/* step.c */
void compile_step(struct compiler *c, const struct place *at, uint32_t index, json_t *step);

/* call.c: members of a step or fallback that say what to run; NULL when absent */
struct call_source {
    json_t *run, *uses, *with, *timeout, *retry, *resources, *requires;
};
uint32_t compile_call(struct compiler *c, const struct place *at, const struct scope *scope,
                      const struct call_source *source, enum cox_step_kind kind);
void compile_retry(struct compiler *c, const struct place *at, json_t *retry, struct retry *ret);

/* template.c */
enum emit { EMIT_VALUE, EMIT_ARG /* always a JSON string */ };
void draft_begin(struct compiler *c);
void draft_raw(struct compiler *c, const char *json);
void draft_value(struct compiler *c, const struct scope *scope, const struct place *at, const json_t *value,
                 enum emit emit);
uint32_t draft_end(struct compiler *c, const struct place *at);
/* A whole template of one value. */
uint32_t compile_template(struct compiler *c, const struct scope *scope, const struct place *at,
                          const json_t *value);
uint32_t compile_condition(struct compiler *c, const struct scope *scope, const struct place *at,
                           const json_t *value);

/* expr_parse.c: compiles one expression, the text between "${{" and "}}", into the draft. False after
 * reporting what is wrong. */
bool compile_expr(struct compiler *c, const struct scope *scope, const struct place *at,
                  struct cox_slice text);

/* graph.c: both directions of the edges, and a violation when they form a cycle. */
struct graph {
    uint32_t *dependants_at;
    uint32_t *dependants;
};
void graph_build(struct compiler *c, struct graph *ret);
void graph_fini(struct graph *g);

#endif
