/* Steps as a tree: what a step has made stands under it. */
#ifndef CLI_TREE_H
#define CLI_TREE_H

#include "task.h"

struct cli_branch {
    size_t step;    /* index into the steps */
    unsigned depth; /* 0: no parent among them */
    size_t leaf; /* where in its name that begins which its parent's has not: "build" of "scan[17].build" */
};

/* The steps in the order in which they are shown: as given, children right under their parents. `names` as
 * cli_step_name gives them: "scan[17].build" belongs to "scan[17]", or to "scan" when that is not there.
 * ret_order has n entries, freed by the caller. O(n). */
struct cli_branch *cli_tree_order(size_t n, const char *const *names);

/* "[######......] 12/40, 2 failed" of a map that has begun; nothing for others. */
void cli_put_map(struct cox_buf *out, const Coxswain__V1__Step *step, unsigned cells);

/* A live view: the latest of every step. */
struct cli_tree;
struct cli_tree *cli_tree_create(void);
void cli_tree_destroy(struct cli_tree *tree);                                /* NULL is allowed */
void cli_tree_update(struct cli_tree *tree, const Coxswain__V1__Step *step); /* copied */
/* Appends at most `rows` lines, each at most `columns` wide and ended by '\n'; what is most telling when not
 * all fit. Returns how many. */
unsigned cli_tree_put(struct cli_tree *tree, struct cox_buf *out, unsigned rows, unsigned columns,
                      bool color);

#endif
