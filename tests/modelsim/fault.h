/* What is wrong with an endpoint: set by --faults and POST /sim/faults, picked for each call by its rate.
 * Pure. */
#ifndef COX_MODELSIM_FAULT_H
#define COX_MODELSIM_FAULT_H

#include "cox/base/buf.h"
#include "cox/base/err.h"
#include "cox/base/rng.h"

enum fault_metrics {
    FAULT_METRICS_OK,
    FAULT_METRICS_404,
    FAULT_METRICS_GARBAGE,
    FAULT_METRICS_STALE,
    FAULT_METRICS_HANG
};

/* Faults of one call, each at its rate; the first that hits is the call's. */
enum fault_kind {
    FAULT_NONE,
    FAULT_ERROR_500,
    FAULT_ERROR_429,
    FAULT_HANG_FIRST, /* nothing ever comes, not even a head */
    FAULT_HANG_AFTER, /* after_tokens come, then nothing */
    FAULT_KILL,       /* the connection is reset after after_tokens */
    FAULT_HALF_CLOSE, /* after after_tokens no more is sent, and the connection stays half open */
    FAULT_GARBAGE,    /* after after_tokens comes what is no JSON */
    FAULT_KIND_NR
};
const char *fault_kind_text(enum fault_kind kind);

struct faults {
    uint32_t rate[FAULT_KIND_NR]; /* calls of a million */
    uint32_t after_tokens;
    uint32_t retry_after_s;
    uint32_t slow_permille; /* 1000: as configured */
    enum fault_metrics metrics;
    bool no_tool_ids, index_from_one, refuse;
};
void faults_init(struct faults *f);
/* Changes what the object names; "reset": true first sets all back. Errors: COX_ERR_INVALID, `error` says why
 * and nothing has changed. "endpoint" is the caller's to read. */
COX_MUST_CHECK enum cox_err faults_read(struct faults *f, struct cox_slice object, struct cox_buf *error);
enum fault_kind faults_pick(const struct faults *f, struct cox_rng *rng);
void faults_put(struct cox_buf *out, const struct faults *f); /* as JSON, in the words of faults_read */

#endif
