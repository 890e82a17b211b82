/* Who wants to hear of a task's changes. The engine is asked once a task, however many ask us. */
#include "internal.h"

#include "cox/base/alloc.h"

struct watched {
    struct cox_list watchers;
    size_t n_told; /* walks over the list under way */
};

static void tell_engine(struct cox_api *a, enum cox_input_kind kind, cox_task_id task)
{
    cox_driver_step(a->driver, &(struct cox_input){ .kind = kind, .u.task.task = task });
}

void cox_watcher_init(struct cox_watcher *w)
{
    cox_list_init(&w->node);
    cox_list_init(&w->dirty);
    w->task = 0;
}

void cox_watcher_start(struct cox_api *a, struct cox_watcher *w, cox_task_id task)
{
    struct watched *on = cox_map64_get(&a->watched, task);

    if (!on) {
        on = COX_NEW(struct watched);
        cox_list_init(&on->watchers);
        cox_map64_set(&a->watched, task, on);
        tell_engine(a, COX_IN_WATCH, task);
    }
    w->task = task;
    cox_list_push_back(&on->watchers, &w->node);
}

static void forget_if_alone(struct cox_api *a, cox_task_id task, struct watched *on)
{
    if (!cox_list_empty(&on->watchers) || on->n_told > 0)
        return;
    cox_map64_remove(&a->watched, task);
    cox_free(on);
    tell_engine(a, COX_IN_UNWATCH, task);
}

void cox_watcher_stop(struct cox_api *a, struct cox_watcher *w)
{
    cox_task_id task = w->task;

    cox_list_remove(&w->dirty);
    if (!task)
        return;
    w->task = 0;
    cox_list_remove(&w->node);
    forget_if_alone(a, task, cox_map64_get(&a->watched, task));
}

void cox_watcher_mark(struct cox_api *a, struct cox_watcher *w)
{
    if (w->dirty.next == &w->dirty)
        cox_list_push_back(&a->dirty, &w->dirty);
}

void cox_api_changed(struct cox_api *a, const struct cox_action *action)
{
    cox_task_id task = action->u.changed.task;
    struct watched *on = cox_map64_get(&a->watched, task);

    if (!on)
        return;
    on->n_told++;
    COX_LIST_FOR_EACH (it, &on->watchers) {
        struct cox_watcher *w = COX_CONTAINER_OF(it, struct cox_watcher, node);
        w->on_changed(w, action->u.changed.frame, action->u.changed.step, action->u.changed.seq,
                      action->u.changed.final);
    }
    on->n_told--;
    forget_if_alone(a, task, on);
}

void cox_watched_fini(struct cox_api *a)
{
    size_t it = 0;
    uint64_t task;
    void *on;

    while (cox_map64_next(&a->watched, &it, &task, &on))
        cox_free(on);
    cox_map64_fini(&a->watched);
}
