/* The fleet: Attach sessions of workers, between protobuf and the engine's inputs and actions.
 *
 * A session has a number that the engine knows it by; the number's low bits are its place in a table, so an
 * action finds its session by one load. What the engine says to a worker in a turn leaves as one message.
 * Thread: the engine's.
 */
#ifndef COX_ORCHESTRATOR_FLEET_H
#define COX_ORCHESTRATOR_FLEET_H

#include "../driver.h"

#include "cox/rpc.h"

#include "coxswain/v1/worker_service.pb-c.h"

struct cox_fleet;

struct cox_fleet *cox_fleet_create(void);
void cox_fleet_destroy(struct cox_fleet *f); /* after its server; NULL is allowed */
void cox_fleet_start(struct cox_fleet *f, struct cox_driver *d);

/* WorkerService, for the server's table; lives as long as the fleet. */
const struct cox_rpc_service *cox_fleet_service(struct cox_fleet *f);

/* ASSIGN CANCEL ANSWER CLOSE RELEASE DRAIN; others are ignored. Slices must live until the flush. */
void cox_fleet_act(struct cox_fleet *f, const struct cox_action *a);
void cox_fleet_flush(struct cox_fleet *f);

/* Where workers have model calls of steps made (Welcome.models_url); copied. "": nowhere, as in the
 * beginning. Workers that are there and know another place are asked to dial again; what they run goes on. */
void cox_fleet_serve_models(struct cox_fleet *f, const char *url);

/* Tells every worker to leave and dial again, and refuses new streams. */
void cox_fleet_drain(struct cox_fleet *f);

/* Does the session that has this key hold the attempt, of a task of that tenant? The key is compared in
 * constant time. */
bool cox_fleet_holds(const struct cox_fleet *f, struct cox_ref ref, struct cox_slice key, const char *tenant);

/* What the worker's disk has of shared workspaces; zeroes when the session is gone. */
struct cox_fleet_workspaces {
    uint32_t n, n_unsaved;
    uint64_t len;
};
struct cox_fleet_workspaces cox_fleet_workspaces(const struct cox_fleet *f, uint32_t session);

/* "ipv4:10.0.0.7:41000", or "" when the session is gone. */
const char *cox_fleet_peer(const struct cox_fleet *f, uint32_t session);

/* ---- logs of running attempts ---- */

struct cox_log_reader {
    struct cox_list node;
    struct cox_ref ref;
    /* A piece came; the last one has `end`. NULL: the session is gone, or never knew the attempt. The reader
     * is unlinked before the last call. */
    void (*on_chunk)(struct cox_log_reader *r, const Coxswain__V1__LogChunk *chunk);
    uint32_t session; /* 0: not linked */
    bool waits;       /* for the log's beginning, which its worker was asked for */
};

#define COX_RELAY_LEN_MAX ((size_t)1 << 20)   /* kept of a log while it is read, for other readers */
#define COX_RELAYS_LEN_MAX ((size_t)64 << 20) /* and of all together */

/* The log from its beginning, as far as it is kept: what others were given already comes from inside. False:
 * no such session. */
bool cox_fleet_log_start(struct cox_fleet *f, uint32_t session, struct cox_log_reader *r);
void cox_fleet_log_stop(struct cox_fleet *f, struct cox_log_reader *r); /* harmless when not linked */

#endif
