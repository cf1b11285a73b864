"""Takes away from a process what a parser does not need: the network, files, other processes, memory, time.

Layers, each best effort but for the resource limits, since kernels differ: a network namespace of its own, Landlock
(files, and on newer kernels signals, TCP and abstract sockets) and a seccomp filter (sockets, programs, debugging,
mounts). Linux only. Sources: unshare(2), landlock(7), seccomp(2) and the kernel's syscall tables.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import platform
import resource
import signal
import struct
from collections.abc import Sequence

_LIBC = ctypes.CDLL(None, use_errno=True)
_FORK = ctypes.PyDLL(None, use_errno=True).fork
_CLONE_NEWNET, _CLONE_NEWUSER, _CLONE_NEWIPC = 0x40000000, 0x10000000, 0x08000000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_O_PATH = 0o10000000

_LANDLOCK_CREATE, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT = 444, 445, 446
_LANDLOCK_VERSION_FLAG, _LANDLOCK_PATH_BENEATH = 1, 1
_LANDLOCK_READ = 0b1100  # read a file, list a folder
_LANDLOCK_FS_BITS = {1: 13, 2: 14, 3: 15, 4: 15}  # file rights known to each version of the interface; 16 from 5 on
_LANDLOCK_TCP, _LANDLOCK_SCOPES = 0b11, 0b11

_SECCOMP_MODE_FILTER = 2
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050001, 0x80000000  # refuse: EPERM
_X32_BIT = 0x40000000
# Per architecture: its audit number, then the system calls no parser needs, by number.
_FORBIDDEN: dict[str, tuple[int, str]] = {
    "x86_64": (
        0xC000003E,
        # socket connect accept bind listen socketpair; clone fork vfork execve; kill ptrace; setpgid setsid (to leave
        # the group that is killed); pivot_root chroot mount umount2 swapon swapoff reboot; init_module add_key
        # request_key keyctl; unshare accept4 perf_event_open name_to_handle_at open_by_handle_at setns
        # process_vm_readv process_vm_writev kcmp finit_module bpf execveat userfaultfd io_uring_setup pidfd_open
        # clone3 pidfd_getfd; rt_sigqueueinfo tkill tgkill rt_tgsigqueueinfo pidfd_send_signal
        "41 42 43 49 50 53 56 57 58 59 62 101 109 112 155 161 165 166 167 168 169 175 248 249 250 272 288 298 303 304 "
        "308 310 311 312 313 321 322 323 425 434 435 438 129 200 234 297 424",
    ),
    "aarch64": (
        0xC00000B7,
        # umount2 mount pivot_root chroot unshare init_module ptrace kill reboot setpgid setsid socket socketpair bind
        # listen accept connect add_key request_key keyctl clone execve swapon swapoff perf_event_open accept4
        # name_to_handle_at open_by_handle_at setns process_vm_readv process_vm_writev kcmp finit_module bpf execveat
        # userfaultfd io_uring_setup pidfd_open clone3 pidfd_getfd; tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo
        # pidfd_send_signal
        "39 40 41 51 97 105 117 129 142 154 157 198 199 200 201 202 203 217 218 219 220 221 224 225 241 242 264 265 "
        "268 270 271 272 273 280 281 282 425 434 435 438 130 131 138 240 424",
    ),
}


def leave_network() -> bool:
    """Move this process to a network namespace without a single interface. False where that is not allowed."""
    for flags in (_CLONE_NEWUSER | _CLONE_NEWNET | _CLONE_NEWIPC, _CLONE_NEWNET | _CLONE_NEWIPC, _CLONE_NEWNET):
        if _LIBC.unshare(flags) == 0:
            return True
    return False


def fork() -> int:
    """Fork as `os.fork` does, but for what Python does in the child for the sake of other threads, their locks and
    random numbers. That touches four of five pages that a short-lived child touches, each of which is copied. Only for
    a process of one thread.

    Raises:
        OSError: there can be no further process.
    """
    pid = int(_FORK())
    if pid < 0:
        raise OSError(ctypes.get_errno(), "fork")
    return pid


def die_with_parent() -> None:
    """Be killed when the parent goes. A process that is forked has to say so again."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def keep_to_itself() -> None:
    """Keep no core, show nothing in /proc, gain no privilege; children inherit it."""
    _prctl(_PR_SET_DUMPABLE, 0)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def limit_resources(memory_bytes: int) -> None:
    """Bound the address space and open files; no file is written, no core kept. Children inherit it."""
    _limit(resource.RLIMIT_AS, memory_bytes)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_NOFILE, 256)
    _limit(resource.RLIMIT_CORE, 0)


