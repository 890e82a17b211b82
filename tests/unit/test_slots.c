/* The slots' thread: replies, its end, and what a killed worker leaves. */
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
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATIENCE_MS 20000

static char dir[64];
static int replied; /* eventfd */

static void on_reply(void *user)
{
    uint64_t one = 1;

    (void)user;
    (void)!write(replied, &one, sizeof(one));
}

static struct slots *create(const char *boot_id)
{
    struct slots *s;

    assert_int_equal(
        slots_create(
            &(struct slots_config){ .n_slots = 2, .work_dir = dir, .boot_id = boot_id, .on_reply = on_reply },
            &s),
        COX_OK);
    return s;
}

static struct slots_reply *await_reply(struct slots *s)
{
    struct slots_reply *reply = slots_take(s);
    uint64_t n;

    while (!reply) {
        struct pollfd p = { .fd = replied, .events = POLLIN };

        assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
        assert_int_equal(read(replied, &n, sizeof(n)), sizeof(n));
        reply = slots_take(s);
    }
    return reply;
}

static void start(struct slots *s, uint32_t slot, const char *handler, const char *spec)
{
    slots_start(s, slot,
                &(struct cox_agent_assign){ .ref = { 1, slot, { 1, 1 } },
                                            .attempt = 1,
                                            .handler = cox_slice_str(handler),
                                            .spec_json = cox_slice_str(spec) });
}

