#!/bin/bash
# Power that goes at any write of the block device below coxd's file system: the disk is rebuilt as it may have been
# left, and what was acknowledged by then must be there. Needs root, FUSE and loop devices.
. "$(dirname "$0")/lib.sh"
need_programs coxd cox-bench python3

# A disk in memory, where there is room: what is tried is what was written, not what writes it.
folder=$scenario_dir/power
if [ "$(df --output=avail -B1M /dev/shm 2>/dev/null | tail -n 1)" -gt 2048 ] 2>/dev/null; then
    folder=$(mktemp -d /dev/shm/cox-power.XXXXXX)
    at_exit+=("rm -rf --one-file-system '$folder'")
fi
mkdir -p "$folder"
images=9
[ -n "${COX_TEST_LONG:-}" ] && images=1000
seed=${COX_SEED:-$$}
echo "seed $seed (COX_SEED)"
# In a mount namespace of its own: one that somebody else copies meanwhile would keep our images mounted after umount.
unshare=(unshare --mount --propagation private)
"${unshare[@]}" true 2>/dev/null || unshare=()
"${unshare[@]}" python3 "$scenario_root/tests/scenario/power_loss.py" "$COX_BUILD" "$folder" "$images" "$seed"
