#!/usr/bin/env python3
"""Runs a command on a terminal of its own, prints all it writes there, and ends with its exit code.

usage: terminal.py [--until REGEX --then WHAT] COMMAND...
WHAT is done once what was written matches REGEX: INT presses Ctrl-C, "type TEXT" types a line, all else is for sh.
"""
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time

PATIENCE_S = 30

arguments = sys.argv[1:]
until = then = None
while arguments[0] in ("--until", "--then"):
    if arguments[0] == "--until":
        until = re.compile(arguments[1].encode(), re.S)
    else:
        then = arguments[1]
    arguments = arguments[2:]

pid, terminal = pty.fork()
if pid == 0:
    os.environ["TERM"] = "xterm"
    os.execvp(arguments[0], arguments)
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
written = b""
deadline = time.monotonic() + PATIENCE_S
while time.monotonic() < deadline:
    if not select.select([terminal], [], [], 0.2)[0]:
        continue
    try:
        piece = os.read(terminal, 65536)
    except OSError:  # the last of them has closed it
        break
    if not piece:
        break
    written += piece
    if until and until.search(written):
        until = None
        if then == "INT":
            os.write(terminal, b"\x03")
        elif then.startswith("type "):
            os.write(terminal, then[5:].encode() + b"\n")
        else:
            subprocess.run(["sh", "-c", then], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
else:
    os.kill(pid, 9)
sys.stdout.buffer.write(written.replace(b"\r\n", b"\n"))
sys.stdout.flush()
status = os.waitpid(pid, 0)[1]
sys.exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))
