/* Control groups: what hosts say of theirs, and what is written, with an ordinary directory in place of the
 * kernel's tree. What only the kernel can do (count, kill) is tried by tests/security/cgroups.sh in a virtual
 * machine. */
#include "check.h"

#include "sandbox/cgroup_place.h"
#include "sandbox/sandbox.h"

#include "cox/base/units.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define GUARD_MS 60000
#define STEP_MS 500 /* a step that was let go would have begun by then */

/* ---------------------------------------------------------------- what hosts say */

static void expect_place(const char *groups, const char *mounts, const char *dir, const char *why)
{
    struct cgroup_place place;

    assert_int_equal(cgroup_place(groups, mounts, &place), dir != NULL);
    assert_string_equal(place.dir, dir ? dir : "");
    if (why)
        assert_non_null(strstr(place.why, why));
}

#define PROC "22 28 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:12 - proc proc rw\n"

/* Debian 12 with systemd. */
static void test_a_service_of_systemd(void **state)
{
    static const char mounts[] =
        "21 28 0:20 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw\n" PROC
        "28 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,discard,errors=remount-ro\n"
        "30 21 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 "
        "rw,nsdelegate,memory_recursiveprot\n"
        "31 21 0:27 / /sys/fs/pstore rw,nosuid,nodev,noexec,relatime shared:10 - pstore pstore rw\n";

    (void)state;
    expect_place("0::/system.slice/cox-worker.service\n", mounts,
                 "/sys/fs/cgroup/system.slice/cox-worker.service", NULL);
    expect_place("0::/user.slice/user-1000.slice/user@1000.service/app.slice/cox.service\n", mounts,
                 "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/app.slice/cox.service", NULL);
    expect_place("0::/\n", mounts, "/sys/fs/cgroup", NULL);
}

static void test_a_container_with_a_namespace_of_its_own(void **state)
{
    static const char read_only[] =
        "1200 1100 0:80 / / rw,relatime - overlay overlay rw,lowerdir=/var/lib/docker/overlay2/l/A:B\n"
        "1203 1202 0:26 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate\n";
    static const char writable[] =
        "1203 1202 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate\n";

    (void)state;
    expect_place("0::/\n", read_only, NULL, "mounted read-only");
    expect_place("0::/\n", writable, "/sys/fs/cgroup", NULL);
}

/* --cgroupns=host: the container's own group is bound there, and /proc names it from the host's root. */
static void test_a_container_in_the_namespace_of_its_host(void **state)
{
    static const char group[] = "/kubepods.slice/kubepods-besteffort.slice/cri-containerd-4f.scope";
    char groups[256], mounts[512];

    (void)state;
    snprintf(mounts, sizeof(mounts), PROC "901 900 0:26 %s /sys/fs/cgroup rw,relatime - cgroup2 cgroup rw\n",
             group);
    snprintf(groups, sizeof(groups), "0::%s\n", group);
    expect_place(groups, mounts, "/sys/fs/cgroup", NULL);
    snprintf(groups, sizeof(groups), "0::%s/inner\n", group);
    expect_place(groups, mounts, "/sys/fs/cgroup/inner", NULL);
    snprintf(groups, sizeof(groups), "0::%s-beside\n", group);
    expect_place(groups, mounts, NULL, "outside of the tree");
    expect_place("0::/../../elsewhere\n", mounts, NULL, "outside of the tree");
}

static void test_hosts_of_version_1(void **state)
{
    static const char v1[] = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n"
                             "36 31 0:33 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n";
    static const char hybrid[] = "36 31 0:33 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
                                 "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

    (void)state;
    expect_place("4:memory:/docker/1\n1:cpu:/docker/1\n", v1, NULL, "only version 1");
    expect_place("4:memory:/\n1:cpu:/\n0::/\n", v1, NULL, "no tree of version 2 is mounted");
    /* What this one lacks is controllers. */
    expect_place("8:pids:/\n4:memory:/process/1\n0::/user.slice\n", hybrid,
                 "/sys/fs/cgroup/unified/user.slice", NULL);
    expect_place("", "", NULL, "only version 1");
}

