/* May this record be applied here? Asked in replay only: the log's checksum says that we wrote these bytes,
 * not that we were right to, and a shard that cannot be recovered should say so instead of running into
 * memory that is not its own. Apply() itself takes what live code has checked.
 *
 * A record that apply() will skip, because its entity has it already or is gone, fits. */
#include "expand/agent.h"
#include "expand/expand.h"
#include "expand/map.h"
#include "schedule.h"
#include "template.h"
#include "workspace.h"

static bool pins_fit(const struct cox_image *img, struct cox_slice pins)
{
    return pins.len == 0 || pins.len == (size_t)cox_image_n_refs(img) * sizeof(uint64_t);
}

static bool image_fits(struct cox_slice image, struct cox_slice pins)
{
    struct cox_image img;
    return cox_image_open(&img, image) == COX_OK && pins_fit(&img, pins);
}

/* Its pages may have come first, by a checkpoint: they must be those of its image. */
bool task_pages_fit(const struct cox_task *t)
{
    uint32_t n_pages = (t->n_steps + COX_PAGE_STEPS - 1) / COX_PAGE_STEPS;
    if (t->n_pages > n_pages)
        return false;
    for (uint32_t no = 0; no < t->n_pages; no++)
        if (t->pages[no] != NULL && t->pages[no]->n_steps != page_n_steps(t, no))
            return false;
    return true;
}

static bool submitted_fits(const struct cox_engine *e, uint64_t seq, const struct record *r)
{
    const struct cox_task *t = cox_map64_get(&e->tasks, r->task);
    return (t == NULL || !t->has_header || t->entity.applied_seq >= seq) && r->u.submitted.tenant.len > 0 &&
           image_fits(r->u.submitted.image, r->u.submitted.pins);
}

static bool frame_fits(struct cox_engine *e, uint64_t seq, const struct record *r)
{
    const struct record_frame *f = &r->u.frame;
    struct cox_task *parent = cox_map64_get(&e->tasks, f->parent);
    const struct cox_task *t = cox_map64_get(&e->tasks, r->task);
    if (parent == NULL || !parent->has_header)
        return true;
    frame_attach(e, parent);
    if (f->parent >= r->task || parent->image.bytes.len == 0 || !task_contains(parent, f->parent_step) ||
        (t != NULL && t->has_header && t->entity.applied_seq < seq))
        return false;
    return f->image.len > 0 ? image_fits(f->image, f->pins) : task_contains(parent, f->first);
}

static enum cox_step_status after_end(enum record_next next)
{
    static const uint8_t after[] = {
        [NEXT_DONE] = COX_STEP_SUCCEEDED,   [NEXT_RETRY] = COX_STEP_READY, [NEXT_REQUEUE] = COX_STEP_READY,
        [NEXT_FALLBACK] = COX_STEP_READY,   [NEXT_FAIL] = COX_STEP_FAILED, [NEXT_CANCEL] = COX_STEP_CANCELLED,
        [NEXT_CONTINUE] = COX_STEP_WAITING,
    };
    return (enum cox_step_status)after[next];
}

/* Where the record moves the step; NONE: nowhere, or it looks for itself. */
static enum cox_step_status moves_to(const struct record *r, enum cox_step_status from)
{
    switch (r->type) {
    case RECORD_STEP_SKIPPED:
        return COX_STEP_SKIPPED;
    case RECORD_STEP_REFUSED:
        return r->u.refused.next == NEXT_FALLBACK ? COX_STEP_READY : COX_STEP_FAILED;
    case RECORD_ASSIGNED:
        return COX_STEP_RUNNING;
    case RECORD_WAITING:
        return COX_STEP_WAITING;
    case RECORD_UNASSIGNED:
    case RECORD_CONTINUED:
        return COX_STEP_READY;
    case RECORD_ATTEMPT_ENDED:
        return after_end(r->u.ended.next);
    case RECORD_STEP_CANCELLED:
        return from == COX_STEP_RUNNING || from == COX_STEP_WAITING ? COX_STEP_NONE : COX_STEP_CANCELLED;
    default:
        return COX_STEP_NONE;
    }
}

static bool workspace_fits(const struct record *r)
{
    struct cox_reader in = cox_reader(r->u.workspace);
    struct files *f = files_decode(&in);
    bool fits = f != NULL && cox_reader_left(&in) == 0;
    files_free(f);
    return fits;
}

