/* A store on the faulty disk, driven at random until it dies or the script ends, and a model of what it must
 * still know afterwards.
 *
 * The model: records in order, each touching one of a few entities; an entity's value is a hash chain over
 * the records that touched it. So an entity is right only if every record that touched it was applied once,
 * in order, be it from its checkpoint or from the log.
 */
#ifndef COX_TESTS_FAULT_HARNESS_H
#define COX_TESTS_FAULT_HARNESS_H

#include "fault_vfs.h"

#include "cox/base/rng.h"
#include "cox/store.h"

#include <pthread.h>

#define ENTITIES 5
#define RECORDS_MAX 20000
#define TASKS_MAX 4000

struct record {
    uint64_t nonce;
    uint32_t entity;
};

struct task {
    uint64_t seq; /* of the record that finished it */
    bool safe;    /* a truncation requested after it was completed */
};

/* What a check found wrong, as counts, so that a control can ask for them. */
struct verdict {
    uint64_t lost_records; /* acknowledged, then not recovered */
    uint64_t lost_tasks;   /* archived, covered by a truncation, then not there */
    uint64_t undone_tasks; /* archived, but not covered by a truncation: allowed to be undone */
    uint64_t damage;       /* refused to open or recover, or what it gave was wrong */
};

struct harness {
    uint64_t seed;
    struct cox_rng rng;
    struct fault_vfs *disk;
    const char *log_synchronous;
    char dir[64]; /* for the lock file */
    struct cox_store *store;
    struct verdict verdict;
    bool verbose;
    bool forgives; /* the store may refuse to open: memory, not the disk, fails */
    bool shrugs;   /* a fault need not be fatal: what it hit may have been tried only for its speed */

    /* from the store's threads */
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    bool woken;
    unsigned fatals;

    /* the model */
    struct record records[RECORDS_MAX + 1]; /* by sequence number */
    uint64_t appended_seq;
    uint64_t acked_seq;
    struct task tasks[TASKS_MAX + 1]; /* by id, from 1 */
    uint64_t n_tasks;
    uint64_t values[ENTITIES];
    uint64_t truncate_tasks[64]; /* tasks requested before a truncation, by its ticket % 64 */
    uint64_t n_truncates;

    /* being recovered */
    uint64_t found_seq;
    uint64_t found[ENTITIES];
    uint64_t found_applied[ENTITIES];
};

struct harness *harness_create(uint64_t seed, const char *log_synchronous);
void harness_destroy(struct harness *h);

/* Opens, checks everything against the model, starts. False when the store would not, or died of a fault. */
bool harness_start(struct harness *h);

/* Does `steps` random things, or fewer if the store dies. */
void harness_drive(struct harness *h, unsigned steps);

/* Waits until the store has acknowledged `seq`, or died. */
void harness_await_durable(struct harness *h, uint64_t seq);

/* Waits for an event of this kind, and gives what was answered; asserts that the store lives. */
enum cox_err harness_await_answer(struct harness *h, enum cox_store_op op);

/* Closes the store. What was acknowledged before counts. */
void harness_stop(struct harness *h);

#endif
