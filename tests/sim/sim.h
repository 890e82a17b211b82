/* cox-sim: one shard, its workers and its clients, in one thread on a clock that is a number.
 *
 *   clients ── requests ──> coxd (the real engine, a driver of its own) ── batches ──> store (fake)
 *                             │ streams (fake network)                      ── state ──┘
 *                             └──> hosts (the real worker agent) ──> bodies (fake step processes)
 *
 * Everything that happens is an event in one heap; equal times leave in the order of insertion. All chance
 * comes from one generator, so a seed names a history. What must hold is checked by three judges that share
 * no code with the engine: audit.c reads the durable log, verify.c computes what each task must have ended
 * as, and the rest is asserted where it happens. */
#ifndef SIM_H
#define SIM_H

#include "cox/agent.h"
#include "cox/base/alloc.h"
#include "cox/base/arena.h"
#include "cox/base/heap.h"
#include "cox/base/list.h"
#include "cox/base/map.h"
#include "cox/base/rng.h"
#include "cox/engine.h"

#include "plan.h"
#include "scene.h"

#define MS INT64_C(1000000)
#define SECOND (1000 * MS)
#define MINUTE (60 * SECOND)

struct sim;

/* ---------------------------------------------------------------- what happens, by kind */

/* Each kind has a course of chance of its own, so that a history without one kind is otherwise as near to the
 * same as it can be; is counted when it happens; and is turned off by `--without NAME`. Faults (true) stop
 * when it is time to see whether everything recovers. */
#define KIND_TABLE(X)                                                                                        \
    X(CRASH, "crashes", true, "coxd is killed between two turns")                                            \
    X(CRASH_SENDING, "crashes-sending", true, "between two effects of what leaves")                          \
    X(CRASH_TRUNCATING, "crashes-truncating", true, "between the state's sync and the log's cut, or in it")  \
    X(CRASH_RECOVERING, "crashes-recovering", true, "again, right after it came back")                       \
    X(TORN, "torn-commits", true, "a crash leaves the commit under way up to any of its inputs")             \
    X(POWER_CUT, "power-cuts", true, "coxd's machine loses power")                                           \
    X(LOST_WRITE, "lost-writes", true, "that takes writes of the state which were not synced")               \
    X(STOP, "stops", true, "coxd is asked to stop")                                                          \
    X(GAP, "gaps", true, "coxd stands still, and its clock goes on")                                         \
    X(DEATH, "deaths", true, "a worker dies and comes back under its id")                                    \
    X(LOSS, "losses", true, "a worker dies for good")                                                        \
    X(STALL, "stalls", true, "a worker stands still")                                                        \
    X(SLOW, "slow-workers", true, "whose steps take many times as long")                                     \
    X(LEAVE, "leavings", true, "a worker is asked to stop")                                                  \
    X(PARTITION, "partitions", true, "workers are cut off")                                                  \
    X(BREAK, "breaks", true, "a stream breaks, each side learns of it in its time")                          \
    X(CLOCK_JUMP, "clock-jumps", true, "of the wall clock, either way")                                      \
    X(DROP, "drops", true, "an answer to a client is lost")                                                  \
    X(DELAY, "delays", true, "a message takes 30 times as long")                                             \
    X(REPEAT, "repeats", true, "a worker says an old result again")                                          \
    X(REQUEST_TWICE, "repeated-requests", true, "a client's request arrives twice")                          \
    X(OVERTAKEN, "overtakings", true, "a client's request arrives after later ones")                         \
    X(KILLER, "killers", true, "a step takes its worker down")                                               \
    X(UNSAVED, "unsaved-files", true, "a worker cannot save a workspace, or does not try")                   \
    X(FORGOTTEN, "forgotten-items", true, "a worker says nothing of one item of a batch")                    \
    X(CORDON, "cordons", true, "a worker is set aside for a while")                                          \
    X(OLD_RECORD, "older-records", false, "records as earlier versions wrote them")                          \
    X(CUT_READ, "cut-reads", false, "a turn reads a part of what came")                                      \
    X(CHECKPOINT, "checkpoints", false, "and the log is cut")                                                \
    X(SCENE, "scenes", false, "tasks of steps that no slot runs")                                            \
    X(CANCEL, "cancels", false, "of tasks")                                                                  \
    X(WORD, "words", false, "to tasks that did not need them")                                               \
    X(REVISION, "revisions", false, "of templates")                                                          \
    X(FORK, "forks", false, "of tasks")                                                                      \
    X(DELETE, "deletions", false, "of ended tasks")                                                          \
    X(SWEEP, "sweeps", false, "that take values which nobody owns")                                          \
    X(UNTIL, "waits-until", false, "a moment that a document names")                                         \
    X(FILES, "workspaces", false, "steps that share files")                                                  \
    X(VERSION, "versions", false, "of programs, that tasks are pinned to")                                   \
    X(BLOB, "blobs", false, "values that are kept beside the log")                                           \
    X(RETRY, "retries", false, "of ended tasks")
