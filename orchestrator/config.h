/* What coxd is told; the table in config.c is the list. */
#ifndef COX_ORCHESTRATOR_CONFIG_H
#define COX_ORCHESTRATOR_CONFIG_H

#include "inference/placement.h"

#include "cox/config.h"

struct coxd_config {
    const char *data_dir;
    const char *store;      /* "sqlite" or "memory" */
    const char *grpc;       /* "127.0.0.1:7600" */
    const char *http;       /* "127.0.0.1:7601", or "off" */
    const char *http_hosts; /* NULL: none, as the next */
    const char *cors_origins;
    const char *http_advertise; /* NULL: the host that a worker has dialled, and the port of `http` */
    const char *tls_cert;       /* NULL: no TLS; as the next two, a file */
    const char *tls_key;
    const char *tls_ca; /* NULL: nobody has to show a certificate */
    enum placement_policy model_policy;
    int64_t model_first_token_ms;
    const char *model_record, *model_replay; /* files; NULL: not */
    const char *models; /* "NAME=URL,URL,NAME=URL"; NULL: none. coxd_models_read reads it, and the file's */
    int64_t drain_timeout_ms;
    const char *ready_file; /* NULL: none */
    const char *token_file; /* NULL: none */
    bool insecure;
    int64_t checkpoint_bytes;
    int64_t retention_ms; /* 0: for ever */
    int64_t min_free;     /* bytes */
    int64_t memory_limit; /* bytes; 0: none */
    const char *restore;  /* a backup to copy to data_dir, instead of serving; NULL: none */
    bool verify;          /* check data_dir instead of serving */
    const char *lift;     /* a quarantined task of data_dir to take up again; NULL: none */
    enum cox_log_level log_level;
    enum cox_log_format log_format;
};

extern const struct cox_config_program coxd_config_program;

/* Reads flags, variables and the file; cox_config_read says more. EXIT_USAGE: said why on `err`. */
enum cox_config_outcome coxd_config_read(struct coxd_config *ret, int argc, char **argv, FILE *err,
                                         struct cox_config **ret_config);

/* Whether an address such as "127.0.0.1:0" or "[::1]:80" is of this host only. */
bool coxd_config_is_loopback(const char *address);

#endif
