/* A true history of one shard, made once: tasks with steps of every kind, some ended and some under way. */
#ifndef COX_FUZZ_HISTORY_H
#define COX_FUZZ_HISTORY_H

#include "fuzz.h"

#include "cox/engine.h"

struct fuzz_saved {
    struct cox_entity_key key;
    uint64_t applied_seq;
    struct cox_buf bytes;
};
struct fuzz_history {
    struct cox_buf log; /* every record */
    uint32_t n_records;
    size_t *ends;             /* [n_records + 1]: bytes of the first n */
    struct fuzz_saved *saved; /* a checkpoint of it all */
    uint32_t n_saved;
    struct cox_buf archived; /* a task that has ended */
};
const struct fuzz_history *fuzz_history(void);

#endif
