/* What is not listed as dangerous is allowed, because a step may run anything: interpreters, compilers,
 * databases. But only what libseccomp knows by name: a call that a newer kernel brings does not exist here,
 * which programs take as an older kernel. What is denied gives EPERM; what has an older form that can be
 * looked into (clone3 -> clone) or is only an optimisation (io_uring, memfd) gives ENOSYS, and programs do it
 * the older way. */
#include "filter.h"

#include "cox/base/plant.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define CALLS_MAX 1024 /* numbers tried */

static const char *const denied[] = {
    /* the view */
    "mount",
    "umount",
    "umount2",
    "pivot_root",
    "chroot",
    "move_mount",
    "open_tree",
    "fsopen",
    "fsconfig",
    "fsmount",
    "fspick",
    "mount_setattr",
    "swapon",
    "swapoff",
    "quotactl",
    "quotactl_fd",
    "fanotify_init",
    "name_to_handle_at",
    "open_by_handle_at",
    /* other namespaces, other processes */
    "setns",
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "process_madvise",
    "kcmp",
    "pidfd_getfd",
    /* the kernel itself */
    "init_module",
    "finit_module",
    "delete_module",
    "create_module",
    "kexec_load",
    "kexec_file_load",
    "reboot",
    "bpf",
    "perf_event_open",
    "userfaultfd",
    "lookup_dcookie",
    "acct",
    "syslog",
    "nfsservctl",
    "vhangup",
    "iopl",
    "ioperm",
    "modify_ldt",
    "vm86",
    "vm86old",
    "uselib",
    "_sysctl",
    "sysfs",
    "ustat",
    /* keys are shared by all processes of a user */
    "keyctl",
    "add_key",
    "request_key",
    /* the host's clock and name */
    "settimeofday",
    "clock_settime",
    "clock_adjtime",
    "adjtimex",
    "stime",
    "sethostname",
    "setdomainname",
};
static const char *const absent[] = {
    "clone3", /* its flags are in memory, where a filter cannot look */
    "io_uring_setup", "io_uring_enter", "io_uring_register",
    "memfd_create",   "memfd_secret", /* memory that no process is seen to use */
};
static const char *const looked_into[] = { "clone", "unshare", "socket", "socketpair", "personality" };

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static bool is_among(const char *name, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

static int set(scmp_filter_ctx f, uint32_t action, const char *name, unsigned n,
               const struct scmp_arg_cmp *args)
{
    int call = seccomp_syscall_resolve_name(name);

    return call < 0 ? 0 : seccomp_rule_add_array(f, action, call, n, args);
}

/* ---------------------------------------------------------------- by their arguments */

static int allow_unless_bits(scmp_filter_ctx f, const char *name, unsigned arg, uint64_t bits)
{
    int err = set(f, SCMP_ACT_ALLOW, name, 1, &SCMP_CMP64(arg, SCMP_CMP_MASKED_EQ, bits, 0));

    for (uint64_t bit = 1; bit <= bits && err == 0; bit <<= 1)
        if (bits & bit)
            err = set(f, SCMP_ACT_ERRNO(EPERM), name, 1, &SCMP_CMP64(arg, SCMP_CMP_MASKED_EQ, bit, bit));
    return err;
}

static int add_namespaces(scmp_filter_ctx f)
{
    const uint64_t users = COX_PLANTED("sandbox-namespaces") ? 0 : CLONE_NEWUSER;
    const uint64_t spaces =
        users | CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET;
    int err = allow_unless_bits(f, "clone", 0, spaces);

    /* CLONE_NEWTIME of unshare is a part of the signal's number in clone */
    return err ? err : allow_unless_bits(f, "unshare", 0, spaces | 0x80);
}

/* Not packets, crypto of the kernel, virtual machines' hosts, and what else is or will be; nor protocols of
 * the internet that few use, for which the kernel would load a module. A netlink socket of routes is how
 * programs list addresses. */
static int add_sockets(scmp_filter_ctx f, bool unix_sockets)
{
    static const uint32_t families[] = { AF_INET, AF_INET6 };
    static const uint32_t protocols[] = { 0,           IPPROTO_ICMP,   IPPROTO_TCP,
                                          IPPROTO_UDP, IPPROTO_ICMPV6, IPPROTO_MPTCP };
    int err = 0;

    for (size_t i = 0; i < COUNT(families) * COUNT(protocols) && err == 0; i++)
        err = set(f, SCMP_ACT_ALLOW, "socket", 2,
                  (struct scmp_arg_cmp[]){ SCMP_A0_32(SCMP_CMP_EQ, families[i % COUNT(families)]),
                                           SCMP_A2_32(SCMP_CMP_EQ, protocols[i / COUNT(families)]) });
    if (err == 0)
        err = set(f, SCMP_ACT_ALLOW, "socket", 2,
                  (struct scmp_arg_cmp[]){ SCMP_A0_32(SCMP_CMP_EQ, AF_NETLINK), SCMP_A2_32(SCMP_CMP_EQ, 0) });
    if (COX_PLANTED("sandbox-sockets"))
        return set(f, SCMP_ACT_ALLOW, "socket", 0, NULL);
    if (unix_sockets) {
        err = err ? err : set(f, SCMP_ACT_ALLOW, "socket", 1, &SCMP_A0_32(SCMP_CMP_EQ, AF_UNIX));
        return err ? err : set(f, SCMP_ACT_ALLOW, "socketpair", 0, NULL);
    }
    /* Of a pair only a datagram socket can send to somebody else than its peer. */
    return err ? err
               : set(f, SCMP_ACT_ALLOW, "socketpair", 1, &SCMP_A1_32(SCMP_CMP_MASKED_EQ, 0xf, SOCK_STREAM));
}

/* Of the ways to look like another system only those that programs use: none turns a protection off but that
 * of addresses, which debuggers want. */
static int add_personalities(scmp_filter_ctx f)
{
    static const uint32_t personalities[] = { 0, 8, 0x20000, 0x20008, 0x40000, 0xffffffff };
    int err = 0;

    for (size_t i = 0; i < COUNT(personalities) && err == 0; i++)
        err = set(f, SCMP_ACT_ALLOW, "personality", 1, &SCMP_A0_32(SCMP_CMP_EQ, personalities[i]));
    return err;
}

/* ---------------------------------------------------------------- all of it */

static int add_named(scmp_filter_ctx f)
{
    int err = 0;

    for (int call = 0; call < CALLS_MAX && err == 0; call++) {
        char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, call);

        if (!name)
            continue;
        if (is_among(name, denied, COUNT(denied)) && !COX_PLANTED("sandbox-calls"))
            err = seccomp_rule_add(f, SCMP_ACT_ERRNO(EPERM), call, 0);
        else if (!is_among(name, absent, COUNT(absent)) && !is_among(name, looked_into, COUNT(looked_into)))
            err = seccomp_rule_add(f, SCMP_ACT_ALLOW, call, 0);
        free(name);
    }
    return err;
}

static int add_all(scmp_filter_ctx f, bool unix_sockets)
{
    int err = seccomp_attr_set(f, SCMP_FLTATR_CTL_OPTIMIZE, 2);

    err = err ? err : seccomp_attr_set(f, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_ERRNO(ENOSYS));
    err = err ? err : add_named(f);
    err = err ? err : add_namespaces(f);
    err = err ? err : add_sockets(f, unix_sockets);
    return err ? err : add_personalities(f);
}

int filter_file(bool unix_sockets)
{
    scmp_filter_ctx f = seccomp_init(SCMP_ACT_ERRNO(ENOSYS));
    int fd = f ? memfd_create("cox-filter", MFD_CLOEXEC | MFD_ALLOW_SEALING) : -1;
    int err = fd >= 0 ? add_all(f, unix_sockets) : -errno;

    if (fd >= 0 && err == 0)
        err = seccomp_export_bpf(f, fd);
    if (fd >= 0 && err == 0 &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
        err = -errno;
    if (fd >= 0 && err) {
        close(fd);
        fd = -1;
    }
    seccomp_release(f);
    errno = -err;
    return fd;
}