#define KIND_ENUM(name, text, fault, what) KIND_##name,
enum kind { KIND_TABLE(KIND_ENUM) KIND_NR };
#undef KIND_ENUM
extern const char *const kind_names[KIND_NR];

bool kind_on(const struct sim *s, enum kind k);  /* in this history at all */
bool kind_now(const struct sim *s, enum kind k); /* and not stopped by now */
/* Does it happen now? Drawn from the kind's own chance, and counted. */
bool befalls(struct sim *s, enum kind k, uint32_t per_mille);
void befell(struct sim *s, enum kind k); /* counts it */

/* ---------------------------------------------------------------- faults to plant */

#define PLANT_TABLE(X)                                                                                       \
    X(NONE, "none", "")                                                                                      \
    X(EARLY, "release-early", "actions leave before their records are durable")                              \
    X(LOSE_BATCH, "lose-batch", "a crash forgets the newest committed batch")                                \
    X(NO_SYNC, "truncate-unsynced", "the log is cut without syncing the state")                              \
    X(CREDIT, "extra-credit", "each credit is counted once more")                                            \
    X(COUNTER, "counter-only", "results are matched by counter, whatever their epoch")                       \
    X(NO_ANSWER, "drop-answers", "one answer of eight is never sent")                                        \
    X(DEAF, "deaf-timers", "after a pause timers fire before what peers said is read")                       \
    X(ASSIGN_TWICE, "assign-twice", "an assignment goes to another worker as well")                          \
    X(SKIP_PAYLOAD, "skip-payload", "one payload of four is not handed to the state")                        \
    X(NO_HOLDS, "forget-holds", "what a worker says it holds is not read")                                   \
    X(EARLY_VIEW, "early-view", "clients see what is not durable yet")                                       \
    X(STALE_PAGE, "stale-page", "a checkpoint says it covers more than it saved")                            \
    X(SLEEPER, "lose-sleepers", "one sleeping task of four is not handed to the state")                      \
    X(WAKE, "forget-wakes", "the state forgets when sleeping tasks wake")                                    \
    X(SIGNAL, "signal-twice", "one signal of eight is given to the engine twice")                            \
    X(LOSERS, "spare-losers", "one stop of four is not passed on to the worker")                             \
    X(MAP_PAGE, "lose-pages", "one page of a map of four is not handed to the state")                        \
    X(ITEM, "swap-items", "two items of one batch of eight have each other's results")                       \
    X(OWNER, "forget-owners", "one fork of two owns nothing of what it was made of")                         \
    X(KEY, "forget-keys", "one idempotency key of eight is not given to the engine")
#define PLANT_ENUM(name, text, what) PLANT_##name,
enum plant { PLANT_TABLE(PLANT_ENUM) PLANT_NR };
#undef PLANT_ENUM

/* ---------------------------------------------------------------- events and trace (world.c) */

