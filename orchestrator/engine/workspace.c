#include "workspace.h"

#include "route.h"

#include <string.h>

#define UNRELEASED_MAX 4096u /* tasks a worker that is away is to be told of; the oldest are left to it */

/* ---- which steps share files ---- */

static uint32_t workspace_owner(const struct cox_image *img, uint32_t step)
{
    while (step_affinity(img, step, COX_AFFINITY_WORKSPACE, &step))
        ;
    return step;
}

/* Which steps of the image own files that others work in. */
static const uint64_t *workspace_owners(struct cox_task *t)
{
    struct cox_task *owner = image_owner(t);
    if (owner->workspaces_known || cox_image_n_extras(&owner->image) == 0)
        return owner->workspace_owners;
    owner->workspaces_known = true;
    const struct cox_image *img = &owner->image;
    for (uint32_t i = 0; i < img->n_steps; i++) {
        uint32_t first = workspace_owner(img, i);
        if (first == i)
            continue;
        if (owner->workspace_owners == NULL)
            owner->workspace_owners = cox_calloc(img->n_steps / 64 + 1, sizeof owner->workspace_owners[0]);
        owner->workspace_owners[first / 64] |= 1ULL << (first % 64);
    }
    return owner->workspace_owners;
}

/* COX_IMAGE_NONE: the step's directory is its own. */
static uint32_t shared_owner(struct cox_task *t, uint32_t step)
{
    const uint64_t *owners = workspace_owners(t);
    if (owners == NULL)
        return COX_IMAGE_NONE;
    uint32_t owner = workspace_owner(&t->image, step);
    return owners[owner / 64] >> (owner % 64) & 1 ? owner : COX_IMAGE_NONE;
}

static struct files *files_of(struct cox_task *t, uint32_t owner)
{
    const struct cox_task *frame = frame_of(t, owner);
    return task_has_step(frame, owner) ? task_step(frame, owner)->files : NULL;
}

/* ---- the state ---- */

void files_free(struct files *f)
{
    if (f == NULL)
        return;
    cox_free(f->packs);
    cox_free(f->note);
    cox_free(f);
}

void files_encode(struct cox_buf *b, const struct files *f)
{
    cox_put_u32(b, f->home);
    cox_put_u32(b, f->worker);
    cox_put_u64(b, f->boot);
    cox_put_u32(b, f->serial);
    cox_put_u8(b, f->unsaved);
    cox_put_u64(b, f->as_of.epoch);
    cox_put_u64(b, f->as_of.counter);
    cox_put_bytes(b, cox_slice_str(f->note));
    cox_put_u32(b, f->n_packs);
    if (f->n_packs == 0)
        return;
    cox_buf_append(b, f->tree.b, sizeof f->tree.b);
    cox_put_u64(b, f->size);
    cox_put_u32(b, f->n_files);
    cox_buf_append(b, f->packs, f->n_packs * sizeof f->packs[0]);
}

struct files *files_decode(struct cox_reader *r)
{
    struct files *f = COX_NEW(struct files);
    f->home = cox_get_u32(r);
    f->worker = cox_get_u32(r);
    f->boot = cox_get_u64(r);
    f->serial = f->seen_serial = cox_get_u32(r);
    f->unsaved = cox_get_u8(r) != 0;
    f->as_of.epoch = cox_get_u64(r);
    f->as_of.counter = cox_get_u64(r);
    struct cox_slice note = cox_get_bytes(r);
    if (note.len > 0)
        f->note = cox_strndup((const char *)note.data, note.len);
    f->n_packs = cox_get_u32(r);
    if (f->n_packs > COX_SNAPSHOT_PACKS_MAX)
        r->bad = true;
    if (!r->bad && f->n_packs > 0) {
        struct cox_slice tree = cox_get_raw(r, sizeof f->tree.b);
        f->size = cox_get_u64(r);
        f->n_files = cox_get_u32(r);
        struct cox_slice packs = cox_get_raw(r, f->n_packs * sizeof f->packs[0]);
        f->packs = cox_calloc(f->n_packs, sizeof f->packs[0]);
        if (!r->bad) {
            memcpy(f->tree.b, tree.data, tree.len);
            memcpy(f->packs, packs.data, packs.len);
        }
    }
    if (!r->bad)
        return f;
    files_free(f);
    return NULL;
}