static void test_odd_mounts(void **state)
{
    static const char two[] =
        "41 31 0:38 /other /mnt/other rw - cgroup2 cgroup2 rw\n"
        "42 31 0:38 / /mnt/read\\040only rw,ro,relatime master:3 propagate_from:2 - cgroup2 cgroup2 rw\n"
        "43 31 0:38 / /mnt/a\\040b rw,relatime shared:1 master:3 - cgroup2 cgroup2 rw\n";

    (void)state;
    expect_place("0::/w\n", two, "/mnt/a b/w", NULL);
    expect_place("0::/other/w\n", two, "/mnt/other/w", NULL);
    /* Cut anywhere, it is read to its end and not beyond. */
    for (size_t len = 0; len < sizeof(two); len++) {
        struct cgroup_place place;
        char *cut = strndup(two, len);

        (void)cgroup_place("0::/w", cut, &place);
        free(cut);
    }
    char *deep = malloc(5000);

    memset(deep, 'd', 4999);
    deep[4999] = 0;
    memcpy(deep, "0::/", 4);
    expect_place(deep, two, NULL, "outside of the tree");
    free(deep);
}

static void test_lists_and_rows(void **state)
{
    static const char events[] = "low 0\nhigh 0\nmax 61\noom 2\noom_kill 3\noom_group_kill 1\n";

    (void)state;
    assert_true(cgroup_list_has("cpuset cpu io memory pids\n", "cpu"));
    assert_true(cgroup_list_has("cpuset cpu io memory pids\n", "pids"));
    assert_false(cgroup_list_has("cpuset io hugetlb\n", "cpu"));
    assert_false(cgroup_list_has("\n", "cpu"));
    assert_int_equal(cgroup_count(events, "oom"), 2);
    assert_int_equal(cgroup_count(events, "oom_kill"), 3);
    assert_int_equal(cgroup_count(events, "ma"), 0);
    assert_int_equal(cgroup_count("", "oom"), 0);
}

/* ---------------------------------------------------------------- a directory in place of the tree */

static const char *const files[] = { "cgroup.controllers", "cgroup.subtree_control",
                                     "cgroup.type",        "cgroup.kill",
                                     "cgroup.events",      "memory.max",
                                     "memory.swap.max",    "memory.oom.group",
                                     "memory.events",      "pids.max",
                                     "cpu.weight",         "cgroup.procs" };
static bool is_procs_pipe; /* in groups of attempts: who writes to it waits until somebody reads */

