#include "tree.h"

#include "cox/base/alloc.h"
#include "cox/base/map.h"
#include "cox/wire.h"

#include <string.h>

#define DEPTH_MAX 64
#define STEPS_MAX 5000u /* in a live view; a larger task has its counts */
#define MAP_CELLS 16

#define STATUS(name) COXSWAIN__V1__STEP_STATUS__STEP_STATUS_##name

/* ---- order ----------------------------------------------------------------------------------------------
 */

/* Where the last part of a name begins; 0 for a name of one part. */
static size_t last_part(const char *name, size_t len)
{
    for (size_t i = len; i-- > 1;) {
        if (name[i] == '.' || name[i] == '[')
            return i;
    }
    return 0;
}

/* Index + 1 of the nearest step above; 0: none. */
static size_t parent_of(const struct cox_mapb *known, const char *name)
{
    for (size_t len = last_part(name, strlen(name)); len > 0; len = last_part(name, len)) {
        void *found = cox_mapb_get(known, cox_slice(name, len));
        if (found)
            return (size_t)(uintptr_t)found;
    }
    return 0;
}

static size_t leaf_of(const char *name, const char *parent)
{
    size_t at = parent ? strlen(parent) : 0;

    return at + (name[at] == '.');
}

struct cli_branch *cli_tree_order(size_t n, const char *const *names)
{
    struct cli_branch *order = cox_calloc(n + 1, sizeof(*order));
    /* Lists of children as indexes + 1: the first and last of each step (0 is the root), the next of each. */
    size_t *first = cox_calloc(n + 1, sizeof(*first)), *last = cox_calloc(n + 1, sizeof(*last));
    size_t *next = cox_calloc(n + 1, sizeof(*next)), *parent = cox_calloc(n + 1, sizeof(*parent));
    struct cox_mapb known = { 0 };
    unsigned depth = 0;

    for (size_t i = 0; i < n; i++)
        cox_mapb_set(&known, cox_slice_str(names[i]), (void *)(uintptr_t)(i + 1));
    for (size_t i = 1; i <= n; i++) {
        size_t p = parent_of(&known, names[i - 1]);
        p = p == i ? 0 : p;
        parent[i] = p;
        if (last[p])
            next[last[p]] = i;
        else
            first[p] = i;
        last[p] = i;
    }
    size_t at = first[0];

    for (size_t k = 0; at; k++) {
        order[k] = (struct cli_branch){ at - 1, depth,
                                        leaf_of(names[at - 1], parent[at] ? names[parent[at] - 1] : NULL) };
        if (first[at]) {
            at = first[at];
            depth++;
            continue;
        }
        while (at && !next[at]) {
            at = parent[at];
            depth -= at != 0;
        }
        at = at ? next[at] : 0;
    }
    cox_mapb_fini(&known);
    cox_free(first);
    cox_free(last);
    cox_free(next);
    cox_free(parent);
    return order;
}

/* ---- maps -----------------------------------------------------------------------------------------------
 */

void cli_put_map(struct cox_buf *out, const Coxswain__V1__Step *step, unsigned cells)
{
    const Coxswain__V1__MapProgress *m = step->map;

    if (!m)
        return;
    uint64_t done = m->succeeded + m->failed;
    unsigned full = m->items > 0 ? (unsigned)(cells * done / m->items) : cells;

    cox_put_u8(out, '[');
    for (unsigned i = 0; i < cells; i++)
        cox_put_u8(out, i < full ? '#' : '.');
    cox_buf_printf(out, "] %llu/%llu", (unsigned long long)done, (unsigned long long)m->items);
    if (m->running > 0)
        cox_buf_printf(out, ", %llu running", (unsigned long long)m->running);
    if (m->failed > 0)
        cox_buf_printf(out, ", %llu failed", (unsigned long long)m->failed);
}

/* ---- the live view ---------------------------------------------------------------------------------------
 */

struct cli_tree {
    Coxswain__V1__Step **steps;
    size_t n, cap;
    struct cox_mapb by_address; /* index + 1 */
    struct cli_branch *order;   /* NULL: to be made */
};

struct cli_tree *cli_tree_create(void)
{
    return COX_NEW(struct cli_tree);
}

void cli_tree_destroy(struct cli_tree *tree)
{
    if (!tree)
        return;
    for (size_t i = 0; i < tree->n; i++)
        protobuf_c_message_free_unpacked(&tree->steps[i]->base, NULL);
    cox_free(tree->steps);
    cox_free(tree->order);
    cox_mapb_fini(&tree->by_address);
    cox_free(tree);
}

