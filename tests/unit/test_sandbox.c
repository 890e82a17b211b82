/* Sandboxes with this very program inside: `test-sandbox inside NAME` tries one thing and exits with REACHED
 * or REFUSED. What needs a whole worker is in tests/security. */
#include "check.h"

#include "sandbox/sandbox.h"

#include "cox/base/units.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define REACHED 10
#define REFUSED 11
#define GUARD_MS 60000
#define LOOKS_MS 1000 /* until the watch has looked, many times over */

/* ---------------------------------------------------------------- inside */

static bool connects_abroad(void)
{
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    snprintf(to.sun_path + 1, sizeof(to.sun_path) - 1, "%s", getenv("ABSTRACT"));
    return fd >= 0 && connect(fd, (struct sockaddr *)&to,
                              (socklen_t)(sizeof(sa_family_t) + 1 + strlen(to.sun_path + 1))) == 0;
}

static int n_devices(void)
{
    FILE *f = fopen("/proc/net/dev", "re");
    char line[256];
    int n = -2; /* a heading */

    while (f && fgets(line, sizeof(line), f))
        n++;
    if (f)
        fclose(f);
    return n;
}

static bool fills_memory(void)
{
    for (int i = 0; i < 24; i++) {
        char *piece = malloc(8 << 20);

        if (!piece)
            return false;
        memset(piece, i + 1, 8 << 20);
    }
    poll(NULL, 0, LOOKS_MS);
    return true;
}

static bool has_descriptors(void)
{
    for (int fd = STDERR_FILENO + 1; fd < 64; fd++) {
        if (fcntl(fd, F_GETFD) >= 0)
            return true;
    }
    return false;
}

static bool inside(const char *what)
{
    if (strcmp(what, "rights") == 0)
        return prctl(PR_CAPBSET_READ, 0) != 0;
    if (strcmp(what, "new-privileges") == 0)
        return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1;
    if (strcmp(what, "descriptors") == 0)
        return has_descriptors();
    if (strcmp(what, "namespace") == 0)
        return unshare(CLONE_NEWUSER) == 0;
    if (strcmp(what, "packets") == 0) /* whoever is refused for want of a right has come further than here */
        return socket(AF_PACKET, SOCK_RAW, 0) >= 0 || errno != ENOSYS;
    if (strcmp(what, "keys") == 0)
        return syscall(SYS_keyctl, 0, -4, 1) >= 0;
    if (strcmp(what, "events") == 0)
        return syscall(SYS_perf_event_open, NULL, 0, -1, -1, 0) >= 0 || errno != EPERM;
    if (strcmp(what, "network") == 0)
        return n_devices() > 1;
    if (strcmp(what, "abstract") == 0)
        return connects_abroad();
    if (strcmp(what, "home") == 0)
        return !getenv("HOME") || strcmp(getenv("HOME"), "/tmp") != 0;
    if (strcmp(what, "memory") == 0)
        return fills_memory();
    if (strcmp(what, "write") == 0)
        return open("made", O_WRONLY | O_CREAT, 0600) >= 0;
    if (strcmp(what, "beside") == 0)
        return open("../beside", O_WRONLY | O_CREAT, 0600) >= 0;
    if (strcmp(what, "input") == 0)
        return open("/proc/self/fd/0", O_RDWR) >= 0;
    return strcmp(what, "read-input") == 0 && getchar() == 'i';
}

/* ---------------------------------------------------------------- outside */

struct bench {
    char dir[64], work[80], input[80], self[512];
    struct sandbox *sandbox;
    struct cox_resources resources;
    const char *stdin_path;
    const char *reads[2];
};

static void begin(struct bench *b, enum sandbox_level least)
{
    ssize_t len;
    FILE *f;

    *b = (struct bench){ .dir = "/tmp/cox-test-sandbox-XXXXXX" };
    len = readlink("/proc/self/exe", b->self, sizeof(b->self) - 1);
    assert_true(len > 0);
    assert_non_null(mkdtemp(b->dir));
    snprintf(b->work, sizeof(b->work), "%s/work", b->dir);
    snprintf(b->input, sizeof(b->input), "%s/input", b->dir);
    assert_int_equal(mkdir(b->work, 0700), 0);
    f = fopen(b->input, "we");
    assert_true(f && fputs("input", f) >= 0 && fclose(f) == 0 && chmod(b->input, 0666) == 0);
    b->reads[0] = b->input;
    b->sandbox = sandbox_create(
        &(struct sandbox_config){ .least = least, .helper = COX_SANDBOX_HELPER, .work_dir = b->dir });
    if (sandbox_why_not(b->sandbox, SANDBOX_STRICT)) {
        print_message("this host gives none: %s\n", sandbox_why_not(b->sandbox, SANDBOX_STRICT));
        skip();
    }
}

