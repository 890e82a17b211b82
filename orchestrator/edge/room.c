/* Who gives way when there is no room. Every connection whose peer's turn it is stands in one line of its
 * network's: by how little is lost with it, in the order in which it came to stand there. Of the lowest rank
 * that anybody has, the first of the network with the most gives way: however many connections one network
 * brings, it takes them from itself. O(networks) for each, and only at the bound. */
#include "internal.h"

#include "cox/base/alloc.h"

struct room_network {
    uint64_t key;
    size_t n_conns;
    size_t n[ROOM_RANK_NR];
    struct cox_list lines[ROOM_RANK_NR];
};

void room_enter(struct conn *c, uint64_t key)
{
    struct room_network *network = cox_map64_get(&c->edge->networks, key);

    if (!network) {
        network = COX_NEW(struct room_network);
        network->key = key;
        for (int i = 0; i < ROOM_RANK_NR; i++)
            cox_list_init(&network->lines[i]);
        (void)cox_map64_set(&c->edge->networks, key, network);
    }
    network->n_conns++;
    c->network = network;
    c->rank = ROOM_STAYS;
    cox_list_init(&c->line);
}

void room_stand(struct conn *c, enum room_rank rank)
{
    if (rank == c->rank)
        return;
    if (c->rank != ROOM_STAYS) {
        cox_list_remove(&c->line);
        c->network->n[c->rank]--;
        c->edge->n_ranked[c->rank]--;
    }
    c->rank = rank;
    if (rank != ROOM_STAYS) {
        cox_list_push_back(&c->network->lines[rank], &c->line);
        c->network->n[rank]++;
        c->edge->n_ranked[rank]++;
    }
}

void room_leave(struct conn *c)
{
    room_stand(c, ROOM_STAYS);
    if (--c->network->n_conns > 0)
        return;
    (void)cox_map64_remove(&c->edge->networks, c->network->key);
    cox_free(c->network);
}

static struct room_network *largest(const struct cox_edge *e, enum room_rank rank, const struct conn *but)
{
    struct room_network *found = NULL;
    size_t n_found = 0, it = 0;
    uint64_t key;
    void *value;

    while (cox_map64_next(&e->networks, &it, &key, &value)) {
        struct room_network *network = value;
        size_t n = network->n[rank] - (but->network == network && but->rank == rank);
        if (n > n_found) {
            n_found = n;
            found = network;
        }
    }
    return found;
}

struct conn *room_first(const struct cox_edge *e, const struct conn *newest)
{
    for (enum room_rank rank = 0; rank < ROOM_RANK_NR; rank++) {
        if (e->n_ranked[rank] == (newest->rank == rank))
            continue;
        struct room_network *network = largest(e, rank, newest);
        struct cox_list *first = network->lines[rank].next;

        return COX_CONTAINER_OF(first == &newest->line ? first->next : first, struct conn, line);
    }
    return NULL;
}

size_t room_taken(const struct cox_edge *e)
{
    return e->n_conns - e->n_calling;
}

bool room_is_there(const struct cox_edge *e)
{
    return room_taken(e) < COX_HTTP_CONNECTIONS_MAX || e->n_ranked[ROOM_STRANGER] > 0 ||
           e->n_ranked[ROOM_BEGUN] > 0 || e->n_ranked[ROOM_IDLE] > 0;
}
