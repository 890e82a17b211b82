/* The engine's state. Private to orchestrator/engine.
 *
 *   struct cox_engine ── tasks ── pages ── steps          durable: changed by apply() only
 *        │                          └ attempt, backoff    derived: rebuilt after replay, never logged
 *        ├── workers ── attempts                          derived, but for names (entity WORKER)
 *        ├── classes ── queues of READY steps             derived
 *        └── keys (idempotency), meta                     durable
 *
 * Entities (task header, step page, key, worker, meta) carry applied_seq: the last record that changed them.
 * apply(entity, record) reads only those two, so each may be checkpointed at its own moment.
 */
#ifndef ENGINE_STATE_H
#define ENGINE_STATE_H

#include "cox/base/alloc.h"
#include "cox/base/heap.h"
#include "cox/base/list.h"
#include "cox/base/map.h"
#include "cox/base/plant.h"
#include "cox/base/pool.h"
#include "cox/base/rng.h"
#include "cox/engine_stats.h"
#include "ledger.h"
#include "record.h"

enum entity_kind { /* values are in state.db */
                   ENTITY_META = 1,
                   ENTITY_WORKER = 2,
                   ENTITY_KEY = 3,
                   ENTITY_TASK = 4,
                   ENTITY_PAGE = 5,
                   ENTITY_MAP_PAGE = 6, /* id: frame; sub: step * COX_MAP_PAGES_MAX + page */
                   ENTITY_SLEEPER = 7,  /* id: task */
                   ENTITY_TEMPLATE = 8, /* id: revision */
                   ENTITY_SCHEDULE = 9  /* id: number */
};
#define COX_MAP_PAGES_MAX ((COX_MAP_ITEMS_MAX + COX_MAP_PAGE_ITEMS - 1) / COX_MAP_PAGE_ITEMS)

struct entity {
    struct cox_list in_dirty; /* engine's dirty or saving list; self-linked when saved */
    uint64_t applied_seq;
    uint64_t id;
    uint32_t sub;
    uint8_t kind;
};

/* One timer of the engine's heap. */
enum timer_kind {
    TIMER_BACKOFF,
    TIMER_ATTEMPT,
    TIMER_DEADLINE,
    TIMER_WORKER,
    TIMER_WAITING, /* struct expansion */
    TIMER_MAP,     /* struct map: an item's backoff is over */
    TIMER_GATE,    /* struct gate: `rate` has room again */
    TIMER_REST,    /* struct cox_task: it has only waited for a while */
    TIMER_SLEEPER, /* struct sleeper */
};
struct timer {
    struct cox_heap_node node;
    enum timer_kind kind;
};

/* An owned payload: NULL pointer is COX_PAYLOAD_NONE. */
struct value {
    struct cox_payload payload; /* INLINE bytes point behind the struct */
};

/* An attempt that is over but not the step's last. */
struct past_attempt {
    uint32_t number;
    uint32_t worker;
    cox_task_id frame; /* its steps were run in it; 0: none */
    int64_t started_wall_ms, finished_wall_ms;
    uint64_t cpu_us;
    char *message;
    int32_t exit_code;
    bool has_exit_code;
    bool fallback;
    uint8_t status;
    uint8_t code;
};
struct history {               /* the newest COX_ATTEMPTS_KEPT */
    uint64_t forgotten_cpu_us; /* of attempts before them */
    uint32_t n;
    uint32_t cap;
    struct past_attempt items[];
};

enum step_flag {
    STEP_OPEN = 1,         /* durable: its condition was found true, or its owner has opened it */
    STEP_IN_FALLBACK = 2,  /* durable: attempts from here on are the fallback's */
    STEP_HAS_EXIT = 4,     /* durable: exit_code is of the last attempt */
    STEP_EVALUATING = 8,   /* derived: an EVALUATE action is out */
    STEP_UNEVALUATED = 16, /* derived: waits in the engine's list for room to evaluate its input */
    STEP_STOPPING = 32,    /* durable: told to stop; ends CANCELLED whatever its attempt says */
    STEP_GATED = 64,       /* derived: waits at a gate */
    STEP_HELD = 128        /* derived: has a struct hold (gate.h): a gate's permit, or a class of its own */
};

/* What a step has while it waits or expands, and what only such steps leave behind (expand/). */
struct expansion {
    /* durable */
    cox_task_id frame;        /* the last one opened; 0: none */
    int64_t wake_wall_ms;     /* WAITING: 0: no time of its own */
    char *detail;             /* WAITING: the signal's name, the prompt */
    uint32_t n_continuations; /* of this try */
    bool continuing;          /* WAITING for the steps that a program asked for */
    struct value *asked;      /* {"steps", "state"}, while continuing */
    struct value *resume;     /* {"state", "steps"}: given with the next call */
    struct value *errors, *artifacts;
    struct value *map_items; /* the list */
    uint32_t map_n_items;
    bool map_begun;
    uint64_t map_seq; /* of the record that began it */
    /* derived */
    struct step *step;
    struct cox_task *child;     /* the live frame */
    struct timer timer;         /* TIMER_WAITING: wake-up, or the time limit */
    bool timed_out;             /* its time limit has passed: what it has begun is being stopped */
    struct cox_list in_waiters; /* WAIT signal: in the root's `waiters` */
    struct cox_buf *asked_bytes, *resume_bytes; /* fetched: of those that are stored */
    struct map *map;                            /* expand/map.h */
    struct agent *agent;                        /* expand/agent.h; durable */
};

