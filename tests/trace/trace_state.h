/* What the files of the teller share: trace_tell.c puts into words, trace_story.c makes inputs,
 * trace_answer.c plays the compile thread and the store, trace.c is the life of it all. */
#ifndef TRACE_STATE_H
#define TRACE_STATE_H

#include "../../orchestrator/engine/record.h"
#include "cox/base/map.h"
#include "trace.h"

#define LINES_MAX 16384
#define PARTIES_MAX 256
#define ENTITIES_MAX 65536
#define EVALUATIONS_MAX 256
#define COMPILES_MAX 64 /* open at once */
#define BATCHES_MAX 16384
#define ASKED_MAX 64
#define START_WALL_MS 1000000

struct saved {
    struct cox_entity_key key;
    uint64_t applied_seq;
    struct cox_buf bytes;
};

struct open_evaluation {
    struct cox_act_evaluate act;
    struct cox_buf image;
    struct cox_eval_input *steps;
};

struct batch {
    struct cox_ref ref;
    uint32_t first, n;
    bool reported;
};

/* A COMPOSE or FETCH that waits for its answer. */
struct asked {
    uint64_t ticket;
    struct cox_hash hash;
    struct cox_entity_key *parts;
    size_t n_parts;
};

struct owned { /* 0: nobody's, for ever */
    cox_task_id root;
    struct cox_hash hash;
    char tenant[16];
};

/* A COMPILE that waits for its answer. */
struct open_compile {
    uint64_t ticket;
    enum cox_source_kind kind;
    struct cox_buf document, inputs, allow;
};

/* A TOOLS or DECIDE that waits for its answer. */
#define TURNS_MAX 16
#define TURN_VALUES_MAX 4
struct open_turn {
    uint64_t ticket;
    bool is_decision;
    struct cox_buf config, values[TURN_VALUES_MAX];
    size_t n_values;
    uint32_t n_reasks;
};

/* trace_quarantine.c */
#define LEFT_ALONE_MAX 4
struct left_alone {
    cox_task_id root;
    bool unread, lifted;
};
struct aside { /* an entity, or a record of the log: kind 0 */
    cox_task_id root;
    struct cox_entity_key key;
    uint64_t seq;
    struct cox_buf bytes;
};
#define PLACES_ROOTS_MAX 8
struct trace_places { /* how many of each phase */
    size_t n[PLACES_ROOTS_MAX][COX_PLACE_DERIVE + 1];
};

#define CALLS_MAX 64
struct trace {
    struct left_alone left_alone[LEFT_ALONE_MAX];
    bool leaves_alone; /* the next recovery has others to leave alone than the last */
    size_t n_left_alone;
    struct aside *aside;
    size_t n_aside;
    struct trace_places *places; /* of the newest recovery */
    struct cox_engine *engine;
    uint32_t live_steps_max;
    struct open_compile compiles[COMPILES_MAX];
    size_t n_compiles, n_done_compiles;
    struct open_turn turns[TURNS_MAX];
    size_t n_turns, n_done_turns;
    bool program_offered;
    struct cox_buf last_spec;
    struct cox_effects fx;
    struct cox_usage used;  /* of the next result */
    struct cox_files files; /* the same */
    struct cox_hash packs[8];
    struct cox_call_hint last_hint;
    struct cox_in_call calls[CALLS_MAX]; /* of processes */
    size_t n_calls, n_done_calls;
    uint64_t n_inputs, check_every;
    int64_t mono_ms;
    int64_t wall_back_ms; /* how far the host's clock was set back */
    char *lines[LINES_MAX];
    size_t n_lines;
    uint64_t next_request;
    uint32_t next_session;
    struct {
        char *id;
        uint32_t session;
    } parties[PARTIES_MAX];
    size_t n_parties;
    struct cox_buf log; /* every record ever */
    uint64_t n_records;
    uint64_t truncated_seq; /* the checkpoint covers the log up to here */
    size_t truncated_len;
    uint64_t checkpoint_seq_seen;
    struct saved *saved;
    size_t n_saved;
    struct cox_mapb payloads;
    struct owned *owned;
    size_t n_owned;
    struct open_evaluation evals[EVALUATIONS_MAX];
    size_t n_evals;
    size_t n_done_evals;
    struct batch batches[BATCHES_MAX];
    size_t n_batches;
    struct asked composes[ASKED_MAX], fetches[ASKED_MAX];
    struct cox_entity_key loading; /* a LOAD that waits for its answer */
    struct cox_map64 archive;      /* task -> struct cox_buf */
    size_t n_composes, n_done_composes, n_fetches, n_done_fetches;
    struct cox_buf listed; /* since the newest recovery began */
    struct cox_buf last_output;
    struct cox_buf last_continuation;
    enum cox_answer last_answer;
};

struct cox_now now(const struct trace *t);
void say(struct trace *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const char *party(const struct trace *t, uint32_t session);
uint32_t session_of(const struct trace *t, const char *id);
const char *step_name(struct trace *t, cox_task_id task, uint32_t step);
void keep_bytes(struct trace *t, const struct cox_hash *name, struct cox_slice bytes);
void keep_entity(struct trace *t, const struct cox_action *a);
void absorb(struct trace *t); /* tells what a step has made, and checks it */
void step(struct trace *t, struct cox_input *in);
struct cox_ref ref_of(struct trace *t, uint32_t task_no, const char *name);
const struct saved *saved_of(const struct trace *t, struct cox_entity_key key);
void trace_keep_archive(struct trace *t, const struct cox_action *a);
void trace_archive_fini(struct trace *t);
struct cox_slice archive_of(struct trace *t, uint32_t task_no); /* empty: it is not there */
void trace_keep_turn(struct trace *t, const struct cox_action *a);
bool trace_is_agents(const struct cox_task *frame); /* something that an agent has begun */
void trace_turns_fini(struct trace *t);
struct record;
void trace_say_agent(struct trace *t, const struct record *r);
struct cox_payload kept(struct trace *t, const struct cox_buf *b);

#endif
