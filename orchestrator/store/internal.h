/* The inside of struct cox_store: who writes what. Shared by store.c (the owner's side), log_thread.c and
 * state_thread.c, and by tests that put a database file system of their own below the store.
 *
 *            batches                      log_done
 *   owner ------------> log thread --------------------> owner
 *     |                     ^ truncates
 *     |      requests       |             state_done
 *     +---------------> state thread ------------------> owner
 *                            |           spent
 *                            +-------------------------> owner
 *
 * Every arrow is a bounded single-producer single-consumer ring, and what travels the lower three is one
 * struct store_item, from the request to its event. The owner counts the events it is owed, so that a done
 * ring cannot be full.
 */
#ifndef COX_STORE_INTERNAL_H
#define COX_STORE_INTERNAL_H

#include "backup.h"
#include "blobs.h"
#include "data_dir.h"
#include "index_sqlite.h"
#include "log_sqlite.h"
#include "state_sqlite.h"
#include "thread.h"

#include "cox/base/ring.h"
#include "cox/limits.h"

#define STORE_BATCHES_MAX 1024u              /* log batches waiting */
#define STORE_BATCH_BYTES_MAX (256u << 20)   /* in all log batches waiting; one alone may be longer */
#define STORE_REQUESTS_MAX 65536u            /* state requests waiting */
#define STORE_REQUEST_BYTES_MAX (256u << 20) /* likewise */
#define STORE_BLOB_LEN_MAX 960000000u        /* of one: SQLite takes 10^9 bytes a row */
#define STORE_EVENTS_MAX 65536u              /* events owed to the owner */
#define STORE_READS_MAX 1024u                /* of which reads, whose answers carry bytes */
#define STORE_READ_BYTES_MAX (256u << 20)    /* in answers not yet polled, before further reads are refused */
#define STORE_TRUNCATES_MAX 16u
#define STORE_SPENT_MAX 8192u     /* requests done that the owner may free */
#define STORE_SPENT_LEN_MAX 2048u /* of one; longer ones are freed where they are */
#define STORE_UNOWNED_MS (24 * 3600 * 1000LL)

struct store_batch {
    uint64_t first_seq;
    uint32_t n;
    struct cox_buf records;
};

struct store_item {
    struct cox_store_request req;
    enum cox_err answer;
};

struct cox_store {
    struct cox_store_config config; /* the strings are copies */
    struct store_identity identity;
    struct store_data_dir dir;
    struct store_log log;
    struct store_state state;
    struct store_index index;
    struct store_blobs blobs;
    _Atomic int64_t retention_ms; /* 0: for ever */
    int64_t unowned_ms;           /* what nobody owns is kept this long */
    bool recovered;

    /* the owner's */
    uint64_t appended_seq;
    size_t events_owed;
    size_t reads_owed;
    size_t truncates_owed;

    struct store_thread log_thread;
    struct store_thread state_thread;
    struct cox_ring *batches;
    struct cox_ring *requests;
    struct cox_ring *truncates;
    struct cox_ring *log_done;
    struct cox_ring *state_done;
    struct cox_ring *spent;       /* freed by who allocated it: else two threads fight for one heap's lock */
    _Atomic size_t batch_bytes;   /* in batches */
    _Atomic size_t request_bytes; /* in requests */
    _Atomic size_t read_bytes;    /* in state_done */

    _Atomic uint64_t durable_seq;
    _Atomic uint64_t awaited_seq; /* the state thread sleeps until this is durable; 0: it does not */
    _Atomic bool dead;            /* a commit failed: nothing is acknowledged any more */

    _Atomic bool backup_logged; /* the log's copy is over: the state thread may cut it again */

    /* written by the log thread */
    _Atomic uint64_t dropped_seq; /* the log no longer has it, whatever happens */
    _Atomic uint64_t commits;
    _Atomic uint64_t records;
    _Atomic uint64_t log_bytes;
    _Atomic uint64_t commit_ns_total;

    /* written by the state thread */
    _Atomic uint64_t n_archived;
    _Atomic uint64_t n_swept;
};

/* cox_store_open, as tests need it. */
COX_MUST_CHECK enum cox_err store_open_tuned(const struct cox_store_config *config,
                                             const struct store_tuning *tuning, struct cox_store **ret,
                                             struct cox_buf *error);

/* Its event carries bytes. */
static inline bool store_op_reads(enum cox_store_op op)
{
    return op == COX_STORE_READ_ARCHIVE || op == COX_STORE_READ_PAYLOAD || op == COX_STORE_READ_ENTITY ||
           op == COX_STORE_LIST || op == COX_STORE_BACKUP;
}
/* The state thread answers it after its transaction. */
static inline bool store_op_answers(enum cox_store_op op)
{
    return store_op_reads(op) || op == COX_STORE_ARCHIVE || op == COX_STORE_DELETE || op == COX_STORE_SWEEP;
}

/* Nobody waits for it: it may wait for others to share its transaction with. */
static inline bool store_op_patient(enum cox_store_op op)
{
    return op == COX_STORE_SAVE || op == COX_STORE_FORGET || op == COX_STORE_ARCHIVE ||
           op == COX_STORE_PUT_PAYLOAD || op == COX_STORE_INDEX || op == COX_STORE_ASIDE;
}

/* What a request weighs in a ring. */
static inline size_t store_item_weight(const struct store_item *item)
{
    return sizeof(*item) + item->req.bytes.len;
}
void store_item_destroy(struct store_item *item); /* NULL is allowed */
void store_batch_destroy(struct store_batch *b);  /* NULL is allowed */

/* The threads' bodies; `arg` is the store. */
void *store_log_main(void *arg);
void *store_state_main(void *arg);

/* state_work.c: one request other than TRUNCATE, inside a transaction; and, outside of one, a bounded piece
 * of making the index again, if that is due. Errors are the databases'. */
COX_MUST_CHECK enum cox_err store_state_work(struct cox_store *s, struct store_item *item,
                                             struct cox_buf *error);
COX_MUST_CHECK enum cox_err store_state_rebuild(struct cox_store *s, struct cox_buf *error);

/* Ends the store's life after an error in one of its threads: tells the program, once. */
void store_die(struct cox_store *s, const char *what);
static inline bool store_is_dead(const struct cox_store *s)
{
    return atomic_load_explicit(&s->dead, memory_order_acquire);
}
static inline void store_wake_owner(const struct cox_store *s)
{
    if (s->config.wake)
        s->config.wake(s->config.user);
}

#endif
