"""What a hostile step tries. Given to a step as its program: `python3 -c ... NAME` prints {"reached": ..., "seen": ...}.

Each attack returns what it got hold of, or raises OSError with what it met. The facts about the host that a
stranger could guess or find out are in the environment (ATTACK_...).
"""
import ctypes
import errno
import json
import mmap
import os
import signal
import socket
import stat
import struct
import sys
import threading
import time

libc = ctypes.CDLL(None, use_errno=True)
host = {k[7:].lower(): v for k, v in os.environ.items() if k.startswith("ATTACK_")}


def call(name, *args):
    """A function of the C library, or a system call by number. Its result, or OSError."""
    wide = [a if isinstance(a, (bytes, ctypes.Array)) or a is None or hasattr(a, "_obj") else ctypes.c_long(a) for a in args]
    result = libc.syscall(ctypes.c_long(name), *wide) if isinstance(name, int) else getattr(libc, name)(*wide)
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def refused_only(allowed, name, *args):
    """Counts as reached also when the kernel went as far as to look at the arguments."""
    try:
        call(name, *args)
    except OSError as e:
        if e.errno not in allowed:
            raise
        return f"the kernel looked at it: {e.strerror}"
    return "done"


def text_of(path, size=40):
    with open(path, "rb") as f:
        return f"read {path}: {f.read(size)!r}"


def opened_for_writing(path):
    os.close(os.open(path, os.O_WRONLY))
    return f"opened {path} for writing"


# ---- network

def tcp_to_host():
    address, port = host["tcp"].rsplit(":", 1)
    socket.create_connection((address, int(port)), timeout=5).close()
    return "connected to a port of the host"


def interfaces():
    names = [line.split(":")[0].strip() for line in open("/proc/net/dev").readlines()[2:]]
    others = [n for n in names if n != "lo"]
    if not others:
        raise OSError(errno.ENODEV, "only lo")
    return f"interfaces {others}"


def udp_out():
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 9))
    return "a packet left"


def abstract_socket():
    s = socket.socket(socket.AF_UNIX)
    s.connect("\0" + host["abstract"])
    return "connected to an abstract socket of the host"


def abstract_datagram_of_pair():
    a, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    a.sendto(b"x", "\0" + host["abstract"] + "-dgram")
    return "sent to an abstract socket of the host"


def unix_socket():
    s = socket.socket(socket.AF_UNIX)
    s.connect(host["socket"])
    return "connected to a socket of the host"


def packet_socket():
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    return "a packet socket"


def kernel_crypto_socket():
    socket.socket(38, socket.SOCK_SEQPACKET, 0)
    return "AF_ALG"


def rare_protocol():
    """Most would be modules to be loaded; this one is there wherever it was not taken out."""
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 136)
    return "UDP-Lite"


# ---- files

def host_file():
    return text_of(host["file"])


def shadow():
    return text_of("/etc/shadow")


def home_of_root():
    return f"entries of /root: {len(os.listdir('/root'))}"


def other_attempts():
    parent = os.path.dirname(os.environ["COX_WORKSPACE"])
    others = [n for n in os.listdir(parent) if os.path.join(parent, n) != os.environ["COX_WORKSPACE"]]
    if not others:
        raise OSError(errno.ENOENT, "nobody else's directory")
    return f"beside mine: {len(others)}"


def write_to_usr():
    path = f"/usr/local/{own_name()}"
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    os.unlink(path)
    return "wrote to /usr/local"


def root_of_process_1():
    return text_of("/proc/1/root" + host["file"])


def root_of_parent():
    return text_of(f"/proc/{host['agent']}/root{host['file']}")


def remount_writable():
    return refused_only({errno.EINVAL}, "mount", None, b"/usr", None, 0x20 | 0x1000, None)


def input_for_writing():
    assert stat.S_ISREG(os.fstat(0).st_mode), "a file was expected"
    os.close(os.open("/proc/self/fd/0", os.O_RDWR))
    return "opened the input's file for writing"


