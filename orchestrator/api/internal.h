/* Shared by the files of this folder. */
#ifndef COX_ORCHESTRATOR_API_INTERNAL_H
#define COX_ORCHESTRATOR_API_INTERNAL_H

#include "api.h"
#include "metrics.h"

#include "cox/base/heap.h"
#include "cox/base/map.h"

#include "coxswain/v1/fleet_service.pb-c.h"
#include "coxswain/v1/model_service.pb-c.h"
#include "coxswain/v1/task_service.pb-c.h"

#include <stdarg.h>

#define COX_API_SERVICES 9
#define COX_API_SHORTAGE_RETRY_MS 5000
#define COX_API_TENANT_MAX 64

struct cox_api {
    struct cox_driver *driver;
    struct cox_fleet *fleet;
    struct cox_access *access;
    cox_api_router_stats *router_stats; /* NULL: there is no router */
    void *router_user;
    struct cox_rpc_service services[COX_API_SERVICES];
    size_t n_services;
    struct cox_map64 watched; /* task id -> struct watched */
    struct cox_list dirty;    /* struct cox_watcher with something to say at the turn's end */
    struct cox_heap waits;    /* cox_op.wait by time */
    struct cox_list ops;      /* every cox_op with a call */
    struct cox_list reviving; /* control.c: retries and forks that begin from the archive */
    struct cox_list deleting; /* delete.c: what the store was asked for */
    size_t n_watches;         /* WatchTask streams */
    size_t n_told;            /* messages queued to them in this turn */
    struct cox_stats *stats;  /* stats.c */
    uint64_t refused[COX_REFUSAL_NR];
    bool backing_up; /* one at once */
    bool draining;
};

/* ---- op.c: what is under way for a call ---- */

/* Embedded first in each kind. It lives until its own code frees it, which may be long after the call has
 * closed, when answers are on their way to it. */
