/* Shared workspaces: where their files are, what they were saved as, and so where a step in one may run.
 *
 * The state of a workspace is durable, with the step that owns it: the one that all others name in the end,
 * which need not have run on a worker itself. It says
 *   - its home: a number, the worker, and which start of that worker: files live as long as its process;
 *   - the last snapshot, and the attempt at whose end it was taken;
 *   - whether somebody's work is not in that (`unsaved`): such files are only where they are.
 *
 * A step runs in the workspace's home while that lives. When it is lost, or is to be left (drained,
 * cordoned) and nobody works in it, the next step may run anywhere, and there is its new home: the worker
 * makes the files from the snapshot. What is lost and was unsaved fails the steps that need it: an older
 * state would be one that some step has gone on from.
 */
#ifndef ENGINE_WORKSPACE_H
#define ENGINE_WORKSPACE_H

#include "state.h"

struct files {
    /* durable */
    uint32_t home;    /* counts its places, from 1; 0: it has had none */
    uint32_t worker;  /* 0: nowhere */
    uint64_t boot;    /* hash of the worker's boot id */
    uint32_t serial;  /* of the snapshot within its home */
    uint32_t n_packs; /* 0: none was taken */
    uint32_t n_files;
    uint64_t size;
    struct cox_hash tree;
    struct cox_hash *packs;
    struct cox_token as_of; /* the attempt */
    bool unsaved;
    char *note; /* why; or what a snapshot has left out. NULL: nothing */
    /* derived */
    uint32_t n_running; /* attempts in its home */
    uint32_t seen_serial;
};

void files_free(struct files *f); /* NULL is allowed */
void files_encode(struct cox_buf *b, const struct files *f);
struct files *files_decode(struct cox_reader *r); /* NULL and r->bad when damaged */
void files_apply(struct step *s, const struct record *r);
/* The task ended, or this is another task now: the files are nowhere but in the snapshot. `anew`: the owner
 * begins again, so that is no longer wanted either. */
void files_uproot(struct step *s, bool anew);

enum workspace_choice { WORKSPACE_NONE, WORKSPACE_ANYWHERE, WORKSPACE_HERE, WORKSPACE_LOST };
/* NONE: the step is in no shared workspace. HERE, LOST: *ret_worker is, or was, its home (LOST: or NULL). */
enum workspace_choice workspace_choose(const struct cox_engine *e, struct cox_task *t, uint32_t step,
                                       struct worker **ret_worker);
/* Why it is lost, for people. */
void workspace_put_loss(struct cox_engine *e, struct cox_task *t, uint32_t step, struct cox_buf *out);

/* An attempt is about to be given to `w`: the home moves there unless it is there. */
void workspace_begin(struct cox_engine *e, struct cox_task *t, uint32_t step, const struct worker *w);
void workspace_enter(struct cox_engine *e, struct attempt *a); /* it runs, live or after replay */
void workspace_leave(struct cox_engine *e, struct attempt *a);
/* What an attempt says about the files at its end. Before workspace_leave. */
void workspace_ended(struct cox_engine *e, const struct attempt *a, const struct cox_in_result *in);

/* The workspace of an attempt that begins on `w`, for its ASSIGN. */
void workspace_describe(struct cox_engine *e, struct cox_task *t, uint32_t step, const struct worker *w,
                        struct cox_act_assign *ret);

void workspaces_release(struct cox_engine *e, struct cox_task *root);
void workspaces_release_late(struct cox_engine *e, struct worker *w); /* it is back */

#endif