static int set_up(void **state)
{
    (void)state;
    replied = eventfd(0, 0);
    snprintf(dir, sizeof(dir), "/tmp/cox-test-slots-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    close(replied);
    return rmdir(dir); /* nothing is left in it */
}

static void test_slots_run_beside_each_other(void **state)
{
    struct slots *s = create("b1");
    struct slots_reply *reply;

    (void)state;
    start(s, 0, "run", "{\"argv\":[\"sleep\",\"1000\"]}");
    start(s, 1, "run", "{\"argv\":[\"echo\",\"hi\"]}");
    reply = await_reply(s);
    assert_int_equal(reply->kind, SLOTS_ENDED);
    assert_int_equal(reply->slot, 1);
    assert_true(cox_slice_is(reply->result.output, "{\"exit_code\":0,\"stdout\":\"hi\\n\",\"stderr\":\"\"}"));
    slots_reply_free(s, reply);
    slots_kill(s, 1); /* too late: nothing is there */
    slots_kill(s, 0);
    reply = await_reply(s);
    assert_int_equal(reply->slot, 0);
    assert_int_equal(reply->result.exit_code, 128 + SIGTERM);
    slots_reply_free(s, reply);
    slots_destroy(s);
}

static void test_a_handler_that_is_not_here_is_named(void **state)
{
    struct slots *s = create("b1");
    struct slots_reply *reply;

    (void)state;
    start(s, 0, "lint@2", "{}");
    reply = await_reply(s);
    assert_int_equal(reply->result.code, COX_CODE_INPUT_INVALID);
    assert_true(cox_slice_is(reply->result.message, "this worker has no handler \"lint@2\""));
    slots_reply_free(s, reply);
    slots_destroy(s);
}

static void test_a_log_that_nobody_takes_holds_up_nothing(void **state)
{
    struct slots *s = create("b1");
    struct slots_reply *logs[SLOTS_LOGS_MAX];
    struct slots_reply *reply;
    size_t n = 0;

    (void)state;
    start(s, 0, "run", "{\"argv\":[\"sh\",\"-c\",\"read x; yes | head -c 12000000\"],\"stdin\":\"\\n\"}");
    slots_log(s, 0, true);
    for (reply = await_reply(s); reply->kind == SLOTS_LOG && n < SLOTS_LOGS_MAX; reply = await_reply(s))
        logs[n++] = reply; /* none is given back */
    assert_int_equal(n, SLOTS_LOGS_MAX);
    assert_int_equal(reply->kind, SLOTS_LOG); /* the reader learns that the rest is missing */
    assert_true(reply->dropped);
    assert_int_equal(reply->bytes.len, 0);
    slots_reply_free(s, reply);
    reply = await_reply(s);
    assert_int_equal(reply->kind, SLOTS_ENDED);
    slots_reply_free(s, reply);
    while (n > 0)
        slots_reply_free(s, logs[--n]);
    slots_destroy(s);
}

static void test_what_runs_ends_with_the_slots(void **state)
{
    struct slots *s = create("b1");

    (void)state;
    start(s, 0, "run", "{\"argv\":[\"sh\",\"-c\",\"echo x > file; sleep 1000\"]}");
    start(s, 1, "run", "{\"argv\":[\"true\"]}");
    slots_reply_free(s, await_reply(s));
    slots_destroy(s);
}

/* In a process of its own: starts a step, writes the step's process number to `fd`, waits to be killed. */
static void live_until_killed(int fd)
{
    struct slots *s = create("killed");
    struct slots_reply *reply;

    start(s, 0, "run", "{\"argv\":[\"sh\",\"-c\",\"echo x > file; echo $$; exec sleep 1000\"]}");
    slots_log(s, 0, true);
    reply = await_reply(s);
    (void)!write(fd, reply->bytes.data, reply->bytes.len);
    for (;;)
        pause();
}

static void test_a_killed_worker_leaves_nothing_for_long(void **state)
{
    int fds[2];
    char text[32] = { 0 };
    struct pollfd p = { .events = POLLIN };
    char left[100];
    pid_t pid;

    (void)state;
    assert_int_equal(pipe(fds), 0);
    pid = fork();
    if (pid == 0)
        live_until_killed(fds[1]);
    assert_true(read(fds[0], text, sizeof(text) - 1) > 0);
    p.fd = (int)syscall(SYS_pidfd_open, (pid_t)strtol(text, NULL, 10), 0);
    assert_true(p.fd >= 0);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(poll(&p, 1, PATIENCE_MS), 1); /* its step went with it */
    snprintf(left, sizeof(left), "%s/boot-killed", dir);
    assert_int_equal(access(left, F_OK), 0);

    struct slots *living = create("b2");
    struct slots *another = create("b3"); /* does not take b2's directory for stale */
    slots_destroy(living);
    slots_destroy(another);
    assert_int_not_equal(access(left, F_OK), 0);
    close(p.fd);
    close(fds[0]);
    close(fds[1]);
}

static void test_a_work_directory_that_was_removed_is_made_again(void **state)
{
    struct slots *s = create("b1");
    char boot[100], aside[100];

    (void)state;
    snprintf(boot, sizeof(boot), "%s/boot-b1", dir);
    snprintf(aside, sizeof(aside), "%s-aside", dir);
    assert_int_equal(rmdir(boot), 0);
    assert_int_equal(rename(dir, aside), 0);
    for (int i = 0; i < 2; i++) {
        start(s, 0, "run", "{\"argv\":[\"pwd\"]}");
        struct slots_reply *reply = await_reply(s);
        assert_int_equal(reply->result.status, COX_ATTEMPT_SUCCEEDED);
        slots_reply_free(s, reply);
    }
    assert_int_equal(access(boot, F_OK), 0);
    slots_destroy(s); /* takes along what it made */
    assert_int_not_equal(access(dir, F_OK), 0);
    assert_int_equal(rename(aside, dir), 0);
}

/* A folder that root made in the directory of a worker that is not root: a step's container, most often. */
static void test_what_is_somebody_elses_holds_up_nobody(void **state)
{
    char folder[100], file[120];
    int status;
    pid_t pid;

    (void)state;
    if (geteuid() != 0)
        skip();
    snprintf(folder, sizeof(folder), "%s/theirs", dir);
    snprintf(file, sizeof(file), "%s/file", folder);
    assert_int_equal(mkdir(folder, 0755), 0);
    assert_int_equal(mkdir(file, 0755), 0);
    assert_int_equal(chown(dir, 65534, 65534), 0);
    pid = fork();
    if (pid == 0) {
        sigset_t none;

        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        alarm(PATIENCE_MS / 1000);
        if (setuid(65534) != 0)
            _exit(1);
        janitor_remove_now(dir);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(access(file, F_OK), 0);
    assert_int_equal(rmdir(file), 0);
    assert_int_equal(rmdir(folder), 0);
}

static int block_signals(void **state)
{
    sigset_t all;

    (void)state;
    sigfillset(&all);
    return sigprocmask(SIG_BLOCK, &all, NULL);
}

#define slots_test(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        slots_test(test_a_killed_worker_leaves_nothing_for_long),
        slots_test(test_slots_run_beside_each_other),
        slots_test(test_a_handler_that_is_not_here_is_named),
        slots_test(test_a_log_that_nobody_takes_holds_up_nothing),
        slots_test(test_what_runs_ends_with_the_slots),
        slots_test(test_a_work_directory_that_was_removed_is_made_again),
        slots_test(test_what_is_somebody_elses_holds_up_nobody),
    };
    return cmocka_run_group_tests(tests, block_signals, NULL);
}