static void end(struct bench *b)
{
    char path[96];

    sandbox_destroy(b->sandbox);
    snprintf(path, sizeof(path), "%s/made", b->work);
    unlink(path);
    assert_int_equal(unlink(b->input), 0);
    assert_int_equal(rmdir(b->work), 0);
    assert_int_equal(rmdir(b->dir), 0); /* nothing stands beside */
}

static void run(struct bench *b, enum sandbox_level asked, char *const *argv, struct sandbox_end *ret)
{
    enum sandbox_level level = sandbox_level_for(b->sandbox, asked);
    char *const paths[] = { argv[0], NULL };
    char home[] = "HOME=/root", path[] = "PATH=/usr/bin:/bin", abstract[64];
    char debug[] = "LD_DEBUG=libs", debug_output[128];
    char *envp[] = { home, path, abstract, debug, debug_output, NULL };
    struct spawn_args args = { .paths = paths, .argv = argv, .envp = envp, .dir = b->work };
    const struct sandbox_step step = { .work = b->work,
                                       .program = b->self,
                                       .input = b->stdin_path,
                                       .read = b->reads,
                                       .resources = &b->resources };
    struct pollfd p = { .events = POLLIN };
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    struct sandboxed *in;
    pid_t pid;

    snprintf(debug_output, sizeof(debug_output), "LD_DEBUG_OUTPUT=%s/loader", b->dir);
    snprintf(abstract, sizeof(abstract), "ABSTRACT=cox-test-sandbox-%d", (int)getpid());
    args.in = args.out = args.err = null_fd;
    sandbox_environment(envp, level);
    assert_int_not_equal(level, SANDBOX_NONE);
    assert_int_equal(sandbox_spawn(b->sandbox, level, &step, &args, &pid, &in), 0);
    close(null_fd);
    p.fd = spawn_pidfd(pid);
    assert_int_equal(poll(&p, 1, GUARD_MS), 1);
    close(p.fd);
    waitpid(pid, NULL, 0);
    sandbox_end(in, ret);
    assert_string_equal(ret->failed, "");
}

static void expect(struct bench *b, enum sandbox_level asked, const char *what, int code)
{
    char *const argv[] = { b->self, (char *)(uintptr_t) "inside", (char *)(uintptr_t)what, NULL };
    struct sandbox_end e;

    run(b, asked, argv, &e);
    if (e.exec_errno || !e.has_status || !WIFEXITED(e.status) || WEXITSTATUS(e.status) != code)
        fail_msg("%s at %s: status %#x (exec: %s)", what, sandbox_level_text(asked), (unsigned)e.status,
                 strerror(e.exec_errno));
}

static void test_ends_are_told(void **state)
{
    struct bench b;
    struct sandbox_end e;

    (void)state;
    begin(&b, SANDBOX_NONE);
    run(&b, SANDBOX_STRICT, (char *[]){ "/bin/sh", "-c", "exit 3", NULL }, &e);
    assert_true(e.has_status && WIFEXITED(e.status) && WEXITSTATUS(e.status) == 3);
    run(&b, SANDBOX_STRICT, (char *[]){ "/bin/sh", "-c", "kill -SEGV $$", NULL }, &e);
    assert_true(e.has_status && WIFSIGNALED(e.status) && WTERMSIG(e.status) == SIGSEGV);
    run(&b, SANDBOX_STRICT, (char *[]){ "/bin/nonesuch", NULL }, &e);
    assert_int_equal(e.exec_errno, ENOENT);
    end(&b);
}

