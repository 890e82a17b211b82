/* Who a peer is, by its certificate. Each call keeps a copy of its own: the connection may end before it. */
#include "rpc_internal.h"

#include "cox/base/alloc.h"

#include <string.h>

static const char *put(char **at, const char *text)
{
    size_t len = strlen(text) + 1;
    char *copy = *at;

    memcpy(copy, text, len);
    *at += len;
    return copy;
}

struct cox_rpc_certificate *rpc_certificate_copy(const struct cox_rpc_certificate *from)
{
    size_t n = from->n_organizations,
           len = strlen(from->name) + 1 + (from->unit ? strlen(from->unit) + 1 : 0);

    for (size_t i = 0; i < n; i++)
        len += strlen(from->organizations[i]) + 1;
    struct cox_rpc_certificate *copy = cox_alloc(sizeof(*copy) + n * sizeof(char *) + len);
    const char **organizations = (const char **)(copy + 1);
    char *at = (char *)(organizations + n);

    copy->name = put(&at, from->name);
    copy->unit = from->unit ? put(&at, from->unit) : NULL;
    copy->organizations = organizations;
    copy->n_organizations = n;
    for (size_t i = 0; i < n; i++)
        organizations[i] = put(&at, from->organizations[i]);
    return copy;
}

const struct cox_rpc_certificate *cox_rpc_call_certificate(struct cox_rpc_call *call)
{
    return call->certificate;
}
