/* What coxd is told: flags, each also a COX_... variable; a flag wins. */
#ifndef COX_ORCHESTRATOR_CONFIG_H
#define COX_ORCHESTRATOR_CONFIG_H

#include "cox/base/log.h"

#include <stdint.h>
#include <stdio.h>

struct cox_config {
    const char *data_dir;
    const char *store;      /* "sqlite" or "memory" */
    const char *grpc;       /* "127.0.0.1:7600" */
    const char *ready_file; /* NULL: none */
    bool insecure;
    uint64_t checkpoint_bytes;
    enum cox_log_level log_level;
    enum cox_log_format log_format;
};

enum cox_config_outcome { COX_CONFIG_RUN, COX_CONFIG_HELP, COX_CONFIG_VERSION, COX_CONFIG_WRONG };

/* Reads argv and the environment, whose strings it borrows. WRONG: said why on `err`. */
enum cox_config_outcome cox_config_read(struct cox_config *ret, int argc, char **argv, FILE *err);
void cox_config_help(FILE *out);

/* Whether an address such as "127.0.0.1:0" or "[::1]:80" is of this host only. */
bool cox_config_is_loopback(const char *address);

#endif
