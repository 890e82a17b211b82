/* What a task has spent, and the model calls that it has under way.
 *
 * Every task has a ledger once there is something to write down: a root's counts all that its tree spends,
 * that of a frame with a document of its own (budget.h: an account) all that is under it, that of an item's
 * frame its own steps. What enters is a fact (RECORD_USAGE) that names the root and every account in between:
 * it must arrive there though the frame has ended and gone.
 *
 *     a call begins          open        what it may use at most is reserved, what it is taken to use is
 * guessed; both are in the log, so a restart changes neither ends by a word         charged, or wasted when
 * nothing comes of it ends without one       what was guessed is wasted, until a late word says better
 *
 * A call is an attempt at a model step, or one that a process of an attempt makes by itself. The latter may
 * outlive its attempt: its frame, and so its root, stay until it has ended, and the archive is told what it
 * used.
 */
#ifndef ENGINE_LEDGER_H
#define ENGINE_LEDGER_H

#include "cox/base/list.h"
#include "cox/engine.h"
#include "record.h"

struct attempt;
struct cox_task;

#define LEDGER_UNKNOWN_MAX 32u /* calls without a word of a task: older ones stay as they were guessed */

/* Calls under way of one attempt, in the ledger of its frame. */
struct open_calls {
    struct cox_token token;
    uint64_t reserved, guessed; /* tokens */
    uint32_t n_calls;           /* of its processes; 0: the attempt is the call */
};

struct ledger {
    /* durable */
    struct cox_usage usage; /* guesses of what is unknown are among the wasted tokens */
    uint64_t n_steps;       /* of frames that were opened; counted under a budget of steps only */
    struct {
        struct cox_token token;
        uint64_t tokens;
    } unknown[LEDGER_UNKNOWN_MAX];
    uint32_t n_unknown;
    struct open_calls *open;
    uint32_t n_open, cap_open;
    /* derived: budget.h */
    uint64_t reserved; /* tokens, by calls under way here and below */
    uint64_t cpu_us;   /* of the tree, as its attempts end; counted under a budget of it only */
    bool cpu_known;
    struct cox_list waiting; /* struct step: for what others have reserved */
    struct cox_list in_due;
};

bool usage_is_none(const struct cox_usage *u);
void usage_encode(struct cox_buf *b, const struct cox_usage *u);
void usage_decode(struct cox_reader *r, struct cox_usage *ret);

/* ---- the ledger ---- */
struct ledger *ledger_of(struct cox_task *t); /* made when it is missing */
void ledger_free(struct ledger *l);           /* NULL is allowed */
/* Nothing durable stands in it: `l` may be NULL. */
bool ledger_untouched(const struct ledger *l);
void ledger_encode(struct cox_buf *b, const struct ledger *l);
void ledger_decode(struct cox_reader *r, struct cox_task *t);
const struct open_calls *ledger_open(const struct ledger *l, struct cox_token token, bool of_processes);
/* What is under way of processes dies with us, and an ended task has none. */
void ledger_forget_open(struct ledger *l);
bool ledger_has_calls(const struct ledger *l); /* of processes, under way */

/* ---- records ---- */
void apply_usage(struct cox_engine *e, uint64_t seq, const struct record *r);
/* Beginnings and ends of calls, as far as a frame's header knows of them. True: it has changed. */
bool ledger_apply(struct cox_task *t, const struct record *r);

/* ---- calls ---- */
/* The usage of an attempt that ends, as reported; of one that nothing comes of, `counts` is false. `in` is
 * NULL when nobody said how it ended. Before the end is recorded: that may be the task's end too. */
void ledger_charge(struct cox_engine *e, struct attempt *a, const struct cox_in_result *in, bool counts);
/* A word about an attempt that is not current any more. */
void ledger_late(struct cox_engine *e, const struct cox_in_result *in);
/* A process of an attempt calls a model, and what came of it. */
void ledger_call(struct cox_engine *e, const struct cox_in_call *in);
void ledger_spend(struct cox_engine *e, const struct cox_in_spend *in);
/* After replay: processes' calls went by an edge that is no more. */
void ledger_recovered(struct cox_engine *e, struct cox_task *t);
/* The edge speaks by a new stream: what it said by the old one may be lost, so its calls are as good as
 * unknown. */
void ledgers_edge_back(struct cox_engine *e);

/* A record of usage that enters the ledgers of `t` and of every account above it. */
struct record usage_record(const struct cox_engine *e, struct cox_task *t, struct cox_token token);

#endif
