/* The programs in the handler directories, as their --describe says: a thread that reads them at start, when
 * the directories change and when it is asked to. */
#ifndef COX_WORKER_CATALOGUE_H
#define COX_WORKER_CATALOGUE_H

#include "program.h"

struct catalogue;

struct catalogue_config {
    const char *const *dirs; /* each watched for changes; the first that has a name@major wins; borrowed */
    size_t n_dirs;
    void (*on_changed)(void *user); /* the programs are other ones. Thread: the catalogue's. May be NULL */
    void *user;
};

/* Reads every directory before it returns. What is wrong with a program is logged and the program left out;
 * the thread must have every signal blocked. */
struct catalogue *catalogue_create(const struct catalogue_config *config);
void catalogue_destroy(struct catalogue *c); /* NULL is allowed */

void catalogue_reload(struct catalogue *c); /* soon, on the catalogue's thread */

/* Rises by one a change. Thread: any. */
uint64_t catalogue_generation(const struct catalogue *c);

/* The program of "name@major", or of "name" with the highest major; NULL when there is none. The caller owns
 * a reference. Thread: any. */
struct program *catalogue_find(struct catalogue *c, struct cox_slice handler);

/* All programs of one moment, sorted by handler. Thread: any. */
struct catalogue_view {
    uint64_t generation;
    struct program **items;
    size_t n;
};
struct catalogue_view *catalogue_view(struct catalogue *c);
void catalogue_view_free(struct catalogue_view *view); /* NULL is allowed */

#endif
