/* Durable storage behind one asynchronous, pipelined interface.
 *
 * Two kinds of data: the LOG, which makes records durable in order, and the STATE, which holds checkpointed
 * entities, payloads and the archive of finished tasks. The owner (the engine's thread) never blocks: it
 * hands buffers over and polls for completions. Everything handed over is taken (moved) by the store.
 *
 *   append ->  log thread: all batches waiting become one blob row, one commit -> durable_seq rises, wake
 *   save/archive/payload/read/truncate -> state thread: transactions of many, in the order given -> events
 *
 * What was handed to the state thread is visible to reads handed over later. State is synced before the log
 * is truncated, so the log always covers what the state may lose in a crash.
 *
 * A failed commit is never retried: the store calls `on_fatal` once, from its own thread, and does nothing
 * more (coxd exits with COX_EXIT_RECOVER and recovers from the log).
 *
 * Thread: one owner thread for every call below, unless said otherwise.
 */
#ifndef COX_STORE_H
#define COX_STORE_H

#include "cox/types.h"

struct cox_store;

struct cox_store_config {
    const char *uri;      /* "sqlite" (needs data_dir) or "memory" (nothing survives the process) */
    const char *data_dir; /* made when missing; locked against a second process */
    uint32_t shard;
    void (*wake)(void *user); /* any thread: durable_seq rose or an event is ready. Must not block. */
    void (*on_fatal)(void *user, const char *what); /* a store thread: must not return to use the store */
    void *user;
};

/* Where an entity belongs. Kinds are the engine's; the store only keeps them apart. */
struct cox_entity_key {
    uint8_t kind;
    uint64_t id;
    uint32_t sub;
};

/* Opens and creates what is missing. On failure `error` says what, where and what to do about it.
 * Errors: COX_ERR_IO, COX_ERR_CORRUPT, COX_ERR_UNAVAILABLE (another process holds it), COX_ERR_INVALID (uri,
 * or a data directory of another shard or a newer version). */
COX_MUST_CHECK enum cox_err cox_store_open(const struct cox_store_config *config, struct cox_store **ret,
                                           struct cox_buf *error);

/* The identity of this data: random, made with the directory. */
uint64_t cox_store_uid(const struct cox_store *s);

/* Recovery, blocking, once, before cox_store_start: every saved entity, then every log batch after the
 * truncation point in order. Callbacks borrow the bytes; a callback's error stops and is returned.
 * ret_last_seq: of the log's last record, or of the truncation point; 0 for new data.
 * Errors: COX_ERR_CORRUPT (a row's checksum, a gap), COX_ERR_IO; `error` names the row. */
struct cox_store_recovery {
    enum cox_err (*entity)(void *user, struct cox_entity_key key, uint64_t applied_seq,
                           struct cox_slice bytes);
    enum cox_err (*batch)(void *user, uint64_t first_seq, uint32_t n, struct cox_slice records);
    void *user;
};
COX_MUST_CHECK enum cox_err cox_store_recover(struct cox_store *s, const struct cox_store_recovery *r,
                                              uint64_t *ret_last_seq, struct cox_buf *error);

/* Starts the threads. */
COX_MUST_CHECK enum cox_err cox_store_start(struct cox_store *s);

/* ---- the log ---- */

/* Appends `n` records with sequence numbers first_seq .. first_seq + n - 1, contiguous with the last append.
 * Moves `records` (left empty). False, and nothing happened, when the ring is full: stop taking input until
 * durable_seq rises. At most 256 MiB waiting, or one batch alone of up to 960 MB. */
COX_MUST_CHECK bool cox_store_append(struct cox_store *s, uint64_t first_seq, uint32_t n,
                                     struct cox_buf *records);
/* Every record up to this one is durable. Any thread; rises only. */
uint64_t cox_store_durable_seq(const struct cox_store *s);
size_t cox_store_append_room(const struct cox_store *s); /* batches that may be appended now */

/* ---- the state: each returns false, with nothing done, when the ring is full ---- */
enum cox_store_op {
    COX_STORE_SAVE,         /* entity: key, seq = applied_seq, bytes */
    COX_STORE_FORGET,       /* entity: key */
    COX_STORE_ARCHIVE,      /* a finished task: id, bytes; event when committed. Replaces an equal id. */
    COX_STORE_PUT_PAYLOAD,  /* hash, bytes; a payload that is there already is left alone */
    COX_STORE_TRUNCATE,     /* seq: sync the state, then drop log rows up to seq; event when done */
    COX_STORE_READ_ARCHIVE, /* id; event with bytes, COX_ERR_NOT_FOUND when absent */
    COX_STORE_READ_PAYLOAD  /* hash; event with bytes */
};

/* `seq`, where it is not 0, is a record that must be durable before the request is committed: the state never
 * runs ahead of the log, or a crash would leave it holding what never happened. It must have been appended.
 */
struct cox_store_request {
    enum cox_store_op op;
    uint64_t ticket; /* comes back in the event */
    struct cox_entity_key key;
    uint64_t id; /* task id */
    uint64_t seq;
    struct cox_hash hash;
    struct cox_buf bytes; /* moved when the call returns true */
};
COX_MUST_CHECK bool cox_store_request(struct cox_store *s, struct cox_store_request *req);

struct cox_store_event { /* for ARCHIVE, TRUNCATE and reads; there is always room for it */
    enum cox_store_op op;
    uint64_t ticket;
    uint64_t id;
    enum cox_err err;
    struct cox_buf bytes; /* the poller's to free */
};
/* Next completion; false when there is none. */
bool cox_store_poll(struct cox_store *s, struct cox_store_event *ret);

/* Numbers for statistics; any thread. */
struct cox_store_stats {
    uint64_t commits;
    uint64_t records;
    uint64_t log_bytes; /* appended since start */
    uint64_t commit_ns_total;
    uint64_t log_file_bytes;
    uint64_t state_file_bytes;
};
void cox_store_stats(const struct cox_store *s, struct cox_store_stats *ret);

/* Commits what was handed over, joins the threads, closes. NULL is allowed. */
void cox_store_close(struct cox_store *s);

#endif
