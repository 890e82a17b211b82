/* Limits on all processes of a sandbox together, where no control group counts them: process 1 looks at the
 * /proc of its own namespace, which lists exactly what is inside. */
#include "enter.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define LOOK_NS INT64_C(100000000)
#define LOOK_CLOSELY_NS INT64_C(20000000) /* above half of the memory */
#define LOOK_COST 4                       /* looking closely takes at most a part in so many of the time */
#define DISK_LOOK_NS INT64_C(1000000000)
#define DISK_COST 20 /* measuring takes at most a part in so many of the time */
#define DEPTH_MAX 64
#define FILE_LEN_MIN 4096 /* what a file counts at least: a disk has only so many */

static int64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

static bool read_text(const char *path, char *to, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t len = fd < 0 ? -1 : read(fd, to, size - 1);

    if (fd >= 0)
        close(fd);
    to[len > 0 ? len : 0] = 0;
    return len > 0;
}

/* "RssAnon:   1234 kB", in bytes. */
static uint64_t field(const char *text, const char *name)
{
    const char *at = strstr(text, name);

    return at ? strtoull(at + strlen(name), NULL, 10) * 1024 : 0;
}

/* ---------------------------------------------------------------- memory */

struct use {
    uint64_t anonymous, shared;
};

/* Pages that processes have in common count in each of them, or, at a price, in parts that add up to one. */
static bool add_parts(struct use *use, const char *pid)
{
    char path[64], text[4096];

    snprintf(path, sizeof(path), "/proc/%.10s/smaps_rollup", pid);
    if (!read_text(path, text, sizeof(text)))
        return false; /* it hides, or has ended */
    use->anonymous += field(text, "Pss_Anon:") + field(text, "SwapPss:");
    use->shared += field(text, "Pss_Shmem:");
    return true;
}

static void add_process(struct use *use, const char *pid, bool fairly)
{
    char path[64], text[4096];

    if (fairly && add_parts(use, pid))
        return;
    snprintf(path, sizeof(path), "/proc/%.10s/status", pid);
    if (!read_text(path, text, sizeof(text)))
        return;
    use->anonymous += field(text, "RssAnon:") + field(text, "VmSwap:");
    use->shared += field(text, "RssShmem:");
}

static struct use add_processes(bool fairly)
{
    struct use use = { 0 };
    DIR *d = opendir("/proc");
    struct dirent *e;

    while (d && (e = readdir(d)) != NULL)
        if (isdigit((unsigned char)e->d_name[0]) && strcmp(e->d_name, "1") != 0)
            add_process(&use, e->d_name, fairly);
    if (d)
        closedir(d);
    return use;
}

/* Of System V's segments, attached or not: the one but last columns, rss and swap. */
static uint64_t segments_len(void)
{
    static char text[64 << 10];
    uint64_t sum = 0;
    char *rest = NULL;

    if (!read_text("/proc/sysvipc/shm", text, sizeof(text)))
        return 0;
    strtok_r(text, "\n", &rest);
    for (char *line; (line = strtok_r(NULL, "\n", &rest)) != NULL;) {
        unsigned long long rss = 0, swap = 0;

        if (sscanf(line, "%*d %*d %*o %*u %*d %*d %*u %*u %*u %*u %*u %*u %*d %*d %llu %llu", &rss, &swap) >=
            1)
            sum += rss + swap;
    }
    return sum;
}

static uint64_t tmp_len(void)
{
    struct statvfs st;

    return statvfs("/tmp", &st) == 0 ? (uint64_t)(st.f_blocks - st.f_bfree) * st.f_frsize : 0;
}

/* Memory in /tmp or in a segment is also shared memory of whoever maps it. */
static uint64_t memory_len(uint64_t max)
{
    struct use use = add_processes(false);
    uint64_t kept = tmp_len() + segments_len();

    if (use.anonymous + use.shared + kept <= max)
        return use.anonymous + use.shared + kept;
    use = add_processes(true);
    return use.anonymous + (use.shared > kept ? use.shared : kept);
}

