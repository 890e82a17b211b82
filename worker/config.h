/* cox-worker's options: flags, and a COX_... variable for each. */
#ifndef COX_WORKER_CONFIG_H
#define COX_WORKER_CONFIG_H

#include "session.h"

#include "cox/base/arena.h"
#include "cox/base/log.h"

#define CONFIG_ADDRESSES_MAX 64

struct config {
    const char *addresses[CONFIG_ADDRESSES_MAX];
    size_t n_addresses;
    int64_t slots;
    struct session_label labels[COX_WORKER_LABELS_MAX];
    size_t n_labels;
    struct cox_resources resources;
    const char *worker_id;
    const char *work_dir;
    const char *ready_file; /* or NULL */
    int64_t drain_timeout_ms, orphan_timeout_ms, idle_exit_ms;
    enum cox_log_level log_level;
    enum cox_log_format log_format;
    struct cox_arena strings;
};

enum config_outcome { CONFIG_RUN, CONFIG_EXIT_OK, CONFIG_EXIT_USAGE };

/* Defaults, then variables, then flags. Prints help, version or what is wrong, and says what to do next.
 * config_fini in every case. */
enum config_outcome config_read(struct config *c, int argc, char **argv);
void config_fini(struct config *c);

#endif
