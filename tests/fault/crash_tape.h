/* What a disk was asked to do, in its order, with what the store had acknowledged at each moment; and what a
 * power cut at any of these moments may leave.
 */
#ifndef COX_TESTS_CRASH_TAPE_H
#define COX_TESTS_CRASH_TAPE_H

#include "fault_vfs.h"

#include <pthread.h>

struct cox_store;

struct crash_entry {
    bool is_note; /* else a change of the disk */
    enum fault_op_kind kind;
    uint8_t file;       /* of the tape's names */
    uint64_t at;        /* of a note: what it says */
    uint64_t note;      /* likewise */
    uint64_t acked_seq; /* before it */
    struct cox_buf bytes;
};

struct crash_tape {
    pthread_mutex_t mutex; /* while it is written */
    struct crash_entry *entries;
    size_t n, cap;
    char *names[FAULT_FILES_MAX];
    size_t n_names;
    const struct cox_store *store; /* asked for what it has acknowledged; NULL: base_seq */
    uint64_t base_seq;
};

void crash_tape_init(struct crash_tape *t);
void crash_tape_fini(struct crash_tape *t);
/* From now on, what `v` does. The caller says which store it is, once it is open. */
void crash_tape_record(struct crash_tape *t, struct fault_vfs *v, uint64_t base_seq);
void crash_tape_set_store(struct crash_tape *t, const struct cox_store *s,
                          uint64_t base_seq);                           /* any thread */
void crash_tape_note(struct crash_tape *t, uint64_t at, uint64_t note); /* any thread */

/* Does to `d` what entry `i` says, unless it is a note. */
void crash_tape_play(const struct crash_tape *t, size_t i, struct fault_disk *d);

/* One way in which a cut may turn out. */
struct crash_variant {
    enum {
        CRASH_NOTHING,
        CRASH_EVERYTHING,
        CRASH_ALL_BUT,
        CRASH_ONLY,
        CRASH_TORN,
        CRASH_FILE,
        CRASH_LUCK
    } kind;
    size_t file, op; /* ALL_BUT, ONLY, TORN: this change; FILE: all changes of this file and no other */
    uint64_t seed;
};

/* Which variants there are for a disk as it is now: at most `cap`, drawn from `rng` where there are more. */
size_t crash_variants(const struct fault_disk *d, struct cox_rng *rng, struct crash_variant *ret, size_t cap);
/* All of them, for the changes of one database alone; freed by the caller. */
struct crash_variant *crash_variants_of(const struct fault_disk *d, const char *name, struct cox_rng *rng,
                                        size_t *ret_n);
void crash_cut(const struct fault_disk *from, struct fault_disk *to, const struct crash_variant *v);
const char *crash_variant_name(const struct crash_variant *v);

#endif
