/* A server and a channel to it on one loop: what the tests of lib/rpc start from. */
#ifndef COX_TESTS_UNIT_RPC_FIXTURE_H
#define COX_TESTS_UNIT_RPC_FIXTURE_H

#include "check.h"
#include "cox/base/alloc.h"
#include "cox/base/units.h"
#include "cox/limits.h"
#include "cox/rpc.h"

#include <stdio.h>
#include <string.h>

#define PATIENCE_NS (20 * 1000000000LL) /* a test that waits this long has failed */

struct fixture {
    struct cox_rpc_loop *loop;
    struct cox_rpc_server *server;
    struct cox_rpc_channel *channel;
};

static inline struct cox_rpc_channel *fixture_connect(struct fixture *f)
{
    char target[64];

    snprintf(target, sizeof(target), "127.0.0.1:%d", cox_rpc_server_port(f->server));
    return cox_rpc_channel_create(
        f->loop, &(struct cox_rpc_channel_config){ .target = target, .own_connection = true });
}

static inline void fixture_init(struct fixture *f, struct cox_rpc_server_config config)
{
    cox_rpc_init();
    f->loop = cox_rpc_loop_create();
    config.address = "127.0.0.1:0";
    assert_int_equal(cox_rpc_server_create(f->loop, &config, &f->server), COX_OK);
    f->channel = fixture_connect(f);
}

static inline void fixture_fini(struct fixture *f)
{
    cox_rpc_channel_destroy(f->channel);
    cox_rpc_server_destroy(f->server);
    cox_rpc_loop_destroy(f->loop);
    cox_rpc_fini();
}

/* Runs the loop until `cond` holds. */
#define RUN_UNTIL(f, cond)                                                                                   \
    do {                                                                                                     \
        int64_t give_up_ns = cox_clock_mono_ns() + PATIENCE_NS;                                              \
        while (!(cond)) {                                                                                    \
            cox_rpc_loop_run_once((f)->loop, cox_clock_mono_ns() + 50000000, 256);                           \
            assert_true(cox_clock_mono_ns() < give_up_ns);                                                   \
        }                                                                                                    \
    } while (0)

#endif