static bool step_fits(const struct cox_task *t, uint64_t seq, const struct record *r)
{
    if (!task_contains(t, r->step) || t->image.bytes.len == 0)
        return false;
    if (r->type == RECORD_WORKSPACE && !workspace_fits(r))
        return false;
    if (!task_has_step(t, r->step))
        return r->type != RECORD_AGENT && (moves_to(r, COX_STEP_BLOCKED) == COX_STEP_NONE ||
                                           step_may_move(COX_STEP_BLOCKED, moves_to(r, COX_STEP_BLOCKED)));
    const struct step *s = task_step(t, r->step);
    enum cox_step_status from = (enum cox_step_status)s->status, to = moves_to(r, from);
    if (step_page(s)->entity.applied_seq >= seq)
        return true;
    if (r->type == RECORD_UNASSIGNED && s->n_attempts == 0)
        return false;
    if (r->type == RECORD_AGENT)
        return agent_fits(s, r);
    return to == COX_STEP_NONE || step_may_move(from, to);
}

static bool items_fit(const struct cox_task *t, const struct record *r)
{
    if (!task_contains(t, r->step) || t->image.bytes.len == 0)
        return false;
    if (r->type == RECORD_MAP_BEGUN)
        return r->u.map.n_items <= COX_MAP_ITEMS_MAX;
    if (r->type == RECORD_ITEMS_ENDED)
        return true; /* what is not its page's is left out one by one */
    uint32_t in_page = r->u.items.first % COX_MAP_PAGE_ITEMS;
    return r->u.items.n > 0 && r->u.items.n <= COX_MAP_BATCH_MAX &&
           r->u.items.n <= COX_MAP_PAGE_ITEMS - in_page;
}

static bool of_task_fits(struct cox_engine *e, uint64_t seq, const struct record *r)
{
    struct cox_task *t = cox_map64_get(&e->tasks, r->task);
    if (t == NULL || !t->has_header)
        return true;
    frame_attach(e, t);
    switch (record_place(r->type)) {
    case PLACE_STEP_PAGE:
        return step_fits(t, seq, r);
    case PLACE_MAP_PAGE:
        return items_fit(t, r);
    case PLACE_ELSEWHERE:
        break;
    }
    switch (r->type) {
    case RECORD_PINNED:
        return r->u.pinned.class_index < t->image.n_classes;
    case RECORD_TASK_EVICTED:
        return t->parent_id == 0;
    default:
        return true;
    }
}

/* Numbers count up, and a name has one for good; an older record's is known. */
static bool worker_fits(const struct cox_engine *e, const struct record *r)
{
    const struct worker *w = worker_by_ref(e, r->u.worker.ref);
    const struct worker *named = cox_mapb_get(&e->workers_by_id, r->u.worker.id);
    return r->u.worker.ref > 0 && r->u.worker.ref <= e->meta.last_worker_ref + 1 && r->u.worker.id.len > 0 &&
           w == named;
}

bool record_fits(struct cox_engine *e, uint64_t seq, const struct record *r)
{
    switch (r->type) {
    case RECORD_TASK_SUBMITTED:
        return submitted_fits(e, seq, r);
    case RECORD_FRAME_OPENED:
        return frame_fits(e, seq, r);
    case RECORD_WORKER_NAMED:
        return worker_fits(e, r);
    case RECORD_TEMPLATE_APPLIED:
        return r->u.template.name.len > 0;
    case RECORD_SCHEDULE_APPLIED:
        return r->u.schedule.name.len > 0 && schedule_record_ok(r) && schedule_name_free(e, seq, r);
    case RECORD_EPOCH:
    case RECORD_POLICY:
    case RECORD_KEY_EXPIRED:
    case RECORD_PAYLOAD:
    case RECORD_TASK_WOKEN: /* these look for themselves: see record_misfit() */
    case RECORD_TASK_REVIVED:
    case RECORD_TASK_FORKED:
    case RECORD_TEMPLATE_DROPPED:
    case RECORD_SCHEDULE_DELETED:
    case RECORD_SCHEDULE_RAN:
    case RECORD_USAGE:
        return true;
    default:
        return of_task_fits(e, seq, r);
    }
}

void record_misfit(struct cox_engine *e)
{
    COX_ASSERT(!e->live);
    e->misfit = true;
}