struct step {
    /* durable */
    struct cox_token token;  /* of the last attempt; {0,0} before the first and after a withdrawn one */
    int64_t started_wall_ms; /* of the last attempt */
    int64_t finished_wall_ms;
    int64_t ready_wall_ms; /* backoff ends; 0: no backoff */
    uint64_t cpu_us;       /* of the last attempt */
    struct value *output;
    struct files *files;     /* workspace.h; of one that others share; NULL: nobody has begun in them */
    char *message;           /* of the last failure, NULL when none */
    struct history *history; /* earlier attempts, NULL when none */
    uint32_t worker;         /* of the last attempt */
    int32_t exit_code;
    uint32_t n_attempts;    /* given so far; a worker that keeps losing them is not charged: no small bound */
    uint16_t n_tries;       /* of them, charged to the present call's `retry` */
    uint8_t status;         /* enum cox_step_status */
    uint8_t attempt_status; /* enum cox_attempt_status of the last attempt */
    uint8_t code;           /* enum cox_code of the last failure */
    uint8_t n_losses;
    uint8_t flags; /* enum step_flag */
    /* derived */
    uint8_t index;            /* within its page */
    bool waits_for_budget;    /* in_queue is in an account's list: budget.h */
    uint32_t n_waiting;       /* dependencies not final */
    struct cox_list in_queue; /* READY: its class's queue, or the engine's `unevaluated` */
    struct attempt *attempt;  /* while RUNNING */
    struct backoff *backoff;  /* while READY and backing off */
    struct cox_buf *spec;     /* evaluated off-thread: kept until it is assigned */
    struct expansion *x;      /* NULL for plain steps */
    int64_t ready_mono_ns; /* since when it could run but for gates and workers; 0: it cannot, or has begun */
};

/* A word that no step has waited for yet. */
struct signal {
    struct cox_list in_signals; /* by number */
    uint64_t number;
    char *name;
    struct value *payload;
};

struct page {
    struct entity entity;
    struct cox_task *task;
    uint32_t n_steps;
    struct step steps[];
};

struct cox_task {
    struct entity entity; /* id = task id */
    bool has_header;      /* false: a page came before its header (recovery only) */
    /* durable header */
    cox_task_id id;
    char *tenant;
    char *key; /* idempotency key, NULL when none */
    struct cox_hash document;
    uint8_t *image_bytes;
    struct cox_image image;
    enum cox_task_status status;
    enum cox_task_status stopping; /* NONE, or the status it is being stopped into */
    int64_t created_wall_ms, started_wall_ms, finished_wall_ms;
    enum cox_code code; /* the first error */
    char *message;
    uint32_t error_step;
    bool
        gone; /* archived, says the log; kept after replay, since the state may have lost it in a power cut */
    struct value *outputs;
    struct page **pages; /* n_pages, made on first use */
    uint32_t n_pages;
    bool paused;             /* roots */
    struct cox_list signals; /* roots: struct signal */
    uint64_t last_signal;
    uint32_t n_signals;
    char *schedule;          /* its name, NULL: submitted */
    uint64_t *template_pins; /* [cox_image_n_refs]: revision, 0: none; NULL: none at all */
    bool holds_templates;    /* derived: its pins are counted */
    char **version_pins;     /* [n_classes], NULL: none; NULL at all: none */
    /* durable, frames only: a frame is a task under a step, over its own image or a range of its parent's */
    cox_task_id parent_id; /* 0: a root */
    uint32_t parent_step;
    struct cox_token parent_token; /* of the attempt that opened it */
    uint64_t parent_item;          /* UINT64_MAX: none */
    uint32_t first;                /* of the range */
    uint32_t n_steps;              /* in it; of the whole image for others */
    bool own_image;
    struct value *item, *args;
    int64_t revived_wall_ms; /* it ended and runs again since then; 0: never */
    /* derived */
    struct cox_task *parent, *root; /* root: itself for roots */
    struct cox_list frames;         /* roots: all frames under it, in order of creation */
    struct cox_list in_frames;
    struct cox_list waiters; /* roots: expansions that wait for a signal */
    uint32_t depth;
    struct timer rest;   /* roots */
    uint32_t n_children; /* frames whose parent is this */
    uint32_t n_maps;     /* roots: maps of it and its frames whose items are workers' */
    uint32_t n_compiles; /* COMPILE, FETCH, COMPOSE actions out for its steps */
    struct cox_image_task doc;
    struct class **classes; /* by the image's class index */
    struct cox_list in_tasks, in_linking;
    uint32_t link_next;                       /* steps before this one are linked */
    uint32_t n_by_status[COX_STEP_STATUS_NR]; /* NONE counts as BLOCKED */
    uint64_t cpu_us;                          /* of all ended attempts */
    uint32_t n_evaluations;                   /* EVALUATE actions out */
    uint32_t n_watchers;
    bool outputs_evaluating, archived;
    uint8_t counted;             /* roots: enum cox_task_status under which stats count it */
    uint16_t tenant_no;          /* stats.h; 0: not asked yet */
    bool workspaces_known;       /* who owns an image: workspace_owners has been made */
    uint64_t *workspace_owners;  /* bitmap by step: others work in its files; NULL: none */
    uint32_t *workspace_workers; /* roots: refs of workers that hold files of it, each once */
    uint32_t n_workspace_workers;
    struct timer deadline;
    struct cox_map64 *worker_names; /* thawed tasks only: worker ref -> id */
    struct ledger *ledger;          /* durable, NULL: nothing spent */
    uint32_t *after_ms;             /* hint.c; who owns an image: NULL: not asked yet */
};

