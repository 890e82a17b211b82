/* What the agent remembers. Private to agent.c (what inputs do) and agent_turn.c (timers and messages). */
#ifndef COX_LIB_AGENT_STATE_H
#define COX_LIB_AGENT_STATE_H

#include "cox/agent.h"
#include "cox/base/heap.h"
#include "cox/base/list.h"
#include "cox/base/map.h"
#include "cox/base/rng.h"

#define NS_PER_MS INT64_C(1000000)
#define NEVER_NS INT64_MAX

/* QUEUED -> RUNNING -> ENDED -> forgotten; each arrow may be skipped. A ZOMBIE runs, but nobody wants to
 * know. */
enum attempt_state { ATTEMPT_QUEUED, ATTEMPT_RUNNING, ATTEMPT_ENDED, ATTEMPT_ZOMBIE };

/* Why the agent killed it; the first cause stands. */
enum kill_cause { KILL_NONE, KILL_TIMEOUT, KILL_CANCELLED, KILL_PREEMPTED, KILL_FORGOTTEN };

struct attempt {
    struct cox_list link;          /* of one of the agent's lists */
    struct cox_heap_node deadline; /* while RUNNING with a time limit */
    struct attempt *next_same;     /* attempts with the same index key */
    enum attempt_state state;
    enum kill_cause cause;
    bool log_wanted;
    uint32_t slot;
    int64_t since_ns; /* in this state */
    struct cox_agent_assign assign;
    struct cox_agent_result result;
    struct cox_buf body; /* what the slices of assign, then of result, point into */
};

struct cox_agent {
    struct cox_agent_config config;
    struct cox_rng rng;

    /* attempts */
    struct cox_map64 index;   /* by token; QUEUED, RUNNING, ENDED */
    struct cox_list queue;    /* QUEUED, oldest first */
    struct cox_list quiet;    /* RUNNING, oldest first, not yet reported as started on this stream */
    struct cox_list reported; /* RUNNING, oldest first, each older than all of quiet */
    struct cox_list unsent;   /* ENDED, not yet sent on this stream */
    struct cox_list sent;     /* ENDED, unanswered */
    struct cox_list zombies;
    struct cox_list pool;
    struct cox_heap deadlines;
    struct attempt **slots; /* by slot: who runs there */
    uint32_t *free_slots;
    uint32_t n_free_slots;
    uint32_t n_queued, n_running, n_kept, n_zombies;
    size_t kept_len;
    struct cox_resources used;
    struct cox_buf spare;
    struct cox_ref *holds; /* SEND_HELLO's */
    size_t cap_holds;
    struct cox_ref *log_ends; /* to be sent, LOG_ENDS_MAX */
    size_t n_log_ends;

    /* run times, for prefetch */
    int64_t mean_run_ns; /* 0: unknown */
    bool prefetch_shut;  /* prefetched attempts came to nothing; until one ends */

    /* the stream */
    enum cox_agent_stream stream;
    uint32_t address;
    int64_t dial_at_ns; /* DOWN */
    int64_t dialled_ns; /* DIALLING, GREETING */
    int64_t backoff_ms;
    bool hello_sent, welcomed, draining_sent;
    bool redial_at_once;
    const char *hang_up_why; /* to be done at the turn's end */
    uint64_t shard_uid;
    int64_t beat_ms;
    int64_t last_sent_ns;
    uint64_t granted, assigned;
    int64_t down_since_ns; /* no Welcome since */

    /* leaving */
    bool draining;
    const char *exit_why;
    int64_t draining_sent_ns;
    int64_t drain_at_ns; /* running attempts are killed */
    bool preempted;      /* that was done */
    int64_t exit_by_ns;
    int64_t idle_since_ns; /* NEVER_NS while something is held */
    bool exited;

    bool clock_known;
    int64_t wake_ns;
    uint64_t n_started, n_ended, n_returned, n_dropped;
};

#define LOG_ENDS_MAX 1024u

int64_t agent_after_ms(int64_t ns, uint64_t ms); /* saturates at NEVER_NS */
struct cox_agent_action *agent_act(struct cox_agent_actions *actions, enum cox_agent_action_kind kind);
void agent_start_ready(struct cox_agent *a, int64_t now_ns, struct cox_agent_actions *actions);
void agent_kill(struct attempt *at, enum kill_cause cause, struct cox_agent_actions *actions);
void agent_forget(struct cox_agent *a, struct attempt *at); /* QUEUED or ENDED: to the pool */
void agent_forget_all(struct cox_agent *a, struct cox_agent_actions *actions);
void agent_drain(struct cox_agent *a, const char *why);
void agent_log_end(struct cox_agent *a, struct cox_ref ref);
uint32_t agent_prefetch(const struct cox_agent *a);
void agent_turn(struct cox_agent *a, int64_t now_ns, size_t room_len, struct cox_agent_actions *actions);

#endif
