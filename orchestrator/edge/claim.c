#include "claim.h"

#include "cox/base/plant.h"

#include <string.h>

static size_t count(const struct edge_head *h, const char *name)
{
    size_t n = 0;

    for (size_t i = 0; i < h->n_headers; i++)
        n += edge_slice_is_nocase(h->headers[i].name, name);
    return n;
}

static bool copy(const struct edge_head *h, const char *name, char *to, size_t len_max)
{
    struct cox_slice value = edge_header(h, name);

    if (count(h, name) > 1 || value.len > len_max || (value.len > 0 && memchr(value.data, 0, value.len)))
        return false;
    if (value.len > 0)
        memcpy(to, value.data, value.len);
    to[value.len] = 0;
    return true;
}

enum claim_found claim_read(const struct edge_head *h, struct cox_edge_claim *ret)
{
    struct cox_slice attempt = edge_header(h, "cox-attempt");

    if (!attempt.data)
        return CLAIM_NONE;
    memset(ret, 0, sizeof(*ret));
    if (count(h, "cox-attempt") > 1 || cox_ref_parse(attempt, &ret->ref) ||
        !copy(h, "cox-session", ret->session, EDGE_SESSION_LEN_MAX) ||
        !copy(h, "cox-tenant", ret->tenant, EDGE_TENANT_LEN_MAX))
        return CLAIM_MALFORMED;
    return CLAIM_MADE;
}

/* On the engine's thread. Nothing is said where the claim does not hold. */
static void ask_attempt(struct cox_edge *e, struct cox_slice question, struct cox_buf *out, bool *ret_ok)
{
    struct cox_edge_attempt found = { .priority = 0 };
    struct cox_edge_claim claim;

    *ret_ok = true;
    memcpy(&claim, question.data, sizeof(claim));
    if ((e->config.attempt && e->config.attempt(e->config.user, &claim, &found)) ||
        COX_PLANTED("edge-claim-unproved"))
        cox_buf_append(out, &found, sizeof(found));
}

struct call *claim_ask(struct cox_edge *e, const struct cox_edge_claim *claim,
                       const struct call_events *events, void *user)
{
    return call_start_change(e, ask_attempt, cox_slice(claim, sizeof(*claim)), events, user);
}

bool claim_answer(struct cox_slice message, struct cox_edge_attempt *ret)
{
    if (message.len != sizeof(*ret))
        return false;
    memcpy(ret, message.data, sizeof(*ret));
    return true;
}