struct attempt {
    struct cox_task *task;
    struct step *step;
    uint32_t step_index;
    struct cox_token token;
    struct map_page *items_of; /* a batch of a map: of this page; NULL: the step itself */
    uint32_t first, n;         /* its items, by index in the map */
    struct worker *worker;
    struct class *cls;
    struct cox_list in_worker;
    struct cox_list in_unstarted; /* order of assignment, until STARTED */
    int64_t assigned_mono_ns;
    size_t spec_len;     /* counted in the worker's until STARTED */
    struct timer timer;  /* timeout + grace once started; or the limit of a cancel */
    uint32_t holds_mark; /* session that listed it in Hello */
    uint32_t n_gaps;     /* the engine's as it was assigned */
    uint32_t home;       /* of the shared workspace it is in, as it began; 0: in none */
    bool started, cancelling;
    struct reservation call; /* of a model call: budget.h; else zeroes */
    uint64_t output_tokens;  /* it is to be held to so many; 0: to none */
};

struct backoff {
    struct timer timer;
    struct cox_task *task;
    uint32_t step;
};

/* Something asked of the compile thread or the store for a step, by ticket. */
enum asked_kind {
    ASKED_SPEC,
    ASKED_CONDITION,
    ASKED_OUTPUTS, /* step is COX_IMAGE_NONE */
    ASKED_INPUTS,  /* of a sub-task, the time of a wait, a prompt: what begins a WAITING step */
    ASKED_LIST,    /* a map's items */
    ASKED_IMAGE,   /* COMPILE: a frame's image */
    ASKED_OUTPUT,  /* COMPOSE: a map's output */
    ASKED_ITEMS,   /* FETCH: a map's items after recovery */
    ASKED_BATCH,   /* a map's specs that are large */
    ASKED_REQUEST,
    ASKED_TOOLS,
    ASKED_DECISION, /* an agent's */
    ASKED_STEPS     /* FETCH: {"steps", "state"} that is stored */
};
struct evaluation {
    uint64_t ticket;
    struct cox_task *task;
    uint32_t step; /* COX_IMAGE_NONE: outputs */
    enum asked_kind kind;
    struct cox_token token; /* of the step's attempt then */
    uint32_t item;          /* BATCH */
    bool forgotten;         /* its step has gone on without it */
};

/* A task that waits and left memory: its tree is in the state (expand/sleep.c). */
struct sleeper {
    struct entity entity;    /* id: task */
    int64_t wake_wall_ms;    /* 0: only a word wakes it */
    uint32_t n_steps;        /* counted in n_live_steps */
    bool paused, loading;    /* paused: counted in n_asleep_paused */
    char *tenant;            /* of its root */
    uint64_t *template_pins; /* what its tree keeps alive */
    uint32_t n_template_pins;
    bool holds_templates; /* derived: they are counted */
    struct cox_buf bytes; /* before recovered(): to be handed over again */
    struct timer timer;
    struct cox_list inputs; /* words that came meanwhile: struct kept_input */
    uint32_t n_inputs;
};

struct requirement {
    char *label, *value;
    bool negated;
};

#define PRIORITY_BANDS 201 /* -100..100 */
struct band {
    struct cox_list steps;
    int32_t priority;
};
/* By priority, then in order of arrival. */
struct step_queue {
    struct band **bands; /* highest priority first */
    uint32_t n_bands;
    uint32_t n;
};
/* READY steps of a tenant, by what they wait for. */
struct queue_counts {
    uint64_t n_queued, n_concurrency, n_rate, n_running;
};
/* Workers that run steps which keep away from each other. */
struct spread {
    struct cox_slice key; /* owned */
    uint32_t n_users;     /* classes */
    struct cox_map64 n_by_worker;
};
struct class
{
    uint32_t index;       /* bit in worker bitmaps */
    uint32_t n_users;     /* tasks; of a variant: steps in its queue and attempts */
    struct cox_slice key; /* owned */
    char *handler;
    size_t handler_len;
    bool is_program; /* "name@major": it has versions */
    bool is_model;
    struct cox_resources resources;
    struct requirement *requires;
    uint32_t n_requires;
    uint64_t run_us; /* about how long an attempt takes: a moving mean; 0: none has ended */
    struct step_queue queue;
    struct queue_counts *by_tenant; /* [n_by_tenant], by tenant number */
    uint32_t n_by_tenant;
    /* A variant is a class with less choice; handler and requirements are its base's. */
    struct class *base;        /* NULL: no variant */
    struct worker *only;       /* NULL: any */
    struct cox_list in_pinned; /* of `only` */
    char *version;             /* NULL: any */
    struct spread *spread;     /* NULL: wherever */
    uint32_t n_eligible;       /* attached workers that fit */
    struct cox_list in_active; /* engine's active, parked or homeless list while n_ready > 0 */
    struct cox_list in_idle;   /* while no task uses it */
};