static void put_file(const char *dir, const char *name, const char *text)
{
    char path[256];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    f = fopen(path, "we");
    assert_true(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

/* What the kernel puts into each group that is made. */
static int make_group(const char *path)
{
    char procs[256];

    if (mkdir(path, 0700) != 0)
        return -1;
    for (size_t i = 0; i + 1 < ARRAY_LEN(files); i++)
        put_file(path, files[i], "");
    snprintf(procs, sizeof(procs), "%s/cgroup.procs", path);
    if (is_procs_pipe && strcmp(strrchr(path, '/'), "/self") != 0)
        assert_int_equal(mkfifo(procs, 0600), 0);
    else
        put_file(path, "cgroup.procs", "");
    return 0;
}

/* As the kernel: its files are no hindrance, other groups are. */
static int remove_group(const char *path)
{
    DIR *d = opendir(path);
    struct dirent *e;

    while (d && (e = readdir(d)) != NULL)
        if (e->d_type == DT_DIR && e->d_name[0] != '.') {
            closedir(d);
            errno = EBUSY;
            return -1;
        }
    if (!d)
        return -1;
    for (size_t i = 0; i < ARRAY_LEN(files); i++)
        (void)unlinkat(dirfd(d), files[i], 0);
    closedir(d);
    return rmdir(path);
}

struct tree {
    char base[64];
    struct cgroups_config config;
};

static void plant(struct tree *t, const char *controllers)
{
    char pid[24];

    *t = (struct tree){ .base = "/tmp/cox-test-cgroups-XXXXXX" };
    assert_non_null(mkdtemp(t->base));
    snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
    for (size_t i = 0; i < ARRAY_LEN(files); i++)
        put_file(t->base, files[i], "");
    put_file(t->base, "cgroup.controllers", controllers);
    put_file(t->base, "cgroup.procs", pid);
    t->config = (struct cgroups_config){ .dir = t->base, .make = make_group, .remove = remove_group };
    is_procs_pipe = false;
}

static void fell(struct tree *t)
{
    assert_int_equal(remove_group(t->base), 0); /* no group has stayed in it */
}

static const char *text_of(const char *dir, const char *name)
{
    static char text[256];
    char path[256];
    FILE *f;
    size_t len;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    f = fopen(path, "re");
    len = f ? fread(text, 1, sizeof(text) - 1, f) : 0;
    text[len] = 0;
    if (f)
        fclose(f);
    return text;
}

static void test_what_is_written(void **state)
{
    const struct cgroup_amounts amounts = { .memory_len_max = 60 << 20,
                                            .processes_max = 77,
                                            .cpu_milli = 2500 };
    char dir[128], attempt[192], self[192];
    struct cgroups *c;
    struct cgroup *g;
    const char *why;
    struct tree t;

    (void)state;
    plant(&t, "cpuset cpu io memory hugetlb pids\n");
    c = cgroups_create(&t.config);
    for (int i = 0; i < CGROUP_LIMIT_NR; i++)
        assert_null(cgroups_why_not(c, (enum cgroup_limit)i));
    snprintf(dir, sizeof(dir), "%s", cgroups_dir(c, &why));
    snprintf(self, sizeof(self), "%s/self", dir);
    assert_string_equal(text_of(self, "cgroup.procs"),
                        "0"); /* before controllers are enabled, which asks for it */
    assert_string_equal(text_of(t.base, "cgroup.subtree_control"), "+cpu"); /* the last of them */
    assert_string_equal(text_of(dir, "cgroup.subtree_control"), "+cpu");

    g = cgroup_begin(c, &amounts);
    assert_non_null(g);
    snprintf(attempt, sizeof(attempt), "%s/1", dir);
    assert_string_equal(text_of(attempt, "memory.max"), "67108864"); /* the sandbox's own 4 MiB beside */
    assert_string_equal(text_of(attempt, "memory.swap.max"), "0");
    assert_string_equal(text_of(attempt, "memory.oom.group"), "1");
    assert_string_equal(text_of(attempt, "pids.max"), "77");
    assert_string_equal(text_of(attempt, "cpu.weight"), "250");
    assert_true(cgroup_holds(g, CGROUP_MEMORY) && cgroup_holds(g, CGROUP_PROCESSES) &&
                cgroup_holds(g, CGROUP_CPU));
    assert_false(cgroup_holds(NULL, CGROUP_MEMORY));
    put_file(attempt, "memory.events", "max 9\noom 1\noom_kill 2\n");
    assert_true(cgroup_end(g));
    assert_int_equal(access(attempt, F_OK), -1);

    g = cgroup_begin(c, &(struct cgroup_amounts){ .memory_len_max = 1, .processes_max = 1 });
    snprintf(attempt, sizeof(attempt), "%s/2", dir);
    assert_string_equal(text_of(attempt, "cpu.weight"), "100");
    put_file(attempt, "memory.events", "max 9\noom 0\noom_kill 1\n"); /* the host was short of memory */
    assert_false(cgroup_end(g));
    cgroups_destroy(c);
    fell(&t);
}

/* Before it is put into its group a step must not begin: here that blocks, for nobody reads the pipe. */
static void test_a_step_begins_in_its_group(void **state)
{
    char dir[] = "/tmp/cox-test-cgroups-work-XXXXXX", made[64], procs[192], pid_text[24] = "";
    char *const paths[] = { (char *)(uintptr_t) "/bin/sh", NULL };
    char *const argv[] = { (char *)(uintptr_t) "sh", (char *)(uintptr_t) "-c",
                           (char *)(uintptr_t) "echo > made", NULL };
    char *const envp[] = { NULL };
    struct spawn_args args = { .paths = paths, .argv = argv, .envp = envp, .dir = dir };
    struct pollfd p = { .events = POLLIN };
    struct sandbox_end e;
    struct sandboxed *in;
    struct sandbox *s;
    const char *why;
    struct tree t;
    pid_t pid;

    (void)state;
    assert_non_null(mkdtemp(dir));
    plant(&t, "pids\n");
    s = sandbox_create(
        &(struct sandbox_config){ .helper = COX_SANDBOX_HELPER, .work_dir = dir, .cgroups = &t.config });
    why = sandbox_why_not(s, SANDBOX_STRICT);
    if (why) {
        sandbox_destroy(s);
        fell(&t);
        rmdir(dir);
        print_message("this host gives none: %s\n", why);
        skip();
    }
    is_procs_pipe = true;
    args.in = args.out = args.err = open("/dev/null", O_RDWR | O_CLOEXEC);
    assert_int_equal(
        sandbox_spawn(s, SANDBOX_STRICT, &(struct sandbox_step){ .work = dir }, &args, &pid, &in), 0);
    close(args.in);
    snprintf(made, sizeof(made), "%s/made", dir);
    snprintf(procs, sizeof(procs), "%s/cox-attempts-%d-0/3/cgroup.procs", t.base,
             (int)getpid()); /* two were tried */
    for (int i = 0; i < STEP_MS / 10 && access(made, F_OK) != 0; i++)
        poll(NULL, 0, 10);
    assert_int_equal(access(made, F_OK), -1);
    p.fd = open(procs, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    assert_true(p.fd >= 0);
    assert_int_equal(poll(&p, 1, GUARD_MS), 1);
    assert_true(read(p.fd, pid_text, sizeof(pid_text) - 1) > 0);
    assert_true(strtol(pid_text, NULL, 10) > 0);
    close(p.fd);
    p.fd = spawn_pidfd(pid);
    assert_int_equal(poll(&p, 1, GUARD_MS), 1);
    close(p.fd);
    waitpid(pid, NULL, 0);
    sandbox_end(in, &e);
    assert_string_equal(e.failed, "");
    assert_true(e.has_status && e.status == 0);
    assert_int_equal(unlink(made), 0);
    assert_int_equal(rmdir(dir), 0);
    is_procs_pipe = false;
    sandbox_destroy(s);
    fell(&t);
}

/* The memory's controller is bound to version 1, say: the watch does the rest. */
static void test_part_of_the_controllers(void **state)
{
    struct cgroups *c;
    struct cgroup *g;
    struct tree t;

    (void)state;
    plant(&t, "pids\n");
    c = cgroups_create(&t.config);
    assert_null(cgroups_why_not(c, CGROUP_PROCESSES));
    assert_non_null(strstr(cgroups_why_not(c, CGROUP_MEMORY), "no controller memory"));
    assert_non_null(strstr(cgroups_why_not(c, CGROUP_CPU), "no controller cpu"));
    g = cgroup_begin(c, &(struct cgroup_amounts){ .memory_len_max = 1 << 20, .processes_max = 9 });
    assert_true(cgroup_holds(g, CGROUP_PROCESSES));
    assert_false(cgroup_holds(g, CGROUP_MEMORY));
    assert_false(cgroup_end(g));
    cgroups_destroy(c);
    fell(&t);
}

static void expect_none(struct tree *t, const char *expected)
{
    struct cgroups *c = cgroups_create(&t->config);
    const char *why;

    assert_null(cgroups_dir(c, &why));
    assert_non_null(strstr(why, expected));
    assert_string_equal(cgroups_why_not(c, CGROUP_MEMORY), why);
    assert_null(cgroup_begin(c, &(struct cgroup_amounts){ .memory_len_max = 1 }));
    cgroups_destroy(c);
    fell(t);
}

static void test_trees_that_are_of_no_use(void **state)
{
    struct tree t;

    (void)state;
    plant(&t, "hugetlb\n"); /* of a hybrid host */
    expect_none(&t, "none of the controllers");
    plant(&t, "cpu memory pids\n"); /* of a session: the shell is in it */
    put_file(t.base, "cgroup.procs", "1\n");
    expect_none(&t, "other processes");
    if (geteuid() != 0) {
        char path[128];

        plant(&t, "cpu memory pids\n");
        snprintf(path, sizeof(path), "%s/cgroup.procs", t.base);
        assert_int_equal(chmod(path, 0444), 0);
        expect_none(&t, "not delegated");
    }
}

static void test_what_dead_workers_left_goes(void **state)
{
    char dead[128], living[128], foreign[128], inner[192];
    struct cgroups *c;
    struct tree t;
    int fd;

    (void)state;
    plant(&t, "memory\n");
    snprintf(dead, sizeof(dead), "%s/cox-attempts-1-0", t.base);
    snprintf(living, sizeof(living), "%s/cox-attempts-2-0", t.base);
    snprintf(foreign, sizeof(foreign), "%s/cox-attempts-1-0-of-mine", t.base);
    assert_int_equal(make_group(dead) | make_group(living) | make_group(foreign), 0);
    snprintf(inner, sizeof(inner), "%s/self", dead);
    assert_int_equal(make_group(inner), 0);
    snprintf(inner, sizeof(inner), "%s/12", dead);
    assert_int_equal(make_group(inner), 0);
    fd = open(living, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
    c = cgroups_create(&t.config);
    assert_int_equal(access(dead, F_OK), -1);
    assert_int_equal(access(living, F_OK), 0);
    assert_string_equal(text_of(living, "cgroup.kill"), ""); /* nobody else's */
    assert_string_equal(text_of(foreign, "cgroup.kill"), "");
    close(fd);
    cgroups_destroy(c);
    assert_int_equal(remove_group(living) | remove_group(foreign), 0);
    fell(&t);
}

/* A group whose processes are still about to die goes later, with another's end or the worker's. */
static int refuse_once_errno;
static int remove_later(const char *path)
{
    if (refuse_once_errno && strcmp(strrchr(path, '/'), "/1") == 0) {
        errno = refuse_once_errno;
        return -1;
    }
    return remove_group(path);
}

static void test_a_group_that_is_not_empty_yet(void **state)
{
    const struct cgroup_amounts amounts = { .memory_len_max = 1 };
    char first[128];
    struct cgroups *c;
    struct tree t;

    (void)state;
    plant(&t, "memory\n");
    t.config.remove = remove_later;
    c = cgroups_create(&t.config);
    snprintf(first, sizeof(first), "%s/cox-attempts-%d-0/1", t.base, (int)getpid());
    refuse_once_errno = EBUSY;
    cgroup_end(cgroup_begin(c, &amounts));
    assert_int_equal(access(first, F_OK), 0);
    assert_string_equal(text_of(first, "cgroup.kill"), "1");
    refuse_once_errno = 0;
    cgroup_end(cgroup_begin(c, &amounts));
    assert_int_equal(access(first, F_OK), -1);
    cgroups_destroy(c);
    fell(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_service_of_systemd),
        cmocka_unit_test(test_a_container_with_a_namespace_of_its_own),
        cmocka_unit_test(test_a_container_in_the_namespace_of_its_host),
        cmocka_unit_test(test_hosts_of_version_1),
        cmocka_unit_test(test_odd_mounts),
        cmocka_unit_test(test_lists_and_rows),
        cmocka_unit_test(test_what_is_written),
        cmocka_unit_test(test_a_step_begins_in_its_group),
        cmocka_unit_test(test_part_of_the_controllers),
        cmocka_unit_test(test_trees_that_are_of_no_use),
        cmocka_unit_test(test_what_dead_workers_left_goes),
        cmocka_unit_test(test_a_group_that_is_not_empty_yet),
    };
    sigset_t all;

    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
