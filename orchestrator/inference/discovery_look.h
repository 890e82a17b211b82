/* One look at a file or a name; takes as long as the disk or the name server. Thread: any. */
#ifndef COX_ORCHESTRATOR_INFERENCE_DISCOVERY_LOOK_H
#define COX_ORCHESTRATOR_INFERENCE_DISCOVERY_LOOK_H

#include "catalogue_text.h"

#include <sys/stat.h>

struct discovery_seen { /* zero-initialised; the file as it was when it was read last */
    struct timespec changed;
    off_t len;
    ino_t inode;
};

/* COX_OK with what was found, COX_ERR_AGAIN: the same file as last time; else `error` says why not. */
COX_MUST_CHECK enum cox_err discovery_look_file(const char *path, struct discovery_seen *seen,
                                                struct endpoint_text **ret, size_t *ret_n,
                                                struct cox_buf *error);
/* "HOST:PORT": an endpoint an address; "_service._proto.domain": an endpoint a record. */
COX_MUST_CHECK enum cox_err discovery_look_dns(const char *name, struct endpoint_text **ret, size_t *ret_n,
                                               struct cox_buf *error);

#endif