struct worker {
    struct entity entity; /* id = ref */
    /* durable */
    uint32_t ref;
    char *id;
    /* derived */
    char *boot_id; /* NULL: not attached since this engine began */
    char *version;
    uint32_t session;        /* 0: disconnected */
    uint32_t session_before; /* the last that was closed: what it brought may still be on its way to here */
    uint32_t slots;
    struct cox_resources resources, used;
    struct cox_label *labels; /* owned copies */
    size_t n_labels;
    struct cox_slice *handlers;
    size_t n_handlers;
    uint64_t granted, taken; /* credit, cumulative on the session */
    bool draining;
    bool inner;                 /* the router: counted and shown nowhere */
    bool cordoned;              /* durable */
    bool gone;                  /* declared lost, and not back since */
    uint8_t counted;            /* stats.h: the state under which it is counted */
    uint16_t zone_no;           /* stats.h: while it is attached */
    struct cox_slice *versions; /* [n_handlers] */
    struct cox_list pinned;     /* classes of which only this worker may take steps */
    cox_task_id *unreleased;    /* tasks whose workspaces it may drop, to be told when it is back */
    uint32_t n_unreleased;
    int64_t last_seen_mono_ns, attached_wall_ms;
    struct cox_list attempts;
    uint32_t n_attempts, n_gaps_seen; /* gaps: the engine's when it was last heard */
    size_t unstarted_len; /* bytes of specs sent and not yet started: the stream's buffers are bounded */
    struct cox_list in_fleet;
    struct cox_list in_available; /* worker_available() */
    struct cox_list in_woken;
    struct timer liveness;
    uint64_t *eligible; /* bitmap by class index */
    size_t n_eligible_words;
};

struct idem_key {
    struct entity entity; /* id = task id */
    char *map_key;        /* tenant, NUL, key */
    size_t map_key_len;
    struct cox_hash document;
    int64_t wall_ms;
    struct cox_list in_keys; /* by age */
};

struct meta {
    struct entity entity;
    uint64_t epoch;
    uint64_t last_task_counter;
    uint32_t last_worker_ref;
    uint64_t last_template, last_schedule;
};

struct tombstone {
    struct cox_list in_tombstones;
    struct cox_entity_key key;
};

struct settled { /* a step that became final: its dependants are to be looked at */
    struct cox_task *task;
    uint32_t step;
};

struct kept_index { /* kept.h */
    struct kept **items;
    uint32_t n, cap;
};

struct cox_engine {
    struct cox_engine_config config;
    uint64_t seq;
    bool live; /* false during load and replay */
    struct cox_now now;
    struct cox_effects *fx; /* of the step in progress */
    struct cox_rng rng;
    struct meta meta;
    uint64_t next_token;

    struct cox_map64 tasks;    /* id -> cox_task */
    struct cox_list task_list; /* by id */
    struct cox_list linking;
    uint64_t n_live_steps;
    struct settled *settled; /* work list of the step in progress */
    size_t n_settled, cap_settled;
    bool settling;

    struct cox_mapb workers_by_id;
    struct worker **workers; /* by ref; index 0 unused */
    size_t n_workers_cap;
    struct cox_map64 sessions; /* session -> worker */
    struct cox_list fleet;     /* workers attached, or holding attempts */
    struct cox_list available; /* of them, those that may be given a step */
    struct cox_list woken;     /* of these, those that have gained room in this step */
    uint64_t n_attached;
    struct worker *router; /* the last inner one to attach, or NULL */
    uint32_t n_gaps;
    uint64_t n_fits; /* times that a class was held against a worker: the cost of new classes */
    int64_t adoption_until_ns, loss_suspended_until_ns;
    int64_t woke_ns, patience_until_ns; /* the end of the last gap, and of the time it gives to workers */

    struct cox_mapb classes_by_key;
    struct class **classes; /* by index, with holes */
    uint32_t n_classes_cap;
    uint32_t class_hint;          /* no index below it is free */
    struct cox_list active;       /* may find a worker */
    struct cox_list parked;       /* fitting workers have no room */
    struct cox_list homeless;     /* no worker fits */
    uint32_t n_unplaced;          /* in this turn: dispatched, and refused instead of assigned */
    struct cox_list idle_classes; /* used by no task, oldest first: the next task may want it */
    uint32_t n_idle_classes;
    struct cox_mapb variants_by_key;
    struct cox_list idle_variants;
    uint32_t n_idle_variants;
    struct cox_mapb spreads;

