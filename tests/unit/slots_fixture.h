/* A worker's slots with a directory of their own, programs in a second one, and somebody who waits for
 * replies. */
#ifndef COX_TEST_SLOTS_FIXTURE_H
#define COX_TEST_SLOTS_FIXTURE_H

#include "check.h"

#include "janitor.h"
#include "slots.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATIENCE_MS 20000

struct bench {
    char dir[64];      /* the slots' */
    char programs[64]; /* the catalogue's */
    const char *dirs[1];
    struct catalogue *catalogue;
    struct slots *slots;
    int replied; /* eventfd */
    struct reach reach;
    int64_t workspace_ttl_ms;
    bool with_blobs;
    struct secret_table *secrets; /* or NULL */
    const char *secrets_dir;      /* or NULL */
};

static inline void bench_on_reply(void *user)
{
    const struct bench *b = user;
    uint64_t one = 1;

    (void)!write(b->replied, &one, sizeof(one));
}

static inline void bench_write(struct bench *b, const char *name, const char *text)
{
    char path[200], new_path[220];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", b->programs, name);
    snprintf(new_path, sizeof(new_path), "%s/.%s", b->programs, name);
    f = fopen(new_path, "we");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fchmod(fileno(f), 0755), 0);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(rename(new_path, path), 0);
}

/* Programs are written with bench_write between these two. */
static inline void bench_begin(struct bench *b)
{
    memset(b, 0, sizeof(*b));
    b->replied = eventfd(0, 0);
    snprintf(b->dir, sizeof(b->dir), "/tmp/cox-test-slots-XXXXXX");
    snprintf(b->programs, sizeof(b->programs), "/tmp/cox-test-programs-XXXXXX");
    assert_non_null(mkdtemp(b->dir));
    assert_non_null(mkdtemp(b->programs));
    b->dirs[0] = b->programs;
}

static inline void bench_start(struct bench *b)
{
    b->catalogue = catalogue_create(
        &(struct catalogue_config){ .dirs = b->dirs, .n_dirs = 1, .on_changed = bench_on_reply, .user = b });
    assert_int_equal(slots_create(&(struct slots_config){ .n_slots = 2,
                                                          .work_dir = b->dir,
                                                          .boot_id = "b1",
                                                          .catalogue = b->catalogue,
                                                          .self = "/proc/self/exe",
                                                          .with_blobs = b->with_blobs,
                                                          .secrets = b->secrets,
                                                          .secrets_dir = b->secrets_dir,
                                                          .workspace_ttl_ms = b->workspace_ttl_ms,
                                                          .reach = b->reach,
                                                          .on_reply = bench_on_reply,
                                                          .user = b },
                                  &b->slots),
                     COX_OK);
}

static inline void bench_end(struct bench *b)
{
    slots_destroy(b->slots);
    catalogue_destroy(b->catalogue);
    close(b->replied);
    janitor_remove_now(b->programs);
    assert_int_equal(rmdir(b->dir), 0); /* nothing is left in it */
}

static inline void bench_wait(struct bench *b)
{
    struct pollfd p = { .fd = b->replied, .events = POLLIN };
    uint64_t n;

    assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
    assert_int_equal(read(b->replied, &n, sizeof(n)), sizeof(n));
}

static inline struct slots_reply *bench_reply(struct bench *b)
{
    struct slots_reply *reply = slots_take(b->slots);

    for (; !reply; reply = slots_take(b->slots))
        bench_wait(b);
    return reply;
}

/* Fields that are left out are those of a plain attempt. */
static inline struct slots_reply *bench_run(struct bench *b, struct cox_agent_assign assign)
{
    struct slots_reply *reply;

    assign.ref = (struct cox_ref){ 1, 1, { 1, 1 } };
    assign.attempt = assign.attempt ? assign.attempt : 1;
    slots_start(b->slots, 0, &assign);
    reply = bench_reply(b);
    assert_int_equal(reply->kind, SLOTS_ENDED);
    return reply;
}

static inline int bench_block_signals(void **state)
{
    sigset_t all;

    (void)state;
    sigfillset(&all);
    return sigprocmask(SIG_BLOCK, &all, NULL);
}

#endif
