/* What a step may still do once the view is its own: rights, amounts, files again, calls. */
#include "enter.h"

#include "cox/base/plant.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LISTEN_BACKLOG 16

void loopback_up(void)
{
    struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) != 0)
        die("bring the loopback device up");
    close(fd);
}

void hand_listener(const struct plan *plan)
{
    const struct sockaddr_in at = { .sin_family = AF_INET,
                                    .sin_port = htons(plan->port),
                                    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    union {
        struct cmsghdr head;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = { .bytes = { 0 } };
    struct iovec byte = { .iov_base = (char[1]){ 0 }, .iov_len = 1 };
    struct msghdr message = {
        .msg_iov = &byte, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
    };
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);

    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(fd));
    memcpy(CMSG_DATA(c), &fd, sizeof(fd));
    if (fd < 0 || bind(fd, (const struct sockaddr *)&at, sizeof(at)) != 0 ||
        listen(fd, LISTEN_BACKLOG) != 0 || sendmsg(plan->channel, &message, MSG_NOSIGNAL) != 1)
        die("listen at the loopback device");
    close(fd);
    close(plan->channel);
}

/* ---------------------------------------------------------------- rights */

void drop_rights(void)
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct none[2] = { 0 };
    const unsigned long bits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
                               SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED |
                               SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;

    if (prctl(PR_SET_SECUREBITS, bits) != 0)
        die("give up the powers of root");
    for (int cap = COX_PLANTED("sandbox-rights") ? INT_MAX : 0; prctl(PR_CAPBSET_READ, cap) >= 0; cap++)
        if (prctl(PR_CAPBSET_DROP, cap) != 0)
            die("give up the right to capabilities");
    if (syscall(SYS_capset, &header, none) != 0)
        die("give up capabilities");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        die("refuse new privileges");
}

/* ---------------------------------------------------------------- amounts */

static void limit(int resource, uint64_t n)
{
    struct rlimit now;

    if (getrlimit((__rlimit_resource_t)resource, &now) != 0)
        die("read a resource limit");
    if (now.rlim_max > n)
        now.rlim_max = n;
    now.rlim_cur = now.rlim_max;
    if (setrlimit((__rlimit_resource_t)resource, &now) != 0)
        die("set a resource limit");
}

void limit_resources(const struct plan *plan)
{
    limit(RLIMIT_CORE, 1); /* 0 would still hand a dump to a program of the host, if it has one for that */
    limit(RLIMIT_NPROC, plan->processes_max);
    limit(RLIMIT_NOFILE, plan->files_max);
    limit(RLIMIT_FSIZE, plan->disk_len_max);
    /* Total use is watched; this keeps one process from outrunning the watch. Twice, for stacks and heaps are
     * reserved that nobody touches. */
    limit(RLIMIT_DATA, plan->memory_len_max * 2);
    limit(RLIMIT_MEMLOCK, 8u << 20);
    limit(RLIMIT_MSGQUEUE, 819200);
    limit(RLIMIT_SIGPENDING, 4096);
    limit(RLIMIT_RTPRIO, 0);
}

/* ---------------------------------------------------------------- files, once more */

/* Newer than the headers of Debian 12. */
#define FS_TRUNCATE (UINT64_C(1) << 14)  /* version 3 */
#define FS_IOCTL_DEV (UINT64_C(1) << 15) /* version 5 */
#define SCOPE_ABSTRACT_UNIX UINT64_C(1)  /* version 6 */
#define SCOPE_SIGNAL UINT64_C(2)
#define READING (LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)

struct ruleset {
    uint64_t files, network, scoped;
};

int landlock_version(void)
{
    long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

    return version > 0 ? (int)version : 0;
}

static void allow(int ruleset, const char *path, uint64_t rights, uint64_t handled)
{
    struct landlock_path_beneath_attr rule = { .allowed_access = rights & handled };

    rule.parent_fd = open(path, O_PATH | O_CLOEXEC);
    if (rule.parent_fd < 0 ||
        syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) != 0)
        die("say what may be written (Landlock)");
    close(rule.parent_fd);
}

/* The mounts say the same; this holds also where a mount's flag is forgotten. Version 1 would deny every
 * rename between directories, so there is none below 2. */
void limit_files(const struct plan *plan)
{
    int version = landlock_version();
    uint64_t all = (UINT64_C(1) << 14) - 1;
    struct ruleset set = { 0 };
    int fd;

    if (version < 2)
        return;
    all |= version >= 3 ? FS_TRUNCATE : 0;
    all |= version >= 5 ? FS_IOCTL_DEV : 0;
    set.files = all;
    set.scoped = version >= 6 ? SCOPE_ABSTRACT_UNIX | SCOPE_SIGNAL : 0;
    fd = (int)syscall(SYS_landlock_create_ruleset, &set, version >= 6 ? sizeof(set) : sizeof(set.files), 0);
    if (fd < 0)
        die("begin a Landlock ruleset");
    allow(fd, "/", READING, all);
    allow(fd, "/dev", READING | LANDLOCK_ACCESS_FS_WRITE_FILE | FS_TRUNCATE | FS_IOCTL_DEV, all);
    allow(fd, "/dev/shm",
          all & ~(FS_IOCTL_DEV | LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_BLOCK), all);
    allow(fd, "/tmp", all & ~(FS_IOCTL_DEV | LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_BLOCK),
          all);
    if (plan->work)
        allow(fd, plan->work,
              all & ~(FS_IOCTL_DEV | LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_BLOCK), all);
    if (syscall(SYS_landlock_restrict_self, fd, 0) != 0)
        die("enforce Landlock");
    close(fd);
}

/* ---------------------------------------------------------------- calls */

void limit_calls(void)
{
    static struct sock_filter code[4096];
    struct sock_fprog program = { .filter = code };
    ssize_t len = pread(FILTER_FD, code, sizeof(code), 0);

    if (len <= 0 || (size_t)len % sizeof(code[0]) != 0 || (size_t)len == sizeof(code)) {
        errno = EINVAL;
        die("read the system call filter");
    }
    program.len = (unsigned short)((size_t)len / sizeof(code[0]));
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) != 0)
        die("filter system calls");
}
