"""Finds why a chronyd cannot be reached, or stays silent, and says what to do.

Each function returns sentences to append to an error. They look at this machine
only: the file system, the mounts and, where their docstring says so, at every
process, which takes milliseconds on a large machine.
"""

from __future__ import annotations

import errno
import os
import re
from contextlib import suppress

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Iterable

DIRECTORY = "/run/chrony"

_PROGRAMS = ("/usr/sbin/chronyd", "/usr/bin/chronyd", "/usr/local/sbin/chronyd")

# Each is made by the container runtime of that name, or by systemd's.
_CONTAINER_FILES = ("/.dockerenv", "/run/.containerenv", "/run/systemd/container")

_APPARMOR = "/sys/module/apparmor/parameters/enabled"
_APPARMOR_PROFILE = "/etc/apparmor.d/usr.sbin.chronyd"
_SELINUX = "/sys/fs/selinux/enforce"

# Why most addresses refuse. Where several were tried, what runs here is looked at
# instead, see nothing_answers().
_IS_IT_RUNNING = "Is chronyd running"

CLOSE_SOME = "Close some, or raise the limit (ulimit -n, LimitNOFILE=)"

OVER_UDP = (
    "Over UDP (address 127.0.0.1) tracking, sources, sourcestats, activity, rtcdata "
    "and smoothing need no permission"
)

_MOUNT_DIRECTORY = (
    "In a container, mount the directory of the host's socket, at the same path and "
    "writable: chronyd answers to a socket beside its own. Or use address 127.0.0.1, "
    "or that of the host"
)


def unreachable(host: str, unix: bool, reason: OSError) -> str:
    """Return why ``host``, the path of a socket or an IP address, is not reached.

    It is empty where the reason explains itself.

    It looks at a few files only, so that auto-detection may use it for a
    candidate after which it tries the next.
    """
    if reason.errno in (errno.EMFILE, errno.ENFILE):
        return CLOSE_SOME
    return _no_socket(host, reason) if unix else _no_port(host, reason)


def _no_port(host: str, reason: OSError) -> str:
    if reason.errno in (errno.ECONNREFUSED, errno.ECONNRESET):
        advice = f"{_IS_IT_RUNNING}, and its command port open there?"
        if host.startswith("127.") or host == "::1":
            return f"{advice} In a container, that address is its own"
        return f"{advice} By default it is on loopback only: see bindcmdaddress"
    if reason.errno in (errno.EACCES, errno.EPERM):
        return "A firewall or a sandbox of this machine forbids it"
    if reason.errno == errno.EINVAL and host.startswith("fe80:"):
        return "A link-local address needs its interface, as in fe80::1%eth0"
    return ""


def _no_socket(path: str, reason: OSError) -> str:
    if os.path.isfile(path) or os.path.isdir(path):
        return f"That is no socket; chronyd's is {DIRECTORY}/chronyd.sock by default"
    advice = _NO_SOCKET.get(reason.errno or 0)
    return advice(path) if advice else ""


def _ended(path: str) -> str:
    if _mount(path)[1] == path:
        return (
            "The chronyd that made this socket has ended, and only the file of the "
            f"socket is mounted here. {_MOUNT_DIRECTORY}"
        )
    return f"{_IS_IT_RUNNING}? The socket is that of one that has ended"


def _no_file(path: str) -> str:
    directory = os.path.dirname(path)
    try:
        mode = os.stat(directory).st_mode & 0o777
    except OSError:
        return (
            f"{_IS_IT_RUNNING}? There is no directory {directory}. {_MOUNT_DIRECTORY}"
        )
    if mode & 0o007:
        # UTI_CheckDirPermissions in chronyd; its log says "Wrong permissions".
        why = (
            f"{directory} has mode {mode:04o}, and chronyd makes no socket in a "
            "directory that others can use"
        )
        if os.path.basename(path) == "chronyd.sock":
            return f"{why}: chmod 0750 {directory}, and restart chronyd"
        # The path may be wrong, and the directory not one of chronyd.
        return f"{_IS_IT_RUNNING}? If so: {why}, only in one of its own (mode 0750)"
    return f"{_IS_IT_RUNNING}? It has made no socket there: its log says why not"