struct event {
    struct cox_heap_node node;
    void (*fn)(struct sim *s, struct event *ev);
};
void event_init(struct event *ev, void (*fn)(struct sim *s, struct event *ev));
void event_at(struct sim *s, struct event *ev, int64_t at_ns);   /* sets or moves */
void event_soon(struct sim *s, struct event *ev, int64_t at_ns); /* sets, or moves to an earlier time */
void event_cancel(struct sim *s, struct event *ev);

uint64_t rnd(struct sim *s, uint64_t bound); /* 0 .. bound - 1; bound 0 gives 0 */
bool chance(struct sim *s, uint32_t per_mille);
int64_t between(struct sim *s, int64_t lo, int64_t hi); /* lo .. hi */
int64_t latency(struct sim *s, int64_t typical_ns);     /* around it, with a long tail */

void trace(struct sim *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* `invariant` names what broke in every history alike; `what` says it of this one. main.c */
_Noreturn void sim_broken(struct sim *s, const char *invariant, const char *what);
_Noreturn void fail(struct sim *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const char *ref_text(struct cox_ref ref); /* in a rotating scratch */

/* ---------------------------------------------------------------- store (store.c) */

struct batch {
    uint64_t first_seq;
    uint32_t n;
    struct cox_buf records;
    struct cox_buf inputs; /* u32 each: records before each input that made some */
};

struct row { /* an entity, an archived task or a payload */
    struct cox_entity_key key;
    uint64_t seq;
    struct cox_buf bytes;
};
struct table {
    struct row *rows; /* by key */
    size_t n, cap;
};
#define ROW_ARCHIVE 100 /* seq: of which root it is */
#define ROW_PAYLOAD 101 /* seq: when it came, or was asked for again; virtual ms */
#define ROW_OWNER 102   /* id: a root; bytes: the key of what it owns */
#define ROW_DELETED 103 /* id: a root that the log may bring back */

enum reader { READER_VALUE, READER_CLIENT, READER_LOAD, READER_FETCH, READER_PART };
struct state_op {
    struct cox_list node;
    enum cox_store_op op;
    enum reader reader; /* of a read: who asked */
    uint64_t ticket;
    struct cox_entity_key key;
    uint64_t seq;
    cox_task_id root, from; /* PUT_PAYLOAD: whose it is; all that this one owns is, too */
    struct cox_buf bytes;
    enum cox_err err; /* of a read */
};

struct store {
    struct batch *log; /* every batch since the beginning: nothing is forgotten here */
    size_t n, cap;
    size_t n_durable;    /* log[0 .. n_durable) survived */
    size_t n_committing; /* log[n_durable .. n_committing) are in the commit under way */
    uint64_t durable_seq;
    uint64_t cut_seq;  /* what a recovery reads begins after this */
    bool dies_cutting; /* a crash comes before the cut that it has just synced the state for */
    struct event commit;
    struct table live; /* what reads see */
    struct table disk; /* what no crash undoes */
    struct cox_list since_sync;
    struct cox_list queue;
    size_t n_queue;
    struct event work, sweep;
    struct cox_list done; /* completions for coxd */
};
void store_init(struct sim *s);
void store_blob(struct sim *s, const struct cox_hash *hash, struct cox_slice bytes); /* durable at once */
void store_delete(struct sim *s, cox_task_id root); /* an ended task: durable at once */
void store_fini(struct sim *s);
bool store_append(struct sim *s, uint64_t first_seq, uint32_t n, struct cox_buf *records,
                  struct cox_buf *inputs);
size_t store_room(const struct sim *s);
bool store_request(struct sim *s, struct state_op *op); /* takes it when true */
struct state_op *store_poll(struct sim *s);             /* the caller frees it */
void state_op_free(struct state_op *op);
void store_crash(struct sim *s, bool power_cut);
void save_log(struct sim *s); /* when it was asked for, and ends the program (save.c) */
enum cox_err store_recover(struct sim *s, struct cox_engine *e);
enum cox_err store_replay_all(struct sim *s, struct cox_engine *e, size_t n_batches);
struct cox_entity_key payload_key(const struct cox_hash *hash);
struct cox_hash payload_hash(struct cox_slice bytes);
bool store_waits(const struct sim *s,
                 struct cox_entity_key key); /* it was handed over, and is not there yet */
const struct row *store_row(const struct sim *s, struct cox_entity_key key); /* NULL: not there */

/* What an earlier version would have written, where it had words for it (older.c). */
void older_records(struct sim *s, struct cox_buf *records);
void older_entity(struct sim *s, uint8_t kind, struct cox_buf *bytes);

/* ---------------------------------------------------------------- network (net.c) */

enum item_kind { /* in the order in which a message is read */
                 ITEM_HELLO,
                 ITEM_BEAT,
                 ITEM_STARTED,
                 ITEM_RESULT,
                 ITEM_RETURNED,
                 ITEM_CREDIT,
                 ITEM_DRAINING,
                 ITEM_WELCOME,
                 ITEM_ANSWER,
                 ITEM_CANCEL,
                 ITEM_ASSIGN,
                 ITEM_DRAIN,
                 ITEM_RECONNECT,
                 ITEM_END, /* the stream is over; superseded: number 1 */
                 ITEM_SUBMIT,
                 ITEM_STOP,
                 ITEM_GET,
                 ITEM_WATCH,
                 ITEM_DELETE,
                 ITEM_WORD,    /* number: the job; ref.step: which */
                 ITEM_OPERATOR /* number: which */
};
struct item {
    enum item_kind kind;
    struct cox_ref ref;
    uint64_t number; /* CREDIT: granted, WELCOME and HELLO: shard_uid, ANSWER: kind, requests: the job */
    struct cox_agent_result result;
    struct cox_agent_assign assign;
    const struct cox_ref *holds;
    size_t n_holds;
};
struct message {
    struct cox_list node;
    bool in_inbox;
    int64_t due_ns;
    struct stream *stream; /* NULL: from a client */
    uint64_t sent;         /* counts messages as they are sent */
    struct cox_arena arena;
    struct item *items;
    size_t n, cap;
};
struct message *message_new(void);
void message_free(struct message *m);
struct item *message_add(struct message *m, enum item_kind kind);
struct cox_slice message_keep(struct message *m, struct cox_slice s);
struct cox_agent_result message_keep_result(struct message *m, const struct cox_agent_result *r);

struct stream {
    struct cox_list node; /* sim's */
    struct host *host;
    uint32_t boot; /* of the host that dialled it */
    struct cox_list up, down;
    struct event up_ev, down_ev, open_ev, host_end, coxd_end;
    bool open, broken;
    bool host_over; /* the agent was told */
    bool coxd_over; /* coxd dropped it */
    /* coxd's side */
    uint32_t session; /* 0: no message read yet */
    bool attached, dead;
    uint32_t n_inbox; /* messages in coxd's */
    int64_t heard_ns, attached_ns;
    struct message *out;
};
struct stream *stream_dial(struct sim *s, struct host *h);
void stream_send_up(struct sim *s, struct stream *st, struct message *m);
void stream_send_down(struct sim *s, struct stream *st, struct message *m);
/* Cuts it now; each side notices after its delay (INT64_MAX: never by itself). */
void stream_break(struct sim *s, struct stream *st, int64_t host_delay_ns, int64_t coxd_delay_ns);
void stream_hang_up(struct sim *s, struct stream *st); /* by the host, after what it has sent */
void stream_free(struct stream *st);
void streams_free(struct sim *s);

/* ---------------------------------------------------------------- hosts (host.c) */

struct body {
    struct event end;
    struct host *host;
    uint32_t slot;
    struct cox_ref ref;
    int64_t started_ns;
    bool killed, calls_model;
    struct sim_files *files; /* of a shared workspace; NULL: in none */
    struct outcome outcome;  /* of a batch: its end is that of the last item */
    struct outcome *items;   /* of a batch */
    uint32_t *indexes;
    size_t n_items;
};
struct host {
    uint32_t index;
    char id[16];
    char boot_id[24];
    uint32_t boot;       /* counts starts */
    uint32_t known_to;   /* the last incarnation of coxd that it attached to */
    uint32_t known_boot; /* as which */
    bool up, gone;       /* gone: never comes back */
    int64_t paused_until_ns;
    int64_t cut_off_until_ns; /* partitioned */
    uint32_t slots;
    struct cox_resources resources;
    uint32_t zone;   /* label */
    bool uncordoned; /* for good */
    uint32_t n_handlers;
    struct cox_agent *agent;
    struct cox_agent_actions actions;
    struct stream *stream;
    struct body **bodies;  /* by slot */
    struct cox_list files; /* struct sim_files: directories of shared workspaces */
    bool slow;
    struct event turn, boot_ev;
    struct cox_list said; /* results sent before, for the adversary */
    size_t n_said;
};
void hosts_init(struct sim *s);
void hosts_fini(struct sim *s);
void host_boot(struct sim *s, struct host *h);
void host_die(struct sim *s, struct host *h);
void host_shutdown(struct sim *s, struct host *h); /* SIGTERM */
void host_input(struct sim *s, struct host *h, struct cox_agent_input *in);
void files_begin(struct sim *s, struct body *b, const struct cox_agent_assign *as); /* files.c */
void files_end(struct sim *s, struct body *b, struct cox_agent_result *r, struct cox_hash *pack);
void files_lose(struct host *h);
bool host_holds(const struct host *h, struct cox_ref ref); /* runs it now */
const char *host_version(const struct sim *s, const struct host *h,
                         struct cox_slice handler); /* "": unsaid */
bool hosts_settled(const struct sim *s);            /* no result unanswered */

/* ---------------------------------------------------------------- coxd (coxd.c, session.c, evaluate.c,
 * answer.c) */

struct turn {
    struct cox_list node;
    struct cox_effects fx;
    size_t next_action;
};
struct coxd {
    bool up, listening, leaving;
    uint32_t incarnation;
    int64_t paused_until_ns;
    struct cox_engine *engine;
    struct turn *cur;
    struct cox_buf inputs; /* of the turn, as in its batch */
    struct cox_list turns, pool;
    struct event turn_ev, boot_ev;
    struct cox_list inbox; /* messages that arrived */
    struct cox_list works, done, fetching;
    size_t n_works;
    struct event compile;
    struct cox_list holds;
    int64_t wake_ns, last_turn_ns, last_event_ns, settle_until_ns;
    int64_t wall_ms;
    bool state_full, log_full;
    enum { CHECKPOINT_NONE, CHECKPOINT_SAVING, CHECKPOINT_CUTTING } checkpoint;
    size_t log_len;
    uint32_t last_session;
    int64_t recovered_ns;
    uint64_t epoch_seq;
    uint64_t next_fetch;
    struct event crash_ev;    /* of one that has just come back */
    const struct item *hello; /* being read */
    bool hello_reboots;       /* of a process that this coxd knew by another boot_id */
    uint32_t crash_in;        /* crashes after so many effects have left; 0: does not */
};
void coxd_init(struct sim *s);
void coxd_fini(struct sim *s);
void coxd_boot(struct sim *s);
void coxd_crash(struct sim *s, bool power_cut);
void coxd_leave(struct sim *s); /* SIGTERM */
void coxd_poke(struct sim *s);
void coxd_step(struct sim *s, struct cox_input *in);
bool coxd_settled(const struct sim *s); /* all that was decided is durable and has left */
void coxd_check_hashes(struct sim *s);

void session_receive(struct sim *s, struct message *m);
void session_act(struct sim *s, const struct cox_action *a);
void session_flush(struct sim *s);
void session_reconnect_all(struct sim *s);
struct stream *session_find(struct sim *s, uint32_t session);

struct work { /* of the compile thread */
    struct cox_list node;
    void (*done)(struct sim *s, struct work *w);
    void (*drop)(struct work *w);
};
void works_init(struct sim *s);
void work_submit(struct sim *s, struct work *w);
void works_drain(struct sim *s);
void works_drop(struct sim *s);
void evaluate_start(struct sim *s, const struct cox_act_evaluate *act);
void evaluate_fetched(struct sim *s, struct state_op *op);
void compile_start(struct sim *s, const struct cox_act_compile *act);
void compose_start(struct sim *s, const struct cox_act_compose *act);
void fetch_start(struct sim *s, uint64_t ticket, const struct cox_hash *hash);
void load_start(struct sim *s, struct cox_entity_key sleeper);
void answer_read(struct sim *s, struct state_op *op);
struct cox_payload value_kept(struct sim *s,
                              struct cox_slice json); /* as the compile thread keeps it: by size */

/* ---------------------------------------------------------------- clients (client.c) */

enum job_state { JOB_NEW, JOB_ASKING, JOB_ACKED, JOB_REFUSED, JOB_UNKNOWN, JOB_OVER };
struct job {
    struct plan plan;
    uint32_t index;
    struct cox_buf document, image;
    struct cox_hash hash;
    char key[24]; /* "": none */
    enum job_state state;
    cox_task_id task;
    enum cox_task_status seen; /* final, by a read */
    bool cancel_sent, cancel_answered, wants_cancel, watched;
    struct job *from; /* it is a fork of that one */
    cox_task_id forked_from;
    uint32_t n_words; /* said and not yet answered, by this incarnation of coxd */
    uint32_t n_retries, n_forks, n_said;
    int64_t retried_ns;
    struct event word;
    bool asking, stopping, reading; /* a request is out */
    struct event submit, cancel, read;
    struct event submit_lost, cancel_lost, read_lost; /* answers that do not come */
};
enum op { OP_SUBMIT, OP_CANCEL, OP_WORD, OP_FORK, OP_NR }; /* in a request's number: job * OP_NR + op */
static inline uint64_t request_number(const struct job *j, enum op op)
{
    return (uint64_t)j->index * OP_NR + op;
}
struct job *client_fork(struct sim *s, struct job *from); /* NULL: no more room for one */
void clients_init(struct sim *s);
void clients_fini(struct sim *s);
void client_send(struct sim *s, struct message *m);        /* it arrives, perhaps late or twice */
void client_request(struct sim *s, const struct item *it); /* coxd reads a request */
void client_reply(struct sim *s, const struct cox_act_reply *r);
void client_holds_release(struct sim *s, uint64_t durable_seq);
void client_archived(struct sim *s, const struct state_op *op);
void clients_coxd_gone(struct sim *s);
bool clients_settled(const struct sim *s);

/* What operators keep, and do to workers (operator.c). */
struct operator_doc {
    char *text;
    bool kept; /* said so by an answer */
};
struct operator
{
    bool on;
    struct operator_doc templates[SCENE_TEMPLATES];
    struct job scheduled; /* what the schedule makes */
    char *schedule_text;
    bool schedule_known, schedule_gone;
    struct event ev;
};
void operator_init(struct sim *s);
void operator_fini(struct sim *s);
bool operator_reply(struct sim *s, const struct cox_act_reply *r); /* false: it is not for it */
void operator_request(struct sim *s, uint64_t what);               /* coxd reads a request */
bool operator_has_templates(const struct sim *s);
/* A client misses one: a deletion may have been done late, and the word of it lost. */
void operator_doubt(struct sim *s);
bool operator_settled(const struct sim *s);

/* Words to tasks (word.c). */
void word_begin(struct sim *s, struct job *j); /* it is known */
void word_init(struct job *j);
void word_request(struct sim *s, struct job *j); /* coxd reads one */
void word_reply(struct sim *s, struct job *j, const struct cox_act_reply *r);
void word_archived(struct sim *s, struct job *j, struct cox_slice bytes, enum cox_task_status status);

/* ---------------------------------------------------------------- judges (audit.c, audit_scene.c, verify.c)
 */

struct audit_attempt {
    uint32_t number;
    uint8_t status, code; /* of an attempt that its worker did not have: LOST and NONE */
    bool in_fallback;
};
struct audit_batch { /* items of a map that are with a worker */
    struct cox_token token;
    uint32_t worker, first, n;
};
struct audit_signal {
    uint32_t name;
    uint64_t value;
    bool taken;
};
struct audit_step {
    uint8_t status; /* enum cox_step_status */
    bool in_fallback;
    bool told;       /* a word, or the end of its race, has stopped it */
    bool continuing; /* WAITING for the steps it asked for */
    int64_t wake_wall_ms;
    uint8_t *items; /* of a map that has begun */
    uint32_t n_items, n_batches, cap_batches;
    struct audit_batch *batches;
    struct cox_token token; /* of the last assignment */
    uint32_t worker;
    int64_t ready_wall_ms; /* no attempt before */
    uint32_t n_attempts;   /* given */
    uint32_t n, cap;       /* ended: returned ones are not among them */
    struct audit_attempt *attempts;
};
struct audit_task {
    cox_task_id id;
    struct job *job;
    struct audit_task *root, *parent; /* root: itself; parent: NULL unless it is a frame */
    uint32_t parent_step;
    uint64_t parent_item;
    uint32_t first, n_members; /* of the image */
    const char **pins;         /* of an image's owner, by class: host_version; NULL: none yet */
    bool paused, asleep, forked, revived, outputs_failed;
    int64_t revived_wall_ms;
    struct audit_signal *signals; /* of a root, by number - 1 */
    uint32_t n_signals;
    struct cox_image image;
    struct audit_step *steps;
    int64_t created_wall_ms, accepted_wall_ms; /* created: or run again */
    bool stopping, late;                       /* late: stopped by its deadline */
    bool finished, archived, key_expired, deleted;
    enum cox_task_status status;
    uint64_t n_calls, tokens, cost_micros; /* of a root: of model calls, in the log */
};
struct audit {
    uint64_t seq, epoch;
    int64_t wall_ms; /* the latest that the engine was told */
    struct cox_token last_token;
    struct cox_map64 tasks;
    struct audit_task **list;
    size_t n, cap;
    struct cox_buf names;    /* struct host * by worker ref */
    struct cox_mapb results; /* by ref: what workers said */
    uint64_t n_ended, n_lost;
    struct cox_map64 charges; /* by token: audit_usage.c */
};
void audit_batch(struct sim *s, const struct batch *b);    /* it is durable */
void audit_watch(struct sim *s, struct cox_slice records); /* it was just decided */
void audit_result(struct sim *s, struct cox_ref ref, const struct cox_agent_result *r);
void audit_action(struct sim *s, const struct cox_action *a); /* it leaves */
void audit_fini(struct sim *s);
struct audit_task *audit_task(const struct sim *s, cox_task_id id);
void verify_usage(struct sim *s, const struct audit_task *at, const struct cox_task *t);
struct cox_usage sim_usage(struct cox_token token); /* what the call of this attempt uses */
void verify_all(struct sim *s);
void verify_root(struct sim *s, const struct audit_task *root); /* it is about to be deleted */
json_t *verify_value(struct sim *s, const struct audit_task *at,
                     const struct cox_payload *p); /* new reference */
void verify_scene(struct sim *s, const struct audit_task *at, const struct cox_task *t);

/* ---------------------------------------------------------------- faults (faults.c) */

void faults_draw(struct sim *s);
void faults_init(struct sim *s);
void faults_fini(struct sim *s);

/* ---------------------------------------------------------------- the run */

struct options { /* 0 or -1: drawn from the seed */
    uint64_t seed;
    uint32_t n_hosts, n_jobs, n_steps_max;
    bool faults, trace_all, check_each;
    uint64_t without;      /* bit 1 << enum kind: does not happen */
    uint64_t skip[4];      /* these tasks are never submitted, as bits */
    uint64_t faults_until; /* events; faults stop then, if not earlier. 0: no such end */
    uint64_t events_max;   /* gives up then, with exit 3. 0: does not */
    const char *save_log;  /* after crash number save_crash; NULL: no */
    uint64_t save_crash;
    uint64_t salt; /* another course of all that is not drawn beforehand */
    enum plant plant;
};
/* The options that ask for exactly this. */
void options_text(const struct options *o, struct cox_buf *ret);
/* Looks for a smaller history that breaks the same invariant (shorten.c); options_text of `o` must break it.
 * Returns its events, and how many histories it took. */
uint64_t shorten(struct options *o, const char *invariant, uint64_t events, uint32_t *ret_n_tried);
/* clang-format off */
#define COUNTS_TABLE(X)                                                                                      \
    X(tasks) X(attempts) X(events) X(steps) X(turns) X(batches) X(messages) X(lost_messages) X(crashes)      \
    X(breaks) X(deaths) X(adopted) X(duplicates) X(calls) X(evaluations) X(checkpoints) X(hash_checks) X(compiles)     \
    X(composes) X(fetches) X(loads) X(frames) X(waits) X(signals) X(continuations) X(maps) X(batches_given)   \
    X(pauses) X(sleeps) X(retries) X(forks) X(scheduled) X(reboots) X(reordered)
/* clang-format on */
#define COUNTS_FIELD(name) uint64_t name;
struct counts {
    COUNTS_TABLE(COUNTS_FIELD)
    uint64_t kinds[KIND_NR];
};
#undef COUNTS_FIELD
struct config {
    uint32_t mean_ms[KIND_NR]; /* of faults that come by themselves: mean time between; 0: never */
    int64_t load_ns;           /* clients begin within this */
    int64_t fault_ns;          /* faults stop then */
    int64_t net_ns, commit_ns, state_ns, compile_ns;
    uint32_t ring; /* batches, and requests / 8 */
    size_t checkpoint_len, checkpoint_slice;
    uint32_t adversary; /* per mille of messages that carry an old result again */
    uint32_t read_cut;  /* per mille of turns that read only a part */
    uint32_t live_steps_max;
    uint32_t scenes;     /* per mille of tasks */
    bool versions;       /* workers say what version their programs are */
    uint64_t logged_max; /* values above are blobs */
    bool older_records;  /* some records are written as earlier versions did */
};
struct sim {
    struct options opt;
    struct config cfg;
    struct counts n;
    struct cox_rng rng;            /* of what has no kind */
    struct cox_rng kinds[KIND_NR]; /* of what has */
    struct cox_rng *chance;        /* one of these: the course that is drawn from now */
    int64_t now_ns;
    int64_t wall_offset_ms;
    bool healed;
    struct cox_heap events;
    struct store store;
    struct cox_list streams;
    struct host *hosts;
    uint32_t n_hosts;
    struct coxd coxd;
    struct job *jobs;
    uint32_t n_jobs, cap_jobs; /* forks come behind the others */
    struct cox_list letters;   /* requests that are on their way */
    struct operator operator;
    struct audit audit;
    struct fault *faults;
    size_t n_faults;
    uint64_t n_sent, last_heard; /* messages to coxd: sent, and the newest that arrived */
    uint64_t trace_hash;
    char (*lines)[256];
    uint64_t n_lines;
};
#define TRACE_LINES 256
#define STEPS_DEFAULT 1500
#define SHARD_UID 0x5eed5eed5eedULL

extern struct sim *sim_current; /* what a signal handler tells the story of */

/* Runs one history; returns its trace hash. A broken invariant ends the process with 1. */
uint64_t sim_run(const struct options *opt, struct counts *total, int64_t *ret_virtual_ms);

#endif
