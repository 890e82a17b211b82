/* A program that steps may call: where it is and what it says of itself. Immutable once made, and counted. */
#ifndef COX_WORKER_PROGRAM_H
#define COX_WORKER_PROGRAM_H

#include "sandbox/sandbox.h"

#include "cox/base/buf.h"
#include "cox/base/err.h"

#include <stdatomic.h>
#include <sys/types.h>

struct program {
    atomic_int n_refs;
    char *path;    /* absolute */
    char *arg;     /* given before --serve; NULL: none */
    char *name;    /* "lint" */
    char *version; /* "2.1.0" */
    char *handler; /* "lint@2" */
    char *description;
    struct cox_buf input_schema, output_schema; /* JSON; empty: anything goes */
    bool idempotent;
    bool serves;      /* --describe says "serve": true */
    atomic_bool once; /* a call each: found out, or said */
    /* of the file that was described */
    dev_t dev;
    ino_t ino;
    int64_t mtime_ns;
    int64_t size;
};

#define PROGRAM_DESCRIBE_LIMIT_MS 10000
#define PROGRAM_DESCRIBE_LEN_MAX (256u << 10)

/* Runs `path --describe`, which must end within PROGRAM_DESCRIBE_LIMIT_MS and print one JSON object.
 *   name, major  what the file's name says; major may be empty. NULL: the description's own name counts
 *   dir          working directory of the program
 *   bundle       for COX_BUNDLE; may be NULL
 *   sandbox      runs it at the level of a step that asks for none; NULL: nobody doubts it
 * Errors: COX_ERR_IO when the host cannot start it now, else any; *why names what was expected. Blocks; the
 * thread must have every signal blocked. */
COX_MUST_CHECK enum cox_err program_describe(const char *path, const char *name, const char *major,
                                             const char *dir, const char *bundle, struct sandbox *sandbox,
                                             struct program **ret, struct cox_buf *why);

/* Reads what `--describe` has printed, as above. */
COX_MUST_CHECK enum cox_err program_read(const char *path, struct cox_slice printed, const char *name,
                                         const char *major, struct program **ret, struct cox_buf *why);

/* One without a file of its own: `path arg --serve`. */
struct program *program_built_in(const char *handler, const char *path, const char *arg);

/* Is the file still the one that was described? */
bool program_is_current(const struct program *p);

struct program *program_ref(struct program *p);
void program_unref(struct program *p); /* NULL is allowed. Thread: any */

#endif