def _not_permitted(path: str) -> str:
    user = _user(_owner(path))
    if os.geteuid() == 0:
        return (
            "This process is root, but without the capability DAC_OVERRIDE, or "
            f"AppArmor or SELinux forbids it. Run it as {user}, or with that "
            f"capability. {OVER_UDP}"
        )
    return (
        f"The socket is open to root and {user}, which chronyd runs as (its group does "
        f"not help). {OVER_UDP}"
    )


_NO_SOCKET = {
    errno.ECONNREFUSED: _ended,
    errno.ECONNRESET: _ended,
    errno.ENOENT: _no_file,
    errno.EACCES: _not_permitted,
    errno.EPERM: _not_permitted,
}


def _owner(path: str) -> int:
    """Return the user of the socket, or of its directory if that is closed to us."""
    for file in (path, os.path.dirname(path)):
        with suppress(OSError):
            return os.stat(file).st_uid
    return -1


def _user(uid: int) -> str:
    if uid in (-1, 0):
        return "the user of chronyd"
    import pwd

    with suppress(KeyError):
        return f"the user {pwd.getpwuid(uid).pw_name}"
    return f"the user {uid}"


def silent(path: str) -> str:
    """Return why chronyd may not answer over the Unix socket ``path``.

    It looks at every process.
    """
    root, mount = _mount(path)
    daemons = processes()
    if mount == path:
        return f"Only the file of the socket is mounted here. {_MOUNT_DIRECTORY}"
    if closed := _closed_to_chronyd(path):
        return (
            f"chronyd runs as {_user(_owner(path))}, who may not enter {closed}, so it "
            f"cannot answer to a socket in {os.path.dirname(path)}. {OVER_UDP}"
        )
    if stopped := _stopped(daemons):
        return stopped
    if not daemons and root not in ("/", "") and mount != "/":
        return (
            f"{mount} is mounted here, and no process chronyd is visible: chronyd can "
            f"reply only if it has this directory at the same path. {_MOUNT_DIRECTORY}"
        )
    text = (
        "Is chronyd hung or stopped, was its directory removed, or may it not write to "
        "the socket beside its own (AppArmor, SELinux, permissions of the directory, a "
        "container where the directory has another path)?"
    )
    if _first_line(_SELINUX) == "1":
        text += (
            " SELinux is enforcing: 'ausearch -m AVC -c chronyd' shows whether it "
            f"forbids that. {OVER_UDP}"
        )
    elif _first_line(_APPARMOR) == "Y" and os.path.exists(_APPARMOR_PROFILE):
        text += (
            f" AppArmor confines it ({_APPARMOR_PROFILE}): 'journalctl -k --grep "
            f"DENIED' shows whether it forbids that. {OVER_UDP}"
        )
    return text


def _closed_to_chronyd(path: str) -> str:
    """Return the first directory above ``path`` that chronyd may not enter, or ''."""
    try:
        # chronyd makes it after it has become its user, and has no other group.
        socket = os.stat(path)
        if socket.st_uid == 0:
            return ""
        directory = ""
        for part in os.path.dirname(os.path.realpath(path)).split("/"):
            directory = f"{directory}/{part}".replace("//", "/")
            here = os.stat(directory)
            if here.st_uid == socket.st_uid:
                search = 0o100
            elif here.st_gid == socket.st_gid:
                search = 0o010
            else:
                search = 0o001
            if not here.st_mode & search:
                return directory
    except OSError:
        pass
    return ""