    struct cox_heap timers;
    struct cox_list unstarted;
    struct attempt *free_attempts; /* pool, linked through `task` */

    struct cox_mapb keys;
    struct cox_list key_list;

    struct cox_pool sleeper_pool, tombstone_pool;
    struct cox_map64 sleepers; /* task -> sleeper */
    uint64_t n_asleep_paused;
    struct cox_map64 templates;          /* revision -> struct template */
    struct kept_index templates_by_name; /* the newest revisions */
    struct cox_list templates_unused;
    struct cox_map64 schedules; /* number -> struct schedule */
    struct kept_index schedules_by_name;
    struct cox_heap schedules_due;        /* struct schedule by wall time */
    int64_t wall_moved_ms, wall_moved_ns; /* the wall clock, and when it last changed */
    uint64_t kept_len;                    /* bytes of templates and schedules */
    struct cox_mapb gates;                /* tenant NUL kind key -> struct gate */
    struct cox_map64 holds;               /* struct step as a number -> struct hold */
    struct cox_list gates_due;            /* may let somebody through */
    struct cox_list budgets_due;          /* struct ledger: steps that wait there may go */
    bool gates_open;                      /* false until recovery has given their permits to all that run */
    struct cox_mapb tenants;              /* name -> number, stats.h */
    char **tenant_names;
    uint32_t n_tenants;
    struct cox_mapb zones; /* name -> number */
    struct zone *zone_list;
    uint32_t n_zones;
    uint64_t map_len_held;
    struct cox_list unequipped; /* struct agent: some tool is offered by no worker */
    struct cox_list map_pages;  /* recovery: pages whose map is not known yet */

    struct cox_map64 evaluations;
    uint64_t next_ticket;
    struct cox_list unevaluated; /* steps whose large inputs wait for room */
    uint32_t n_specs_evaluating;
    size_t spec_len_held;

    struct cox_buf replayed_archives; /* u64 task, u64 root, u32 length, bytes: until recovered() */
    bool misfit;                      /* replay: a record that could not be applied */
    struct cox_buf replayed_payloads; /* u64 root, hash, bytes, tenant: until recovered() */
    struct cox_buf replayed_claims;   /* u64 of a fork, u64 of what it was made from: until recovered() */
    struct cox_buf asleep_rows;       /* sleep.c: until recovered() */
    struct cox_list quarantine;       /* struct quarantined */
    struct cox_map64 quarantined;     /* a root, or a frame of one -> struct quarantined */
    struct cox_buf set_aside;         /* quarantine.c: until recovered() */
    struct cox_list dirty, saving, tombstones, tombstones_saving;
    bool checkpointing;
    uint64_t checkpoint_seq;

    struct cox_engine_stats stats;
};

/* ---- entity.c ---- */
void entity_init(struct entity *en, enum entity_kind kind, uint64_t id, uint32_t sub);
void entity_touch(struct cox_engine *e, struct entity *en, uint64_t seq);
void entity_forget(struct cox_engine *e, struct entity *en); /* unlinks, leaves a tombstone */
void checkpoint_slice(struct cox_engine *e, size_t max_bytes);
void header_encode(struct cox_buf *b, const struct cox_task *t);
void page_encode(struct cox_buf *b, const struct page *p);
void key_encode(struct cox_buf *b, const struct idem_key *k);
void worker_encode(struct cox_buf *b, const struct worker *w);
uint64_t entity_fold(uint64_t hash, const struct entity *en, const struct cox_buf *body);
void meta_encode(struct cox_buf *b, const struct meta *m);
COX_MUST_CHECK enum cox_err header_decode(struct cox_task *t, struct cox_slice bytes);
COX_MUST_CHECK enum cox_err page_decode(struct page *p, struct cox_slice bytes);
void task_freeze(const struct cox_engine *e, const struct cox_task *t, struct cox_buf *out);

/* ---- apply.c: the only writer of durable state ---- */
void apply(struct cox_engine *e, uint64_t seq, const struct record *r);
void attempt_remember(struct step *s);      /* its last attempt into its history, as it ended; once */
bool attempt_is_past(const struct step *s); /* it stands in the history already */
struct cox_slice text_cut(struct cox_slice s, size_t len_max);                   /* UTF-8 stays UTF-8 */
void key_text(struct cox_buf *b, struct cox_slice tenant, struct cox_slice key); /* what a key is found by */
void payload_replayed(struct cox_engine *e, const struct record *r);
/* Encodes, numbers and applies a record. Returns its sequence number. */
uint64_t emit(struct cox_engine *e, const struct record *r);

