/* How long a sandbox takes from its start to its end, with `true` in it: what every sandboxed step pays
 * beside its own work. The same process without one is the measure of the rest.
 *
 * usage: cox-bench-sandbox [ROUNDS]      (cox-sandbox beside it) */
#include "sandbox/sandbox.h"

#include "cox/base/units.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROUNDS 500
#define ROUNDS_MAX 100000

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

static void await(pid_t pid)
{
    struct pollfd p = { .fd = spawn_pidfd(pid), .events = POLLIN };

    (void)!poll(&p, 1, -1);
    close(p.fd);
    waitpid(pid, NULL, 0);
}

/* False: it did not begin, or did not end well. */
static bool run_once(struct sandbox *s, enum sandbox_level level, const char *dir, int null_fd)
{
    char *const paths[] = { (char *)(uintptr_t) "/bin/true", NULL };
    char *const argv[] = { (char *)(uintptr_t) "true", NULL };
    char *const envp[] = { NULL };
    const struct spawn_args args = {
        .paths = paths, .argv = argv, .envp = envp, .dir = dir, .in = null_fd, .out = null_fd, .err = null_fd
    };
    struct sandboxed *in;
    struct sandbox_end end;
    pid_t pid;

    if (level == SANDBOX_NONE) {
        if (spawn_process(&args, &pid) != 0)
            return false;
        await(pid);
        return true;
    }
    if (sandbox_spawn(s, level, &(struct sandbox_step){ .work = dir }, &args, &pid, &in) != 0)
        return false;
    await(pid);
    sandbox_end(in, &end);
    if (end.failed[0])
        fprintf(stderr, "%s\n", end.failed);
    return end.has_status && end.status == 0;
}

static bool measure(struct sandbox *s, enum sandbox_level level, const char *dir, int rounds)
{
    static int64_t took_ns[ROUNDS_MAX];
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    bool ok = true;

    for (int i = 0; i < rounds && ok; i++) {
        int64_t began_ns = cox_clock_mono_ns();

        ok = run_once(s, level, dir, null_fd);
        took_ns[i] = cox_clock_mono_ns() - began_ns;
    }
    close(null_fd);
    qsort(took_ns, (size_t)rounds, sizeof(took_ns[0]), by_value);
    if (ok)
        printf("%-7s p50 %6.2f ms  p90 %6.2f ms  p99 %6.2f ms  %d rounds\n", sandbox_level_text(level),
               (double)took_ns[rounds / 2] / 1e6, (double)took_ns[rounds * 9 / 10] / 1e6,
               (double)took_ns[rounds * 99 / 100] / 1e6, rounds);
    return ok;
}

/* Every level of that sandbox; false: one failed. *ret_has_groups: the kernel counts the memory. */
static bool measure_all(const struct cgroups_config *cgroups, const char *dir, int rounds,
                        bool *ret_has_groups)
{
    const char *keys[SANDBOX_LABELS], *values[SANDBOX_LABELS];
    struct sandbox *s = sandbox_create(&(struct sandbox_config){ .work_dir = dir, .cgroups = cgroups });
    bool ok = true;

    sandbox_labels(s, keys, values);
    printf("memory: %s\n", values[SANDBOX_LABEL_MEMORY]);
    *ret_has_groups = strncmp(values[SANDBOX_LABEL_MEMORY], "control group", 13) == 0;
    for (int level = 0; level < SANDBOX_LEVEL_NR; level++) {
        const char *why = sandbox_why_not(s, (enum sandbox_level)level);

        if (why)
            printf("%-7s not on this host: %s\n", sandbox_level_text((enum sandbox_level)level), why);
        else
            ok &= measure(s, (enum sandbox_level)level, dir, rounds);
    }
    sandbox_destroy(s);
    return ok;
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? (int)strtol(argv[1], NULL, 10) : ROUNDS;
    char dir[] = "/tmp/cox-bench-sandbox-XXXXXX";
    bool has_groups, ok;
    sigset_t all;

    if (rounds < 1 || rounds > ROUNDS_MAX || !mkdtemp(dir))
        return EXIT_FAILURE;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    ok = measure_all(&(struct cgroups_config){ 0 }, dir, rounds, &has_groups);
    if (has_groups) /* the same without them, to be compared */
        ok &= measure_all(NULL, dir, rounds, &has_groups);
    rmdir(dir);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