/* The record has all of the state, as of then. */
void files_apply(struct step *s, const struct record *r)
{
    struct cox_reader in = cox_reader(r->u.workspace);
    struct files *f = files_decode(&in);
    COX_ASSERT(f != NULL); /* what is replayed was looked at: fits.c */
    if (s->files != NULL && s->files->home == f->home) {
        f->n_running = s->files->n_running;
        if (s->files->seen_serial > f->seen_serial)
            f->seen_serial = s->files->seen_serial;
    }
    files_free(s->files);
    s->files = f;
}

void files_uproot(struct step *s, bool anew)
{
    struct files *f = s->files;
    if (f == NULL)
        return;
    f->worker = 0;
    f->home++; /* nobody's result is about it */
    f->n_running = f->seen_serial = f->serial = 0;
    if (!anew)
        return;
    f->n_packs = 0;
    f->unsaved = false;
}

static uint64_t boot_of(const struct worker *w)
{
    return w->boot_id != NULL ? cox_hash64(w->boot_id, strlen(w->boot_id)) : 0;
}

static void emit_files(struct cox_engine *e, struct cox_task *t, uint32_t owner, const struct files *f)
{
    struct cox_buf bytes = { 0 };
    files_encode(&bytes, f);
    struct record r = {
        .type = RECORD_WORKSPACE, .task = frame_of(t, owner)->id, .step = owner, .wall_ms = e->now.wall_ms
    };
    r.u.workspace = cox_buf_slice(&bytes);
    emit(e, &r);
    cox_buf_fini(&bytes);
}

/* ---- where ---- */

/* Not seen since a recovery of ours: it may still be what it was. */
static bool lives(const struct cox_engine *e, const struct files *f)
{
    const struct worker *w = worker_by_ref(e, f->worker);
    return f->worker != 0 && w != NULL && !w->gone &&
           (w->boot_id == NULL || boot_of(w) == f->boot || COX_PLANTED("files-outlive-their-worker"));
}

static enum workspace_choice choose_without_state(const struct cox_engine *e, struct cox_task *t,
                                                  uint32_t step, struct worker **ret)
{
    *ret = affinity_worker(e, t, step, COX_AFFINITY_WORKSPACE);
    return *ret == NULL ? WORKSPACE_ANYWHERE : (*ret)->gone ? WORKSPACE_LOST : WORKSPACE_HERE;
}

enum workspace_choice workspace_choose(const struct cox_engine *e, struct cox_task *t, uint32_t step,
                                       struct worker **ret)
{
    *ret = NULL;
    uint32_t owner = shared_owner(t, step);
    if (owner == COX_IMAGE_NONE)
        return WORKSPACE_NONE;
    const struct files *f = files_of(t, owner);
    if (f == NULL) /* nobody has begun in it; or somebody has, before there was such a state */
        return choose_without_state(e, t, step, ret);
    *ret = worker_by_ref(e, f->worker);
    bool alive = lives(e, f);
    if (step == owner && (!alive || f->n_running == 0))
        return WORKSPACE_ANYWHERE; /* its retry: nobody has gone on from what it left */
    if (f->unsaved)
        return alive ? WORKSPACE_HERE : WORKSPACE_LOST;
    if (!alive)
        return WORKSPACE_ANYWHERE;
    bool leaves = ((*ret)->draining || (*ret)->cordoned) && f->n_running == 0;
    return leaves && !COX_PLANTED("workspace-stays-with-the-drained") ? WORKSPACE_ANYWHERE : WORKSPACE_HERE;
}

void workspace_put_loss(struct cox_engine *e, struct cox_task *t, uint32_t step, struct cox_buf *out)
{
    struct worker *w;
    (void)workspace_choose(e, t, step, &w);
    uint32_t owner = shared_owner(t, step);
    const struct files *f = owner != COX_IMAGE_NONE ? files_of(t, owner) : NULL;
    if (w != NULL)
        cox_buf_printf(out, "its workspace was lost with its worker %s", w->id);
    else
        cox_buf_append_str(out, "its workspace went when the task ended");
    if (f != NULL && f->note != NULL)
        cox_buf_printf(out, "; it had not been saved: %s", f->note);
}