/* ---------------------------------------------------------------- disk */

/* False: something cannot be looked into. Links are not followed. */
static bool add_files(int at, const char *name, int depth, uint64_t *len)
{
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *e;
    bool whole = d != NULL && depth < DEPTH_MAX;

    while (whole && (e = readdir(d)) != NULL) {
        struct stat st;

        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
            fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
            continue;
        *len += st.st_blocks > FILE_LEN_MIN / 512 ? (uint64_t)st.st_blocks * 512 : FILE_LEN_MIN;
        if (S_ISDIR(st.st_mode))
            whole = add_files(dirfd(d), e->d_name, depth + 1, len);
    }
    if (d)
        closedir(d);
    else if (fd >= 0)
        close(fd);
    return whole;
}

static uint64_t free_len(const char *path)
{
    struct statvfs st;

    return statvfs(path, &st) == 0 ? (uint64_t)st.f_bavail * st.f_frsize : 0;
}

/* What hides its files from being counted answers for what its disk has lost meanwhile. */
static uint64_t work_len(const struct watch *w)
{
    uint64_t len = 0, left;

    if (add_files(AT_FDCWD, w->plan->work, 0, &len))
        return len;
    left = free_len(w->plan->work);
    return w->free_at_begin > left && w->free_at_begin - left > len ? w->free_at_begin - left : len;
}

static void say(char to[WATCH_TEXT_LEN], const char *what, uint64_t used, uint64_t max)
{
    snprintf(to, WATCH_TEXT_LEN, "used %llu MiB of %s, more than the %llu MiB it may have",
             (unsigned long long)(used >> 20), what, (unsigned long long)(max >> 20));
}

/* On a thread of its own, for it may take long, and memory is not to be left alone meanwhile. */
static void *disk_main(void *arg)
{
    struct watch *w = arg;
    int64_t wait_ns = DISK_LOOK_NS;
    uint64_t len = 0;

    do {
        int64_t began_ns;

        poll(NULL, 0, (int)(wait_ns / 1000000));
        began_ns = now_ns();
        len = work_len(w);
        wait_ns = (now_ns() - began_ns) * DISK_COST;
        wait_ns = wait_ns > DISK_LOOK_NS ? wait_ns : DISK_LOOK_NS;
    } while (len <= w->plan->disk_len_max);
    say(w->disk_broken, "disk", len, w->plan->disk_len_max);
    atomic_store(&w->is_disk_broken, true);
    return NULL;
}

/* ---------------------------------------------------------------- both */

void watch_begin(struct watch *w, const struct plan *plan)
{
    pthread_t thread;

    *w = (struct watch){ .plan = plan, .next_ns = now_ns() + LOOK_CLOSELY_NS };
    if (!plan->work)
        return;
    w->free_at_begin = free_len(plan->work);
    errno = pthread_create(&thread, NULL, disk_main, w);
    if (errno)
        die("watch the disk");
}

static const char *look(struct watch *w, int64_t began_ns)
{
    const struct plan *plan = w->plan;
    uint64_t len = memory_len(plan->memory_len_max);

    w->next_ns = began_ns + (len > plan->memory_len_max / 2 ? LOOK_CLOSELY_NS : LOOK_NS);
    if (now_ns() - began_ns > LOOK_CLOSELY_NS / LOOK_COST) /* many processes, or large ones */
        w->next_ns = began_ns + LOOK_NS;
    if (len <= plan->memory_len_max)
        return atomic_load(&w->is_disk_broken) ? w->disk_broken : NULL;
    say(w->memory_broken, "memory", len, plan->memory_len_max);
    return w->memory_broken;
}

const char *watch_look(struct watch *w, int64_t *ret_left_ms)
{
    int64_t now = now_ns();
    const char *broken = now >= w->next_ns ? look(w, now) : NULL;

    *ret_left_ms = (w->next_ns - now) / 1000000 + 1;
    return broken;
}
