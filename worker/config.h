/* What cox-worker is told; the table in config.c is the list. */
#ifndef COX_WORKER_CONFIG_H
#define COX_WORKER_CONFIG_H

#include "secrets.h"
#include "session.h"

#include "sandbox/sandbox.h"

#include "cox/config.h"
#include "cox/tls.h"

#define CONFIG_ADDRESSES_MAX 64
#define CONFIG_HANDLER_DIRS_MAX 16
#define CONFIG_SANDBOX_READ_MAX 32

struct config {
    const char *addresses[CONFIG_ADDRESSES_MAX];
    size_t n_addresses;
    int64_t slots;
    enum sandbox_level sandbox;
    const char *sandbox_read[CONFIG_SANDBOX_READ_MAX];
    size_t n_sandbox_read;
    struct cox_attach_label labels[COX_WORKER_LABELS_MAX];
    size_t n_labels;
    struct cox_resources resources;
    const char *worker_id;
    const char *work_dir;
    const char *handler_dirs[CONFIG_HANDLER_DIRS_MAX];
    size_t n_handler_dirs;
    struct reach reach;           /* of `http` steps */
    const char *secrets_dir;      /* or NULL */
    struct secret_table *secrets; /* a reference, until somebody takes it over (and sets NULL) */
    int64_t workspace_ttl_ms, workspace_len_max;
    bool no_snapshots;
    int64_t cache_len_max;
    struct cox_tls_files tls; /* of NULLs: plaintext */
    const char *ready_file;   /* or NULL */
    const char *token_file;   /* NULL: none */
    int64_t drain_timeout_ms, orphan_timeout_ms, idle_exit_ms;
    enum cox_log_level log_level;
    enum cox_log_format log_format;
    struct cox_config *settings; /* holds the texts above */
};

extern const struct cox_config_program worker_config_program;

/* Reads flags, variables and the file; cox_config_read says more. config_fini in every case. */
enum cox_config_outcome config_read(struct config *c, int argc, char **argv);
/* Reads the file again; cox_config_reload says more. */
COX_MUST_CHECK enum cox_err config_reload(struct config *c, struct cox_buf *ret_restart,
                                          struct cox_buf *error);
void config_fini(struct config *c);

#endif
