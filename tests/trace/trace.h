/* Trace tests: what the engine does, told as a timeline.
 *
 * A test says what happens (submit, attach, result, time passing) and then what the engine must have written
 * down and sent, line by line:
 *
 *     begin(t);
 *     submit(t, "{...}");
 *     attach(t, "w1", 2);
 *     expect(t, "reply ok t0-000001",
 *               "assign a#1 to w1: {\"argv\":[\"true\"]}");
 *     succeed(t, "w1", "a", "1");
 *     expect(t, "answer accepted to w1", "task SUCCEEDED {}");
 *
 * Every action is checked against the rule that it leaves after its records. At the end of each test the
 * state is rebuilt three ways (replay from the first record, checkpoint alone, and a checkpoint taken half
 * way plus the tail) and its hash must be the live one. The log is durable at once here; what happens when it
 * is not is the simulator's business.
 */
#ifndef TRACE_H
#define TRACE_H

#include "cox/engine_stats.h"

struct trace;

struct trace *trace_begin(void);
struct trace *trace_begin_with(uint32_t live_steps_max); /* 0: as many as there may be */
/* A check walks all there is: for a long story, one after so many inputs. */
void check_every(struct trace *t, uint64_t n_inputs);
void trace_end(struct trace *t); /* checks hashes and that nothing unexpected is left to expect */

/* The text of an attempt's outcome as a worker reports it. */
void submit(struct trace *t, const char *document_json);
void submit_of(struct trace *t, const char *tenant, const char *document_json);
void submit_keyed(struct trace *t, const char *key, const char *document_json);
void cancel(struct trace *t, uint32_t task_no, const char *reason);
void set_paused(struct trace *t, uint32_t task_no, bool paused);
void stopped_ms(struct trace *t, int64_t ms);     /* a gap: the driver was stopped for so long, and says so */
void set_clock_back(struct trace *t, int64_t ms); /* the wall clock of the host */
void after_ms(struct trace *t, int64_t ms);       /* time passes; due timers fire, in their order */

void away_ms(struct trace *t,
             int64_t ms); /* time passes, and nobody looks: before a crash(), coxd was down */

/* For vocabulary in other files (trace_kept.h). */
int64_t wake_in_ms(const struct trace *t); /* when the engine wants to be called */
void trace_step(struct trace *t, struct cox_input *in);
const struct cox_engine *trace_engine(const struct trace *t);

struct worker_spec {
    const char *id;
    const char *boot; /* default "boot1" */
    uint32_t slots;
    uint32_t credit;      /* default: slots */
    const char *handlers; /* comma-separated, default "run"; "lint@1=1.4.2" says the exact version */
    const char *labels;   /* "k=v,k=v" */
    struct cox_resources resources;
    const char *holds; /* step names of task 1 it still has, comma-separated */
    bool inner;        /* the router */
};
void attach(struct trace *t, const char *id, uint32_t slots);
void attach_as(struct trace *t, const struct worker_spec *spec);
void detach(struct trace *t, const char *id);
void credit(struct trace *t, const char *id, uint64_t granted);
void beat(struct trace *t, const char *id);
void drain(struct trace *t, const char *id);
void policy(struct trace *t, const char *id, int what); /* COX_POLICY_CORDON ... */

/* Reports on the newest attempt of a step of task `task_no` (1 unless named otherwise). */
#define RESULT_CPU_US 1000 /* that each has used */
void started(struct trace *t, const char *worker, const char *step);
void returned(struct trace *t, const char *worker, const char *step);
void succeed(struct trace *t, const char *worker, const char *step, const char *output_json);
void fails(struct trace *t, const char *worker, const char *step, enum cox_code code);
void fails_in(struct trace *t, uint32_t task_no, const char *worker, const char *step, enum cox_code code);
void cancelled(struct trace *t, const char *worker, const char *step);
void cancelled_in(struct trace *t, uint32_t task_no, const char *worker, const char *step);
void succeed_in(struct trace *t, uint32_t task_no, const char *worker, const char *step,
                const char *output_json);
/* What the next result says of model calls. */
void used(struct trace *t, uint64_t input_tokens, uint64_t output_tokens, uint64_t cost_micros);
/* What the next result says of its workspace: saved as packs, a letter each ("ab"; the last names it), or
 * not. */
void saved(struct trace *t, uint32_t serial, const char *packs);
void unsaved(struct trace *t, const char *why);
void spend(struct trace *t, const char *worker, const char *step, uint64_t tokens); /* output, of one call */
/* A process of the newest attempt of a step asks for a call of so many bytes: true, it is under way. */
bool process_calls(struct trace *t, uint32_t task_no, const char *step, uint64_t len, uint64_t output_tokens);
/* The oldest such call has ended, and used so many output tokens. */
void process_called(struct trace *t, const char *router, uint64_t tokens);
const char *archived_usage_of(struct trace *t, uint32_t task_no);
const char *usage_of(struct trace *t, uint32_t task_no); /* "1 calls 10+5 tokens, 0 wasted, 3 USD" */
struct cox_call_hint last_hint(const struct trace *t);   /* of the last assignment */
/* Items of a map: a batch is named by its first item, "scan[0]", wherever a step's name is asked for above;
 * the newest of that first item is meant. Reports the end of each of its items, in order, in words: an output
 * without white space, or "!EXIT_NONZERO"; "-" says nothing of that item. */
