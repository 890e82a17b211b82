/* Limits on all processes of a sandbox together, where no control group counts them: process 1 looks at what
 * they use from time to time. */
#include "enter.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
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

static uint64_t free_len(int fd)
{
    struct statvfs st;

    return fstatvfs(fd, &st) == 0 ? (uint64_t)st.f_bavail * st.f_frsize : 0;
}

/* What hides its files from being counted answers for what its disk has lost meanwhile. */
static uint64_t work_len(const struct watch *w)
{
    uint64_t len = 0, left;

    if (add_files(w->work_fd, ".", 0, &len))
        return len;
    left = free_len(w->work_fd);
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

void watch_open(struct watch *w, const struct plan *plan)
{
    *w = (struct watch){ .plan = plan, .work_fd = -1 };
    if (!plan->work)
        return;
    w->work_fd = open(plan->work, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (w->work_fd < 0)
        die("watch the disk");
    w->free_at_begin = free_len(w->work_fd);
}

void watch_begin(struct watch *w)
{
    pthread_t thread;

    w->next_ns = now_ns() + LOOK_CLOSELY_NS;
    if (w->work_fd < 0)
        return;
    errno = pthread_create(&thread, NULL, disk_main, w);
    if (errno)
        die("watch the disk");
}

static const char *look(struct watch *w, int64_t began_ns)
{
    const struct plan *plan = w->plan;
    uint64_t len = plan->is_memory_counted ? 0 : memory_len(plan->memory_len_max);

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