def leave_by_descriptor():
    fd = os.open("/", os.O_RDONLY)
    os.mkdir("jail")
    call("chroot", b"jail")
    os.fchdir(fd)
    for _ in range(32):
        os.chdir("..")
    return f"left a chroot: {len(os.listdir('.'))} entries"


# ---- devices and the kernel

def make_device():
    os.mknod("device", stat.S_IFBLK | 0o600, os.makedev(254, 0))
    os.unlink("device")
    return "made a block device"


def kernel_log():
    os.close(os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK))
    return "opened /dev/kmsg"


def load_module():
    return refused_only({errno.ENOEXEC, errno.EINVAL, errno.EBADF}, 313, os.open("/dev/null", os.O_RDONLY), b"", 0)


def core_pattern():
    return opened_for_writing("/proc/sys/kernel/core_pattern")


def sysrq():
    return opened_for_writing("/proc/sysrq-trigger")


def sysfs():
    return opened_for_writing("/sys/kernel/mm/transparent_hugepage/enabled")


def kernel_memory():
    return text_of("/proc/kcore", 4)


def bpf_map():
    attr = struct.pack("IIII", 2, 4, 4, 1) + b"\0" * 112
    os.close(call(321, 0, attr, len(attr)))
    return "a BPF map"


def perf():
    attr = struct.pack("II", 1, 112) + b"\0" * 104
    os.close(call(298, attr, 0, -1, -1, 0))
    return "a performance event"


def io_uring():
    os.close(call(425, 4, b"\0" * 120))
    return "a ring"


def fault_handler():
    os.close(call(323, os.O_CLOEXEC))
    return "a userfaultfd"


def reboot():
    return refused_only({errno.EINVAL}, 169, 0, 0, 0, 0)


def swap():
    return refused_only({errno.ENOENT, errno.EINVAL}, "swapon", b"/nonesuch", 0)


def handle():
    return refused_only({errno.EBADF, errno.EINVAL}, 304, -1, b"\0" * 16, 0)


def clock():
    return refused_only({errno.EINVAL, errno.EFAULT}, 227, 99, b"\0" * 16)


def host_name():
    name = socket.gethostname().encode()
    call("sethostname", name, len(name))
    return "named the host"


# ---- rights

def make_mount():
    os.mkdir("mnt")
    call("mount", b"none", b"mnt", b"tmpfs", 0, None)
    call("umount", b"mnt")
    return "mounted"


def mount_by_new_calls():
    os.close(call(430, b"tmpfs", 0))
    return "fsopen"


def user_namespace():
    call("unshare", 0x10000000)
    return "a namespace of users"


def user_namespace_by_clone():
    pid = call(56, 0x10000000 | signal.SIGCHLD, None, None, None, None)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return "a namespace of users"


def user_namespace_by_clone3():
    args = struct.pack("QQQQQQQQ", 0x10000000, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)
    pid = call(435, args, len(args))
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return "a namespace of users"


def enter_namespace():
    fd = os.open(f"/proc/{host['agent']}/ns/net", os.O_RDONLY)
    call("setns", fd, 0)
    return "entered the host's network"


def change_root():
    call("chroot", b".")
    return "chroot"


def capabilities():
    line = next(l for l in open("/proc/self/status") if l.startswith("CapBnd"))
    if int(line.split()[1], 16) == 0:
        raise OSError(errno.EPERM, "no capability can be had")
    return line.strip()


def setuid_programs():
    flags = os.statvfs("/usr/bin/su").f_flag
    privileges = next(l for l in open("/proc/self/status") if l.startswith("NoNewPrivs"))
    if flags & os.ST_NOSUID and privileges.split()[1] == "1":
        raise OSError(errno.EPERM, "nosuid, no new privileges")
    return "programs with the setuid bit gain"


def become_root():
    os.setuid(0)
    return "root"


# ---- other processes

def environment_of_agent():
    with open(f"/proc/{host['agent']}/environ", "rb") as f:
        if b"ATTACK_SECRET" in f.read():
            return "read the worker's environment"
    raise OSError(errno.ENOENT, "another process")


