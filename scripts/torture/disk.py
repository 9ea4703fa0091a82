"""A disk that is full, read-only, gone, forbidden or used otherwise; then, with that mended, the same command again.

Errors are put in the way of Python's file functions; the real ones, of a small or read-only file system, need root.
"""

from __future__ import annotations

import ctypes
import errno
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from torture.cases import Bench, Case, is_said, spread
from torture.check import half_written
from torture.events import Event, fail_from, watch
from torture.work import COMMANDS, RUN, Ended, in_child, run

KIND = "disk"
REFUSALS = {
    errno.ENOSPC: "full at a write",
    errno.EDQUOT: "quota used up at a write",
    errno.EROFS: "read-only from a write on",
    errno.EACCES: "permission denied from a write on",
    errno.EIO: "input/output error from a write on",
}
SHARES = {"optimize": 8, "verified": 4, "evaluate": 4, "multirun": 2, "export model": 3, "export peft": 2} | {
    "export embeds": 1,
    "export text": 1,
    "export hub": 1,
    "report": 1,
}
KNOWN = (
    *("prompt.safetensors", "checkpoint.safetensors", "metrics.jsonl", "results.json", "samples.jsonl"),
    *("config.yaml", "embedgrad.log", ".lock", "answers.partial.jsonl", "report.html"),
)
CLONE_NEWNS = 0x20000  # of unshare(2): mounts that no other process sees
NOBODY = 65534
NO_REPORT = "report.html was not written"


def cases(bench: Bench, count: int, seed: int) -> Iterator[Case]:
    chance = random.Random(f"{KIND} {seed}")
    for command, share in SHARES.items():
        events = bench.undisturbed(command).events
        number = max(1, round(count * share / sum(SHARES.values())))
        for i, event in enumerate(spread(number, len(events), chance)):
            error = errno.ENOSPC if i % 2 == 0 else chance.choice(list(REFUSALS))
            name = f"disk-{command.replace(' ', '-')}-{errno.errorcode[error]}-at-{event}"
            yield Case(KIND, REFUSALS[error], command, name, partial(_refused, bench, command, error, event))
    few = max(1, count // 50)
    for command in ("optimize", "evaluate", "export model"):
        dashed, events = command.replace(" ", "-"), bench.undisturbed(command).events
        for event in spread(few, len(events), chance):
            yield Case(
                *(KIND, "folder vanishes", command, f"disk-{dashed}-vanishes-at-{event}"),
                partial(_vanishes, bench, command, event),
            )
        renames = sum(event.startswith("rename") for event in events)
        for event in spread(few, renames, chance):
            yield Case(
                *(KIND, "rename is done and reported as failed (NFS)", command, f"disk-{dashed}-rename-{event}"),
                partial(_renamed_twice, bench, command, event),
            )
        yield Case(KIND, "no locks (NFS)", command, f"disk-{dashed}-no-locks", partial(_without_locks, bench, command))
        yield Case(
            *(KIND, "a file where the folder should be", command, f"disk-{dashed}-file"),
            partial(_file_for_folder, bench, command),
        )
        yield Case(
            *(KIND, "a file where the folder above should be", command, f"disk-{dashed}-file-above"),
            partial(_file_above, bench, command),
        )
        if os.geteuid() == 0:
            yield Case(
                *(KIND, "another user's folder", command, f"disk-{dashed}-forbidden"),
                partial(_forbidden, bench, command),
            )
            if _may_mount():
                yield Case(
                    *(KIND, "read-only file system", command, f"disk-{dashed}-read-only"),
                    partial(_read_only, bench, command),
                )
                for i in range(few):
                    yield Case(
                        *(KIND, "small file system (tmpfs)", command, f"disk-{dashed}-small-{i}"),
                        partial(_small, bench, command, chance.random()),
                    )
    for known in KNOWN:
        yield Case(
            *(KIND, "a folder where a file should be", "optimize", f"disk-optimize-folder-{known}"),
            partial(_folder_for_file, bench, known),
        )


def _refused(bench: Bench, command: str, error: int, number: int, place: Path) -> list[str]:
    ended = run(COMMANDS[command], place, lambda: watch(place, fail_from(number, error)))
    return _then_again(bench, command, place, ended)


def _then_again(bench: Bench, command: str, place: Path, ended: Ended) -> list[str]:
    """What is wrong with how a refusal was told, and with the same command after it."""
    wrong = is_said(ended, (0, 1, 2)) + half_written(place) + bench.run_again(command, place)
    if ended.code == 0 and NO_REPORT in ended.stderr:  # which it has said, and the run is complete without it
        wrong = [one for one in wrong if not one.endswith("report.html is missing")]
    return wrong


def _vanishes(bench: Bench, command: str, number: int, place: Path) -> list[str]:
    def act(event: Event) -> None:
        if event.number == number:
            shutil.rmtree(place / RUN, ignore_errors=True)

    ended = run(COMMANDS[command], place, lambda: watch(place, act))
    wrong = is_said(ended, (0, 1, 2)) + half_written(place)
    shutil.rmtree(place / RUN, ignore_errors=True)  # half a folder, where it was made anew
    return wrong + bench.run_again(command, place)


def _renamed_twice(bench: Bench, command: str, number: int, place: Path) -> list[str]:
    """A network file system that repeats a rename whose answer was lost finds nothing to rename."""

    def hook() -> None:
        real, calls = os.replace, list[None]()

        def replace(source: object, target: object) -> None:
            real(source, target)  # type: ignore[type-var, arg-type]
            calls.append(None)
            if len(calls) == number:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(source), None, str(target))

        os.replace = replace  # type: ignore[assignment]

    return _then_again(bench, command, place, run(COMMANDS[command], place, hook))


