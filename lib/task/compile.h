/* One compilation, and what its files share. Files: compile.c (the document), steps.c (which steps there
 * are), step.c, extras.c (what few steps have), call.c (one way to run a step), spec.c, model.c, mcp.c,
 * wait.c, agent.c and tool.c (what it says, kind by kind), secrets.c (what it may read of what only workers
 * know), template.c (JSON with expressions inside), expr_parse.c (one expression), graph.c (edges). */
#ifndef COX_TASK_COMPILE_H
#define COX_TASK_COMPILE_H

#include "code.h"
#include "fields.h"
#include "image_write.h"

#include "cox/base/arena.h"
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
    bool reads_item;
    uint32_t cost;
    uint32_t serial; /* of this template, from 1 */
};

/* Of the call that is being compiled; secrets.c. */
struct secrets {
    const json_t *declared;   /* NULL: none */
    const struct place *root; /* below it `secrets.KEY` may stand; NULL: nowhere */
    const char *below;        /* the member of the spec that `root` is; NULL: it is the spec */
    bool argv;                /* the arguments are being compiled: for the message */
    struct cox_buf places;    /* their paths in the spec so far, JSON */
};

/* A step of the image to be: the document's own, and inner steps behind their owners. */
struct planned {
    const char *name; /* the document's, or owned by compiler.texts */
    uint32_t owner;   /* COX_IMAGE_NONE: the document's own */
    uint32_t n_inner;
    uint32_t fallback; /* the first inner step of the fallback */
    bool is_body;
    bool of_map; /* the body of one */

    /* of an agent's bodies, once the agent's call is compiled */
    enum cox_step_kind kind;
    uint32_t call;
    uint32_t extras;
};

/* How deep a call stands in others. */
struct depth {
    unsigned races;
    unsigned agents;
};

/* What a plan may have. */
struct allow {
    const json_t *uses; /* patterns; NULL: none */
    uint32_t kinds;     /* bit 1u << enum cox_step_kind */
    uint32_t max_steps;
    uint32_t max_depth; /* of plans in it, itself counted */
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
    uint32_t *input_types;
    uint32_t n_inputs;
    json_t *given; /* owns the names in bare steps */
    struct image_str inputs_json;

    /* defaults for calls, from `defaults` */
    int64_t timeout_ms;
    struct retry retry;
    int32_t priority;
    bool has_bundle;
    bool idempotent; /* the step that is being compiled */

    const struct place *steps_at; /* where the steps stand */
    json_t *steps;
    struct planned *plan; /* [n_steps] */
    uint32_t n_steps;
    uint32_t plan_cap;
    uint32_t n_members;
    struct cox_arena texts; /* names of inner steps, and what agents have for config */
    uint32_t *sorted;       /* [n_steps]: step indexes by name */
    uint32_t *needs_at;     /* [n_steps + 1] into needs */
    struct u32s needs;
    uint32_t *seen_by_step;     /* [n_steps]: the last step (index + 1) that needed it */
    uint32_t *seen_by_template; /* [n_steps]: the last template (serial) that named it */
    struct draft draft;
    struct secrets secrets;
    struct cox_buf scratch;

    const struct allow *allow; /* of the plan that is being compiled; NULL: everything */
    json_t *allow_json;        /* owns what is in it */
};

/* Made by a program or a model, which have no documents: its inputs and files are its task's. */
static inline bool is_made(const struct compiler *c)
{
    return c->source->kind == COX_SOURCE_STEPS || c->source->kind == COX_SOURCE_PLAN;
}

/* Where an expression stands. */
struct scope {
    uint32_t step;  /* whose it is: a step of the document's own; COX_IMAGE_NONE in `outputs` */
    bool condition; /* in `if` */
    bool fallback;
    bool item;      /* `item` and `index` are known: in what a map runs */
    const char *as; /* another name of `item`, or NULL */
    bool args;      /* `args` is known: in an agent's tools */
};