def keep_only(descriptor: int) -> None:
    """Close every other descriptor but the standard ones."""
    for other in {int(name) for name in os.listdir("/proc/self/fd")} - {0, 1, 2, descriptor}:
        with contextlib.suppress(OSError):  # the listing itself has one, closed by now
            os.close(other)


def forbid_children() -> None:
    """No process is started."""
    _limit(resource.RLIMIT_NPROC, 0)


def _limit(kind: int, most: int) -> None:
    _, hard = resource.getrlimit(kind)
    limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (limit, limit))


def limit_cpu(seconds: int) -> None:
    """SIGXCPU, which kills, after `seconds` more of CPU time from now (rounded up to the kernel's whole seconds)."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(usage.ru_utime + usage.ru_stime) + seconds, hard))


def hide_files(readable: Sequence[str]) -> bool:
    """By Landlock: only what lies under `readable` can be opened, and only to read. False where unsupported.

    Where the kernel knows how, it also refuses TCP, abstract sockets and signals to other processes. Needs
    `keep_to_itself` first (no_new_privs).
    """
    version = landlock_version()
    if version < 1:
        return False
    fields = [(1 << _LANDLOCK_FS_BITS.get(version, 16)) - 1]
    fields += [_LANDLOCK_TCP] * (version >= 4) + [_LANDLOCK_SCOPES] * (version >= 6)
    attributes = ctypes.create_string_buffer(struct.pack(f"={len(fields)}Q", *fields))
    ruleset = _syscall(_LANDLOCK_CREATE, ctypes.addressof(attributes), 8 * len(fields), 0)
    if ruleset < 0:
        return False
    try:
        for path in readable:
            _allow_reading(ruleset, path)
        return _syscall(_LANDLOCK_RESTRICT, ruleset, 0) == 0
    finally:
        os.close(ruleset)


def landlock_version() -> int:
    """The version of the kernel's Landlock interface, below 1 where there is none."""
    return _syscall(_LANDLOCK_CREATE, 0, 0, _LANDLOCK_VERSION_FLAG)


def _allow_reading(ruleset: int, path: str) -> None:
    try:
        folder = os.open(path, _O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        rule = ctypes.create_string_buffer(struct.pack("=Qi", _LANDLOCK_READ, folder))
        _syscall(_LANDLOCK_ADD_RULE, ruleset, _LANDLOCK_PATH_BENEATH, ctypes.addressof(rule), 0)
    finally:
        os.close(folder)


def knows_calls() -> bool:
    """Whether the filter below is written for this architecture."""
    return platform.machine() in _FORBIDDEN


def forbid_calls() -> bool:
    """By seccomp: the system calls above fail with EPERM. False where unsupported. Needs no_new_privs."""
    if _PROGRAM is None:
        return False
    return _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(_PROGRAM)) == 0


def _prctl(option: int, *arguments: int) -> int:
    padded = (*arguments, 0, 0, 0, 0)[:4]
    return int(_LIBC.prctl(ctypes.c_int(option), *map(ctypes.c_ulong, padded)))


def _syscall(number: int, *arguments: int) -> int:
    return int(_LIBC.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments)))


def _filter(architecture: int, forbidden: Sequence[int]) -> bytes:
    """Classic BPF over `struct seccomp_data` (number at offset 0, architecture at 4)."""
    load, equal, at_least, give = 0x20, 0x15, 0x35, 0x06

    def step(code: int, value: int, on_true: int = 0, on_false: int = 0) -> bytes:
        return struct.pack("HBBI", code, on_true, on_false, value)

    count = len(forbidden)
    steps = [step(load, 4), step(equal, architecture, 1, 0), step(give, _KILL), step(load, 0)]
    steps.append(step(at_least, _X32_BIT, count + 1, 0))  # the x32 spelling of every call
    steps.extend(step(equal, number, count - i, 0) for i, number in enumerate(forbidden))
    steps.extend((step(give, _ALLOW), step(give, _REFUSE)))
    return b"".join(steps)


def _program() -> ctypes.Array[ctypes.c_char] | None:
    """The filter of this machine (`struct sock_fprog`), made once: every document's process puts it on."""
    known = _FORBIDDEN.get(platform.machine())
    if known is None:
        return None
    architecture, forbidden = known
    program = _filter(architecture, [int(number) for number in forbidden.split()])
    instructions = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(instructions)))
    header.instructions = instructions  # type: ignore[attr-defined]  # they live as long
    return header


_PROGRAM = _program()
