"""HTML to Word's formats by LibreOffice without a window, many pages for each start.

Knows the program, its switches and the profile that it is given: no macros, no active content, no updates of links, a
proxy that is not there; and started as `confined` does. It makes files of files, in a directory of its own.

The hard idea is blame. The program takes the pages in order and may crash or hang over one of them. What it finished
before is kept, save the last file, which it may not have finished; the first page without a file is tried once more,
alone; the others go into the next start. So one bad page costs two starts, and no other page anything.
"""

import shutil
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from mailkeep.errors import CannotWrite, ToolMissing
from mailkeep.export import confined

PROGRAMS: Final = ("soffice", "libreoffice")
MISSING: Final = "Word's formats need LibreOffice: apt-get install --no-install-recommends libreoffice-writer"
START_S: Final = 60  # for a start, the first of which makes the profile
PAGE_S: Final = 30  # for each page, and as much again for each MiB of it
MEMORY_MAX: Final = 3 << 30
FILE_MAX: Final = 1 << 30

_INPUT: Final = "HTML (StarWriter)"  # a document for paper; the other filter of HTML makes one for the screen
_SETTINGS: Final = (
    ("org.openoffice.Office.Common/Security/Scripting", "MacroSecurityLevel", "3"),
    ("org.openoffice.Office.Common/Security/Scripting", "DisableMacrosExecution", "true"),
    ("org.openoffice.Office.Common/Security/Scripting", "DisableActiveContent", "true"),
    ("org.openoffice.Office.Common/Security/Scripting", "BlockUntrustedRefererLinks", "true"),
    ("org.openoffice.Office.Common/Misc", "FirstRun", "false"),
    ("org.openoffice.Office.Common/Misc", "UseOpenCL", "false"),
    ("org.openoffice.Office.Recovery/AutoSave", "Enabled", "false"),
    ("org.openoffice.Office.Writer/Content/Update", "Link", "2"),  # never
    ("org.openoffice.Office.Writer/Content/Update", "Field", "false"),
    ("org.openoffice.Office.Writer/Content/Update", "Chart", "false"),
    ("org.openoffice.Office.Java/VirtualMachine", "Enable", "false"),
    ("org.openoffice.Office.Update/Update", "Enabled", "false"),
    ("org.openoffice.Inet/Settings", "ooInetProxyType", "2"),
    ("org.openoffice.Inet/Settings", "ooInetHTTPProxyName", "127.0.0.1"),
    ("org.openoffice.Inet/Settings", "ooInetHTTPProxyPort", "9"),
    ("org.openoffice.Inet/Settings", "ooInetHTTPSProxyName", "127.0.0.1"),
    ("org.openoffice.Inet/Settings", "ooInetHTTPSProxyPort", "9"),
    ("org.openoffice.Inet/Settings", "ooInetNoProxy", ""),
)


class Target(NamedTuple):
    """What to make: a file's suffix, without the dot, and LibreOffice's filter for it."""

    suffix: str
    filter: str


DOCX: Final = Target("docx", "MS Word 2007 XML")
DOC: Final = Target("doc", "MS Word 97")


def find() -> str:
    """The program. Raises ToolMissing."""
    for name in PROGRAMS:
        found = shutil.which(name)
        if found is not None:
            return found
    raise ToolMissing(MISSING)


class Office:
    """One LibreOffice at a time, with its profile and files in `home`, which is made and emptied here."""

    def __init__(self, program: str, home: Path) -> None:
        self._program = program
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._timed_out = False

    def convert(self, pages: Sequence[str], target: Target) -> list[bytes | str]:
        """For each page its document; or, as text, why there is none. Raises CannotWrite."""
        made: list[bytes | str] = [""] * len(pages)
        left = list(range(len(pages)))
        while left:
            done = self._start_with(pages, left, target)
            too_long = self._timed_out and len(left) == 1
            for number, document in done.items():
                made[number] = document
            left = [number for number in left if number not in done]
            if left:
                first = left.pop(0)
                alone = {} if too_long else self._start_with(pages, [first], target)
                made[first] = alone.get(first) or (
                    "it took too long" if self._timed_out else "LibreOffice gave up on it"
                )
        return made

    def _start_with(self, pages: Sequence[str], numbers: Sequence[int], target: Target) -> dict[int, bytes]:
        """Documents of these pages, as far as it came."""
        try:
            sources = self._prepare(pages, numbers)
            whole = self._run(sources, target, sum(map(len, (pages[number] for number in numbers))))
            found: dict[int, bytes] = {}
            for number, source in zip(numbers, sources, strict=True):
                with suppress(FileNotFoundError):
                    found[number] = source.with_suffix("." + target.suffix).read_bytes()
        except OSError as error:
            raise CannotWrite(f"LibreOffice could not be given its files: {error.strerror}") from error
        if not whole and found:
            del found[max(found)]
        return {number: document for number, document in found.items() if document}

    def _prepare(self, pages: Sequence[str], numbers: Sequence[int]) -> list[Path]:
        work = self._home / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        self._make_profile()
        sources = [work / f"{number:06}.html" for number in numbers]
        for number, source in zip(numbers, sources, strict=True):
            source.write_text(pages[number], "utf-8", "replace")
        return sources

    def _make_profile(self) -> None:
        user = self._home / "profile" / "user"
        if not user.exists():
            user.mkdir(parents=True)
            (user / "registrymodifications.xcu").write_text(_registry())

    def _run(self, sources: Sequence[Path], target: Target, size: int) -> bool:
        """True when it ended by itself, and well."""
        work = sources[0].parent
        command = [
            self._program,
            f"-env:UserInstallation={(self._home / 'profile').resolve().as_uri()}",
            *("--headless", "--norestore", "--nologo", "--nodefault", "--nolockcheck", "--nofirststartwizard"),
            f"--infilter={_INPUT}",
            *("--convert-to", f"{target.suffix}:{target.filter}", "--outdir", str(work.resolve())),
            *(str(source.resolve()) for source in sources),
        ]
        limits = {"RLIMIT_CORE": 0, "RLIMIT_DATA": MEMORY_MAX, "RLIMIT_FSIZE": FILE_MAX}
        self._timed_out = False
        if self._closed:
            return False
        self._process = process = confined.start(command, home=str(self._home.resolve()), limits=limits)
        timeout_s = START_S + PAGE_S * (len(sources) + size / (1 << 20))
        timer = threading.Timer(timeout_s, self._kill_late, (process,))
        timer.daemon = True
        timer.start()
        try:
            return process.wait() == 0
        finally:
            timer.cancel()
            confined.end(process)
            self._process = None

    def _kill_late(self, process: "subprocess.Popen[bytes]") -> None:
        self._timed_out = True
        confined.kill(process)

    def close(self) -> None:
        """End the program if it runs, and remove its profile. Any thread may call."""
        self._closed = True
        process = self._process
        if process is not None:
            confined.kill(process)
        shutil.rmtree(self._home, ignore_errors=True)


def _registry() -> str:
    items = "".join(
        f'<item oor:path="/{path}"><prop oor:name="{name}" oor:op="fuse"><value>{value}</value></prop></item>\n'
        for path, name, value in _SETTINGS
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<oor:items xmlns:oor="http://openoffice.org/2001/registry" '
        'xmlns:xs="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">\n'
        f"{items}</oor:items>\n"
    )
