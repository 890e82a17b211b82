/* What a task spends: model calls, and budgets.
 *
 * A ledger belongs to a root and counts all that its tree spends; a frame has one too, of its own steps, for
 * people to see. What enters it is a fact of its own (RECORD_USAGE), that names the root: it must arrive
 * there though the frame has ended and gone.
 *
 *     attempt begins         reserved    a guess, live only
 *     ends by a word         charged, or wasted when nothing comes of it
 *     ends without one       what was reserved is wasted, until a late word says better
 */
#ifndef ENGINE_LEDGER_H
#define ENGINE_LEDGER_H

#include "cox/engine.h"
#include "record.h"

struct attempt;
struct class;
struct cox_task;

#define LEDGER_UNKNOWN_MAX 32u /* calls without a word of a task: older ones stay as they were guessed */

struct ledger {
    /* durable */
    struct cox_usage usage; /* guesses of what is unknown are among the wasted tokens */
    uint64_t n_steps;       /* of frames that were opened; counted under a budget of steps only */
    struct {
        struct cox_token token;
        uint64_t tokens;
    } unknown[LEDGER_UNKNOWN_MAX];
    uint32_t n_unknown;
    /* derived */
    uint64_t reserved; /* tokens, by calls under way */
    uint64_t cpu_us;   /* of the tree, as its attempts end; counted under a budget of it only */
    bool cpu_known;
};

bool usage_is_none(const struct cox_usage *u);
void usage_encode(struct cox_buf *b, const struct cox_usage *u);
void usage_decode(struct cox_reader *r, struct cox_usage *ret);

/* Nothing durable stands in it: `l` may be NULL. */
bool ledger_untouched(const struct ledger *l);
void ledger_encode(struct cox_buf *b, const struct ledger *l);
void ledger_decode(struct cox_reader *r, struct cox_task *t);
void apply_usage(struct cox_engine *e, uint64_t seq, const struct record *r);

/* ---- attempts ---- */
void ledger_reserve(struct attempt *a,
                    struct cox_slice spec); /* a model call begins; empty: not known any more */
void ledger_release(struct attempt *a);     /* it has ended */
/* Its usage, as reported; of attempts that nothing comes of, `counts` is false. `in` is NULL when nobody said
 * how it ended. Before the end is recorded: that may be the task's end too. */
void ledger_charge(struct cox_engine *e, struct attempt *a, const struct cox_in_result *in, bool counts);
/* A word about an attempt that is not current any more. */
void ledger_late(struct cox_engine *e, const struct cox_in_result *in);
void ledger_spend(struct cox_engine *e, const struct cox_in_spend *in);

/* ---- budgets ---- */
/* Why no attempt of this class, or no further frame, may begin: a text in the effects, or NULL. O(1). */
const char *ledger_refuses(struct cox_engine *e, struct cox_task *t, const struct class *c);
const char *ledger_refuses_steps(struct cox_engine *e, const struct cox_task *t);
/* No model call may begin, but only for what others have reserved: as they end, one may. */
bool ledger_may_free(const struct cox_task *t);
/* Model calls have used up a budget that the task draws on; what is reserved may yet be given back. */
bool ledger_spent(const struct cox_task *t);
uint64_t ledger_tokens_left(const struct cox_task *t); /* 0: no such budget; else at least 1 */
void ledger_cpu_used(struct cox_task *t, uint64_t cpu_us);
void ledger_frame_opened(struct cox_engine *e, struct cox_task *frame);

#endif
