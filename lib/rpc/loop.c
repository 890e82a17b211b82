#include "rpc_internal.h"

#include "cox/base/alloc.h"
#include "cox/base/log.h"

#include <grpc/support/log.h>
#include <pthread.h>
#include <signal.h>

/* What the library says is about its insides, never news for an operator: calls carry their own errors. */
static void log_debug(gpr_log_func_args *args)
{
    cox_log(COX_LOG_DEBUG, args->message, "file", args->file, "line", COX_LOG_NUM(args->line), NULL);
}

void cox_rpc_init(void)
{
    sigset_t all, before;

    gpr_set_log_function(log_debug);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    grpc_init();
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    rpc_descriptors_init();
}

void cox_rpc_fini(void)
{
    rpc_descriptors_fini();
    grpc_shutdown_blocking();
}

gpr_timespec rpc_deadline(int64_t mono_ns)
{
    if (mono_ns == COX_RPC_FOREVER)
        return gpr_inf_future(GPR_CLOCK_MONOTONIC);
    return gpr_time_from_nanos(mono_ns < 0 ? 0 : mono_ns, GPR_CLOCK_MONOTONIC);
}

struct cox_rpc_loop *cox_rpc_loop_create(void)
{
    struct cox_rpc_loop *loop = COX_NEW(struct cox_rpc_loop);

    loop->cq = grpc_completion_queue_create_for_next(NULL);
    loop->lame = grpc_lame_client_channel_create("wake", GRPC_STATUS_UNAVAILABLE, "connects to nothing");
    loop->wake_call = grpc_channel_create_call(loop->lame, NULL, GRPC_PROPAGATE_DEFAULTS, loop->cq,
                                               grpc_slice_from_static_string("/wake"), NULL,
                                               gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    atomic_init(&loop->wake_pending, false);
    cox_list_init(&loop->local_ready);
    return loop;
}

void cox_rpc_loop_destroy(struct cox_rpc_loop *loop)
{
    if (!loop)
        return;
    while (loop->n_calls > 0)
        cox_rpc_loop_run_once(loop, COX_RPC_FOREVER, 256);
    grpc_completion_queue_shutdown(loop->cq);
    while (grpc_completion_queue_next(loop->cq, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL).type !=
           GRPC_QUEUE_SHUTDOWN)
        ;
    grpc_call_unref(loop->wake_call);
    grpc_channel_destroy(loop->lame);
    grpc_completion_queue_destroy(loop->cq);
    cox_heap_fini(&loop->local_deadlines);
    cox_buf_fini(&loop->local_packed);
    cox_arena_fini(&loop->arena);
    cox_free(loop);
}

size_t cox_rpc_loop_run_once(struct cox_rpc_loop *loop, int64_t deadline_mono_ns, size_t events_max)
{
    /* Neither kind keeps the other waiting, also where events are taken one by one. */
    size_t n_local_max = events_max / 2 + (loop->local_first ? events_max % 2 : 0);

    COX_ASSERT(!loop->running);
    loop->running = true;
    loop->local_first = !loop->local_first;
    size_t n_handled = rpc_local_run(loop, n_local_max);
    int64_t local_ns = n_handled > 0 ? 0 : rpc_local_wake_ns(loop);
    gpr_timespec deadline = rpc_deadline(local_ns < deadline_mono_ns ? local_ns : deadline_mono_ns);

    for (size_t n = n_handled; n < events_max; n++) {
        grpc_event event = grpc_completion_queue_next(loop->cq, deadline, NULL);
        if (event.type == GRPC_QUEUE_TIMEOUT && loop->n_deaf == 0)
            atomic_fetch_add(&loop->n_settled, 1);
        if (event.type != GRPC_OP_COMPLETE)
            break;
        deadline = gpr_time_0(GPR_CLOCK_MONOTONIC);
        if (event.tag == loop) {
            atomic_store(&loop->wake_pending, false);
            continue;
        }
        struct rpc_tag *tag = event.tag;

        tag->fn(tag->owner, event.success != 0);
        cox_arena_reset(&loop->arena);
        n_handled++;
    }
    if (n_handled == 0)
        n_handled = rpc_local_run(loop, events_max);
    loop->running = false;
    return n_handled;
}

/* A batch of no operations completes at once. Batches on one call must not race: whoever turns the flag on
 * starts the only one, and the loop turns the flag off when it has taken that batch's event. */
void cox_rpc_loop_wake(struct cox_rpc_loop *loop)
{
    if (atomic_exchange(&loop->wake_pending, true))
        return;
    grpc_call_error err = grpc_call_start_batch(loop->wake_call, NULL, 0, loop, NULL);

    COX_ASSERT(err == GRPC_CALL_OK);
}
