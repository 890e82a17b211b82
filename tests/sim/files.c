/* Shared workspaces of hosts. What is in one is the set of steps that have succeeded in it; a snapshot says
 * so itself. A step must find in its workspace what those before it have left there, wherever it runs. */
#include "audit.h"

#include <stdio.h>
#include <string.h>

struct sim_files {
    struct cox_list node;
    struct cox_buf name;
    uint32_t home, serial;
    uint64_t steps; /* by index in their image, modulo 64 */
};

static uint64_t bit(uint32_t step)
{
    return 1ULL << step % 64;
}

static struct cox_hash snapshot_of(const struct sim_files *f)
{
    struct cox_hash hash;
    memset(&hash, 0, sizeof hash);
    memcpy(hash.b, &f->steps, sizeof f->steps);
    hash.b[31] = 1;
    return hash;
}

static void files_remove(struct sim_files *f)
{
    cox_list_remove(&f->node);
    cox_buf_fini(&f->name);
    cox_free(f);
}

/* The directory, made as the assignment says unless the host has it. */
static struct sim_files *files_take(struct host *h, const struct cox_agent_assign *as)
{
    struct sim_files *f;
    COX_LIST_FOR_EACH (it, &h->files) {
        f = COX_CONTAINER_OF(it, struct sim_files, node);
        if (cox_slice_eq(cox_buf_slice(&f->name), as->workspace) && f->home == as->home)
            return f; /* of another home: who still works in it goes on there */
    }
    f = COX_NEW(struct sim_files);
    cox_buf_append_slice(&f->name, as->workspace);
    f->home = as->home;
    if (as->snapshot.len == sizeof(struct cox_hash))
        memcpy(&f->steps, as->snapshot.data, sizeof f->steps);
    cox_list_push_back(&h->files, &f->node);
    return f;
}

/* Whose files it was given, as far as the audit knows: those steps that it follows in its workspace. */
static void check(struct sim *s, const struct body *b)
{
    const struct audit_task *t = audit_task(s, b->ref.task);
    uint32_t step = b->ref.step;
    const struct scene_step *of;
    char name[16];
    if (t == NULL || t->job == NULL || t->job->plan.scene == NULL || t->forked || t->steps[step].in_fallback)
        return;
    while ((of = scene_step(t, step)) != NULL && of->same_files) {
        snprintf(name, sizeof name, "s%d", of->beside);
        step = cox_image_find_step(&t->image, cox_slice_str(name));
        if (t->steps[step].status != COX_STEP_SUCCEEDED || t->steps[step].in_fallback)
            continue;
        befell(s, KIND_FILES);
        if ((b->files->steps & bit(step)) == 0)
            fail(s, "%s works in files without what %s/%u left there", ref_text(b->ref), t->job->plan.name,
                 step);
    }
}

void files_begin(struct sim *s, struct body *b, const struct cox_agent_assign *as)
{
    if (as->workspace.len == 0)
        return;
    b->files = files_take(b->host, as);
    check(s, b);
}

/* Saved before the result is told; sometimes that fails, and some workers never do it. */
void files_end(struct sim *s, struct body *b, struct cox_agent_result *r, struct cox_hash *pack)
{
    struct sim_files *f = b->files;
    if (f == NULL || b->killed)
        return;
    if (r->status == COX_ATTEMPT_SUCCEEDED)
        f->steps |= bit(b->ref.step);
    if (befalls(s, KIND_UNSAVED, 100))
        return;
    *pack = snapshot_of(f);
    r->files =
        (struct cox_agent_files){ .told = true, .saved = !befalls(s, KIND_UNSAVED, 50), .tree = *pack };
    if (!r->files.saved)
        return;
    r->files.packs = pack;
    r->files.n_packs = 1;
    r->files.serial = ++f->serial;
}

void files_lose(struct host *h)
{
    while (!cox_list_empty(&h->files))
        files_remove(COX_CONTAINER_OF(h->files.next, struct sim_files, node));
}