void cli_tree_update(struct cli_tree *tree, const Coxswain__V1__Step *step)
{
    struct cox_slice address = cox_slice_str(step->address);
    size_t at = (size_t)(uintptr_t)cox_mapb_get(&tree->by_address, address);

    if (at > 0) {
        protobuf_c_message_free_unpacked(&tree->steps[at - 1]->base, NULL);
        tree->steps[at - 1] = (Coxswain__V1__Step *)cli_copy(&step->base);
        return;
    }
    if (tree->n == STEPS_MAX)
        return;
    if (tree->n == tree->cap) {
        tree->cap = tree->cap ? 2 * tree->cap : 64;
        tree->steps = cox_realloc(tree->steps, tree->cap, sizeof(Coxswain__V1__Step *));
    }
    tree->steps[tree->n++] = (Coxswain__V1__Step *)cli_copy(&step->base);
    cox_mapb_set(&tree->by_address, address, (void *)(uintptr_t)tree->n);
    cox_free(tree->order);
    tree->order = NULL;
}

static const char *color_of(int status)
{
    switch (status) {
    case STATUS(RUNNING):
        return "\033[36m";
    case STATUS(SUCCEEDED):
        return "\033[32m";
    case STATUS(FAILED):
        return "\033[31m";
    case STATUS(WAITING):
        return "\033[33m";
    default:
        return "\033[2m";
    }
}

/* What people look for first: 0 runs or failed, 1 waits, 2 is ready, 3 the rest. */
static int rank_of(const Coxswain__V1__Step *step)
{
    switch ((int)step->status) {
    case STATUS(RUNNING):
    case STATUS(FAILED):
        return 0;
    case STATUS(WAITING):
        return 1;
    case STATUS(READY):
        return 2;
    default:
        return 3;
    }
}

static void put_step(struct cox_buf *out, const Coxswain__V1__Step *step, const struct cli_branch *branch,
                     unsigned columns, bool color)
{
    const char *status = cox_wire_enum_text(&coxswain__v1__step_status__descriptor, (int)step->status);
    const Coxswain__V1__Attempt *last = step->n_attempts > 0 ? step->attempts[step->n_attempts - 1] : NULL;
    const char *name = cli_step_name(step) + branch->leaf;
    unsigned depth = branch->depth;
    struct cox_buf line = { 0 };

    cox_buf_printf(&line, "  %*s%-*s %-9s ", (int)(2 * depth), "", depth < 10 ? (int)(24 - 2 * depth) : 0,
                   name, status ? status : "?");
    size_t before = line.len;

    cli_put_map(&line, step, MAP_CELLS);
    if (last) {
        cox_buf_append_str(&line, line.len > before ? "  " : "");
        cli_put_between(&line, step->attempts[0]->started_at, last->finished_at);
        if (last->number > 1)
            cox_buf_printf(&line, ", attempt %u", last->number);
    }
    if (step->error && *step->error->code)
        cox_buf_printf(&line, "  %s", step->error->code);
    else if (*step->reason && rank_of(step) < 3)
        cox_buf_printf(&line, "  %s", step->reason);
    if (line.len >= columns)
        line.len = columns - 1;
    cox_buf_append_str(out, color ? color_of((int)step->status) : "");
    cli_put_line(out, cox_buf_slice(&line));
    cox_buf_append_str(out, color ? "\033[0m\n" : "\n");
    cox_buf_fini(&line);
}

static void make_order(struct cli_tree *tree)
{
    const char **names = cox_calloc(tree->n + 1, sizeof(*names));

    for (size_t i = 0; i < tree->n; i++)
        names[i] = cli_step_name(tree->steps[i]);
    tree->order = cli_tree_order(tree->n, names);
    cox_free(names);
}

unsigned cli_tree_put(struct cli_tree *tree, struct cox_buf *out, unsigned rows, unsigned columns, bool color)
{
    size_t of_rank[4] = { 0 };
    unsigned shown = 0;
    int worst = 3;

    if (!tree->order)
        make_order(tree);
    for (size_t i = 0; i < tree->n; i++)
        of_rank[rank_of(tree->steps[i])]++;
    /* All when they fit, with a line kept for "and N more"; else the ranks that do, at least the first. */
    if (tree->n > rows) {
        size_t sum = of_rank[0];
        for (worst = 0; worst < 3 && sum + of_rank[worst + 1] < rows; worst++)
            sum += of_rank[worst + 1];
    }
    for (size_t i = 0; i < tree->n; i++) {
        const Coxswain__V1__Step *step = tree->steps[tree->order[i].step];
        if (rank_of(step) > worst || (tree->n > rows && shown + 1 >= rows))
            continue;
        put_step(out, step, &tree->order[i], columns, color);
        shown++;
    }
    if (shown < tree->n && rows > 0) {
        cox_buf_printf(out, "  and %zu more steps\n", tree->n - shown);
        shown++;
    }
    return shown;
}