def signal_to_agent():
    os.kill(int(host["agent"]), 0)
    return "could signal the worker"


def processes():
    pids = [p for p in os.listdir("/proc") if p.isdigit()]
    if len(pids) <= 4:
        raise OSError(errno.ENOENT, f"{len(pids)} processes")
    return f"sees {len(pids)} processes"


def trace():
    pid = os.fork()
    if pid == 0:
        time.sleep(10)
        os._exit(0)
    try:
        call("ptrace", 16, pid, None, None)
        return "traces a process"
    finally:
        os.kill(pid, signal.SIGKILL)


def memory_of_others():
    target = ctypes.create_string_buffer(b"secret")
    into = ctypes.create_string_buffer(6)
    remote = struct.pack("QQ", ctypes.addressof(target), 6)
    local = struct.pack("QQ", ctypes.addressof(into), 6)
    call("process_vm_readv", os.getpid(), local, 1, remote, 1, 0)
    return "read memory by process_vm_readv"


def keyring():
    return f"user keyring {call(250, 0, -4, 1)}"


def key():
    return f"key {call(248, b'user', b'cox-attack', b'x', 1, -3)}"


def kill_process_1():
    """Inside, 1 is the sandbox's own; at none nobody would try this."""
    for sig in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGINT):
        os.kill(1, sig)
    time.sleep(0.3)
    raise OSError(errno.EPERM, "it did not care")


# ---- amounts

def stay():
    """In a sandbox, until whoever watches has seen it, however busy the host is."""
    if socket.gethostname() == "sandbox":
        time.sleep(30)


def own_name():
    """At none it is among the host's."""
    return "cox-attack-" + os.urandom(8).hex()


def fork_bomb():
    pids = []
    try:
        for _ in range(1500):
            pid = os.fork()
            if pid == 0:
                signal.pause()
            pids.append(pid)
        return f"{len(pids)} processes"
    except OSError as e:
        raise OSError(e.errno, f"{e.strerror} after about {len(pids) // 100 * 100}")
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def descriptors():
    import resource
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 6000), hard))
    fds = []
    try:
        while len(fds) < 5000:
            fds.append(os.open("/dev/null", os.O_RDONLY))
        return f"{len(fds)} descriptors"
    except OSError as e:
        for fd in fds:
            os.close(fd)
        raise OSError(e.errno, e.strerror)


def hidden_memory():
    return f"memory that belongs to no process: {os.memfd_create('x')}"


def memory_bomb():
    kept = [bytearray(b"x") * (16 << 20) for _ in range(12)]
    stay()
    return f"{len(kept) * 16} MiB"


def memory_bomb_of_many():
    for _ in range(8):
        if os.fork() == 0:
            kept = bytearray(b"x") * (24 << 20)
            stay()
            os._exit(len(kept) & 1)
    for _ in range(8):
        os.wait()
    return "192 MiB in eight processes"


def shared_memory_bomb():
    m = mmap.mmap(-1, 192 << 20)
    for at in range(0, len(m), 4096):
        m[at] = 1
    stay()
    return "192 MiB shared"


def segment_bomb():
    ids = []
    libc.shmat.restype = ctypes.c_void_p
    try:
        for _ in range(6):
            ids.append(call("shmget", 0, 32 << 20, 0o1600))
            at = libc.shmat(ids[-1], None, 0)
            ctypes.memset(at, 1, 32 << 20)
            libc.shmdt(ctypes.c_void_p(at))
        stay()
    finally:
        for id_ in ids:
            call("shmctl", id_, 0, None)
    return "192 MiB in segments that nobody has attached"


def many_segments_bomb():
    """As segment_bomb, behind more empty ones than a look at a list of them might take."""
    ids = [call("shmget", 0, 4096, 0o1600) for _ in range(600)]
    try:
        segment_bomb()
    finally:
        for id_ in ids:
            call("shmctl", id_, 0, None)
    return "192 MiB in segments behind many others"


