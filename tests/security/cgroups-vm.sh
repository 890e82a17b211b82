#!/bin/bash
# The sandbox on a kernel that has control groups of version 2, which this host's may have bound to version 1: boots a
# machine (qemu) with this host's files, read-only, below a disk of its own, and runs the scripts there. Part of the
# long run: emulated, it takes the better part of an hour. Debian's packages: qemu-system-x86, busybox-static, cpio;
# and a kernel, this host's own or one that is not installed:
#
#   apt-get download linux-image-6.1.0-N-amd64 && dpkg -x linux-image-*.deb FOLDER
#   COX_TEST_LONG=1 COX_VM_KERNEL=FOLDER tests/security/cgroups-vm.sh [SCRIPT...]      (sandbox-ends; bench)
. "$(dirname "$0")/../scenario/lib.sh"
[ -n "${COX_TEST_LONG:-}" ] || { skip cgroups-vm "only in the long run (COX_TEST_LONG=1)"; exit 0; }
need_programs coxd cox-worker cox-sandbox cox python3 qemu-system-x86_64 busybox cpio mkfs.ext4
kernel=$(find "${COX_VM_KERNEL:-}/boot" -maxdepth 1 -name 'vmlinuz-*' 2>/dev/null | sort -V | tail -1)
version=${kernel##*/vmlinuz-}
modules=${COX_VM_KERNEL:-}/lib/modules/$version
if [ -z "$kernel" ] || ! find "$modules" -name '9pnet_virtio.ko*' 2>/dev/null | grep -q .; then
    skip cgroups-vm "no kernel with modules for a virtual machine (COX_VM_KERNEL)"
    exit 0
fi
scripts=("$@")
[ "$#" -gt 0 ] || scripts=(cgroups sandbox-ends sandbox sandbox-kills bench cgroups-systemd)
accelerator=tcg,thread=multi
[ -w /dev/kvm ] && grep -qE '^flags.* (vmx|svm)( |$)' /proc/cpuinfo && accelerator=kvm

# What is needed until the host's files are mounted. A module after those that it needs.
initial=$scenario_dir/initial
mkdir -p "$initial"/{bin,modules,new,host,disk}
cp "$(command -v busybox)" "$initial/bin/busybox"
declare -A added=()
order=()
add_module() {
    local path needs
    path=$(find "$modules" -name "$1.ko*" | head -1)
    [ -n "$path" ] && [ -z "${added[$1]:-}" ] || return 0
    added[$1]=1
    needs=$(xzcat -f "$path" 2>/dev/null | strings -n 8 | sed -n 's/^depends=//p' | tr ',' ' ')
    for need in $needs; do add_module "$need"; done
    xzcat -f "$path" >"$initial/modules/$1.ko"
    order+=("$1")
}
for module in virtio_pci virtio_blk 9pnet_virtio 9p ext4 crc32c_generic overlay; do add_module $module; done
# The first process is the scripts' own, or systemd, for what runs as its units.
cat >"$initial/init" <<END
#!/bin/busybox sh
/bin/busybox mkdir -p /dev /proc
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox mount -t proc proc /proc
for m in ${order[*]}; do /bin/busybox insmod /modules/\$m.ko; done
/bin/busybox mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=262144 host /host
/bin/busybox mount -t ext4 /dev/vda /disk
/bin/busybox mkdir -p /disk/upper /disk/work
/bin/busybox mount -t overlay -o lowerdir=/host,upperdir=/disk/upper,workdir=/disk/work overlay /new
/bin/busybox mkdir -p /new/etc/systemd/system
/bin/busybox cp /machine.service /new/etc/systemd/system/
/bin/busybox rm -f /new/.dockerenv # systemd would take the machine for a container
first="/bin/bash $scenario_root/tests/security/vm-init.sh"
if /bin/busybox grep -q cox.systemd /proc/cmdline; then first="/lib/systemd/systemd --unit=machine.service"; fi
/bin/busybox umount /proc
/bin/busybox umount /dev
exec /bin/busybox switch_root /new \$first
END
chmod 755 "$initial/init"
cat >"$initial/machine.service" <<END
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
TimeoutStartSec=infinity
ExecStart=/bin/bash $scenario_root/tests/security/vm-init.sh
END
(cd "$initial" && find . | cpio -o -H newc 2>/dev/null) >"$scenario_dir/initial.cpio"

# boot NAME SCRIPTS PARAMETER...: what the scripts say, then how they have ended.
boot() {
    local name=$1 scripts=$2 machine script
    shift 2
    rm -f "$scenario_dir/disk"
    truncate -s 6G "$scenario_dir/disk"
    mkfs.ext4 -q -F "$scenario_dir/disk"
    : >"$scenario_dir/$name"
    qemu-system-x86_64 -accel "$accelerator" -cpu max -smp 2 -m 3072 -display none -no-reboot -nodefaults \
        -kernel "$kernel" -initrd "$scenario_dir/initial.cpio" \
        -append "console=ttyS0 quiet panic=-1 cgroup_no_v1=all cox.build=$COX_BUILD cox.root=$scenario_root cox.scripts=${scripts// /,} $*" \
        -serial "file:$scenario_dir/console" -serial "file:$scenario_dir/$name" \
        -virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap \
        -drive "file=$scenario_dir/disk,format=raw,if=virtio,cache=unsafe" >"$scenario_dir/qemu.log" 2>&1 </dev/null &
    machine=$!
    at_exit=("kill $machine")
    tail -f --pid=$machine -n +1 "$scenario_dir/$name" | sed -u 's#\r$##; /^script /d; /^ended /d'
    wait $machine
    at_exit=()
    for script in $scripts after; do
        if tr -d '\r' <"$scenario_dir/$name" | grep -qx "ended $script with 0"; then
            ok "$script ended well in the machine of $name"
        else
            cat "$scenario_dir/qemu.log" "$scenario_dir/console" >"$scenario_dir/said"
            not_ok "$script ended well in the machine of $name" "$scenario_dir/said"
        fi
    done
}
plain=() units=()
for script in "${scripts[@]}"; do
    case $script in
        cgroups-systemd) units+=("$script") ;;
        *) plain+=("$script") ;;
    esac
done
[ "${#plain[@]}" = 0 ] || boot processes "${plain[*]}"
if [ "${#units[@]}" -gt 0 ] && [ ! -x /lib/systemd/systemd ]; then
    skip cgroups-systemd "systemd is not there"
elif [ "${#units[@]}" -gt 0 ]; then
    boot units "${units[*]}" cox.systemd
fi
finish