def summary(messages: Iterable[str], *, local: bool) -> str:
    """Return what happened at each of several addresses, and each advice once.

    ``messages`` are those of the errors: what happened, and then the advice. With
    ``local`` they are of the usual addresses on this machine, and every process is
    looked at.
    """
    happened: list[str] = []
    advice: list[str] = []
    for message in messages:
        first, _, rest = message.partition(". ")
        happened.append(first)
        if not (local and rest.startswith(_IS_IT_RUNNING)):
            advice.append(rest)
    if local:
        advice.append(nothing_answers())
    parts = ["; ".join(happened), *dict.fromkeys(filter(None, advice))]
    return ". ".join(parts)


def nothing_answers() -> str:
    """Return why no chronyd answers at any of its usual addresses on this machine.

    It looks at every process.
    """
    daemons = processes()
    if stopped := _stopped(daemons):
        return stopped
    pids = [pid for pid, _ in daemons]
    if pids and all(map(_has_other_network, pids)):
        return (
            f"chronyd is running ({_pids(pids)}), but in another network namespace. "
            f"Mount its {DIRECTORY} here at the same path, writable; or use its network"
        )
    if pids:
        return (
            f"chronyd is running ({_pids(pids)}). See cmdport and bindcmdaddress in "
            "its configuration, and its log. If it runs outside of this container, "
            f"mount its {DIRECTORY} here at the same path, writable"
        )
    if in_container():
        return (
            "No chronyd is running in this container. Mount the host's "
            f"{DIRECTORY} at the same path, writable; or use the network of the host; "
            "or give the address of a host whose cmdallow names this container"
        )
    if any(map(os.path.exists, _PROGRAMS)):
        return "chronyd is not running. Start it with: systemctl start chronyd"
    return (
        "No chronyd is running, and none is installed. Install the package chrony; or "
        f"in a container mount the host's {DIRECTORY} at the same path, writable; or "
        "give the address of a host whose cmdallow names this one"
    )


def _stopped(daemons: list[tuple[int, str]]) -> str:
    pids = [pid for pid, state in daemons if state in "Tt"]
    return (
        f"A chronyd is stopped ({_pids(pids)}): kill -CONT continues it" if pids else ""
    )


def _has_other_network(pid: int) -> bool:
    """Whether a process is known to be in another network namespace than this one."""
    with suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")
    return False


def _pids(numbers: list[int]) -> str:
    more = ", ..." if len(numbers) > 3 else ""
    return f"process {', '.join(map(str, numbers[:3]))}{more}"


def processes() -> list[tuple[int, str]]:
    """Return the visible processes chronyd: their number, and state as in proc(5)."""
    found: list[tuple[int, str]] = []
    with suppress(OSError):
        for entry in os.listdir("/proc"):
            if entry.isdecimal() and _first_line(f"/proc/{entry}/comm") == "chronyd":
                status = _first_line(f"/proc/{entry}/stat").rpartition(") ")[2]
                if status[:1] not in ("Z", "X", ""):  # it has not ended
                    found.append((int(entry), status[0]))
    return sorted(found)


def in_container() -> bool:
    """Return whether this is a container of Docker, Podman, Kubernetes or systemd."""
    return "KUBERNETES_SERVICE_HOST" in os.environ or any(
        map(os.path.exists, _CONTAINER_FILES)
    )


def _mount(path: str) -> tuple[str, str]:
    """Return what is mounted at or above ``path``: its root in its file system, where.

    Both are empty where that is not known.
    """
    best = ("", "")
    real = os.path.realpath(path)
    with (
        suppress(OSError),
        open(
            "/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape"
        ) as file,
    ):
        for line in file:
            root, point = map(_unescape, line.split(" ")[3:5])
            # The last one of those at the same place covers the others.
            above = f"{real}/".startswith(f"{point.rstrip('/')}/")
            if above and len(point) >= len(best[1]):
                best = (root, path if point == real else point)
    return best


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _first_line(file: str) -> str:
    try:
        with open(file, encoding="utf-8", errors="replace") as opened:
            return opened.readline().rstrip("\n")
    except OSError:
        return ""
