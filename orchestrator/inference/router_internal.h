/* Shared by the files of the router. Thread: the loop's, except where it says otherwise. */
#ifndef COX_ORCHESTRATOR_INFERENCE_ROUTER_INTERNAL_H
#define COX_ORCHESTRATOR_INFERENCE_ROUTER_INTERNAL_H

#include "health.h"
#include "prefix.h"
#include "router.h"
#include "sse.h"

#include "cox/base/heap.h"
#include "cox/base/map.h"
#include "cox/base/rng.h"

#include <event2/event.h>
#include <pthread.h>

#define ROUTER_NS_PER_MS 1000000LL

/* ---- bounds ---- */

#define ROUTER_CALLS_MAX 20000u
#define ROUTER_TRIES_MAX 3u /* of one model: the first and two more */
#define ROUTER_SLOWED_MAX                                                                                    \
    8u /* tries that were answered 429 or 503 with Retry-After do not count up to this */
#define ROUTER_UNKNOWN_MAX 4u                    /* endpoints that may say 404 before the caller hears it */
#define ROUTER_WAIT_MS 600000                    /* for credit: as long as OpenAI's clients wait */
#define ROUTER_WAIT_CLOSED_MS 10000              /* while no endpoint of the pool is open */
#define ROUTER_SLOW_DOWN_MS_MAX 30000            /* a longer Retry-After is passed on */
#define ROUTER_ANSWER_LEN_MAX ((size_t)64 << 20) /* of an answer that is no stream */
#define ROUTER_ERROR_LEN_MAX ((size_t)1 << 20)   /* of an answer that is an error */
#define ROUTER_HELD_LEN_MAX ((size_t)1 << 20)    /* of a stream before its first content */
#define ROUTER_DONE_MS 1000                      /* for a stream to end behind its [DONE] */
#define STORED_LEN_MAX ((size_t)4 << 20)         /* of an answer that is kept */
#define ROUTER_HEADERS_MAX 8u

/* ---- programs.c: what calls belong together ---- */

struct program {
    struct cox_list used; /* least recently first */
    struct router *router;
    char *tenant, *name;
    uint64_t number; /* placement's */
    bool outside;
    uint32_t n_busy; /* calls that hold it */
    struct prefix prefix;
    size_t held_len;                  /* as last counted */
    struct router_tenant_stats books; /* without a tenant */
};
struct programs {
    struct cox_mapb by_name; /* tenant, 0, name */
    struct cox_list used;
    uint64_t last_number;
    size_t held_len;
};
#define PROGRAMS_MAX 50000u
#define PROGRAMS_HELD_LEN_MAX ((size_t)256 << 20)

void programs_init(struct programs *t);
void programs_fini(struct programs *t);
struct program *programs_find(const struct programs *t, struct cox_slice tenant, struct cox_slice name);
/* The program, made when it is not known; held until programs_release. */
struct program *programs_hold(struct programs *t, const struct router_who *who);
void programs_release(struct programs *t, struct program *p);
void programs_end(struct programs *t, struct placement *placement, struct program *p);

/* ---- stored.c: answers that may be given again ---- */

struct stored_answer {
    struct cox_list used;
    uint8_t key[32];
    int64_t made_ns;
    bool is_stream;
    char *type;
    char *model, *endpoint;
    struct cox_buf bytes;
};
struct stored {
    struct cox_mapb by_key;
    struct cox_list used;
    size_t len, len_max;
};
void stored_init(struct stored *k, size_t len_max);
void stored_fini(struct stored *k);
void stored_key(const struct router_request *request, struct cox_slice model, struct cox_slice body,
                uint8_t ret[32]);
const struct stored_answer *stored_find(struct stored *k, const uint8_t key[32], int64_t younger_than_ns);
void stored_put(struct stored *k, const uint8_t key[32], int64_t now_ns, const struct router_head *head,
                struct cox_slice bytes);

/* ---- models and endpoints, as the router sees them: owner_data of the catalogue's ---- */