/* json.c */
/* Parses `text` strictly. NULL after reporting what is wrong. `what` names the text in messages, `place` is
 * where it stands. */
json_t *json_parse(struct report *r, const struct place *place, struct cox_slice text, const char *what);
void json_put(struct cox_buf *out, const json_t *value); /* compact */

/* steps.c */
uint32_t compiler_find_step(const struct compiler *c, struct cox_slice name); /* COX_IMAGE_NONE: none */
void compiler_offer_steps(const struct compiler *c, struct suggestion *near);
/* Notes that the step of `scope` and the current template need `step`. */
void compiler_refer(struct compiler *c, const struct scope *scope, uint32_t step);
/* Lays out c->steps. False after reporting. */
bool plan_steps(struct compiler *c);
void compile_steps(struct compiler *c);
/* The name of a known step, in a field: its index, or COX_IMAGE_NONE after reporting. */
uint32_t compile_step_name(struct compiler *c, const struct scope *scope, const struct place *at,
                           const json_t *name);

/* inputs.c */
void compile_inputs(struct compiler *c, const struct place *at, json_t *declared);

/* step.c: members of a step, its fallback, or an alternative of its race; those of CALL_... come first */
enum {
    CALL_RUN,
    CALL_USES,
    CALL_HTTP,
    CALL_JQ,
    CALL_TASK,
    CALL_RACE,
    CALL_WAIT,
    CALL_APPROVAL,
    CALL_MODEL,
    CALL_MCP,
    CALL_AGENT,
    CALL_PLAN,
    CALL_KINDS, /* the fields above are kinds: there is exactly one */
    CALL_WITH = CALL_KINDS,
    CALL_TIMEOUT,
    CALL_RETRY,
    CALL_RESOURCES,
    CALL_REQUIRES,
    CALL_SECRETS,
    CALL_NR
};
#define CALL_FIELDS                                                                                          \
    [CALL_RUN] = { "run", WANT_OBJECT, FIELD_OPTIONAL, "an object such as {\"argv\": [\"true\"]}" },         \
    [CALL_USES] = { "uses", WANT_STRING, FIELD_OPTIONAL, "a program such as \"lint@1\"" },                   \
    [CALL_HTTP] = { "http", WANT_OBJECT, FIELD_OPTIONAL, "an object such as {\"url\": \"https://...\"}" },   \
    [CALL_JQ] = { "jq", WANT_OBJECT, FIELD_OPTIONAL, "an object such as {\"program\": \".x\"}" },            \
    [CALL_TASK] = { "task", WANT_OBJECT, FIELD_OPTIONAL, "an object such as {\"ref\": \"build@1\"}" },       \
    [CALL_RACE] = { "race", WANT_LIST, FIELD_OPTIONAL, "a list of two alternatives or more" },               \
    [CALL_WAIT] = { "wait", WANT_OBJECT, FIELD_OPTIONAL, "an object such as {\"for\": \"10m\"}" },           \
    [CALL_APPROVAL] = { "approval", WANT_OBJECT, FIELD_OPTIONAL,                                             \
                        "an object such as {\"prompt\": \"Apply?\"}" },                                      \
    [CALL_MODEL] = { "model", WANT_OBJECT, FIELD_OPTIONAL, "an object such as {\"input\": \"...\"}" },       \
    [CALL_MCP] = { "mcp", WANT_OBJECT, FIELD_OPTIONAL, "an object such as {\"url\": \"https://...\"}" },     \
    [CALL_AGENT] = { "agent", WANT_OBJECT, FIELD_OPTIONAL, "an object such as {\"input\": \"...\"}" },       \
    [CALL_PLAN] = { "plan", WANT_OBJECT, FIELD_OPTIONAL, "an object such as {\"input\": \"...\"}" },         \
    [CALL_WITH] = { "with", WANT_OBJECT, FIELD_OPTIONAL, "an object, the program's input" },                 \
    [CALL_TIMEOUT] = { "timeout", WANT_ANY, FIELD_OPTIONAL, "" },                                            \
    [CALL_RETRY] = { "retry", WANT_OBJECT, FIELD_OPTIONAL, "an object such as {\"max_attempts\": 3}" },      \
    [CALL_RESOURCES] = { "resources", WANT_OBJECT, FIELD_OPTIONAL, "an object such as {\"cpu\": 1}" },       \
    [CALL_REQUIRES] = { "requires", WANT_STRING, FIELD_OPTIONAL, "a string such as \"arch == amd64\"" },     \
    [CALL_SECRETS] = { "secrets", WANT_OBJECT, FIELD_OPTIONAL,                                               \
                       "names of secrets by KEY, read as secrets.KEY" }

