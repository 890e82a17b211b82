#include "cli.h"

#include "cox/base/units.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#define SAME_PRESS_NS 300000000LL

/* Why a thread: waking a loop is not allowed in a signal handler, and a flag alone would be seen late. */
static pthread_t waiter;
static bool running;
static atomic_bool interrupted;

static void signals(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGTERM);
}

static void *wait_for_signal(void *loop)
{
    sigset_t set;
    int number;

    signals(&set);
    sigwait(&set, &number);
    atomic_store(&interrupted, true);
    cox_rpc_loop_wake(loop);
    /* A terminal or a parent may send one Ctrl-C twice; only a later one means "at once". */
    int64_t first_ns = cox_clock_mono_ns();

    do
        sigwait(&set, &number);
    while (cox_clock_mono_ns() - first_ns < SAME_PRESS_NS);
    _exit(CLI_INTERRUPTED);
}

void cli_interrupt_hold(void)
{
    sigset_t set;

    signals(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
}

void cli_interrupt_start(struct cox_rpc_loop *loop)
{
    COX_ASSERT(pthread_create(&waiter, NULL, wait_for_signal, loop) == 0);
    running = true;
}

void cli_interrupt_stop(void)
{
    if (!running)
        return;
    pthread_cancel(waiter);
    pthread_join(waiter, NULL);
    running = false;
}

bool cli_interrupted(void)
{
    return atomic_load(&interrupted);
}