/* ---- task.c ---- */
void frame_attach(struct cox_engine *e, struct cox_task *t); /* to its parent, when that is known */
uint32_t task_n_members(const struct cox_task *t);           /* steps that run in this frame */
uint32_t page_n_steps(const struct cox_task *t, uint32_t no);
bool task_has_step(const struct cox_task *t, uint32_t step);         /* its page exists */
enum cox_task_status task_shown_status(const struct cox_task *root); /* with WAITING and PAUSED */
void task_begin(struct cox_engine *e, struct cox_task *t);
void task_finish(struct cox_engine *e, struct cox_task *t, const struct record_finished *f);
void task_index(struct cox_engine *e, const struct cox_task *t);
void task_free_words(struct cox_task *t); /* signals, pins, values of a frame */
void task_pin_templates(struct cox_task *t, struct cox_slice pins);
void task_pin_version(struct cox_task *t, uint32_t class_index, struct cox_slice version);
static inline bool task_contains(const struct cox_task *t, uint32_t step)
{
    return step >= t->first && step - t->first < t->n_steps;
}
bool task_is_member(const struct cox_task *t, uint32_t step);
/* The next after `after` of a step's inner steps that run in this frame: alternatives, not a map's body. */
uint32_t task_next_inner(const struct cox_task *t, uint32_t owner, uint32_t after);
/* The frame that runs `step` as expressions of `t` see it: itself, or one it is in. */
const struct cox_task *frame_of(const struct cox_task *t, uint32_t step);
/* A step's owner, not the graph, begins it; it is no failure of the task either. */
static inline bool step_is_inner(const struct cox_task *t, uint32_t step, const struct cox_image_step *doc)
{
    return doc->owner != COX_IMAGE_NONE && step != t->first;
}

bool task_known_key(struct cox_engine *e, const struct cox_in_submit *in); /* true: answered */
bool task_has_room(struct cox_engine *e, const struct cox_image *img);     /* false is counted as a refusal */
void task_refuse_full(struct cox_engine *e, uint64_t request);

/* ---- bundle.c: `name` is "sha256:..." or empty ---- */
void bundle_keep(struct cox_engine *e, cox_task_id root, struct cox_slice name);
void inputs_keep(struct cox_engine *e, cox_task_id root, struct cox_slice json); /* blobs that they name */

/* ---- words.c: what people say to a live task ---- */
void task_pause(struct cox_engine *e, const struct cox_in_task *in, bool pause);
void task_signal(struct cox_engine *e, const struct cox_in_signal *in);
void task_approve(struct cox_engine *e, const struct cox_in_approve *in);
void task_message(struct cox_engine *e, const struct cox_in_message *in);
void task_cancel(struct cox_engine *e, const struct cox_in_cancel *in);
void signal_keep(struct cox_task *root, struct cox_slice name, const struct cox_payload *payload);
void signal_drop(struct cox_task *root, uint64_t number);
const struct signal *signal_find(const struct cox_task *root, struct cox_slice name);
void reply(struct cox_engine *e, uint64_t request, enum cox_err err, const struct cox_task *t,
           const char *message);

struct cox_task *task_create(struct cox_engine *e, cox_task_id id); /* a stub without header */
void task_init_header(struct cox_task *t);                          /* after image_bytes was set */
void task_destroy(struct cox_engine *e, struct cox_task *t);        /* e may be NULL (thawed) */
void task_derive_sums(struct cox_task *t); /* n_by_status and cpu_us from the pages */
uint64_t step_cpu_us(const struct step *s);
struct page *page_create(struct cox_task *t, uint32_t no, uint32_t n_steps);
/* Is there a page that knows of records after `seq`? An older one goes. */
bool page_is_newer(struct cox_engine *e, struct cox_task *t, uint32_t no, uint64_t seq);
struct page *task_page(struct cox_task *t, uint32_t no);         /* made when it is missing */
struct step *task_step(const struct cox_task *t, uint32_t step); /* its page must exist */
struct step *task_step_make(struct cox_task *t, uint32_t step);
enum cox_step_status task_step_status(const struct cox_task *t, uint32_t step);
uint32_t step_index(const struct step *s);
struct page *step_page(const struct step *s);
void task_submit(struct cox_engine *e, const struct cox_in_submit *in);
struct task_made {
    cox_task_id task;
    const char *message, *place; /* as in cox_act_reply */
};
/* A task from in->image; `request` and a known key are the caller's business. `schedule`: who makes it, or
 * empty. Errors: FULL: no room now; INVALID: it names a template that is not there; INTERNAL: a damaged
 * image. */
enum cox_err task_make(struct cox_engine *e, const struct cox_in_submit *in, struct cox_slice schedule,
                       struct task_made *ret);
void task_stop(struct cox_engine *e, struct cox_task *t, enum cox_task_status into, enum cox_code code,
               const char *message);
void task_link(struct cox_engine *e, struct cox_task *t, int64_t *budget);
void task_acquire_classes(struct cox_engine *e, struct cox_task *t, uint32_t step); /* of its calls */
void task_link_some(struct cox_engine *e);
void task_arm_deadline(struct cox_engine *e, struct cox_task *t);
void task_maybe_finish(struct cox_engine *e, struct cox_task *t);
void task_finish_evaluated(struct cox_engine *e, struct cox_task *t, const struct cox_in_evaluated *in);
void task_archive(struct cox_engine *e, struct cox_task *t);
void task_archived(struct cox_engine *e, struct cox_task *t);
/* What it, and what it is in, have used has become more: the archive is told of those that have ended. The
 * last of its calls may have been what kept them. */
