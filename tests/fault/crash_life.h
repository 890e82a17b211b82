/* Lives of a store on a disk that a tape records, and what the store must know when it is opened on what a
 * cut left of that disk.
 *
 * The model: record N has a random number and touches one of a few entities, whose value is a hash chain over
 * what touched it. Every odd record also ends task N, which is archived, indexed, and owns a payload that it
 * shares with another. After recovery the engine says again what the log still has of ended tasks. So an
 * entity is right only if each record was applied once and in order, be it from its checkpoint or from the
 * log; and a task that ended is there, whole, listed, with its value, unless it was deleted.
 */
#ifndef COX_TESTS_CRASH_LIFE_H
#define COX_TESTS_CRASH_LIFE_H

#include "crash_tape.h"
#include "fault_vfs.h"

#include "cox/store.h"

#define CRASH_RECORDS_MAX 4000

enum crash_fate { CRASH_THERE, CRASH_ASKED /* to be deleted; not answered */, CRASH_DELETED };

struct crash_model {
    uint64_t n; /* records appended */
    uint64_t nonces[CRASH_RECORDS_MAX + 1];
    uint8_t fates[CRASH_RECORDS_MAX + 1]; /* enum crash_fate, of task N */
};

/* What a check found wrong; counts, so that a control can ask for them. */
struct crash_verdict {
    uint64_t lost;    /* acknowledged, and not there */
    uint64_t damaged; /* would not open, or gave what never was */
    char what[256];   /* the first of them */
};

/* Opens what is on the file system `vfs` of SQLite, with the store's own code and no threads, and compares it
 * with `m`, of which `acked_seq` records were acknowledged. `deep`: after recovery, with the engine's word,
 * also lists and values. */
void crash_check(const struct crash_model *m, uint64_t acked_seq, const char *vfs, const char *dir, bool deep,
                 struct crash_verdict *v);

/* The log alone, which is several times as fast: opened and read, and compared likewise. */
void crash_check_log(const struct crash_model *m, uint64_t acked_seq, const char *vfs, const char *dir,
                     struct crash_verdict *v);

struct crash_life {
    const char *vfs, *dir;
    const char *log_synchronous; /* NULL: as it should be */
    int checkpoint_pages;
    bool in_step;           /* waits after each thing it asks for, so that the order of all is the seed's */
    struct fault_vfs *held; /* unless in step: the disk, whose syncs stand still now and then, so that batches
                             * gather in one row with requests between them */
    unsigned steps;
};

/* From opening to an orderly end. `m` becomes what is there then; notes of fates go to the tape. */
void crash_live(const struct crash_life *life, struct crash_model *m, struct crash_tape *tape,
                struct cox_rng *rng);

#endif