#define EXPECTED_LEAF "expected it beside `run`, `uses`, `http`, `jq` or `mcp`"
#define EXPECTED_CALL "expected it beside `run`, `uses`, `http`, `jq`, `mcp` or `model`"
void compile_step(struct compiler *c, const struct place *at, uint32_t index, json_t *step);
/* The one kind of a call, from its fields; NONE after reporting. */
enum cox_step_kind call_kind(struct compiler *c, const struct place *at, const json_t *call,
                             json_t *const *f);

/* call.c: one way to run a step, from the fields f[CALL_NR]. `owner` is the step that it is of, whose inner
 * steps inner_first .. inner_end - 1 are what it opens. */
struct call_source {
    json_t *const *f;
    enum cox_step_kind kind;
    uint32_t owner;
    uint32_t inner_first;
    uint32_t inner_end;
    struct depth depth;
    const char *input; /* of an agent that is a tool: what it is asked unless it says so; else NULL */
};
uint32_t compile_call(struct compiler *c, const struct place *at, const struct scope *scope,
                      const struct call_source *source);
void compile_retry(struct compiler *c, const struct place *at, json_t *retry, struct retry *ret);

/* spec.c: what the worker's handler gets, into the draft */
void put_spec(struct compiler *c, const struct place *at, const struct scope *scope, json_t *const *f,
              enum cox_step_kind kind);
struct cox_slice spec_handler(json_t *const *f, enum cox_step_kind kind);
/* What a worker must have as "yes" to run it: the sandbox that it asks for. Empty: nothing. */
struct cox_slice spec_sandbox_label(json_t *const *f, enum cox_step_kind kind);
bool uses_of_bundle(struct cox_slice uses);
/* "NAME@MAJOR", the number of 1 to 9 digits and no less than `least`. */
bool versioned_ok(struct cox_slice s, unsigned least);
bool path_ok(struct cox_slice s); /* relative, and no ".." in it */

/* Parts of it, with the commas that go before all but the first: "url" and "headers" of requests, the object
 * of an environment, "sandbox". */
void put_url(struct compiler *c, const struct scope *scope, const struct place *at, const json_t *url);
void put_headers(struct compiler *c, const struct scope *scope, const struct place *at, json_t *headers);
void put_env(struct compiler *c, const struct scope *scope, const struct place *at, json_t *env);
void put_sandbox(struct compiler *c, const struct place *at, const json_t *sandbox);

/* model.c, mcp.c: the same of a `model`, and of an `mcp` */
void put_model(struct compiler *c, const struct scope *scope, const struct place *at, json_t *model);
void put_mcp(struct compiler *c, const struct scope *scope, const struct place *at, json_t *mcp);
/* Of a server that an agent has as its tools: the spec of the step that asks for their list, or of one that
 * calls what `args` says, {"tool", "arguments"}. */
void put_mcp_tools(struct compiler *c, const struct scope *scope, const struct place *at, json_t *mcp,
                   bool list);

/* secrets.c. Between begin and end the draft gets a spec, and is made to say where secrets go. */
void compile_secrets(struct compiler *c, const struct place *at, json_t *declared, enum cox_step_kind kind);
void secrets_begin(struct compiler *c);
/* From here on, what stands at `root` and below may read secrets; in the spec it is, or is its member
 * `below`. */