void tasks_archive_again(struct cox_engine *e, struct cox_task *t);
void keys_expire(struct cox_engine *e);

/* ---- step.c ---- */
bool step_may_move(enum cox_step_status from, enum cox_step_status to);
void step_move(struct cox_task *t, struct step *s, enum cox_step_status to);
void step_settle(struct cox_engine *e, struct cox_task *t, uint32_t step); /* it became final */
void settle_all(struct cox_engine *e);
void step_consider(struct cox_engine *e, struct cox_task *t, uint32_t step); /* dependencies are final */
bool step_is_closed(const struct cox_task *t, uint32_t step, const struct step *s); /* inner, not opened */
void step_reset(struct cox_task *t, struct step *s); /* as if it had never been tried, but for its history */
void step_again(struct cox_engine *e, struct cox_task *t, uint32_t step); /* READY after an attempt */
void step_cancel(struct cox_engine *e, struct cox_task *t, uint32_t step);
void step_skip(struct cox_engine *e, struct cox_task *t, uint32_t step);
void step_make_ready(struct cox_engine *e, struct cox_task *t, uint32_t step);
void step_place(struct cox_engine *e, struct cox_task *t,
                uint32_t step); /* READY, no backoff left: queue it */
void step_place_passed(struct cox_engine *e, struct cox_task *t, uint32_t step); /* its gates are behind it */
void step_refuse(struct cox_engine *e, struct cox_task *t, uint32_t step, enum cox_code code,
                 struct cox_slice message);
void step_evaluated(struct cox_engine *e, struct evaluation *ev, const struct cox_input *input);
void step_unready(struct cox_engine *e, struct cox_task *t, struct step *s); /* leaves queue, backoff, spec */
void specs_evaluate_more(struct cox_engine *e);                              /* as far as there is room */
void step_call(const struct cox_task *t, uint32_t step, const struct step *s, struct cox_image_call *ret);
/* The spec for an attempt, evaluated now when it is small; false: the step was refused. */
bool step_spec(struct cox_engine *e, struct cox_task *t, uint32_t step, struct cox_slice *ret);
bool step_deps_ok(const struct cox_task *t, uint32_t step, bool *ret_failure);
void evaluate_later(struct cox_engine *e, struct cox_task *t, uint32_t step, uint32_t template_index,
                    enum asked_kind kind);
/* The spec of one item of a map. */
void evaluate_item_later(struct cox_engine *e, struct cox_task *t, uint32_t step, uint32_t template_index,
                         uint32_t item, struct cox_slice item_json);
struct evaluation *ask(struct cox_engine *e, struct cox_task *t, uint32_t step, enum asked_kind kind);
/* Answers that are out mean nothing any more. COX_IMAGE_NONE: those of all READY steps of the tree. */
void evaluations_forget(struct cox_engine *e, const struct cox_task *t, uint32_t step);
bool template_is_large(const struct cox_task *t, uint32_t template_index);
/* What an expression of a frame sees beside its steps. */
struct frame_values {
    const struct cox_task *task;
};
void eval_env_init(struct cox_eval_env *env, struct frame_values *values, const struct cox_task *t,
                   uint32_t step);
/* Record and action for a STORED one; nothing for others. The second is for a blob that no task owns. */
void payload_keep(struct cox_engine *e, cox_task_id root, const struct cox_payload *p);
void payload_keep_for_ever(struct cox_engine *e, struct cox_slice tenant, const struct cox_hash *hash);
struct value *value_make(const struct cox_payload *p);

/* ---- attempt.c ---- */
/* Derived state of an attempt; then attempt_sent, or for restored ones what restores them. */
struct attempt *attempt_new(struct cox_engine *e, struct cox_task *t, uint32_t step, struct worker *w,
                            struct cox_token token);
void attempt_sent(struct cox_engine *e, struct attempt *a, struct class *cls, size_t spec_len);
void attempt_reserves(struct attempt *a, const struct reservation *call, uint64_t output_tokens);
/* All of an ASSIGN but its spec. */
void attempt_describe(struct cox_engine *e, const struct attempt *a, struct cox_act_assign *ret);
struct cox_ref attempt_ref(const struct attempt *a);
struct attempt *attempt_find(const struct cox_engine *e, struct cox_ref ref, enum cox_answer *ret_why);
int64_t backoff_ms(struct cox_engine *e, const struct cox_image_call *call, uint32_t n_tries);
enum record_next decide_next(struct cox_engine *e, const struct cox_task *t, uint32_t step,
                             struct record_ended *en);
void step_ended(struct cox_engine *e, struct cox_task *t, uint32_t step, const struct record_ended *en);
void attempt_assign(struct cox_engine *e, struct cox_task *t, uint32_t step, struct worker *w,
                    struct class *cls, struct cox_slice spec);
