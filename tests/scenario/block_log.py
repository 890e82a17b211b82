"""A disk that keeps a log of every write, and what a power cut at any moment would have left of it.

Disk: a file, exported by qemu-storage-daemon through FUSE, with all writes and flushes going to a log as well
(its blklogwrites driver, the format of the kernel's dm-log-writes); a loop device on that.

Replayer: writes before the last flush are on the disk. Each later one may have arrived, or not, or in part, by
sectors, whatever order they were issued in.
"""
import os
import random
import shutil
import struct
import subprocess
import time

SECTOR = 512
MAGIC = 0x6A736677736872
FLUSH, FUA, DISCARD = 1, 2, 4


def run(*command):
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stdout.strip() or done.returncode}")
    return done.stdout.strip()


def await_event(what, ready, process, limit_s=20):
    deadline = time.monotonic() + limit_s
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise OSError(f"{what} does not come: exit code {process.poll()}")
        time.sleep(0.01)


class Mount:
    """A file system on a file, by way of a loop device."""

    def __init__(self, file, at):
        self.at = at
        self.loop = None
        os.makedirs(at, exist_ok=True)
        self.loop = run("losetup", "--find", "--show", file)
        try:
            run("mount", "-t", "ext4", self.loop, at)
        except BaseException:  # also when asked to stop: nothing ends by itself
            run("losetup", "--detach", self.loop)
            raise

    def close(self):
        if self.loop:
            run("umount", self.at)
            run("losetup", "--detach", self.loop)
            self.loop = None


class LoggedDisk:
    """`file`, mounted, with all that is written to it in `log`."""

    def __init__(self, file, log, folder):
        self.log = log
        self.export = f"{folder}/export"
        for path in (log, self.export):
            with open(path, "wb"):
                pass
        size = os.stat(file).st_size
        self.daemon = subprocess.Popen([
            "qemu-storage-daemon",
            "--blockdev", f"driver=file,node-name=disk,filename={file},cache.no-flush=on",
            "--blockdev", f"driver=file,node-name=log,filename={log},cache.no-flush=on",
            "--blockdev", "driver=blklogwrites,node-name=top,file=disk,log=log",
            "--export", f"type=fuse,id=export,node-name=top,mountpoint={self.export},writable=on",
        ])
        self.mount = None
        try:
            await_event("the export", lambda: os.stat(self.export).st_size == size, self.daemon)
            self.mount = Mount(self.export, f"{folder}/mnt")
        except BaseException:
            self.close()
            raise

    def position(self):
        """How far the log has come. What a program was told before this is asked is in it."""
        return os.stat(self.log).st_size

    def close(self):
        if self.mount:
            self.mount.close()
        self.mount = None
        self.daemon.terminate()
        self.daemon.wait()


class Entry:
    __slots__ = ("at", "length", "flags", "data_at", "end")

    def __init__(self, at, length, flags, data_at, end):
        self.at, self.length, self.flags, self.data_at, self.end = at, length, flags, data_at, end


def read_log(path):
    """The entries, in order; `end`: where the log's next entry begins."""
    entries = []
    with open(path, "rb") as f:
        magic, version, n, sector = struct.unpack("<QQQI", f.read(28))
        if (magic, version, sector) != (MAGIC, 1, SECTOR):
            raise OSError(f"{path}: not a log of writes")
        at = sector
        for _ in range(n):
            f.seek(at)
            sector_at, n_sectors, flags, _ = struct.unpack("<QQQQ", f.read(32))
            length = n_sectors * SECTOR
            has_data = length > 0 and not flags & DISCARD
            end = at + sector + (length if has_data else 0)
            entries.append(Entry(sector_at * SECTOR, length, flags, at + sector if has_data else None, end))
            at = end
    return entries