struct cox_op {
    struct cox_api *api;
    char tenant[COX_API_TENANT_MAX];    /* that it is about; another's task is as none to it */
    bool whole;                         /* it may see what belongs to no tenant */
    struct cox_rpc_call *call;          /* NULL once the call has closed or been answered */
    void (*on_gone)(struct cox_op *op); /* the caller has left: give up what can be given up */
    void (*on_time)(struct cox_op *op); /* the wait has run out */
    void (*on_room)(struct cox_op *op); /* streams: the outbox is empty again */
    bool endless;                       /* a stream: ended when the server stops */
    struct cox_list node;
    struct cox_heap_node wait;
};
void cox_op_init(struct cox_op *op, struct cox_api *a, struct cox_rpc_call *call);
void cox_op_wait(struct cox_op *op, int64_t until_mono_ns);
void cox_op_unwait(struct cox_op *op);
void cox_op_fini(struct cox_op *op); /* leaves the call, unanswered if it was */
/* Answers; harmless when the caller has left. The op is apart from the call then, but not freed. */
void cox_op_reply(struct cox_op *op, const ProtobufCMessage *message);
void cox_op_finish(struct cox_op *op);
void cox_op_fail(struct cox_op *op, const struct cox_rpc_error *error);
void cox_op_failf(struct cox_op *op, enum cox_rpc_status status, const char *reason, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

void cox_api_on_closed(struct cox_rpc_call *call, const struct cox_rpc_error *status, void *user);
void cox_api_on_drained(struct cox_rpc_call *call, void *user);

/* As vsnprintf, but what is cut stays UTF-8: strict readers refuse a message that is not. Returns what there
 * is. */
size_t cox_api_vtext(char *text, size_t cap, const char *fmt, va_list args)
    __attribute__((format(printf, 3, 0)));

/* Fails a call that has no op. */
void cox_call_fail(struct cox_rpc_call *call, enum cox_rpc_status status, const char *reason, const char *fmt,
                   ...) __attribute__((format(printf, 4, 5)));

/* What a REPLY goes to: the request number is its address. */
struct cox_requested {
    void (*on_reply)(struct cox_requested *q, const struct cox_act_reply *reply);
};

/* ---- op.c: whose. The only ways to a task that a request names: another tenant's looks as if it were not
 * there, and is looked for in the archive like one that is not, so that the time of the answer says nothing
 * either. ---- */

/* In memory; NULL: not, or not theirs. */
const struct cox_task *cox_api_find(const struct cox_op *op, cox_task_id task);
/* In memory or asleep, and theirs: words may be given to the engine. */
bool cox_api_has(const struct cox_op *op, cox_task_id task);
/* True: the task sleeps, and `q` is told once it is in memory. */
bool cox_api_wake(const struct cox_op *op, cox_task_id task, struct cox_requested *q);
/* What the archive has. COX_ERR_NOT_FOUND: not theirs. */
COX_MUST_CHECK enum cox_err cox_api_thaw(const struct cox_op *op, const struct cox_buf *bytes,
                                         struct cox_task **ret);

/* ---- violations.c ---- */
void cox_put_violations(struct cox_buf *b, const struct cox_violations *v); /* the first, and how many more */
void cox_op_fail_violations(struct cox_op *op, const struct cox_violations *v);

/* ---- watched.c: who wants to hear of a task's changes ---- */

struct cox_watcher {
    struct cox_list node;  /* among those of the task */
    struct cox_list dirty; /* in api->dirty */
    cox_task_id task;      /* 0: not watching */
    /* In the turn of the change; the engine's state is the turn's last. It must not free a watcher. */
    void (*on_changed)(struct cox_watcher *w, cox_task_id frame, uint32_t step, uint64_t seq, bool final);
    void (*on_turn)(struct cox_watcher *w); /* after cox_watcher_mark, at the end of that turn */
};
void cox_watcher_init(struct cox_watcher *w);
void cox_watcher_start(struct cox_api *a, struct cox_watcher *w, cox_task_id task);
void cox_watcher_stop(struct cox_api *a, struct cox_watcher *w); /* harmless when not watching */
void cox_watcher_mark(struct cox_api *a, struct cox_watcher *w);
void cox_watched_fini(struct cox_api *a);

/* ---- watch_text.c: what models write, for one WatchTask ---- */

#define COX_WATCH_TEXTS_MAX 64u /* read at once by one; others are not shown */
struct cox_watch_texts {
    struct cox_op *op;
    bool wanted;
    struct cox_list texts;
    size_t n;
};
/* What the step writes now, if a model runs it: from its beginning, until it ends. */
void cox_watch_texts_step(struct cox_watch_texts *ws, const struct cox_engine *e,
                          const struct cox_task *frame, uint32_t step);
void cox_watch_texts_task(struct cox_watch_texts *ws, const struct cox_engine *e, cox_task_id root);
void cox_watch_texts_room(struct cox_watch_texts *ws); /* what was sent has been taken */
void cox_watch_texts_stop(struct cox_watch_texts *ws);

/* ---- view.c: messages from views, in an arena ---- */

struct cox_reading;

/* A stored value that a message shows: fetched after the view and before the message leaves. */
struct cox_wanted {
    struct cox_wanted *next;
    struct cox_fetch fetch;
    struct cox_reading *reading;
    char **ret_text;                /* where it goes, as text */
    ProtobufCBinaryData *ret_bytes; /* or as bytes */
};
struct cox_shown {
    struct cox_arena *arena;
    struct cox_wanted *wanted;
    size_t len;           /* bytes of values shown, fetched ones included */
    uint64_t durable_seq; /* what a task from the archive is of */
};
Coxswain__V1__Task *cox_show_task(struct cox_shown *sh, const struct cox_engine *e, const struct cox_task *t,
                                  bool with_values);
/* `v` is the task's view: taking it costs a look at every step. */
Coxswain__V1__Step *cox_show_step(struct cox_shown *sh, const struct cox_engine *e, const struct cox_task *t,
                                  const struct cox_task_view *v, uint32_t step, bool with_values);
/* What an agent's step has begun and what has ended, from place *it on (cox_agent_next); NULL at the end. */
Coxswain__V1__Step *cox_show_ended(struct cox_shown *sh, const struct cox_task *t,
                                   const struct cox_task_view *v, uint32_t step, uint32_t *it);
char *cox_show_text(struct cox_arena *a, struct cox_slice s);
char *cox_show_id(struct cox_arena *a, cox_task_id id);
Google__Protobuf__Timestamp *cox_show_time(struct cox_arena *a, int64_t wall_ms); /* NULL for 0 */
void cox_show_payload(struct cox_shown *sh, const struct cox_payload *p, ProtobufCBinaryData *ret);

/* ---- reading.c: one read of one task ---- */

struct cox_reading {
    struct cox_op op;
    struct cox_arena arena;
    struct cox_shown shown;
    cox_task_id task;
    struct cox_slice step_name;        /* in the arena */
    struct cox_slice shown_name;       /* what was asked for, when `step_name` is within an ended frame */
    cox_task_id ended;                 /* that frame, to be fetched: `build` is called with it */
    const ProtobufCMessage *message;   /* made by `build` */
    const struct cox_rpc_error *error; /* or this, in the arena */
    /* `e` is NULL for a task from the archive. Sets message or error. */
    void (*build)(struct cox_reading *r, const struct cox_engine *e, const struct cox_task *t);
    struct cox_hold hold;
    struct cox_fetch archive;
    struct cox_requested awake;
    size_t n_missing;
    void (*then)(struct cox_reading *r);
};
struct cox_reading *cox_reading_create(struct cox_api *a, struct cox_rpc_call *call, const char *id);
void cox_reading_start(struct cox_reading *r); /* looks the task up, builds, replies, frees */
/* For `build`, of a `step_name` that is not there: true if an agent began it and it has ended. `build` is to
 * return then, and is called again with the frame that it was in, and the name that it has there. */
bool cox_reading_ended(struct cox_reading *r, const struct cox_engine *e, const struct cox_task *t);
void cox_reading_fail(struct cox_reading *r, enum cox_rpc_status status, const char *reason, const char *fmt,
                      ...) __attribute__((format(printf, 4, 5)));
/* The same fetching and sending for others: `then` is called when every wanted value is in place. */
void cox_reading_fetch(struct cox_reading *r, void (*then)(struct cox_reading *r));

/* A retry or a fork has asked the archive for this task and is not answered yet (control.c). */
bool cox_api_reviving(const struct cox_api *a, cox_task_id task);
/* The store was asked to delete it, and has not answered yet (delete.c). */
bool cox_api_deleting(const struct cox_api *a, cox_task_id task);
/* Parses, or fails the call NOT_FOUND and returns 0. */
cox_task_id cox_api_task_id(struct cox_rpc_call *call, const char *text);

/* ---- the methods ---- */
typedef void cox_api_method(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user);
cox_api_method cox_api_submit_task, cox_api_submit_tasks; /* submit.c */
/* True: the call was failed, because coxd stops, too many documents wait, or room is short. */
bool cox_api_refuse(struct cox_api *a, struct cox_rpc_call *call);
cox_api_method cox_api_get_task, cox_api_batch_get_tasks; /* get.c */
cox_api_method cox_api_describe_task, cox_api_get_output; /* describe.c */
cox_api_method cox_api_watch_task;                        /* watch.c */
cox_api_method cox_api_get_logs;                          /* logs.c */
cox_api_method cox_api_pause_task, cox_api_resume_task;   /* control.c */
cox_api_method cox_api_signal_task, cox_api_approve_step, cox_api_message_task;
cox_api_method cox_api_retry_task, cox_api_fork_task;
cox_api_method cox_api_cancel_task;                           /* cancel.c */
cox_api_method cox_api_list_workers, cox_api_describe_worker; /* workers.c */
cox_api_method cox_api_list_tasks;                            /* list.c */
cox_api_method cox_api_delete_task;                           /* delete.c */
cox_api_method cox_api_get_blob, cox_api_put_blob;            /* blobs.c */
void cox_api_put_blob_ended(struct cox_rpc_call *call, void *user);
cox_api_method cox_api_backup; /* backup.c */
/* templates.c, schedules.c */
cox_api_method cox_api_apply_template, cox_api_get_template, cox_api_list_templates, cox_api_delete_template;
cox_api_method cox_api_apply_schedule, cox_api_get_schedule, cox_api_list_schedules, cox_api_delete_schedule;
cox_api_method cox_api_cordon_worker, cox_api_drain_worker;
cox_api_method cox_api_create_task_token;              /* task_token.c */
cox_api_method cox_api_explain;                        /* explain.c */
cox_api_method cox_api_get_stats, cox_api_get_history; /* stats.c */
cox_api_method cox_api_watch_stats, cox_api_get_metrics;
cox_api_method cox_api_list_models, cox_api_describe_model, cox_api_get_usage; /* models.c */
cox_api_method cox_api_is_active, cox_api_stream_is_active;                    /* scaler.c */
cox_api_method cox_api_get_metric_spec, cox_api_get_scaler_metrics;

/* A copy of the router's numbers, freed by router_stats_free; NULL without a router. */
struct router_stats *cox_api_read_router(const struct cox_api *a);

Coxswain__V1__Usage *cox_show_model_usage(struct cox_arena *a,
                                          const struct router_model_stats *s); /* usage.c */

/* ---- stats.c: the clock behind the history ---- */
void cox_stats_start(struct cox_api *a);
void cox_stats_stop(struct cox_api *a);

/* ---- reason.c: why a step is not where it could be ---- */
/* A sentence without a full stop, in the arena; "" for NONE. `e` is NULL for a task from the archive. `why`,
 * which costs a look at every worker, makes it tell more; NULL: O(needs). */
char *cox_show_reason(struct cox_arena *a, const struct cox_engine *e, const struct cox_task *t,
                      const struct cox_image *img, uint32_t step, const struct cox_step_view *v,
                      const struct cox_step_why *why);

#endif