struct attempt *attempt_restore(struct cox_engine *e, struct cox_task *t, uint32_t step, struct worker *w);
void attempt_result(struct cox_engine *e, const struct cox_in_result *in);
void attempt_started(struct cox_engine *e, uint32_t session, struct cox_ref ref);
void attempt_returned(struct cox_engine *e, uint32_t session, struct cox_ref ref);
void attempt_withdraw(struct cox_engine *e, struct attempt *a, bool returned); /* no charge */
void attempt_lost(struct cox_engine *e, struct attempt *a);                    /* charged to losses */
void attempt_cancel(struct cox_engine *e, struct attempt *a);
void attempt_timer(struct cox_engine *e, struct attempt *a);
void attempts_check_unstarted(struct cox_engine *e);
int64_t timeout_at(const struct cox_engine *e, const struct cox_image_call *call, const struct attempt *a);
void attempt_arrived(struct cox_engine *e, struct attempt *a);
void attempt_release(struct cox_engine *e, struct attempt *a); /* derived state only */

/* ---- placement.c ---- */
struct class *class_acquire(struct cox_engine *e, const struct cox_image *img, uint32_t index);
void class_release(struct cox_engine *e, struct class *c);
bool class_fits(const struct class *c, const struct worker *w);
bool labels_satisfy(const struct requirement *r, const struct worker *w);
bool resources_hold(const struct cox_resources *all, const struct cox_resources *r);
bool worker_has_room(const struct worker *w, const struct class *c);
/* Less choice; zeroes: as the base. */
struct class_choice {
    struct worker *only;
    struct cox_slice version;
    struct cox_slice spread; /* what tells groups that keep apart from each other */
};
struct class *class_variant(struct cox_engine *e, struct class *base, const struct class_choice *choice);
void placement_init(struct cox_engine *e);
void placement_fini(struct cox_engine *e);
void classes_free_idle(struct cox_engine *e, uint32_t n_left);
void class_enqueue(struct cox_engine *e, struct class *c, struct step *s, int32_t priority);
void class_dequeue(struct cox_engine *e, struct class *c, struct step *s);
void queue_push(struct step_queue *q, struct step *s, int32_t priority);
void queue_remove(struct step_queue *q, struct step *s);
struct step *queue_first(const struct step_queue *q); /* NULL: empty */
void queue_fini(struct step_queue *q);
bool worker_available(const struct worker *w); /* may be given a step */
bool worker_is_cordoned(const struct worker *w);
void placement_check(const struct cox_engine *e);
void placement_worker_changed(struct cox_engine *e, struct worker *w); /* credit, resources, session */
void placement_worker_classes(struct cox_engine *e, struct worker *w); /* labels or handlers are new */
void placement_worker_gone(struct cox_engine *e, struct worker *w);
void placement_dispatch(struct cox_engine *e);
bool placement_goes_on(const struct cox_engine *e); /* there is more to dispatch than a turn may take */
void resources_take(struct cox_resources *used, const struct cox_resources *r);
void resources_give(struct cox_resources *used, const struct cox_resources *r);

/* ---- fleet.c ---- */
struct worker *worker_make(struct cox_engine *e, uint32_t ref, struct cox_slice id);
void worker_destroy(struct worker *w);
struct worker *worker_by_ref(const struct cox_engine *e, uint32_t ref);
struct worker *worker_by_session(const struct cox_engine *e, uint32_t session);
void worker_attach(struct cox_engine *e, const struct cox_in_attach *in);
void worker_detach(struct cox_engine *e, struct worker *w);
void worker_seen(struct cox_engine *e, struct worker *w);
void worker_credit(struct cox_engine *e, struct worker *w, uint64_t granted);
void worker_draining(struct cox_engine *e, struct worker *w);
void worker_timer(struct cox_engine *e, struct worker *w);
void worker_policy(struct cox_engine *e, const struct cox_in_policy *in);
void worker_in_fleet(struct cox_engine *e, struct worker *w); /* its session or attempts changed */
void worker_watch_liveness(struct cox_engine *e, struct worker *w);
void fleet_gap(struct cox_engine *e, int64_t gap_ns); /* the caller was stopped for so long, until now */
bool gap_excuses(const struct cox_engine *e, uint32_t since); /* what was to come after so many gaps */
bool worker_unheard(const struct cox_engine *e, const struct worker *w);

/* ---- fits.c: replay ---- */
bool record_fits(struct cox_engine *e, uint64_t seq, const struct record *r);
void record_misfit(struct cox_engine *e); /* found while it was applied */
bool task_pages_fit(const struct cox_task *t);

/* ---- engine.c ---- */
void engine_handle(struct cox_engine *e, const struct cox_input *in);
/* Derived state of tasks that recovery, or the state, has brought back: in order of their ids. */
void tasks_derive(struct cox_engine *e, struct cox_task **tasks, size_t n);
struct cox_action *act(struct cox_engine *e, enum cox_action_kind kind); /* after_seq = now's last */
void changed(struct cox_engine *e, struct cox_task *t, uint32_t step);
void wall_seen(struct cox_engine *e, int64_t wall_ms);
void timer_set(struct cox_engine *e, struct timer *t, int64_t mono_ns);
int64_t mono_after(const struct cox_engine *e, int64_t ms);
void timer_clear(struct cox_engine *e, struct timer *t);

#define NS_PER_MS 1000000LL

static inline char *text_own(struct cox_slice s)
{
    return cox_strndup((const char *)s.data, s.len);
}

#endif
