/* What the files of lib/config share. */
#ifndef COX_CONFIG_INTERNAL_H
#define COX_CONFIG_INTERNAL_H

#include "cox/base/arena.h"
#include "cox/config.h"

/* What a file or a command line says about a key. */
struct given {
    char *text; /* NULL: nothing */
    char *from; /* "--slots", "worker.yaml:3: slots" */
};

struct cox_config {
    const struct cox_config_program *program;
    struct given *flags; /* by key */
    struct given *file;  /* by key */
    const char **used;   /* by key: the text that was set last; NULL: none */
    char *path;          /* of the file; NULL: none */
    struct cox_yaml yaml;
    struct cox_arena strings; /* what setters were given */
};

/* Takes `text` and `from`; joins what is there, with a comma, when `join`. */
void config_give(struct given *g, char *text, char *from, bool join);
void config_clear(struct given *given, size_t n);

#endif
