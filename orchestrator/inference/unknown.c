/* Endpoints that say 404 or 405: they do not know what they are asked for. Where another serves it, they are
 * set up wrongly, and by their quick answers would draw all calls to them; where nobody does, it is the
 * request's fault, and nobody is blamed. */
#include "router_internal.h"

bool unknown_add(struct router_call *c)
{
    for (uint32_t i = 0; i < c->n_unknown; i++) {
        if (c->unknown[i] == c->endpoint)
            return false;
    }
    if (c->n_unknown < ROUTER_UNKNOWN_MAX) {
        endpoint_ref(c->endpoint);
        c->unknown[c->n_unknown++] = c->endpoint;
    }
    return true;
}

bool unknown_to_others(const struct router_call *c)
{
    uint32_t n_open = c->pool->n_open;

    for (uint32_t i = 0; i < c->n_unknown; i++) {
        const struct endpoint *e = c->unknown[i];
        if (e->model == c->model && e->owner_data && n_open > 0)
            n_open--;
    }
    return n_open == 0 || c->n_unknown == ROUTER_UNKNOWN_MAX;
}

void unknown_forget(struct router_call *c)
{
    while (c->n_unknown > 0)
        endpoint_unref(c->unknown[--c->n_unknown]);
}

void unknown_prove(struct router_call *c)
{
    for (uint32_t i = 0; i < c->n_unknown; i++) {
        if (c->unknown[i]->model == c->model && c->unknown[i] != c->endpoint)
            health_tell(c->router->health, c->unknown[i], HEALTH_BAD, 0);
    }
    unknown_forget(c);
}
