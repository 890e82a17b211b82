/* What an attempt needs before its handler is called: a program, a working directory, its secrets. */
#ifndef COX_WORKER_WORK_PREPARE_H
#define COX_WORKER_WORK_PREPARE_H

#include "secrets.h"
#include "work.h"

/* The path of a bundle's program; NULL: the spec names none. Freed by cox_free. */
char *work_spec_program(struct cox_slice spec);

/* The program that is the attempt's handler, a reference; else a code, and why in `message`. */
enum cox_code work_find_program(const struct work_host *host, const struct cox_agent_assign *assign,
                                struct program **ret, struct cox_buf *message);

/* The directory that the attempt shares, held, or its own, made; false with errno. */
bool work_make_dir(struct work_host *host, const struct cox_agent_assign *assign, const char *own_dir,
                   struct workspace_use *use, const char **ret_dir);

/* Keeps what must not be told out of what a handler reports. NULL: nothing. */
void work_redact(const struct redactor *r, struct outcome *o);

/* An attempt's secrets, from the moment when they are asked for. Zero-initialised: it has none. */
struct work_secrets {
    struct secret_job *job; /* under way; then it holds the values */
    bool asked, waiting;
    struct redactor *redactor; /* NULL: nothing to keep out of anything */
    struct cox_buf spec;
    /* Once, after `ask` has said so, within secrets_reap: with a code when they cannot be had. */
    void (*on_done)(void *user, enum cox_code code, struct cox_slice message);
    void *user;
};

/* True: values are on their way, and on_done comes unless `fini` does. `key` is kept out of what they are
 * kept out of, too. */
bool work_secrets_ask(struct work_secrets *ws, struct secrets *from, struct cox_slice tenant,
                      struct cox_slice spec, const char *key);

/* What the handler gets: the spec with the values in it, which live until `forget`.
 * Errors: COX_ERR_INVALID, the spec asks for other secrets than the attempt did, or has no place for them. */
COX_MUST_CHECK enum cox_err work_secrets_fill(struct work_secrets *ws, struct cox_slice spec,
                                              struct cox_slice *ret);
void work_secrets_forget(struct work_secrets *ws);

void work_secrets_fini(struct work_secrets *ws);

#endif
