"""Strangers' programs that read hostile mail: started without a network where the system allows it, within limits, and
ended together with all that they started.

Knows processes and Linux; knows no program. The hard idea is that what must happen between fork and the program's start
is done by a few lines of Python that the child runs first: no code of ours runs in the fork of a process that has
threads. They stay as the program's parent and end it when the pipe from here closes, so that nothing is left over when
this process is killed. A network namespace of its own holds nothing, not even this machine; where it may not be had,
the programs' own settings have to do.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

# Its arguments: JSON of the limits, of the descriptors to be 3, 4, …, and whether a user namespace may help; then the
# command. CLONE_NEWNET (0x40000000) needs CAP_SYS_ADMIN, which CLONE_NEWUSER (0x10000000) gives where that is allowed;
# only the own identity is mapped in it: user_namespaces(7).
_PRELUDE: Final = """
import ctypes, json, os, resource, sys, threading
limits, descriptors, user = json.loads(sys.argv[1])
for name, value in limits.items():
    number = getattr(resource, name)
    hard = resource.getrlimit(number)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(number, (value, value))
above = [os.dup2(descriptor, 60 + at) for at, descriptor in enumerate(descriptors)]
for at, descriptor in enumerate(above):
    os.dup2(descriptor, 3 + at)
    os.close(descriptor)
unshare, uid, gid = ctypes.CDLL(None).unshare, os.geteuid(), os.getegid()
if unshare(0x40000000) and user and not unshare(0x50000000):
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        try:
            with open("/proc/self/" + name, "w") as file:
                file.write(text)
        except OSError:
            pass
program = os.fork()
if not program:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.execv(sys.argv[2], sys.argv[2:])
for at in range(len(descriptors)):
    os.close(3 + at)

def end_with_parent():
    os.read(0, 1)
    os.killpg(0, 9)

threading.Thread(target=end_with_parent, daemon=True).start()
os._exit(os.waitstatus_to_exitcode(os.waitpid(program, 0)[1]) & 255)
"""
_KEPT: Final = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "FONTCONFIG_FILE", "FONTCONFIG_PATH")


def start(
    command: Sequence[str],
    *,
    home: str,
    limits: Mapping[str, int],
    descriptors: Sequence[int] = (),
    namespace: bool = True,
) -> "subprocess.Popen[bytes]":
    """The program, in a session of its own, `home` for all that it keeps. `command` begins with its whole path.

    `limits` by the names of `resource`; `descriptors` become 3, 4, …. `namespace`: a network of its own may be had by
    a user namespace too, which some programs' own sandboxes do not bear. Raises OSError.
    """
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return subprocess.Popen(
        [sys.executable, "-P", "-c", _PRELUDE, json.dumps([dict(limits), list(descriptors), namespace]), *command],
        stdin=subprocess.PIPE,  # nothing is written to it: its end is ours
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=tuple(descriptors),
        start_new_session=True,
        cwd=home,
        env={**environment, "HOME": home, "TMPDIR": home, "DBUS_SESSION_BUS_ADDRESS": "disabled:"},
    )


def kill(process: "subprocess.Popen[bytes]") -> None:
    """End it and all of its session that did not leave its group. Any thread may call; it is not waited for."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def end(process: "subprocess.Popen[bytes]") -> int:
    """End it as `kill` does, and wait. Its exit status."""
    kill(process)
    status = process.wait()
    kill(process)  # what it started in between
    if process.stdin is not None:
        process.stdin.close()
    return status
