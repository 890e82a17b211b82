/* Who calls, what they may, and for which tenant: the admission hook of the gRPC server (cox/rpc.h), through
 * which every call of every service passes, the HTTP edge's too. Those that coxd makes of itself are let in.
 *
 * Open (no token file, and no certificates asked of clients): everybody who can reach a port is the one local
 * identity, which may do everything. Else an identity comes from `authorization: Bearer TOKEN`, or from a
 * client's certificate, and the table of roles.h says what it may. `cox-tenant` names one of its tenants;
 * without it the first is meant, and `default` for who has all.
 *
 * Revoked, expired or narrowed: calls under way are ended, UNAUTHENTICATED, when the file is read again, or
 * within ACCESS_LOOK_MS of the expiry.
 *
 * Thread: the engine's, except cox_access_refuses.
 */
#ifndef COX_ORCHESTRATOR_ACCESS_H
#define COX_ORCHESTRATOR_ACCESS_H

#include "cox/rpc.h"
#include "cox/types.h"

#define ACCESS_LOOK_MS 1000
#define ACCESS_TASK_TOKEN_MS_MAX (24 * 3600 * 1000LL)
#define ACCESS_DEFAULT_TENANT "default"

struct cox_access;

/* Who makes a call. Lives as long as the call. */
struct cox_caller {
    const char *name;        /* of the token, or of the certificate */
    const char *roles;       /* their names, each after a space; NULL: nobody is asked who they are */
    const char *tenant;      /* that this call is about */
    bool whole;              /* has all tenants: may see what belongs to none */
    bool as_worker;          /* may make this call because it is a worker, and for no other reason */
    cox_task_id task;        /* may read this task and nothing else; 0: no such bound */
    int64_t expires_wall_ms; /* INT64_MAX: never */
};

/* Borrowed for the call. */
struct cox_access_config {
    const char *token_file; /* NULL: none */
    bool certificates;      /* clients' certificates are identities */
};

/* Errors: COX_ERR_INVALID and COX_ERR_IO with a sentence. */
COX_MUST_CHECK enum cox_err cox_access_create(const struct cox_access_config *config, struct cox_access **ret,
                                              struct cox_buf *error);
void cox_access_destroy(struct cox_access *a); /* after its server; NULL is allowed */

/* Keeps the key for tasks' tokens in this file, which is made when it is not there; before, and when nobody
 * is asked for an identity, the key is one of this process. Errors: COX_ERR_IO, COX_ERR_INVALID. */
COX_MUST_CHECK enum cox_err cox_access_keep_key(struct cox_access *a, const char *path,
                                                struct cox_buf *error);

/* Reads file and key again. On an error everything stays as it was. */
COX_MUST_CHECK enum cox_err cox_access_reload(struct cox_access *a, struct cox_buf *error);

/* For cox_rpc_server_config: admit and released, with the access as admit_user. */
bool cox_access_admit(struct cox_rpc_call *call, const ProtobufCServiceDescriptor *service,
                      const char *method, void *access);
void cox_access_released(void *caller, void *access);

/* Who makes an admitted call; the local identity where there is no admission (tests). Never NULL. */
const struct cox_caller *cox_access_caller(const struct cox_rpc_call *call);

/* Ends what has expired. To be called each turn, and at this time (monotonic; INT64_MAX: none). */
void cox_access_turn(struct cox_access *a);
int64_t cox_access_wake_ns(const struct cox_access *a);

/* For refusing a request by its head, before its body is read: why nobody known says so, or, where a service
 * is named, why they may not; NULL when they may. `authorization` is the header's value, without data when
 * there is none. No admission: the tenant is not looked at. Thread: any. */
const struct cox_rpc_error *cox_access_refuses(struct cox_access *a, struct cox_slice authorization,
                                               const struct cox_tls_certificate *certificate,
                                               const char *service, const char *method);

/* Likewise for a call that is none of a service's: whose it is goes to `ret_tenant`. `tenant` is what the
 * caller asks for, without data for nothing. Thread: any. */
const struct cox_rpc_error *cox_access_admits(struct cox_access *a, struct cox_slice authorization,
                                              const struct cox_tls_certificate *certificate,
                                              struct cox_slice tenant, const char *service,
                                              const char *method, char ret_tenant[64]);

/* How many were turned away, since the start: who they are is not known; what they want is not for them; it
 * is of tenants that are not theirs. Thread: any. */
enum access_refusal { ACCESS_REFUSED_IDENTITY, ACCESS_REFUSED_ROLE, ACCESS_REFUSED_TENANT };
#define ACCESS_REFUSED_NR 3
uint64_t cox_access_n_refused(const struct cox_access *a, enum access_refusal why);

/* A token for reading one task, of the caller's tenant, which lives no longer than the caller's own.
 * Appends the token; returns when it expires. */
int64_t cox_access_task_token(struct cox_access *a, const struct cox_caller *caller, cox_task_id task,
                              int64_t life_ms, struct cox_buf *out);

#endif
