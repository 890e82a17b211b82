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

#include "cox/task.h" /* cox_label */

struct cox_store;

struct cox_store_config {
    const char *uri;      /* "sqlite" (needs data_dir) or "memory" (nothing survives the process) */
    const char *data_dir; /* made when missing; locked against a second process */
    uint32_t shard;
    int64_t retention_ms;     /* finished tasks are kept this long; 0: for ever */
    uint64_t min_free;        /* bytes; blobs are refused below it */
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
struct cox_store_quarantined {
    uint64_t root;
    struct cox_slice why;
    bool unread;   /* it was quarantined while it was */
    bool archived; /* there is a row of it in the archive */
    bool deleted;  /* but the log may still have its records */
};
struct cox_store_recovery {
    /* First of all; NULL: nobody asks. */
    void (*quarantined)(void *user, const struct cox_store_quarantined *q);
    enum cox_err (*entity)(void *user, struct cox_entity_key key, uint64_t applied_seq,
                           struct cox_slice bytes);
    /* Before the log's: records that were kept aside and that the log has no more, alone and in order. */
    enum cox_err (*batch)(void *user, uint64_t first_seq, uint32_t n, struct cox_slice records);
    void *user;
};
COX_MUST_CHECK enum cox_err cox_store_recover(struct cox_store *s, const struct cox_store_recovery *r,
                                              uint64_t *ret_last_seq, struct cox_buf *error);

/* Before cox_store_recover: from now on recoveries say that this root is quarantined, until it is lifted, or
 * deleted like an archived task. `why` is for people. */
COX_MUST_CHECK enum cox_err cox_store_quarantine(struct cox_store *s, uint64_t root, const char *why,
                                                 struct cox_buf *error);

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

/* Values (payloads, blobs) are kept by tenant: what is in one space is not there for another, though the
 * bytes be the same. Zeroed: the default tenant's, and of whoever has none. Cost of cox_space_of: a SHA-256,
 * none for the default. */
struct cox_space {
    uint8_t b[32];
};
struct cox_space cox_space_of(struct cox_slice tenant);

/* ---- the state: each returns false, with nothing done, when the ring is full ---- */
enum cox_store_op {
    COX_STORE_SAVE,         /* entity: key, seq = applied_seq, bytes */
    COX_STORE_FORGET,       /* entity: key */
    COX_STORE_ARCHIVE,      /* a finished task: id, bytes; event when committed. Replaces an equal id. */
    COX_STORE_PUT_PAYLOAD,  /* hash, owner (0: kept for ever), bytes (empty: it is a blob); noted as the
                               owner's.  What is there already is left alone. id not 0, and no hash: all that
                               this one owns is noted as the owner's too */
    COX_STORE_TRUNCATE,     /* seq: sync the state, then drop log rows up to seq; event when done */
    COX_STORE_READ_ARCHIVE, /* id; event with bytes, COX_ERR_NOT_FOUND when absent */
    COX_STORE_READ_PAYLOAD, /* hash; event with bytes; a blob too, up to COX_MAP_ITEMS_LEN_MAX */
    COX_STORE_READ_ENTITY,  /* key; event with bytes */
    COX_STORE_DELETE, /* id, an archived task: it, its frames, its payloads' owner, its index row go; event,
                         COX_ERR_NOT_FOUND when absent */
    COX_STORE_INDEX,  /* id, bytes: an encoded cox_index_row; replaces an equal id */
    COX_STORE_LIST,   /* bytes: an encoded cox_index_query; event with an encoded cox_index_page,
                         COX_ERR_UNAVAILABLE while the index is being made again */
    COX_STORE_SWEEP,  /* one slice of it: retention, then payloads and blobs that nobody owns and that are
                         older than 24 h; bytes: u64 of tasks that retention leaves, for they are about
                         to run again; event: `id` is 1 when there is more to do */
    COX_STORE_ASIDE,  /* owner: a quarantined root. key.kind not 0: moves this entity out of recovery's sight;
                         else keeps a record: seq, bytes. Both come back when the quarantine is lifted */
    COX_STORE_BACKUP  /* makes DIR/backup: a consistent copy of state, blobs and log; event with its path,
                         `id` is the last record in it. Not synced: read it, then remove it by
                         cox_store_backup_remove. COX_ERR_UNAVAILABLE while another is made, COX_ERR_FULL */
};

/* ---- the index behind ListTasks: roots only, newest first; rebuilt from the archive when found damaged ----
 */
struct cox_index_row {
    uint64_t id;
    uint8_t status; /* enum cox_task_status; PENDING stands for every status of a live task */
    int64_t created_wall_ms, finished_wall_ms;
    struct cox_slice name, tenant;
    const struct cox_label *labels;
    size_t n_labels;
};
void cox_index_row_encode(struct cox_buf *b, const struct cox_index_row *row);
/* The row borrows from `bytes`, and its labels live in the caller's COX_LABELS_MAX. Errors: COX_ERR_CORRUPT.
 */
COX_MUST_CHECK enum cox_err cox_index_row_decode(struct cox_slice bytes, struct cox_index_row *ret,
                                                 struct cox_label *labels);
struct cox_index_query {
    uint32_t statuses;              /* bit 1u << enum cox_task_status; 0: all; live tasks count as PENDING */
    const struct cox_label *labels; /* all of these */
    size_t n_labels;
    struct cox_slice tenant;   /* empty: all */
    int64_t created_after_ms;  /* at or after; 0: no bound. Ids are taken to rise with time */
    int64_t created_before_ms; /* 0: no bound */
    uint64_t before_id;        /* older than this; 0: from the newest */
    uint32_t limit;
};
void cox_index_query_encode(struct cox_buf *b, const struct cox_index_query *q);
COX_MUST_CHECK enum cox_err cox_index_query_decode(struct cox_slice bytes, struct cox_index_query *ret,
                                                   struct cox_label *labels);
struct cox_index_page { /* rows borrow from the event's bytes */
    struct cox_reader in;
    uint32_t n; /* may be fewer than asked for though there are more: a query does a bounded amount of work */
    bool more;
    uint64_t as_of_seq; /* the request's `seq`: what was handed over before it is in the answer */
    uint64_t before_id; /* more: go on with this */
};
COX_MUST_CHECK enum cox_err cox_index_page_open(struct cox_slice bytes, struct cox_index_page *ret);
/* Labels live until the next call; the caller gives room for COX_LABELS_MAX. False at the end. */
bool cox_index_page_next(struct cox_index_page *p, struct cox_index_row *ret, struct cox_label *labels);

/* ---- blobs (space NULL: the default one): values above COX_LOGGED_PAYLOAD_LEN_MAX, bundles, artifacts:
 * synced files named by content ----
 */
struct cox_blob_writer;
/* Any thread. Writes to a temporary file; `done` syncs it and gives it its name if the bytes have the hash.
 * Errors: COX_ERR_INVALID (hash or size differ), COX_ERR_FULL (below min-free), COX_ERR_IO. */
COX_MUST_CHECK enum cox_err cox_blob_create(struct cox_store *s, struct cox_blob_writer **ret);
/* A value of a running task: what min-free keeps is for it. COX_ERR_FULL then says that the disk is. */
COX_MUST_CHECK enum cox_err cox_blob_create_for_task(struct cox_store *s, struct cox_blob_writer **ret);
COX_MUST_CHECK enum cox_err cox_blob_write(struct cox_blob_writer *w, struct cox_slice bytes);
COX_MUST_CHECK enum cox_err cox_blob_done(struct cox_blob_writer *w, const struct cox_space *space,
                                          const struct cox_hash *expected, struct cox_hash *ret_hash,
                                          uint64_t *ret_size); /* frees w */
void cox_blob_abandon(struct cox_blob_writer *w);              /* NULL is allowed */
/* Any thread: up to `len` bytes from `offset`; fewer at the end. COX_ERR_NOT_FOUND. Blobs only, not payloads.
 */
COX_MUST_CHECK enum cox_err cox_blob_read(struct cox_store *s, const struct cox_space *space,
                                          const struct cox_hash *hash, uint64_t offset, size_t len,
                                          struct cox_buf *out);
/* Any thread: is it there, and how long is it? Touches it, so that a sweep leaves it for another 24 h. */
bool cox_blob_known(struct cox_store *s, const struct cox_space *space, const struct cox_hash *hash,
                    uint64_t *ret_size);

void cox_store_backup_remove(struct cox_store *s); /* any thread, after the event */

/* ---- offline: no other process holds the directory ---- */
/* Copies a backup into an empty or new directory. */
COX_MUST_CHECK enum cox_err cox_store_restore(const char *from_dir, const char *to_dir,
                                              struct cox_buf *error);

/* Lets the next recovery take a quarantined task up again. COX_ERR_NOT_FOUND: it is not quarantined. */
COX_MUST_CHECK enum cox_err cox_store_lift(const char *dir, uint64_t root, struct cox_buf *error);

/* Reads everything that recovery does not: archived tasks, payloads, blobs, owners. Blocking; after
 * cox_store_recover, instead of cox_store_start. `problem` gets a sentence for each thing that is wrong. */
struct cox_store_check {
    void (*problem)(void *user, const char *what);
    bool (*task)(void *user, uint64_t id, struct cox_slice bytes); /* whether it can be read */
    /* Where a task's values are, so that a row's name can be held against its bytes; archived tasks have been
     * shown by then. False: not known; then only its checksum is. NULL: of none. */
    bool (*space)(void *user, uint64_t id, struct cox_space *ret);
    void *user;
    uint64_t n_archived, n_payloads, n_blobs, n_owned; /* found */
};
COX_MUST_CHECK enum cox_err cox_store_check(struct cox_store *s, struct cox_store_check *c,
                                            struct cox_buf *error);

/* Bytes free for the data directory, as the file system says; UINT64_MAX for "memory". Any thread. */
uint64_t cox_store_free_bytes(const struct cox_store *s);

/* Other values for what cox_store_config said; from the next sweep and the next blob on. Thread: any. */
void cox_store_keep(struct cox_store *s, int64_t retention_ms, uint64_t min_free);

/* `seq`, where it is not 0, is a record that must be durable before the request is committed: the state never
 * runs ahead of the log, or a crash would leave it holding what never happened. It must have been appended.
 */
struct cox_store_request {
    enum cox_store_op op;
    uint64_t ticket; /* comes back in the event */
    struct cox_entity_key key;
    uint64_t id;    /* task id */
    uint64_t owner; /* PUT_PAYLOAD: task id. ARCHIVE: the root of a frame, else 0 */
    uint64_t seq;
    struct cox_hash hash;
    struct cox_space space; /* the hash's */
    struct cox_buf bytes;   /* moved when the call returns true */
};
COX_MUST_CHECK bool cox_store_request(struct cox_store *s, struct cox_store_request *req);

struct cox_store_event { /* for ARCHIVE, TRUNCATE, reads and what says so; there is always room for it */
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
    uint64_t index_file_bytes;
    uint64_t blob_bytes;
    uint64_t n_archived, n_swept;
};
void cox_store_stats(const struct cox_store *s, struct cox_store_stats *ret);

/* Commits what was handed over, joins the threads, closes. NULL is allowed. */
void cox_store_close(struct cox_store *s);

#endif
