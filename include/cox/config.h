/* What a program is told: one table of keys drives its flags, its COX_... variables, its configuration file
 * and its help.
 *
 *   order     flag, then variable, then file, then default; the first that names a key gives its whole value
 *   names     --data-dir, COX_DATA_DIR, `data_dir:` or `data-dir:`; an empty variable is not set
 *   lists     a key that takes A,B,... may be repeated as a flag, and be a list or a map (k: v) in the file
 *   files     YAML 1.2 (cox/yaml.h); a key that the table lacks is an error with its line and what is near
 *
 * --config FILE (COX_CONFIG), --help, -h and --version belong to every program and are not in its table.
 * Thread: one at a time. */
#ifndef COX_CONFIG_H
#define COX_CONFIG_H

#include "cox/base/buf.h"
#include "cox/base/err.h"
#include "cox/base/log.h"
#include "cox/yaml.h"

#include <stdio.h>

struct cox_config;

/* Puts what `text` says where `field` points. `text` may be changed and kept: it lives as long as the
 * cox_config. Returns NULL, or what was expected: "a duration such as 30s". */
typedef const char *cox_config_set(void *field, char *text);

enum cox_config_flags {
    COX_CONFIG_LIST = 1,   /* A,B,...: may be repeated */
    COX_CONFIG_RELOADS = 2 /* a change in the file takes effect on SIGHUP */
};
#define COX_CONFIG_LETTER(c) ((unsigned)(c) << 8) /* "-o" too, in programs that parse their own words */

struct cox_config_key {
    const char *name;     /* "data-dir" */
    const char *value;    /* what it takes, for the help; NULL: a switch */
    const char *fallback; /* its default, as text; NULL: the field keeps what the program put there */
    const char *help;     /* says a default that `fallback` does not: "(default: the number of cores)" */
    cox_config_set *set;
    size_t offset;  /* of the field in the program's struct; 0 with a `set` that takes the whole struct */
    unsigned flags; /* of enum cox_config_flags, and a letter */
};

struct cox_config_program {
    const char *name;    /* "coxd" */
    const char *version; /* "0.1.0" */
    const char *intro;   /* above the flags in the help */
    const char *outro;   /* below them */
    const struct cox_config_key *keys;
    size_t n_keys;
    const char *const
        *others; /* names in the file that the program reads by itself; ended by NULL; or NULL */
};

/* ---- setters for keys, by the type of the field -------------------------------------------------------- */
const char *cox_config_set_text(void *field, char *text);     /* const char *; refuses "" */
const char *cox_config_set_switch(void *field, char *text);   /* bool */
const char *cox_config_set_duration(void *field, char *text); /* int64_t, ms */
const char *cox_config_set_size(void *field, char *text);     /* int64_t, bytes */
const char *cox_config_set_address(void *field, char *text);  /* const char *, "127.0.0.1:7600" */
const char *cox_config_set_log_level(void *field, char *text);
const char *cox_config_set_log_format(void *field, char *text);

/* ---- a daemon's whole way ------------------------------------------------------------------------------ */

enum cox_config_outcome { COX_CONFIG_RUN, COX_CONFIG_EXIT_OK, COX_CONFIG_EXIT_USAGE };

/* Reads flags, variables and the file into `target`, the program's struct. Prints help and version on
 * standard output, what is wrong on `err`, and says what to do next. `ret` is for reloading; destroy it in
 * every case, when the texts in `target` are no longer used. */
enum cox_config_outcome cox_config_read(const struct cox_config_program *program, int argc, char **argv,
                                        void *target, FILE *err, struct cox_config **ret);

/* Reads the file again and fills `target`, which begins as it did for cox_config_read. Keys that do not
 * reload keep what they were; `ret_restart` gets the names of those that the file changes, ", " between them.
 * Errors: COX_ERR_INVALID, `error` says why, nothing has changed. */
COX_MUST_CHECK enum cox_err cox_config_reload(struct cox_config *c, void *target, struct cox_buf *ret_restart,
                                              struct cox_buf *error);

/* ---- the parts, for a command line with words of its own ------------------------------------------------
 */

struct cox_config *cox_config_create(const struct cox_config_program *program);
void cox_config_destroy(struct cox_config *c); /* NULL is allowed */

/* The key of a name, dashes or underscores; NULL when there is none. */
const struct cox_config_key *cox_config_find(const struct cox_config_program *program, struct cox_slice name);

/* A flag was given; `text` is copied. A later one wins, or joins it when the key is a list. */
void cox_config_give(struct cox_config *c, const struct cox_config_key *key, const char *text);

/* Reads a file. Errors: COX_ERR_NOT_FOUND, COX_ERR_IO, COX_ERR_INVALID, each with lines in `error`. */
COX_MUST_CHECK enum cox_err cox_config_load(struct cox_config *c, const char *path, struct cox_buf *error);

/* The file as it was read; its JSON is empty when none was. */
const struct cox_yaml *cox_config_file(const struct cox_config *c);

/* Keys from an object within the file, at `place` ("contexts.local"), which win over the file's own. */
COX_MUST_CHECK enum cox_err cox_config_take(struct cox_config *c, struct cox_slice object, const char *place,
                                            struct cox_buf *error);

/* Sets every key that has a value. Errors: COX_ERR_INVALID with a line in `error`. */
COX_MUST_CHECK enum cox_err cox_config_apply(struct cox_config *c, void *target, struct cox_buf *error);

/* The table as help; as rows of a Markdown table, for the reference. */
void cox_config_put_help(struct cox_buf *out, const struct cox_config_program *program);
void cox_config_put_markdown(struct cox_buf *out, const struct cox_config_program *program);

/* Appends the variable of a key: "COX_DATA_DIR". */
void cox_config_put_variable(struct cox_buf *out, const char *name);

/* ---- words -----------------------------------------------------------------------------------------------
 */

/* Insertions, deletions, changes and swaps of neighbours between two words (optimal string alignment); words
 * of more than 64 bytes are far from everything. */
unsigned cox_config_distance(const char *a, const char *b);

/* Keeps `candidate` in *nearest when it is nearer to `word` than *best. */
void cox_config_consider(const char *word, const char *candidate, const char **nearest, unsigned *best);
#define COX_CONFIG_NEAR 3u /* begin *best with this: what is further away is no suggestion */

#endif