/* ---- attempts ---- */

void workspace_begin(struct cox_engine *e, struct cox_task *t, uint32_t step, const struct worker *w)
{
    uint32_t owner = shared_owner(t, step);
    if (owner == COX_IMAGE_NONE)
        return;
    const struct files *f = files_of(t, owner);
    if (f != NULL && f->worker == w->ref && lives(e, f))
        return;
    struct files next = f != NULL ? *f : (struct files){ 0 };
    next.home++;
    next.worker = w->ref;
    next.boot = boot_of(w);
    next.serial = 0;
    next.unsaved = false;
    emit_files(e, t, owner, &next);
}

void workspace_enter(struct cox_engine *e, struct attempt *a)
{
    (void)e;
    uint32_t owner = shared_owner(a->task, a->step_index);
    struct files *f = owner != COX_IMAGE_NONE ? files_of(a->task, owner) : NULL;
    if (f == NULL || f->worker != a->worker->ref)
        return;
    a->home = f->home;
    f->n_running++;
}

/* The state, while it is still the attempt's home. */
static struct files *files_at(const struct attempt *a, uint32_t *ret_owner)
{
    if (a->home == 0)
        return NULL;
    *ret_owner = shared_owner(a->task, a->step_index);
    struct files *f = files_of(a->task, *ret_owner);
    return f != NULL && f->home == a->home ? f : NULL;
}

void workspace_leave(struct cox_engine *e, struct attempt *a)
{
    (void)e;
    uint32_t owner;
    struct files *f = files_at(a, &owner);
    if (f != NULL)
        f->n_running--;
    a->home = 0;
}

static bool has_pack(const struct files *f, const struct cox_hash *pack)
{
    for (uint32_t i = 0; i < f->n_packs; i++)
        if (memcmp(&f->packs[i], pack, sizeof *pack) == 0)
            return true;
    return false;
}

static bool is_the_same(const struct files *f, const struct cox_files *now)
{
    return !f->unsaved && f->n_packs == now->n_packs && f->n_packs > 0 &&
           memcmp(f->packs, now->packs, f->n_packs * sizeof f->packs[0]) == 0;
}

static void files_saved(struct cox_engine *e, const struct attempt *a, uint32_t owner, struct files *f,
                        const struct cox_files *now)
{
    if (now->serial <= f->seen_serial && !COX_PLANTED("older-snapshot-wins"))
        return; /* it was overtaken */
    f->seen_serial = now->serial;
    if (is_the_same(f, now))
        return;
    for (size_t i = 0; i < now->n_packs && !COX_PLANTED("snapshot-unpinned"); i++)
        if (!has_pack(f, &now->packs[i]))
            payload_keep(e, a->task->root->id,
                         &(struct cox_payload){ .kind = COX_PAYLOAD_STORED, .hash = now->packs[i] });
    struct files next = *f;
    struct cox_buf note = { 0 };
    cox_buf_append_slice(&note, now->note);
    next.serial = now->serial;
    next.as_of = a->token;
    next.unsaved = false;
    next.tree = now->tree;
    next.size = now->size;
    next.n_files = now->n_files;
    next.n_packs = (uint32_t)now->n_packs;
    next.packs = (struct cox_hash *)(uintptr_t)now->packs;
    next.note = (char *)(uintptr_t)cox_buf_cstr(&note);
    emit_files(e, a->task, owner, &next);
    cox_buf_fini(&note);
}

static void files_unsaved(struct cox_engine *e, const struct attempt *a, uint32_t owner,
                          const struct files *f, struct cox_slice why)
{
    struct cox_buf note = { 0 };
    if (f->unsaved)
        return;
    cox_buf_append_slice(&note, why);
    struct files next = *f;
    next.unsaved = true;
    next.note = (char *)(uintptr_t)cox_buf_cstr(&note);
    emit_files(e, a->task, owner, &next);
    cox_buf_fini(&note);
}