void items(struct trace *t, const char *worker, const char *batch, const char *ends);
/* A batch that was given and not reported on yet, by number among those; false: there are no more. */
bool open_batch(const struct trace *t, size_t which, uint32_t *ret_first, uint32_t *ret_n);
void forget_batches(struct trace *t);               /* their workers are gone: what they had is nobody's */
enum cox_answer last_answer(const struct trace *t); /* to a result */
size_t open_composes(const struct trace *t);
size_t open_fetches(const struct trace *t);
/* What was last composed, borrowed until the next. */
struct cox_slice last_output(const struct trace *t);
const char *last_continuation(struct trace *t); /* what the last assignment came with; "": nothing */
/* Joins a map's parts, the oldest COMPOSE still open, as the compile thread would. */
void compose(struct trace *t);
size_t log_len(const struct trace *t); /* bytes of records so far */
/* A blob whose name is this byte again and again. */
struct cox_hash upload(struct trace *t, uint8_t fill);
bool owns(const struct trace *t, uint32_t task_no, struct cox_hash hash); /* 0: it is kept for ever */
bool all_owned_in(const struct trace *t, const char *tenant);             /* and there is something */
/* Answers the oldest FETCH still open. */
void fetch(struct trace *t);
void fetch_nothing(struct trace *t); /* it cannot be read any more */

/* Reports with a token of the test's own. */
void report_token(struct trace *t, const char *worker, uint32_t task_no, uint32_t step,
                  struct cox_token token);
struct cox_token token_of(struct trace *t, uint32_t task_no, const char *step);

/* A value too large to keep inline, made of `len` letters. */
void succeed_large(struct trace *t, const char *worker, const char *step, size_t len);
/* Answers the oldest EVALUATE still open, evaluating as the compile thread would. */
void evaluate(struct trace *t);
size_t open_evaluations(const struct trace *t);
/* Answers the oldest TOOLS or DECIDE still open, as the compile thread would. The only program that a worker
 * may ever have offered is "offered@1". */
void decide(struct trace *t);
void program_offered(struct trace *t, bool is);
const char *last_spec(struct trace *t); /* of the last assignment */
/* Answers the oldest COMPILE still open, likewise. */
void compile(struct trace *t);

void state_forgets_owners(struct trace *t); /* as a power cut may make it */

/* Kills the engine and recovers a new one from the log and the last checkpoint. Sessions are gone. */
void crash(struct trace *t);
void checkpoint(struct trace *t);
void checkpoint_some(struct trace *t); /* begins or goes on with one: a single entity */
void archived(struct trace *t, uint32_t task_no);

/* ---- trace_words.c ---- */
void signal_task(struct trace *t, uint32_t task_no, const char *name, const char *json);
void message_task(struct trace *t, uint32_t task_no, const char *address, const char *text);
void answer_approval(struct trace *t, uint32_t task_no, const char *address, bool yes, const char *comment);
void answer_approval_as(struct trace *t, const char *who, const char *roles, uint32_t task_no,
                        const char *address, bool yes, const char *comment);
void pause_task(struct trace *t, uint32_t task_no, bool pause);
void want(struct trace *t, uint32_t task_no); /* that it should be in memory */
void cancel_step(struct trace *t, uint32_t task_no, const char *address);
void load(struct trace *t);                                        /* answers the newest LOAD */
void retry_task(struct trace *t, uint32_t task_no);                /* from the archive */
void fork_task(struct trace *t, uint32_t task_no, const char *at); /* from memory, else from the archive */
void continues(struct trace *t, const char *worker, uint32_t task_no, const char *step,
               const char *asked_json);

/* What happened since the last expect(), in order, all of it. */
void expect_lines(struct trace *t, const char *file, int line, const char *const *lines, size_t n);
#define expect(t, ...)                                                                                       \
    expect_lines(t, __FILE__, __LINE__, (const char *const[]){ __VA_ARGS__ },                                \
                 sizeof((const char *const[]){ __VA_ARGS__ }) / sizeof(const char *))
#define expect_nothing(t) expect_lines(t, __FILE__, __LINE__, NULL, 0)
void ignore(struct trace *t); /* forgets what happened: the part of the story that is not the point */

struct cox_task_view view_of(struct trace *t, uint32_t task_no);
enum cox_step_status status_of(struct trace *t, uint32_t task_no, const char *step);
bool is_live(struct trace *t, uint32_t task_no);
/* What was said for lists since the newest crash began, a line a row: "1 live NAME TENANT LABEL=VALUE ..".
 * Each crash() checks that every task that lives or sleeps is said again. */
const char *listed(struct trace *t);
uint32_t n_attempts_of(struct trace *t, uint32_t task_no, const char *step); /* remembered */
const char *reason_of(struct trace *t, uint32_t task_no, const char *step);
struct cox_step_why why_of(struct trace *t, uint32_t task_no, const char *step);
struct cox_engine_stats stats_of(struct trace *t);
uint64_t queued(struct trace *t, enum cox_step_reason reason); /* over all tenants and classes */
struct cox_zone_view zone(struct trace *t, const char *name);  /* zeros: it has no slots */

#endif
