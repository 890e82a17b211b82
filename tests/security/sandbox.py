#!/usr/bin/env python3
"""Runs attacks as steps and judges what came of them; sandbox.sh starts the programs.

usage: sandbox.py GROUP WORKER LEVEL    the steps of GROUP at LEVEL, on the worker with the label name=WORKER
"""
import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
COX = os.path.join(os.environ["COX_BUILD"], "cox")
LIMIT_S = int(os.environ.get("COX_ATTACKS_LIMIT_S", "200"))  # of an emulated machine more
PROGRAM = open(os.path.join(HERE, "sandbox_attacks.py")).read()

REACH = """tcp_to_host interfaces udp_out abstract_socket abstract_datagram_of_pair unix_socket packet_socket
    kernel_crypto_socket rare_protocol host_file shadow home_of_root other_attempts write_to_usr root_of_process_1 root_of_parent
    remount_writable leave_by_descriptor make_device kernel_log load_module core_pattern sysrq sysfs
    kernel_memory bpf_map perf io_uring fault_handler reboot swap handle clock host_name make_mount mount_by_new_calls
    user_namespace user_namespace_by_clone user_namespace_by_clone3 enter_namespace change_root capabilities
    setuid_programs become_root environment_of_agent signal_to_agent processes trace memory_of_others keyring key
    input_for_writing hidden_memory""".split()
BOMBS = """fork_bomb descriptors memory_bomb memory_bomb_of_many shared_memory_bomb segment_bomb
    many_segments_bomb named_memory_bomb leaderless_memory_bomb page_table_bomb memory_bomb_of_kinds tmp_bomb disk_bomb
    disk_bomb_of_one hidden_disk_bomb file_bomb""".split()
SHARED = """tcp_to_host interfaces udp_out abstract_socket abstract_datagram_of_pair unix_socket host_file kernel_log
    packet_socket enter_namespace signal_to_agent processes keyring input_for_writing""".split()
GROUPS = {"reach": REACH, "shared": SHARED, "bombs": BOMBS, "inside": ["kill_process_1"], "moved": ["moved_disk_bomb"]}
# With the host's network: what it is for, and everything else as ever.
NET_REACHES = {"tcp_to_host", "interfaces", "udp_out"}
# A kernel may be built without these; then the control says nothing.
MAY_BE_ABSENT = {"sysfs", "kernel_memory", "kernel_crypto_socket", "rare_protocol", "perf", "bpf_map", "io_uring", "fault_handler", "sysrq",
                 "kernel_log", "udp_out", "interfaces", "packet_socket", "key", "keyring", "handle", "load_module",
                 "disk_bomb_of_one", "descriptors", "root_of_process_1"}


def document(names, worker, level):
    env = {k: v for k, v in os.environ.items() if k.startswith("ATTACK_")}
    steps = {}
    for name in names:
        steps[name] = {"run": {"argv": ["python3", "-c", PROGRAM, name], "output": "json", "env": env, "sandbox": level},
                       "requires": f"name == {worker}", "allow_failure": True, "timeout": "60s",
                       "resources": {"memory": "1Gi" if name == "fork_bomb" else "64Mi", "disk": "64Mi"}}
    if "input_for_writing" in names:  # the worker hands an artifact over as a file of its cache
        steps["long"] = {"run": {"argv": ["sh", "-c", "echo kept > file"]}, "artifacts": {"file": "file"},
                         "requires": f"name == {worker}"}
        steps["input_for_writing"]["run"]["stdin"] = "${{ steps.long.artifacts.file }}"
    return {"api_version": "v1", "name": "attacks", "steps": steps}


def cox(*args, text=None):
    return subprocess.run([COX, *args], input=text, capture_output=True, text=True, timeout=LIMIT_S)


def run(names, worker, level):
    """What came of each: (reached, seen)."""
    said = cox("task", "submit", "-o", "name", "-", text=json.dumps(document(names, worker, level)))
    if said.returncode != 0:
        sys.exit(f"    {said.stderr}")
    task = said.stdout.strip()
    cox("task", "watch", task)
    described = json.loads(cox("task", "describe", task, "-o", "json").stdout)
    steps = {s["address"].partition("/")[2]: s for s in described["steps"]}
    results = {}
    for name in names:
        step = steps[name]
        if step["status"] == "SUCCEEDED":
            output = step["output"]
            results[name] = output["reached"], output["seen"]
        else:
            error = step.get("error", {})
            results[name] = False, f"{error.get('code')}: {error.get('message', '')[:120]}"
    return results


def line(ok, name, level, expected, seen):
    seen = " ".join(str(seen).split())
    print(f"{'ok' if ok else 'not ok'} {name.replace('_', ' ')} at {level}: expected {expected}, seen: {seen}", flush=True)
    return ok


def main():
    group, worker, level = sys.argv[1:4]
    fine = True
    for name, (reached, seen) in run(GROUPS[group], worker, level).items():
        if level == "none":  # the control: what is kept from steps elsewhere is there to be had
            if not reached and name in MAY_BE_ABSENT:
                print(f"skip {name.replace('_', ' ')} at none: not on this host: {seen}")
            else:
                fine &= line(reached, name, f"none on {worker}", "reached", seen)
        elif level == "net" and name in NET_REACHES:
            if reached or name not in MAY_BE_ABSENT:
                fine &= line(reached, name, f"net on {worker}", "reached", seen)
        else:
            fine &= line(not reached, name, f"{level} on {worker}", "kept away", seen)
    sys.exit(0 if fine else 1)


main()