def _without_locks(bench: Bench, command: str, place: Path) -> list[str]:
    def act(event: Event) -> None:
        if event.kind == "flock":
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    ended = run(COMMANDS[command], place, lambda: watch(place, act))
    wrong = [] if "no locks" in ended.stderr else ["it does not say that nothing keeps a second process out"]
    return wrong + bench.ends_as_undisturbed(command, place, ended)


def _file_for_folder(bench: Bench, command: str, place: Path) -> list[str]:
    (place / RUN).write_text("mine")
    wrong = is_said(run(COMMANDS[command], place), (2,))
    if (place / RUN).read_text() != "mine":
        wrong.append("the file is another")
    (place / RUN).unlink()
    return wrong + bench.run_again(command, place)


def _file_above(bench: Bench, command: str, place: Path) -> list[str]:
    (place / "file").write_text("mine")
    argv = [word.replace(f"output_dir={RUN}", f"output_dir=file/deep/{RUN}") for word in COMMANDS[command]]
    wrong = is_said(run(argv, place), (2,))
    return wrong + ([] if (place / "file").read_text() == "mine" else ["the file is another"])


def _folder_for_file(bench: Bench, known: str, place: Path) -> list[str]:
    folder = place / RUN / known
    (folder / "inside").mkdir(parents=True)
    wrong = is_said(run(COMMANDS["optimize"], place), (0, 1, 2))
    if not (folder / "inside").is_dir():
        wrong.append("the folder is gone")
    shutil.rmtree(folder)
    again = bench.run_again("optimize", place)
    return wrong + ([one for one in again if "report.html" not in one] if known == "report.html" else again)


def _forbidden(bench: Bench, command: str, place: Path) -> list[str]:
    (place / RUN).mkdir()
    os.chmod(place, 0o755)  # noqa: PTH101
    ended = run(COMMANDS[command], place, lambda: os.setresuid(NOBODY, NOBODY, NOBODY))
    return is_said(ended, (2,)) + bench.run_again(command, place)


def _may_mount() -> bool:
    try:
        return _mounted(lambda: []) == []
    except RuntimeError:
        return False


def _mount_apart() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    _mount("--make-rprivate", "/")


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)


def _mounted(work: Callable[[], list[str]]) -> list[str]:
    def apart() -> list[str]:
        _mount_apart()
        return work()

    found = in_child(apart)
    assert isinstance(found, list)
    return found


def _read_only(bench: Bench, command: str, place: Path) -> list[str]:
    bench.undisturbed(command)

    def work() -> list[str]:
        _mount("-t", "tmpfs", "-o", "ro", "none", str(_below(place)))
        return is_said(run(_below_argv(command), place), (2,))

    return _mounted(work)


def _small(bench: Bench, command: str, share: float, place: Path) -> list[str]:
    """A file system with room for a share of what the command leaves; then with room for all."""
    bench.undisturbed(command)
    pages = 1 + int(share * 60)

    def work() -> list[str]:
        mount = _below(place)
        _mount("-t", "tmpfs", "-o", f"size={pages * 4}k", "none", str(mount))
        for name in ("model", "data", "trained", "again"):
            (mount / name).symlink_to(place / name)
        ended = run(COMMANDS[command], mount)
        _mount("-o", "remount,size=64m", str(mount))
        return _then_again(bench, command, mount, ended)

    return _mounted(work)


def _below(place: Path) -> Path:
    mount = place / "mount"
    mount.mkdir(exist_ok=True)
    return mount


def _below_argv(command: str) -> list[str]:
    return [word.replace(f"output_dir={RUN}", f"output_dir=mount/{RUN}") for word in COMMANDS[command]]