class Replay:
    """Goes forward over a log only: the moments asked for must rise."""

    def __init__(self, log, before):
        self.entries = read_log(log)
        self.log = open(log, "rb")
        self.safe = before  # a file that is changed: what certainly is on the disk
        self.n_safe = 0

    def close(self):
        self.log.close()

    def apply(self, f, entry, sectors=None):
        if entry.length == 0:
            return
        f.seek(entry.at)
        if entry.data_at is None:
            f.write(bytes(entry.length))
            return
        self.log.seek(entry.data_at)
        data = self.log.read(entry.length)
        if sectors is None:
            f.write(data)
            return
        for i in sectors:
            f.seek(entry.at + i * SECTOR)
            f.write(data[i * SECTOR:(i + 1) * SECTOR])

    def cut(self, n, image, rng):
        """Makes `image` what a cut after `n` entries leaves. (lost, torn, unsynced) writes."""
        last_flush = max((i + 1 for i in range(self.n_safe, n) if self.entries[i].flags & FLUSH), default=self.n_safe)
        with open(self.safe, "r+b") as f:
            for entry in self.entries[self.n_safe:last_flush]:
                self.apply(f, entry)
        self.n_safe = last_flush
        if os.path.exists(image):
            os.unlink(image)  # whatever is still mounted somewhere on the old one writes to that alone
        pending = [e for e in self.entries[last_flush:n] if e.length > 0]
        run("cp", "--sparse=always", self.safe, image)
        lose = rng.choice([0.0, 0.1, 0.5, 0.9, 1.0])
        tear = rng.choice([0.0, 0.3])
        lost = torn = 0
        with open(image, "r+b") as f:
            for entry in pending:
                if rng.random() < lose and not entry.flags & FUA:
                    lost += 1
                elif rng.random() < tear and not entry.flags & FUA:
                    n_sectors = entry.length // SECTOR
                    self.apply(f, entry, [i for i in range(n_sectors) if rng.random() < 0.5])
                    torn += 1
                else:
                    self.apply(f, entry)
        return lost, torn, len(pending)


def make_disk(path, mib):
    with open(path, "wb") as f:
        f.truncate(mib << 20)
    run("mkfs.ext4", "-q", "-F", "-b", "4096", "-J", "size=4", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0",
        path)


def why_not(folder):
    """Why there can be no such disk here; None when there can. Tries one."""
    for program in ("qemu-storage-daemon", "losetup", "mkfs.ext4", "mount"):
        if not shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin"):
            return f"{program} is not there"
    if os.geteuid() != 0:
        return "only root may mount"
    if not os.access("/dev/fuse", os.W_OK):
        return "there is no /dev/fuse"
    try:
        make_disk(f"{folder}/probe", 16)
        LoggedDisk(f"{folder}/probe", f"{folder}/probe.log", folder).close()
    except OSError as e:
        return f"no disk of our own can be mounted ({e})".replace("\n", " ")
    return None


def self_check():
    """The replayer against a log made by hand: flushed writes stay, later ones go when all are lost."""
    import tempfile
    with tempfile.TemporaryDirectory() as d:
        with open(f"{d}/log", "wb") as f:
            head = struct.pack("<QQQI", MAGIC, 1, 3, SECTOR).ljust(SECTOR, b"\0")
            one = struct.pack("<QQQQ", 1, 1, 0, 0).ljust(SECTOR, b"\0") + b"a" * SECTOR
            flush = struct.pack("<QQQQ", 0, 0, FLUSH, 0).ljust(SECTOR, b"\0")
            two = struct.pack("<QQQQ", 2, 1, 0, 0).ljust(SECTOR, b"\0") + b"b" * SECTOR
            f.write(head + one + flush + two)
        with open(f"{d}/safe", "wb") as f:
            f.write(bytes(4 * SECTOR))
        replay = Replay(f"{d}/log", f"{d}/safe")
        seen = set()
        for seed in range(40):
            replay.cut(3, f"{d}/image", random.Random(seed))
            with open(f"{d}/image", "rb") as f:
                image = f.read()
            assert image[SECTOR:2 * SECTOR] == b"a" * SECTOR
            seen.add(image[2 * SECTOR:3 * SECTOR])
        replay.close()
        assert seen == {bytes(SECTOR), b"b" * SECTOR}


if __name__ == "__main__":
    self_check()
    print("the replayer is sound")
