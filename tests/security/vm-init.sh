#!/bin/bash
# The first process of the machine that cgroups-vm.sh starts, or a unit of its systemd: control groups of version 2 and none of version 1, the
# host's files, then the scripts that it is told. Results go to the second serial port.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb
if [ $$ = 1 ]; then # else systemd has done all that
    mount -t proc proc /proc
    mount -t sysfs sysfs /sys
    mount -t devtmpfs devtmpfs /dev
    mkdir -p /dev/shm /dev/pts
    mount -t tmpfs tmpfs /dev/shm
    mount -t devpts devpts /dev/pts
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    ln -s /proc/self/fd /dev/fd
fi
ip link set lo up
hostname machine
ulimit -n 20000
word() { tr ' ' '\n' </proc/cmdline | sed -n "s/^cox\.$1=//p"; }
export COX_BUILD TMPDIR=/tmp COX_KEEP= COX_ATTACKS_LIMIT_S=1000 COX_KILLS=60
COX_BUILD=$(word build)
root=$(word root)
cd "$root" || poweroff -f
{
    echo "    kernel $(uname -r), controllers $(cat /sys/fs/cgroup/cgroup.controllers)"
    for script in $(word scripts | tr , ' '); do
        echo "script $script"
        case $script in
            bench) "$COX_BUILD/cox-bench-sandbox" 30 2>&1 | sed 's/^/    /' ;;
            *) timeout 1500 "tests/security/$script.sh" </dev/null 2>&1 ;;
        esac
        echo "ended $script with $?"
    done
    echo "script after"
    left=$(find /sys/fs/cgroup -mindepth 1 -type d -name 'cox-*' | wc -l)
    if [ "$left" = 0 ]; then echo "ok no control group is left"; else echo "not ok no control group is left: $left are"; fi
    echo "ended after with 0"
} >/dev/ttyS1
sync
busybox poweroff -f
