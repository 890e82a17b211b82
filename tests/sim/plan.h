/* What a task is made of, drawn from a seed, and what its step bodies do: shared by the generator, the fake
 * step processes and the model that computes what must come out. */
#ifndef SIM_PLAN_H
#define SIM_PLAN_H

#include "cox/base/rng.h"
#include "cox/types.h"

#include <jansson.h>

#define ZONES 3    /* labels: zone == z0 .. */
#define HANDLERS 3 /* sim@1 .. */

enum form {            /* how a step refers to another's output */
            FORM_H,    /* ${{ steps.X.output.h }}: a string, or null */
            FORM_N,    /* ${{ steps.X.output.n }}: a number, or null */
            FORM_ALL,  /* ${{ steps.X.output }} */
            FORM_TEXT, /* "x ${{ steps.X.output.n }} y" */
            FORM_SUM,  /* ${{ steps.X.output.n + 1 }}: an error when X has no output */
            FORM_NR
};
struct plan_ref {
    uint32_t step;
    enum form form;
};

enum cond { /* the step's `if` */
            COND_NONE,
            COND_ALWAYS,
            COND_FAILURE,
            COND_SUCCESS,
            COND_N,       /* some dependency's n is below 50; false when it has none */
            COND_ALL_LOW, /* the same through its whole output: large values */
            COND_NR
};

struct plan_call {
    char id[64];      /* in the spec: makes every step's input its own */
    uint32_t ms;      /* typical run time */
    uint32_t flaky;   /* per mille of attempts that fail in a way that is retried */
    uint32_t broken;  /* per mille that fail for good */
    uint32_t pad;     /* bytes added to the output */
    bool kills;       /* takes its host down with it, when there are faults */
    bool fail_output; /* failures carry an output as well */
    bool reads_inputs;
    bool reads_error; /* fallbacks only */
    uint32_t n_refs;
    struct plan_ref refs[3];
    bool model;       /* a model step; its worker is any host */
    uint32_t handler; /* 0 .. HANDLERS - 1 */
    int zone;         /* -1: any, else required; +ZONES: must differ */
    uint32_t cpu_milli, memory_mib;
    uint32_t timeout_ms;
    uint32_t max_attempts, backoff_ms, backoff_max_ms;
};
struct plan_step {
    char name[16];
    uint32_t n_needs; /* explicit */
    uint32_t needs[8];
    enum cond cond;
    uint32_t cond_step;
    bool allow_failure, has_fallback;
    int priority; /* 1000: the task's */
    struct plan_call call, fallback;
};
struct plan {
    char name[24];
    struct scene *scene; /* not NULL: instead of all below */
    uint32_t n_steps;
    struct plan_step *steps; /* each needs earlier ones only */
    uint32_t *order;         /* of the document */
    bool fail_fast;
    uint32_t deadline_ms; /* 0: none */
    int priority;
    uint32_t input_pad;
    uint32_t n_outputs; /* of the task: refs, named o0 .. */
    struct plan_ref outputs[4];
};

void plan_draw(struct plan *p, struct cox_rng *rng, uint32_t number, uint32_t n_steps_max);
void plan_fini(struct plan *p);
json_t *plan_document(const struct plan *p);
char *plan_input_text(const struct plan *p); /* of inputs.text; the caller frees it */

/* What a body does with an input: a pure function of the spec and the attempt's number. */
struct outcome {
    int64_t run_ms;
    bool kills;         /* the host */
    enum cox_code code; /* NONE: success */
    char *output;       /* JSON, owned; NULL: none */
    char *continuation; /* JSON, owned; NULL: none */
};
/* `continuation`: what it is called again with; NULL: the first call. */
struct outcome outcome_of(const json_t *spec, const json_t *continuation, uint32_t attempt);
char *output_of(const json_t *spec); /* of its success; the caller frees it */
/* Is what a program asked for the steps that `continuation` brings? */
bool asked_came_back(const json_t *spec, const json_t *continuation);
void outcome_fini(struct outcome *o);

#endif
