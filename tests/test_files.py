"""Files appear whole or not at all, whoever else writes beside, and nothing of killed runs is in the way."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from geoovseg import files
from geoovseg.errors import OutputError
from geoovseg.files import bench, try_lock, whole, write_whole


def test_a_file_has_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "x.tif"
    target.write_text("old")
    with whole(target) as part:
        part.write_text("new")
        assert target.read_text() == "old"
        assert part.parent.parent == tmp_path
        assert part.suffix == ".tif"
    assert target.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["x.tif"]


def test_what_goes_wrong_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_whole(tmp_path / "x", "old")
    with pytest.raises(KeyboardInterrupt), whole(tmp_path / "x") as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"x": "old"}


def test_names_differ_also_where_every_process_is_number_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with whole(tmp_path / "x") as one, whole(tmp_path / "x") as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert (tmp_path / "x").read_text() == "one"


def test_a_bench_is_gone_in_the_end(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="disk"), bench(tmp_path / "x.gpkg") as work:
        (work / "x.gpkg").write_text("half")
        raise OSError("disk")
    assert list(tmp_path.iterdir()) == []


def test_benches_of_the_dead_are_cleared_and_those_of_the_living_stay(tmp_path: Path) -> None:
    target = tmp_path / "a [1]*.tif"
    code = (
        "import os\nfrom pathlib import Path\nfrom geoovseg.files import bench\n"
        f"with bench(Path({str(target)!r})): os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    (dead,) = tmp_path.iterdir()
    with bench(target) as one, bench(target) as other:
        assert not dead.exists()
        assert one.exists()
        assert other.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_bench_whose_process_died_before_it_was_locked_or_after_is_cleared(tmp_path: Path) -> None:
    for number, content in enumerate(((), ("half",))):
        (folder := tmp_path / f".x.gpkg.{number:012x}.tmp").mkdir()
        for name in content:
            (folder / name).write_text("half")
    with bench(tmp_path / "x.gpkg") as work:
        assert [p.name for p in tmp_path.iterdir()] == [work.name]


def test_a_bench_that_another_process_is_just_clearing_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir, made = Path.mkdir, []
    with ExitStack() as other:

        def make(folder: Path, *arguments: object, **more: object) -> None:
            """Another process takes the first folder for a left-over before it is locked."""
            mkdir(folder, *arguments, **more)
            made.append(folder)  # also where filelock makes sure that it is there
            if len(made) == 1:
                other.enter_context(try_lock(folder / files.LOCK))

        monkeypatch.setattr(Path, "mkdir", make)
        with bench(tmp_path / "x.gpkg") as work:
            assert work != made[0]
            assert not made[0].exists()


def test_a_left_over_of_another_program_is_not_touched(tmp_path: Path) -> None:
    foreign = tmp_path / ".x.gpkg.notes"
    foreign.mkdir()
    (tmp_path / ".x.gpkg.part").write_text("mine")
    with bench(tmp_path / "x.gpkg"):
        pass
    assert sorted(p.name for p in tmp_path.iterdir()) == [".x.gpkg.notes", ".x.gpkg.part"]


def _hold(path: Path, ready: object, done: object) -> None:
    with try_lock(path):
        ready.set()  # type: ignore[attr-defined]
        done.wait()  # type: ignore[attr-defined]


def test_a_lock_is_one_processes_until_it_ends(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path / "lock", ready, done))
    process.start()
    assert ready.wait(60)
    with pytest.raises(OutputError, match="another process is working in"), try_lock(tmp_path / "lock"):
        pass
    process.kill()
    process.join()
    with try_lock(tmp_path / "lock"), pytest.raises(OutputError, match="mine"), try_lock(tmp_path / "lock", "mine"):
        pass


def test_a_lock_that_is_a_link_empties_and_follows_nothing(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OutputError, match="is a link"), try_lock(tmp_path / "lock"):
        pass
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_link_is_followed_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link = tmp_path / "out.txt"
    link.symlink_to("disk/out.txt")
    write_whole(link, "content")
    assert link.is_symlink()
    assert (tmp_path / "disk" / "out.txt").read_text() == "content"
