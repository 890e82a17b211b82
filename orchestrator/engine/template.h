/* Templates: documents that `task` steps name. Applying one makes a revision; a task keeps the revisions that
 * were the newest when it was made. A revision that is no longer the newest is retired, and goes when no task
 * needs it. */
#ifndef ENGINE_TEMPLATE_H
#define ENGINE_TEMPLATE_H

#include "kept.h"

struct template
{
    struct kept kept; /* entity id: the revision */
    /* durable */
    struct cox_slice document; /* owned */
    int64_t updated_wall_ms;
    bool retired; /* superseded or deleted */
    /* derived */
    uint64_t n_pins;           /* by tasks, live or asleep */
    struct template *older;    /* of the same name: the index has the newest */
    struct cox_list in_unused; /* retired, and no pins: to be dropped at the step's end */
};

/* NULL: dropped since (a task that ended and runs again may have pins of long ago). */
const struct template *template_by_revision(const struct cox_engine *e, uint64_t revision);
struct cox_slice template_document(const struct template *tpl);

/* The newest revisions of what an image names, u64 each, appended to `pins`. False: there is none for
 * `ret_missing`, a ref of the image; `pins` is as before. */
bool templates_resolve(const struct cox_engine *e, struct cox_slice tenant, const struct cox_image *img,
                       struct cox_buf *pins, struct cox_slice *ret_missing);

void template_missing(struct cox_buf *text, struct cox_slice ref); /* a sentence about it */
/* Where a document names it: "steps.tag.task.ref"; of what is deeper inside of a step, the step. */
const char *template_place(const struct cox_image *img, struct cox_slice ref, struct cox_arena *arena);

/* Revisions stay while they are held. `pins` may be NULL. A task holds its own once however often asked. */
void templates_hold(struct cox_engine *e, const uint64_t *pins, uint32_t n);
void templates_release(struct cox_engine *e, const uint64_t *pins, uint32_t n);
void templates_hold_task(struct cox_engine *e, struct cox_task *t);
void templates_release_task(struct cox_engine *e, struct cox_task *t);

/* A task that is to run again, or in another's name: what it had pinned and is gone becomes the newest. */
void templates_repin(struct cox_engine *e, struct cox_task *t);

void template_apply(struct cox_engine *e, const struct cox_in_template *in);
void template_delete(struct cox_engine *e, const struct cox_in_template *in);
void templates_drop_unused(struct cox_engine *e); /* at the end of a step */

void apply_template(struct cox_engine *e, uint64_t seq, const struct record *r); /* APPLIED, DROPPED */
void template_encode(struct cox_buf *b, const struct template *tpl);
COX_MUST_CHECK enum cox_err template_load(struct cox_engine *e, uint64_t id, uint64_t seq,
                                          struct cox_slice bytes);
uint64_t templates_hash(const struct cox_engine *e, uint64_t h);
void templates_check(const struct cox_engine *e);
void templates_free(struct cox_engine *e);

/* bundle.c: the bundle of a template or schedule is kept for ever: whether it runs some day is not known. */
void bundle_keep_of(struct cox_engine *e, struct cox_slice tenant, struct cox_slice document);

#endif