static void test_what_is_refused(void **state)
{
    static const char *const refused[] = { "namespace", "packets",        "keys",       "events",
                                           "network",   "abstract",       "home",       "input",
                                           "rights",    "new-privileges", "descriptors" };
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sandbox_end e;
    struct bench b;

    (void)state;
    begin(&b, SANDBOX_NONE);
    int len = snprintf(at.sun_path + 1, sizeof(at.sun_path) - 1, "cox-test-sandbox-%d", (int)getpid());
    assert_int_equal(bind(fd, (struct sockaddr *)&at, (socklen_t)(sizeof(sa_family_t) + 1 + (size_t)len)), 0);
    assert_int_equal(listen(fd, 8), 0);
    b.stdin_path = b.input;
    for (size_t i = 0; i < ARRAY_LEN(refused); i++)
        expect(&b, SANDBOX_STRICT, refused[i], REFUSED);
    expect(&b, SANDBOX_STRICT, "write", REACHED);
    expect(&b, SANDBOX_STRICT, "read-input", REACHED);
    expect(&b, SANDBOX_NET, "abstract", REFUSED);
    run(&b, SANDBOX_NET, (char *[]){ b.self, "inside", "beside", NULL },
        &e); /* in the sandbox's own /tmp at best */
    expect(&b, SANDBOX_NET, "keys", REFUSED);
    close(fd);
    end(&b);
}

static void test_memory_is_bounded(void **state)
{
    struct bench b;
    struct sandbox_end e;

    (void)state;
    begin(&b, SANDBOX_NONE);
    b.resources.memory_bytes = 100 << 20; /* one process may reserve twice that: the watch must see it */
    run(&b, SANDBOX_STRICT, (char *[]){ b.self, "inside", "memory", NULL }, &e);
    assert_non_null(strstr(e.limit, "of memory, more than the 100 MiB"));
    assert_false(e.has_status);
    b.resources.memory_bytes = 1 << 30;
    expect(&b, SANDBOX_STRICT, "memory", REACHED);
    end(&b);
}

static void test_the_stronger_level_counts(void **state)
{
    struct bench b;

    (void)state;
    begin(&b, SANDBOX_NET);
    assert_int_equal(sandbox_level_for(b.sandbox, SANDBOX_NONE), SANDBOX_NET);
    assert_int_equal(sandbox_level_for(b.sandbox, SANDBOX_NET), SANDBOX_NET);
    assert_int_equal(sandbox_level_for(b.sandbox, SANDBOX_STRICT), SANDBOX_STRICT);
    assert_int_equal(sandbox_level_for(NULL, SANDBOX_STRICT), SANDBOX_STRICT);
    assert_non_null(sandbox_why_not(NULL, SANDBOX_STRICT));
    assert_null(sandbox_why_not(NULL, SANDBOX_NONE));
    end(&b);
}

static void test_a_level_that_cannot_be_given_is_not_offered(void **state)
{
    const char *keys[SANDBOX_LABELS], *values[SANDBOX_LABELS];
    struct sandbox *s = sandbox_create(&(struct sandbox_config){ .helper = "/nonesuch", .work_dir = "/tmp" });

    (void)state;
    assert_non_null(strstr(sandbox_why_not(s, SANDBOX_STRICT), "cannot start /nonesuch: No such file"));
    assert_non_null(sandbox_why_not(s, SANDBOX_NET));
    sandbox_labels(s, keys, values);
    assert_string_equal(keys[0], "sandbox.strict");
    assert_int_equal(strncmp(values[0], "no: cannot start", 16), 0);
    sandbox_destroy(s);
    s = sandbox_create(&(struct sandbox_config){ .helper = COX_SANDBOX_HELPER, .work_dir = "/usr/lib/work" });
    assert_non_null(strstr(sandbox_why_not(s, SANDBOX_STRICT), "lies in what every step may read"));
    sandbox_destroy(s);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ends_are_told),
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_memory_is_bounded),
        cmocka_unit_test(test_the_stronger_level_counts),
        cmocka_unit_test(test_a_level_that_cannot_be_given_is_not_offered),
    };
    sigset_t all;

    if (argc == 3 && strcmp(argv[1], "inside") == 0)
        return inside(argv[2]) ? REACHED : REFUSED;
#ifdef __SANITIZE_ADDRESS__
    return 77; /* its shadow is larger than any limit */
#endif
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