struct pool {
    struct model *model; /* NULL: gone from the catalogue */
    uint32_t id;
    uint32_t n_calls; /* that placement knows of */
    uint32_t n_endpoints, n_open;
    uint32_t in_flight;
    int64_t denied_said_ns; /* when the log last said that a key is refused */
    /* Learned of its calls. */
    double bytes_per_token; /* of text */
    double tokens_per_media;
    double ns_per_output_token; /* of one call */
    double ttft_ns;             /* of streams; and how far off it is */
    double ttft_off_ns;
    struct router_model_stats stats; /* the counters of it */
};

/* ---- call.c: a call on its way ---- */

enum call_state {
    CALL_NEW,
    CALL_QUEUED,  /* placement has it, and no endpoint yet */
    CALL_BACKOFF, /* a try has failed; the next one waits for its time */
    CALL_SENT,    /* an endpoint has it */
    CALL_OVER     /* its end is to be told */
};

struct reply { /* of the try under way */
    int status;
    bool is_stream;
    bool has_head;
    bool begun;      /* content has been seen: no other try after this */
    bool finished;   /* all choices have a finish_reason, or [DONE] */
    bool done;       /* [DONE] */
    bool garbage;    /* it said what cannot be read */
    bool failed;     /* an error behind a status of 200; before content it is as if its status had been the
                        error's */
    bool failed_any; /* in words that do not tell the request's faults from the endpoint's */
    bool too_long;
    bool error_told;  /* the caller has the event of the error */
    int error_status; /* of an error after content: as chat_answer's */
    struct chat_finished choices;
    int64_t slow_ms; /* Retry-After; -1: none */
    struct cox_buf type, request_id;
    struct sse sse;
    struct cox_buf held; /* not passed on yet: what came before content, and an event that is not whole */
    size_t held_whole;   /* of whole events in it */
    struct cox_buf body; /* of what is no stream */
    /* The piece that is being read: behind its last event, and what of it can be passed on. */
    struct cox_slice piece;
    size_t event_from, run_from, run_to;
    struct chat_usage usage;
    uint64_t n_pieces; /* events with content: about tokens */
    char said[256];    /* of an error */
    char said_code[64];
};

struct router_call {
    struct cox_list node; /* of all, or of those whose end is to be told */
    struct placement_call placed;
    struct cox_heap_node timer;
    struct router *router;
    enum call_state state;
    bool paused;
    bool replays; /* from what was kept: reply has it */
    const struct router_sink *sink;
    void *user;
    struct router_who who; /* its texts in `texts` */
    struct cox_buf texts;
    char *headers[ROUTER_HEADERS_MAX];
    size_t n_headers;
    char *request_id;
    enum chat_api api;

    struct cox_buf body;
    char *model_said;
    struct chat_request request; /* of the body; without parts */
    bool asked_usage;            /* by us: the client does not expect to be told */
    bool asks_nothing;           /* an endpoint has refused that: */
    uint32_t asks_nothing_of;    /* its place */
    uint64_t *blocks;
    struct program *program;
    struct model *asked; /* the first, whose fallbacks count */
    size_t next_fallback;
    struct pool *pool; /* of the model that is being tried */
    struct model *model;
    struct endpoint *endpoint; /* of the try under way */
    struct upstream_call *upstream;
    struct cox_buf rewritten;
    struct cox_slice pieces[CHAT_PIECES_MAX];
    struct reply reply;
    uint32_t n_tries, n_model_tries, n_slowed;
    struct endpoint *suspect;                     /* has answered 500: its fault, or the request's */
    struct endpoint *unknown[ROUTER_UNKNOWN_MAX]; /* have answered 404: likewise */
    uint32_t n_unknown;
    int64_t started_ns, queued_ns, sent_ns, first_ns;
    uint8_t key[32];
    bool keeps;   /* its answer may be kept */
    bool records; /* and is to be recorded */
    struct cox_buf copy;
    struct router_books books;
    enum router_end end;
    struct router_error error;
    struct cox_buf message;
    bool head_told;
};