void secrets_offer(struct compiler *c, const struct place *root, const char *below);
void secrets_end(struct compiler *c);
/* Whether `expr` is nothing but `secrets.KEY`, where that may stand; an unknown key is reported unless `at`
 * is NULL. */
bool secrets_take(struct compiler *c, const struct place *at, struct cox_slice expr, struct cox_buf *ret_key);
/* Why `secrets` is not known where the expression stands that is being compiled. */
const char *secrets_why_not(const struct compiler *c);
/* The string at `at` is a list of pieces. */
void secrets_place(struct compiler *c, const struct place *at);

/* agent.c: `agent` and `plan`, into `call`; `retry` is of one call of the model. The bodies that they have
 * are compiled with them, and remembered in the plan. */
void compile_turns(struct compiler *c, const struct place *at, const struct scope *scope,
                   const struct call_source *source, const struct retry *retry, struct cox_image_call *call);

/* plan.c: the first call of a plan's model, and its config */
void compile_plan(struct compiler *c, const struct place *at, const struct scope *scope,
                  const struct call_source *source, struct cox_image_call *call, struct cox_buf *config);
/* What the source's allow_json says; false after reporting. Lives as long as c->allow_json. */
bool read_allowed(struct compiler *c, struct allow *ret);
/* Of a plan's steps, whether they may be. */
void check_allowed(struct compiler *c, const struct place *at, const struct call_source *source);
void check_plan_steps(struct compiler *c);

/* tool.c: an agent's tools */
#define TOOL_PART_LEN 96u
uint32_t tool_bodies(const json_t *tool); /* how many inner steps it is */
/* A JSON Schema that cox/schema.h can use, or a violation. */
void compile_schema(struct compiler *c, const struct place *at, const json_t *schema);
/* What body `body` of tools[i] is called, behind the agent's name. */
void tool_part(const json_t *tool, size_t i, uint32_t body, char ret[TOOL_PART_LEN]);
/* Compiles the tools of the agent that `source` is, and appends the list of them that config has. */
void compile_tools(struct compiler *c, const struct place *at, const struct scope *scope, json_t *tools,
                   const json_t *approve, const struct call_source *source, struct cox_buf *config);

/* wait.c: kinds without a slot and without inner steps, into `call` */
void compile_waiting(struct compiler *c, const struct place *at, const struct scope *scope, json_t *const *f,
                     struct cox_image_call *call);

/* extras.c */
uint32_t compile_map(struct compiler *c, const struct place *at, const struct scope *scope, json_t *map,
                     enum cox_step_kind kind, const char **ret_as);
struct extras_source {
    json_t *affinity, *concurrency, *rate, *artifacts;
    enum cox_step_kind kind;
    bool mapped;
};
uint32_t compile_extras(struct compiler *c, const struct place *at, const struct scope *scope,
                        const struct extras_source *source);

/* kept.c: what documents of kind template and schedule have beside others */
void compile_version(struct compiler *c, const struct place *at, const json_t *version);
void compile_schedule(struct compiler *c, const struct place *at, json_t *schedule);

/* template.c */
/* A text as what stands between quotes. */
void draft_text(struct compiler *c, const struct scope *scope, const struct place *at, struct cox_slice s);
enum emit { EMIT_VALUE, EMIT_ARG /* always a JSON string */ };
void draft_begin(struct compiler *c);
void draft_raw(struct compiler *c, const char *json);
void draft_value(struct compiler *c, const struct scope *scope, const struct place *at, const json_t *value,
                 enum emit emit);
uint32_t draft_end(struct compiler *c, const struct place *at);
bool template_is_expr(struct cox_slice s); /* one expression and nothing else */
/* A whole template of one value. */
uint32_t compile_template(struct compiler *c, const struct scope *scope, const struct place *at,
                          const json_t *value);
uint32_t compile_condition(struct compiler *c, const struct scope *scope, const struct place *at,
                           const json_t *value);

/* {NAME: {"status", "output", "error"}} of all steps. */
uint32_t compile_results(struct compiler *c);

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
