/* A session, shared by the files of this folder. */
#ifndef COX_ORCHESTRATOR_FLEET_SESSION_H
#define COX_ORCHESTRATOR_FLEET_SESSION_H

#include "fleet.h"

#define FLEET_KEY_LEN 16u /* random bytes, told in hexadecimal */
#define FLEET_KEY_TEXT_MAX (2 * FLEET_KEY_LEN + 1)

/* Pointers to messages in the fleet's arena, to travel in the next message. */
struct cox_outgoing {
    void **items;
    size_t len;
    size_t cap;
};

struct cox_session {
    uint32_t number;
    struct cox_fleet *fleet;
    struct cox_rpc_call *call;
    char *worker_id;              /* NULL before hello */
    char key[FLEET_KEY_TEXT_MAX]; /* what proves that a call of another service comes from the same worker */
    bool attached;                /* the engine knows it */
    bool inner;                   /* the orchestrator's own: the router */
    bool dead;                    /* what still comes is ignored */
    uint32_t n_working;           /* results with the compile thread */
    uint64_t granted;
    struct cox_fleet_workspaces workspaces; /* as it last said */
    struct cox_list dirty;                  /* in the fleet's list while something waits for the flush */
    size_t out_len;                         /* rough, of what waits */
    struct cox_outgoing answers;
    struct cox_outgoing cancels;
    struct cox_outgoing assigns;
    struct cox_outgoing logs_wanted;
    struct cox_outgoing released; /* ids of tasks, as text */
    struct cox_outgoing fenced, expects;
    bool drain;             /* ask it to finish and leave */
    struct cox_list relays; /* relay.c */
};

struct cox_fleet {
    struct cox_driver *driver;
    struct cox_rpc_service service;
    struct cox_session **table; /* at number & mask */
    uint32_t mask;
    uint32_t n_sessions;
    uint32_t last_number;
    bool draining;
    char *models_url; /* NULL: nowhere */
    struct cox_list dirty;
    struct cox_arena arena; /* until the flush */
    size_t relayed_len;     /* of logs kept for readers yet to come */
    cox_task_id named;      /* whose id is in named_text: steps of a task tend to follow each other */
    char named_text[COX_TASK_ID_TEXT_MAX];
};

/* table.c */
void cox_session_add(struct cox_fleet *f, struct cox_session *s); /* gives it its number */
void cox_session_remove(struct cox_fleet *f, struct cox_session *s);
struct cox_session *cox_session_find(const struct cox_fleet *f, uint32_t number); /* NULL: gone */

/* receive.c: one message. NULL, or what breaks the protocol, in the fleet's arena. */
const char *cox_session_receive(struct cox_session *s, const Coxswain__V1__AttachRequest *m);
bool cox_ref_read(const Coxswain__V1__AttemptRef *m, struct cox_ref *ret);

/* relay.c */
void cox_session_relay(struct cox_session *s, const Coxswain__V1__LogChunk *m);
void cox_session_relays_end(struct cox_session *s); /* readers are told that no more comes from here */

/* send.c */
void cox_session_send_welcome(struct cox_session *s, uint64_t shard_uid);
void cox_session_want_log(struct cox_session *s, const struct cox_ref *ref, bool wanted);
void cox_session_flush(struct cox_session *s);
void cox_fleet_say_reconnect(struct cox_fleet *f); /* to all workers */
void cox_session_outgoing_fini(struct cox_session *s);

/* fleet.c: ends it by our will. */
void cox_session_close(struct cox_session *s, enum cox_rpc_status status, const char *reason,
                       const char *message);
void cox_session_release(struct cox_session *s); /* frees it once nothing refers to it */

#endif