struct router {
    struct router_config config;
    int64_t since_wall_ms;
    struct event_base *base;
    struct upstream *upstream;
    struct health *health;
    struct catalogue *catalogue;
    struct placement *placement;
    struct event *turn, *wake, *tick;
    int64_t wake_ns;
    struct cox_list calls, over;
    uint32_t n_calls;
    struct cox_heap timers;
    struct endpoint **by_place;
    uint32_t n_places;
    struct programs programs;
    struct router_tenant_stats tenants[ROUTER_TENANTS_MAX + 1]; /* the last: all others */
    size_t n_tenants;
    struct stored stored;
    struct chat_reader reader;
    struct prefix scratch;
    struct cox_rng rng;
    int64_t retry_credit; /* thousandths of a retry */
    int64_t retry_credit_ns;
    uint64_t last_id;
    uint64_t id_salt;
    bool ending;

    pthread_mutex_t mutex; /* of the copy */
    struct router_stats *stats;
};

/* ---- router.c ---- */

/* As many calls go as can. */
void router_pump(struct router *r);
void router_turn_soon(struct router *r);
void router_set_timer(struct router_call *c, int64_t at_ns); /* INT64_MAX: none */
bool router_may_retry(struct router *r);
void router_earn_retry(struct router *r); /* a call has been let in */
void router_free_pool_if_over(struct router *r, struct pool *pool);

static inline int64_t router_sooner(int64_t a_ns, int64_t b_ns)
{
    return a_ns < b_ns ? a_ns : b_ns;
}

/* ---- call.c ---- */

/* On its way no more; its end is told in the loop's next turn. */
void call_end(struct router_call *c, enum router_end end);
void call_set_error(struct router_call *c, const struct router_error *error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The next of the chain of fallbacks that there is; false: it is at its end. */
bool call_next_model(struct router_call *c);
/* Into placement's queue; a call that cannot wait ends, or goes on with the next model. */
void call_queue(struct router_call *c);
void call_on_time(struct router_call *c, int64_t now_ns);
/* Its pool has no endpoint any more, or its model is gone. */
void call_strand(struct router_call *c);
void call_tell_end(struct router_call *c); /* frees it */

/* ---- try.c ---- */

void call_dispatch(struct router_call *c);
/* The try under way is given up: its endpoint sees the connection close. True: all was said, and counts. */
bool call_drop_try(struct router_call *c);
/* How long the next try waits after so many, at least one. */
int64_t call_backoff_ms(struct cox_rng *rng, uint32_t n_tries);
/* How the try under way ended; what comes next is decided here. */
void call_try_ended(struct router_call *c, enum upstream_end end, const char *message);

/* ---- unknown.c: endpoints that do not know what they are asked for ---- */

/* The one of this try; false: it has said so to this call before. */
bool unknown_add(struct router_call *c);
bool unknown_to_others(const struct router_call *c); /* nobody is left who might know */
void unknown_prove(struct router_call *c);           /* the endpoint of this try serves it */
void unknown_forget(struct router_call *c);

/* ---- reply.c ---- */

void reply_reset(struct reply *p);
void reply_fini(struct reply *p);
extern const struct upstream_events reply_events;
/* What a kept answer said, as if an endpoint had said it now. */
void reply_replay(struct router_call *c);
/* Reads what is no stream, when it is whole: its usage, or of an error what it says. */
void reply_read_whole(struct router_call *c);
/* And to the caller with it. */
void reply_pass_whole(struct router_call *c);
bool reply_is_context_length(const struct router_call *c);

/* ---- books.c ---- */

uint32_t books_estimate_input(const struct router_call *c);
void books_charge(struct router_call *c); /* the try under way is the one that counts */
void books_replay(struct router_call *c, const struct chat_usage *usage); /* as when it was recorded */
void books_waste(struct router_call *c, bool begun);                      /* it is lost */
void books_close(struct router_call *c); /* into the model's, the program's and the tenant's */
void books_fini(struct router *r);
void books_first_token(struct router_call *c, int64_t now_ns);
int64_t books_first_ms(const struct router_call *c); /* how long the first content may take */

/* ---- router_stats.c ---- */

void router_stats_refresh(struct router *r);

#endif
