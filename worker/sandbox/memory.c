/* What the processes of a sandbox have in memory, from the /proc of its own namespace, which lists exactly
 * what is inside. A field of it is looked for with the line feed before it, for a process may give itself a
 * field's name. */
#include "enter.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/shm.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PATH_LEN 64

struct use {
    uint64_t anonymous; /* with page tables */
    uint64_t shared;    /* mapped, whatever it is of */
    uint64_t nameless;  /* of that, what is neither in /tmp nor in a segment; known where parts are counted */
};

static bool read_text(const char *path, char *to, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t len = fd < 0 ? -1 : read(fd, to, size - 1);

    if (fd >= 0)
        close(fd);
    to[len > 0 ? len : 0] = 0;
    return len > 0;
}

static uint64_t number(const char *text, const char *name)
{
    const char *at = strstr(text, name);

    return at ? strtoull(at + strlen(name), NULL, 10) : 0;
}

/* "RssAnon:   1234 kB", in bytes. */
static uint64_t field(const char *text, const char *name)
{
    return number(text, name) * 1024;
}

/* ---------------------------------------------------------------- a process */

/* One of its threads whose memory can still be seen: a leader that has ended while others run has none to
 * show. `status` is that thread's. False: it has ended. */
static bool find_thread(const char *pid, char path[PATH_LEN], char *status, size_t size)
{
    struct dirent *e;
    bool found = false;
    DIR *d;

    snprintf(path, PATH_LEN, "/proc/%.10s/status", pid);
    if (!read_text(path, status, size))
        return false;
    snprintf(path, PATH_LEN, "/proc/%.10s", pid);
    if (strstr(status, "\nVmRSS:"))
        return true;
    if (number(status, "\nThreads:") < 2)
        return false;
    snprintf(path, PATH_LEN, "/proc/%.10s/task", pid);
    d = opendir(path);
    while (d && !found && (e = readdir(d)) != NULL) {
        snprintf(path, PATH_LEN, "/proc/%.10s/task/%.10s/status", pid, e->d_name);
        found = read_text(path, status, size) && strstr(status, "\nVmRSS:");
    }
    if (d)
        closedir(d);
    if (found)
        *strrchr(path, '/') = 0;
    return found;
}

/* Between vfork and execve a child has its parent's memory, which is not there twice. (Of two leaders that
 * have ended the kernel would say that they have the same, none.) */
static bool borrows(const char *pid, const char *path, const char *status)
{
    long parent = (long)number(status, "\nPPid:");

    return parent > 1 && !strstr(path, "/task/") &&
           syscall(SYS_kcmp, strtol(pid, NULL, 10), parent, KCMP_VM, 0, 0) == 0;
}

/* Shared memory without a file of its own, of all that is mapped at `path`. */
static uint64_t nameless_len(const char *path)
{
    char of[PATH_LEN + 8], line[512];
    bool nameless = false;
    uint64_t sum = 0;
    FILE *f;

    snprintf(of, sizeof(of), "%s/smaps", path);
    f = fopen(of, "re");
    while (f && fgets(line, sizeof(line), f)) {
        if (isdigit((unsigned char)line[0]) || (line[0] >= 'a' && line[0] <= 'f'))
            nameless = strstr(line, " /dev/zero (deleted)") || strstr(line, " [anon_shmem:");
        else if (nameless && strncmp(line, "Pss:", 4) == 0)
            sum += field(line, "Pss:");
    }
    if (f)
        fclose(f);
    return sum;
}

/* Pages that processes have in common count in each of them, or, at a price, in parts that add up to one.
 * False: it hides them, or has ended. */
static bool add_parts(struct use *use, const char *path)
{
    char of[PATH_LEN + 16], text[4096];
    uint64_t shared;

    snprintf(of, sizeof(of), "%s/smaps_rollup", path);
    if (!read_text(of, text, sizeof(text)))
        return false;
    shared = field(text, "Pss_Shmem:");
    use->anonymous += field(text, "Pss_Anon:") + field(text, "SwapPss:");
    use->shared += shared;
    use->nameless += shared > 0 ? nameless_len(path) : 0;
    return true;
}

static void add_process(struct use *use, const char *pid, bool fairly)
{
    char path[PATH_LEN], text[4096];

    if (!find_thread(pid, path, text, sizeof(text)))
        return;
    if (fairly && borrows(pid, path, text))
        return;
    if (fairly && !find_thread(pid, path, text, sizeof(text))) /* it may have borrowed until a moment ago */
        return;
    use->anonymous += field(text, "\nVmPTE:") + field(text, "\nHugetlbPages:");
    if (fairly && add_parts(use, path))
        return;
    use->anonymous += field(text, "\nRssAnon:") + field(text, "\nVmSwap:");
    use->shared += field(text, "\nRssShmem:");
    use->nameless += field(text, "\nRssShmem:");
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

/* ---------------------------------------------------------------- what belongs to no process */

/* Of System V's segments, attached or not. */
static uint64_t segments_len(void)
{
    struct shm_info info;

    if (shmctl(0, SHM_INFO, (struct shmid_ds *)(void *)&info) < 0)
        return 0;
    return ((uint64_t)info.shm_rss + info.shm_swp) * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t tmp_len(void)
{
    struct statvfs st;

    return statvfs("/tmp", &st) == 0 ? (uint64_t)(st.f_blocks - st.f_bfree) * st.f_frsize : 0;
}

/* Memory in /tmp or in a segment is also shared memory of whoever maps it. */
uint64_t memory_len(uint64_t max)
{
    struct use use = add_processes(false);
    uint64_t kept = tmp_len() + segments_len();

    if (use.anonymous + use.shared + kept <= max)
        return use.anonymous + use.shared + kept;
    use = add_processes(true);
    return use.anonymous + use.nameless + kept;
}
