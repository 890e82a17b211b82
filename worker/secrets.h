/* Secrets by the names that documents refer to them by: from files, from the worker's environment, from
 * commands.
 *
 * Asked for by an attempt's job, looked up on threads of their own, since a file may be on a disk that is
 * away and a command may hang. A name that is not there and one that is another tenant's get the same answer.
 * Values are read again for each attempt, a command's after its `ttl`, so that they can be rotated while the
 * worker runs; they are wiped after use, and no line of the log ever has one. */
#ifndef COX_WORKER_SECRETS_H
#define COX_WORKER_SECRETS_H

#include "redact.h"

#include "cox/base/list.h"
#include "cox/types.h"

#include <stdatomic.h>

#define SECRET_LEN_MAX (64u << 10)
#define SECRET_COMMAND_LIMIT_MS 10000 /* by default */
#define SECRET_COMMAND_TTL_MS 60000   /* by default */

/* ---------------------------------------------------------------- what is configured; secrets_config.c */

enum secret_source { SECRET_FILE, SECRET_ENV, SECRET_COMMAND };

struct secret_reference {
    char *name;
    enum secret_source source;
    char *at;       /* the file, the variable */
    char **argv;    /* the command; ended by NULL */
    char **tenants; /* who may use it, ended by NULL; NULL: everybody */
    int64_t limit_ms, ttl_ms;

    /* under the mutex of `secrets` */
    struct cox_buf value; /* of a variable, and of a command for as long as it is fresh */
    bool has_value;
    int64_t fresh_until_ns;
};

/* Shared by the worker and the jobs under way; wiped with the last reference. */
struct secret_table {
    atomic_uint n_refs;
    struct secret_reference *items;
    size_t n;
};

/* Reads `secrets:` of the configuration, {NAME: {file|env|command, tenants, timeout, ttl}}; empty or null is
 * none. Errors: COX_ERR_INVALID, `ret_path` names the place ("secrets.slack.file") and `error` what was
 * expected. */
COX_MUST_CHECK enum cox_err secret_table_read(struct cox_slice json, struct secret_table **ret,
                                              struct cox_buf *ret_path, struct cox_buf *error);
struct secret_table *secret_table_ref(struct secret_table *t);
void secret_table_unref(struct secret_table *t); /* NULL is allowed */
struct secret_reference *secret_table_find(const struct secret_table *t, struct cox_slice name); /* or NULL */
bool secret_name_ok(struct cox_slice name);

/* ---------------------------------------------------------------- asking */

struct secrets;

struct secret_job {
    /* Once a job, in secrets_reap or secrets_destroy. It owns the job from then on. */
    void (*on_done)(struct secret_job *job, void *user);
    void *user;
    char *tenant;
    char **names;
    size_t n;
    struct cox_buf also; /* what `redactor` is of beside the values; empty: nothing */

    enum cox_code code; /* NONE: values[n] are there */
    struct cox_buf message;
    struct cox_buf *values;
    struct redactor
        *redactor; /* of them; made here because it takes its time for large ones. May be taken (set NULL) */

    struct secret_table *table; /* private */
    struct cox_list link;
};

struct secrets_config {
    const char *dir;              /* a file a name, as clusters mount them; NULL: none */
    void (*on_ready)(void *user); /* secrets_reap has something. Thread: any of its own */
    void *user;
};

/* Every signal is blocked. */
struct secrets *secrets_create(const struct secrets_config *config);
void secrets_destroy(struct secrets *s); /* NULL is allowed */

/* From now on. Takes over the reference. The values of variables are read, and taken out of this process's
 * environment, where every process of its user could read them. Thread: any. */
void secrets_configure(struct secrets *s, struct secret_table *table);

struct secret_job *secret_job(struct cox_slice tenant, size_t n);
void secret_job_free(struct secret_job *job);
void secrets_submit(struct secrets *s, struct secret_job *job);
void secrets_reap(struct secrets *s); /* thread: the one that submits */

#endif