void workspace_ended(struct cox_engine *e, const struct attempt *a, const struct cox_in_result *in)
{
    uint32_t owner;
    struct files *f = files_at(a, &owner);
    if (f == NULL || in == NULL)
        return;
    if (in->files.saved)
        files_saved(e, a, owner, f, &in->files);
    else if (in->status == COX_ATTEMPT_SUCCEEDED) /* nobody has gone on from what others left */
        files_unsaved(e, a, owner, f, in->files.note);
}

/* ---- what workers hear ---- */

static void workspace_held(struct cox_task *root, uint32_t ref)
{
    for (uint32_t i = 0; i < root->n_workspace_workers; i++)
        if (root->workspace_workers[i] == ref)
            return;
    root->workspace_workers = cox_realloc(root->workspace_workers, root->n_workspace_workers + 1,
                                          sizeof root->workspace_workers[0]);
    root->workspace_workers[root->n_workspace_workers++] = ref;
}

void workspace_describe(struct cox_engine *e, struct cox_task *t, uint32_t step, const struct worker *w,
                        struct cox_act_assign *ret)
{
    uint32_t owner = shared_owner(t, step);
    if (owner == COX_IMAGE_NONE)
        return;
    const struct files *f = files_of(t, owner);
    struct cox_buf text = { 0 };
    workspace_held(t->root, w->ref);
    cox_step_address(&text, frame_of(t, owner), owner);
    ret->workspace = cox_slice(cox_arena_dup(&e->fx->arena, text.data, text.len), text.len);
    cox_buf_fini(&text);
    if (f == NULL)
        return;
    ret->home = (struct cox_home){ .number = f->home, .has_snapshot = f->n_packs > 0 };
    if (f->n_packs == 0)
        return;
    ret->home.snapshot = f->packs[f->n_packs - 1];
    ret->home.tree = f->tree;
}

static void workspace_find_workers(struct cox_task *t, uint32_t step)
{
    const struct step *s = task_step(t, step);
    if (s->worker != 0)
        workspace_held(t->root, s->worker);
    for (uint32_t i = 0; s->history != NULL && i < s->history->n; i++)
        if (s->history->items[i].worker != 0)
            workspace_held(t->root, s->history->items[i].worker);
}

static void workspace_drop(struct cox_engine *e, struct worker *w, cox_task_id task)
{
    if (w->session != 0) {
        struct cox_action *a = act(e, COX_ACT_RELEASE);
        a->u.worker.session = w->session;
        a->u.worker.task = task;
        return;
    }
    if (w->n_unreleased == UNRELEASED_MAX)
        memmove(w->unreleased, w->unreleased + 1, --w->n_unreleased * sizeof w->unreleased[0]);
    w->unreleased = cox_realloc(w->unreleased, w->n_unreleased + 1, sizeof w->unreleased[0]);
    w->unreleased[w->n_unreleased++] = task;
}

void workspaces_release(struct cox_engine *e, struct cox_task *root)
{
    const uint64_t *owners = workspace_owners(root);
    for (uint32_t i = 0; owners != NULL && i < root->image.n_steps; i++) {
        uint32_t owner = workspace_owner(&root->image, i);
        if (owners[owner / 64] >> (owner % 64) & 1 && task_has_step(root, i))
            workspace_find_workers(root, i); /* also of attempts before a restart of ours */
    }
    for (uint32_t i = 0; owners != NULL && i < root->image.n_steps; i++) {
        const struct files *f = owners[i / 64] >> (i % 64) & 1 ? files_of(root, i) : NULL;
        if (f != NULL && f->worker != 0)
            workspace_held(root, f->worker); /* whoever ran there: steps of frames among them */
    }
    for (uint32_t i = 0; i < root->n_workspace_workers; i++)
        workspace_drop(e, worker_by_ref(e, root->workspace_workers[i]), root->id);
    root->n_workspace_workers = 0;
}

void workspaces_release_late(struct cox_engine *e, struct worker *w)
{
    for (uint32_t i = 0; i < w->n_unreleased && !COX_PLANTED("workspace-kept-for-ever"); i++) {
        struct cox_action *a = act(e, COX_ACT_RELEASE);
        a->u.worker.session = w->session;
        a->u.worker.task = w->unreleased[i];
    }
    w->n_unreleased = 0;
}