def named_memory_bomb():
    """Its name looks like a field of what the kernel says about it."""
    call("prctl", 15, b"RssAnon: 0", 0, 0, 0)
    return memory_bomb()


def leaderless_memory_bomb():
    """The thread that a process is named after has ended, and has no memory any more."""
    def last():
        print(json.dumps({"reached": True, "seen": memory_bomb()}), flush=True)
        os._exit(0)
    threading.Thread(target=last).start()
    libc.syscall(ctypes.c_long(60), ctypes.c_long(0))


def page_table_bomb():
    """Pages that are only read cost nothing, but for the tables that lead to them."""
    size = 96 << 30
    libc.mmap.restype = ctypes.c_void_p
    at = libc.mmap(None, ctypes.c_size_t(size), 1, 0x4022, -1, ctypes.c_long(0))
    if at == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "no such mapping")
    libc.madvise(ctypes.c_void_p(at), ctypes.c_size_t(size), 15)  # no large pages
    for offset in range(0, size, 2 << 20):
        ctypes.string_at(at + offset, 1)
    stay()
    return "192 MiB of page tables"


def memory_bomb_of_kinds():
    """Each kind is less than the limit."""
    path = f"/dev/shm/{own_name()}"
    with open(path, "wb") as f:
        try:
            f.write(b"x" * (30 << 20))
            f.flush()
            shared = mmap.mmap(-1, 48 << 20)
            for at in range(0, len(shared), 4096):
                shared[at] = 1
            stay()
        finally:
            os.unlink(path)
    return "30 MiB of files in memory and 48 MiB shared"


def tmp_bomb():
    path = f"/tmp/{own_name()}"
    with open(path, "wb") as f:
        try:
            for _ in range(192):
                f.write(b"x" * (1 << 20))
                f.flush()
        finally:
            os.unlink(path)
    return "192 MiB in /tmp"


def disk_bomb():
    for i in range(16):
        with open(f"f{i}", "wb") as f:
            f.write(b"x" * (12 << 20))
    stay()
    return "192 MiB in 16 files"


def file_bomb():
    for i in range(30000):
        os.close(os.open(f"f{i}", os.O_CREAT | os.O_WRONLY, 0o600))
    stay()
    return "30,000 empty files"


def moved_disk_bomb():
    """Puts an empty directory where its own was, in a sandbox only: elsewhere it is the host's."""
    work = os.getcwd()
    fd = os.open(".", os.O_RDONLY)
    if socket.gethostname() == "sandbox":
        os.rename("/".join(work.split("/")[:3]), "/tmp/elsewhere")
        os.makedirs(work)
    os.fchdir(fd)
    return disk_bomb()


def disk_bomb_of_one():
    with open("f", "wb") as f:
        os.truncate("f", 1 << 40)
        f.seek(1 << 40)
        f.write(b"x")
    return "a file of 1 TiB"


def hidden_disk_bomb():
    os.mkdir("d")
    for i in range(16):
        with open(f"d/f{i}", "wb") as f:
            f.write(b"x" * (12 << 20))
    os.chmod("d", 0)
    stay()
    return "192 MiB where nobody can look"


# ---- what stays

def orphan():
    """Leaves its session and its parent, twice, and waits for better times."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for fd in range(3):
                os.close(fd)
            os.execv("/bin/sleep", [host["mark"], "300"])
        os._exit(0)
    os.wait()
    time.sleep(0.2)
    return "left a process behind"


def all_watches():
    """Of files: as many as it gets, kept by a process with a name."""
    try:
        while True:
            call("inotify_init1", 0)
    except OSError:
        os.execv("/bin/sleep", [host["mark"], "300"])


def who():
    return f"uid {os.getuid()}, {len(os.listdir('/'))} entries in /"


def main():
    try:
        result = {"reached": True, "seen": globals()[sys.argv[1]]()}
    except (OSError, MemoryError) as e:
        result = {"reached": False, "seen": getattr(e, "strerror", None) or type(e).__name__}
    print(json.dumps(result))


main()
