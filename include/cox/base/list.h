/* Intrusive doubly linked list. An unlinked node points to itself, so unlinking twice is harmless. O(1). */
#ifndef COX_BASE_LIST_H
#define COX_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

#define COX_CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

struct cox_list {
    struct cox_list *next;
    struct cox_list *prev;
};

static inline void cox_list_init(struct cox_list *l)
{
    l->next = l;
    l->prev = l;
}
static inline bool cox_list_empty(const struct cox_list *l)
{
    return l->next == l;
}
static inline void cox_list_remove(struct cox_list *n)
{
    n->prev->next = n->next;
    n->next->prev = n->prev;
    cox_list_init(n);
}
static inline void cox_list_push_back(struct cox_list *head, struct cox_list *n)
{
    n->prev = head->prev;
    n->next = head;
    head->prev->next = n;
    head->prev = n;
}
static inline void cox_list_push_front(struct cox_list *head, struct cox_list *n)
{
    cox_list_push_back(head->next, n);
}

/* Safe against removal of `it` itself inside the loop. */
#define COX_LIST_FOR_EACH(it, head)                                                                          \
    for (struct cox_list *it = (head)->next, *it##_next = it->next; it != (head);                            \
         it = it##_next, it##_next = it->next)

#endif
