"""What a run has finished is known whatever happens to it, and two runs do not mix."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from zbeam_client.content import staging
from zbeam_client.content.manifest import Entry, Manifest
from zbeam_client.content.model import Checks, Plan, Task
from zbeam_client.content.report import Report
from zbeam_client.content.resume import EDITED, EDITED_AND_OLD, NOT_OURS, decide, inputs_of
from zbeam_client.content.store import Store, require_absent, require_usable
from zbeam_client.content.work import Result
from zbeam_shared.errors import ZbeamError

GOOD = "---\ntitle: x\n---\n"


def task(out: Path, slug: str = "copper") -> Task:
    return Task(
        key=f"{slug}/frontmatter",
        material=slug,
        slug=slug,
        category="metal",
        component="frontmatter",
        template="Write about {subject} at {timestamp}.",
        values={"subject": slug, "timestamp": "now", "unused": 1},
        depends_on=(),
        parameters={"max_tokens": 100},
        checks=Checks(form="frontmatter", required=("title",)),
        path=out / "frontmatter" / f"{slug}.md",
        prefix="p",
        prefix_chars=12,
    )


def put(out: Path, one: Task, text: str = GOOD, inputs: str = "in") -> str:
    with Manifest(out) as manifest:
        return Store(manifest).put(one, inputs, Result(one.key, text=text))


def look(out: Path, one: Task, inputs: str = "in") -> tuple[str, str]:
    with Manifest(out) as manifest:
        return Store(manifest).look(one, inputs, fields_wanted=False).decision


def take_over(out: Path, one: Task) -> int:
    with Manifest(out) as manifest:
        return Store(manifest).take_over(Plan((one,), out))


def names(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "frontmatter").iterdir())


def test_the_cases_of_resume() -> None:
    entry = Entry("in", "hash")
    bad = ("the answer is empty",)
    assert decide(entry, "in", None, ()).action == "make"
    assert decide(entry, "in", "hash", ()) == ("skip", "")
    assert decide(entry, "other", "hash", ()).action == "make"
    assert decide(entry, "in", "edited", ()) == ("keep", EDITED)
    assert decide(entry, "other", "edited", ()) == ("keep", EDITED_AND_OLD)
    assert decide(None, "in", "hash", ()) == ("keep", NOT_OURS)
    assert decide(entry, "in", "edited", bad).action == "make"
    assert decide(None, "in", "hash", bad).action == "make"


def test_inputs_are_what_the_file_is_made_from_and_not_when(tmp_path: Path) -> None:
    one = task(tmp_path)
    same = inputs_of(one, {}, "m")
    later = replace(one, values={**one.values, "timestamp": "later"}, user_id="other")
    assert inputs_of(later, {}, "m") == same
    changed = [
        inputs_of(replace(one, values={**one.values, "subject": "zinc"}), {}, "m"),
        inputs_of(replace(one, template=one.template + "!"), {}, "m"),
        inputs_of(replace(one, system="Be brief."), {}, "m"),
        inputs_of(replace(one, parameters={"max_tokens": 101}), {}, "m"),
        inputs_of(replace(one, checks=Checks()), {}, "m"),
        inputs_of(one, {"frontmatter": {"title": "x"}}, "m"),
        inputs_of(one, {}, "other"),
        inputs_of(one, {}, "m", "another-api"),
        inputs_of(one, {}, "m", parameters={"temperature": 0.1}),
        inputs_of(one, {}, "m", parameters={"temperature": 0.2}),
    ]
    assert len({same, *changed}) == 11
    # What the task names itself, the daemon's configuration does not change.
    assert inputs_of(one, {}, "m", parameters={"max_tokens": 5}) == same


def test_a_finished_file_is_known_to_the_next_run(tmp_path: Path) -> None:
    one = task(tmp_path)
    put(tmp_path, one)
    assert one.path.read_text() == GOOD
    assert look(tmp_path, one) == ("skip", "")
    assert look(tmp_path, one, "other")[0] == "make"
    one.path.write_text(GOOD + "mine\n")
    assert look(tmp_path, one) == ("keep", EDITED)
    one.path.write_text("TBD")
    assert look(tmp_path, one)[0] == "make"
    one.path.write_bytes(b"\xff\xfe")
    assert look(tmp_path, one)[0] == "make"
    one.path.unlink()
    assert look(tmp_path, one)[0] == "make"


def test_whose_work_was_replaced_is_told(tmp_path: Path) -> None:
    one = task(tmp_path)
    one.path.parent.mkdir()
    one.path.write_text("mine")
    assert put(tmp_path, one) == NOT_OURS
    assert put(tmp_path, one, GOOD + "newer\n") == ""
    one.path.write_text(GOOD + "mine")
    assert put(tmp_path, one) == EDITED
    one.path.unlink()
    assert put(tmp_path, one) == ""


def test_the_folder_may_be_moved(tmp_path: Path) -> None:
    put(tmp_path / "a", task(tmp_path / "a"))
    (tmp_path / "a").rename(tmp_path / "b")
    assert look(tmp_path / "b", task(tmp_path / "b"))[0] == "skip"


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = {path!r}
import test_run_manifest as t
from zbeam_client.content import {module}
def die(*_args):
    os.kill(os.getpid(), signal.SIGKILL)
{module}.{name} = die
t.put(Path({out!r}), t.task(Path({out!r})), {text!r}, "new")
"""


def killed(out: Path, module: str, name: str, text: str = GOOD) -> None:
    """A process puts a file and is killed -9 at a certain call."""
    program = KILLED.format(
        path=[str(Path(__file__).parent), *sys.path],
        module=module,
        name=name,
        out=str(out),
        text=text,
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=30)
    assert done.returncode == -signal.SIGKILL


def test_an_answer_that_was_paid_for_outlives_kill_9_before_its_rename(tmp_path: Path) -> None:
    one = task(tmp_path)
    killed(tmp_path, "staging", "place")
    assert not one.path.exists()
    assert take_over(tmp_path, one) == 1
    assert names(tmp_path) == ["copper.md"]
    assert look(tmp_path, one, "new") == ("skip", "")


def test_so_does_one_that_was_to_replace_an_older_file(tmp_path: Path) -> None:
    one = task(tmp_path)
    put(tmp_path, one, inputs="old")
    killed(tmp_path, "staging", "place", GOOD + "newer\n")
    assert take_over(tmp_path, one) == 1
    assert one.path.read_text() == GOOD + "newer\n"


def test_but_not_over_a_file_that_was_edited_since(tmp_path: Path) -> None:
    one = task(tmp_path)
    put(tmp_path, one, inputs="old")
    killed(tmp_path, "staging", "place", GOOD + "newer\n")
    one.path.write_text(GOOD + "mine\n")
    assert take_over(tmp_path, one) == 0
    assert one.path.read_text() == GOOD + "mine\n"
    assert names(tmp_path) == ["copper.md"]


def test_an_answer_is_kept_when_the_next_run_is_for_another_material(tmp_path: Path) -> None:
    copper, zinc = task(tmp_path), task(tmp_path, "zinc")
    killed(tmp_path, "staging", "place")
    assert take_over(tmp_path, zinc) == 1
    assert names(tmp_path) == ["copper.md"]
    assert look(tmp_path, copper, "new") == ("skip", "")


def in_another_folder(out: Path) -> Task:
    return replace(task(out, "zinc"), path=out / "caption" / "zinc.md")


def test_an_answer_is_kept_when_the_next_run_is_for_another_component(tmp_path: Path) -> None:
    killed(tmp_path, "staging", "place")
    assert take_over(tmp_path, in_another_folder(tmp_path)) == 1
    assert names(tmp_path) == ["copper.md"]


@pytest.mark.parametrize("how", ["name", "link"])
def test_no_manifest_and_no_link_has_a_file_put_outside(tmp_path: Path, how: str) -> None:
    out, outside = tmp_path / "out", tmp_path / "outside"
    killed(out, "staging", "place")
    path = out / ".zbeam" / "manifest.jsonl"
    (out / "frontmatter").rename(outside)
    if how == "link":
        (out / "frontmatter").symlink_to(outside)
    else:
        path.write_text(path.read_text().replace("frontmatter/", "../outside/"))
    (staged,) = outside.iterdir()
    assert take_over(out, in_another_folder(out)) == 0
    assert list(outside.iterdir()) == [staged]


def test_a_folder_that_somebody_put_in_its_place_meanwhile_stays(tmp_path: Path) -> None:
    one = task(tmp_path)
    killed(tmp_path, "staging", "place")
    one.path.mkdir()
    assert take_over(tmp_path, in_another_folder(tmp_path)) == 0
    assert one.path.is_dir()


@pytest.mark.parametrize(("module", "name"), [("staging", "write_all"), ("manifest", "write_all")])
def test_half_a_file_and_half_a_record_are_cleared_away(
    tmp_path: Path, module: str, name: str
) -> None:
    one = task(tmp_path)
    put(tmp_path, one, inputs="old")
    killed(tmp_path, module, name)
    assert take_over(tmp_path, one) == 0
    assert names(tmp_path) == ["copper.md"]
    assert look(tmp_path, one, "old")[0] == "skip"


def test_a_staged_file_that_is_damaged_is_not_adopted(tmp_path: Path) -> None:
    one = task(tmp_path)
    killed(tmp_path, "staging", "place")
    staged = staging.temporary_of(str(one.path), staging.hash_of(GOOD.encode()))
    Path(staged).write_text("half")
    assert take_over(tmp_path, one) == 0
    assert names(tmp_path) == []


def test_a_torn_last_line_is_cut_off_and_the_next_one_is_whole(tmp_path: Path) -> None:
    one, two = task(tmp_path), task(tmp_path, "zinc")
    put(tmp_path, one)
    path = tmp_path / ".zbeam" / "manifest.jsonl"
    with path.open("ab") as file:
        file.write(b'{"file":"frontmatter/zi')
    put(tmp_path, two)
    assert [json.loads(line) for line in path.read_text().splitlines()]
    assert look(tmp_path, one)[0] == look(tmp_path, two)[0] == "skip"


@pytest.mark.parametrize(
    "damaged",
    [
        b"\x00\xff",
        b"[" * 5000,
        b'{"file":"a\\ud800","inputs":"in","sha256":"x"}',
        b'{"file":"a","inputs":"in","sha256":"\\ud800"}',
        b'{"file":"a\\u0000/b","inputs":"in","sha256":"x"}',
        b'{"file":"a","inputs":"in","sha256":"x","replaces":["x"]}',
    ],
)
def test_a_damaged_line_costs_one_file_its_record_and_no_more(
    tmp_path: Path, damaged: bytes
) -> None:
    one, two = task(tmp_path), task(tmp_path, "zinc")
    put(tmp_path, one)
    put(tmp_path, two)
    path = tmp_path / ".zbeam" / "manifest.jsonl"
    lines = path.read_bytes().split(b"\n")
    lines[1] = damaged
    path.write_bytes(b"\n".join(lines))
    with Manifest(tmp_path) as manifest:
        assert manifest.spoiled == 1
        assert Store(manifest).take_over(Plan((two,), tmp_path)) == 0
        assert manifest.get(one.path) is None
        assert manifest.get(two.path) is not None
    # And it is told of once.
    with Manifest(tmp_path) as manifest:
        assert manifest.spoiled == 0
        assert manifest.get(two.path) is not None


def test_a_manifest_without_its_head_loses_no_file(tmp_path: Path) -> None:
    one, two = task(tmp_path), task(tmp_path, "zinc")
    put(tmp_path, one)
    put(tmp_path, two)
    path = tmp_path / ".zbeam" / "manifest.jsonl"
    path.write_bytes(path.read_bytes().split(b"\n", 1)[1] + b"damaged\n")
    for spoiled in (1, 0):
        with Manifest(tmp_path) as manifest:
            assert manifest.spoiled == spoiled
            assert manifest.get(one.path) is not None
            assert manifest.get(two.path) is not None


def test_superseded_lines_are_dropped_now_and_then(tmp_path: Path) -> None:
    one = task(tmp_path)
    put(tmp_path, one)
    path = tmp_path / ".zbeam" / "manifest.jsonl"
    line = path.read_bytes().splitlines()[1]
    with path.open("ab") as file:
        file.writelines(line.replace(b'"in"', b'"x%d"' % n) + b"\n" for n in range(1200))
    assert look(tmp_path, one, "x1199")[0] == "skip"
    assert len(path.read_bytes().splitlines()) == 2
    put(tmp_path, one, inputs="y")
    assert look(tmp_path, one, "y")[0] == "skip"


def test_a_manifest_of_the_future_is_left_alone(tmp_path: Path) -> None:
    put(tmp_path, task(tmp_path))
    path = tmp_path / ".zbeam" / "manifest.jsonl"
    text = path.read_text().replace('"zbeam_manifest": 1', '"zbeam_manifest": 2')
    path.write_text(text)
    with pytest.raises(ZbeamError, match="version 2"), Manifest(tmp_path):
        pass
    assert path.read_text() == text


def test_a_second_run_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    with Manifest(tmp_path), pytest.raises(ZbeamError) as caught, Manifest(tmp_path):
        pass
    assert caught.value.code == "busy"
    assert f"pid {os.getpid()}" in str(caught.value)
    with Manifest(tmp_path):
        pass


def test_a_run_whose_folder_was_moved_away_writes_no_more_beside_the_next_one(
    tmp_path: Path,
) -> None:
    """Both would pay for the same files, and the first one's record would be lost."""
    out = tmp_path / "out"
    copper, zinc = task(out), task(out, "zinc")
    with Manifest(out) as manifest:
        first = Store(manifest)
        first.put(copper, "in", Result(copper.key, text=GOOD))
        out.rename(tmp_path / "away")
        for there in (0, 1):
            with pytest.raises(OSError, match="removed or replaced") as caught:
                first.put(zinc, "in", Result(zinc.key, text=GOOD))
            assert str(out / ".zbeam") in str(caught.value)
            assert out.exists() == bool(there)
            put(out, copper)
    assert names(out) == ["copper.md"]


def test_a_folder_that_is_removed_in_mid_run_is_not_made_again(tmp_path: Path) -> None:
    one = task(tmp_path)
    with Manifest(tmp_path) as manifest:
        store = Store(manifest)
        store.put(one, "in", Result(one.key, text=GOOD))
        one.path.unlink()
        one.path.parent.rmdir()
        with pytest.raises(FileNotFoundError):
            store.put(one, "in", Result(one.key, text=GOOD))
        store.require_place()
    assert not one.path.parent.exists()


def test_the_mode_of_a_file_is_kept_and_a_link_is_replaced(tmp_path: Path) -> None:
    one = task(tmp_path)
    put(tmp_path, one)
    one.path.chmod(0o640)
    put(tmp_path, one, GOOD + "b")
    assert one.path.stat().st_mode & 0o777 == 0o640
    other = tmp_path / "other"
    other.write_text("untouched")
    one.path.unlink()
    one.path.symlink_to(other)
    put(tmp_path, one)
    assert other.read_text() == "untouched"
    assert not one.path.is_symlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file to another user")
def test_the_owner_of_a_file_is_kept(tmp_path: Path) -> None:
    """A run by root that made a site's files root's own would shut out whoever keeps the site."""
    one = task(tmp_path)
    put(tmp_path, one)
    os.chown(one.path, 12345, 12346)
    one.path.chmod(0o600)
    put(tmp_path, one, GOOD + "b")
    found = one.path.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (12345, 12346, 0o600)


@pytest.mark.parametrize("char", ["x", "é", "漢", "🔥"])
def test_a_name_as_long_as_a_file_can_have_finds_room_for_its_answer(
    tmp_path: Path, char: str
) -> None:
    """It was found to be too long after the answer had been paid for."""
    name = char * (252 // len(char.encode())) + ".md"
    one = replace(task(tmp_path), path=tmp_path / name)
    put(tmp_path, one)
    put(tmp_path, one, GOOD + "b")
    assert one.path.read_text() == GOOD + "b"


def test_what_exists_is_named_but_not_all_of_it(tmp_path: Path) -> None:
    tasks = tuple(task(tmp_path, f"m{n}") for n in range(30))
    plan = Plan(tasks, tmp_path)
    require_absent(plan)
    (tmp_path / "frontmatter").mkdir()
    for one in tasks[:12]:
        one.path.write_text("")
    with pytest.raises(ZbeamError) as caught:
        require_absent(plan)
    text = str(caught.value)
    assert "12 of 30" in text
    assert "and 7 more" in text
    assert "--resume" in text
    assert "--overwrite" in text
    assert len(text) < 500


def test_what_a_killed_run_had_finished_exists_before_it_has_its_name(tmp_path: Path) -> None:
    """Without --resume it would be put in place, then asked and paid for once more."""
    one = task(tmp_path)
    require_absent(Plan((one,), tmp_path))
    killed(tmp_path, "staging", "place")
    with pytest.raises(ZbeamError, match=r"1 of 1: frontmatter/copper\.md") as caught:
        require_absent(Plan((one,), tmp_path))
    assert (caught.value.code, caught.value.exit_status) == ("bad_request", 2)
    assert not one.path.exists()
    assert take_over(tmp_path, one) == 1


@pytest.mark.parametrize("place", ["out", "out/frontmatter"])
def test_a_file_in_the_place_of_a_folder(tmp_path: Path, place: str) -> None:
    out = tmp_path / "out"
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("")
    with pytest.raises(ZbeamError, match="is not a folder"):
        require_usable(Plan((task(out),), out))


@pytest.mark.parametrize("place", ["", "frontmatter", ".zbeam"])
def test_no_link_leads_out_of_the_output_folder(tmp_path: Path, place: str) -> None:
    out, outside = tmp_path / "out", tmp_path / "outside"
    outside.mkdir()
    if place:
        out.mkdir()
    (out / place).symlink_to(outside)
    plan = Plan((task(out),), out)
    if not place:
        require_usable(plan)  # the folder itself may be anywhere
        return
    with pytest.raises(ZbeamError, match="leads out of the output folder"):
        require_usable(plan)
    (out / place).unlink()
    (out / "elsewhere").mkdir()
    (out / place).symlink_to("elsewhere")
    require_usable(plan)


@pytest.mark.parametrize("name", ["lock", "manifest.jsonl"])
@pytest.mark.parametrize("there", ["file", "nothing"])
def test_a_link_among_the_runs_own_files_is_refused_and_not_followed(
    tmp_path: Path, name: str, there: str
) -> None:
    precious = tmp_path / "precious"
    if there == "file":
        precious.write_text("mine")
    out = tmp_path / "out"
    (out / ".zbeam").mkdir(parents=True)
    (out / ".zbeam" / name).symlink_to(precious)
    with pytest.raises(ZbeamError, match=f"{name} is a link") as caught, Manifest(out):
        pass
    assert caught.value.code == "bad_request"
    assert (precious.read_text() if precious.exists() else "nothing") in ("mine", "nothing")
    assert precious.exists() == (there == "file")


@pytest.mark.parametrize("name", ["lock", "manifest.jsonl"])
def test_a_fifo_or_a_folder_there_is_refused_at_once(tmp_path: Path, name: str) -> None:
    place = tmp_path / ".zbeam" / name
    place.parent.mkdir()
    os.mkfifo(place)
    program = (
        "import sys; from pathlib import Path\n"
        "from zbeam_client.content.manifest import Manifest\n"
        "with Manifest(Path(sys.argv[1])): pass"
    )
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)],
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert f"{name} is a link or another thing" in done.stderr
        place.unlink(missing_ok=False) if place.is_fifo() else place.rmdir()
        place.mkdir()


def test_a_link_in_the_reports_place_is_replaced(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    with Manifest(tmp_path / "out") as manifest:
        link = manifest.folder / "report.json"
        link.symlink_to(precious)
        report = Report(Plan((task(manifest.out),), manifest.out))
        assert json.loads(report.write().read_text())["total"]["left"] == 1
    assert precious.read_text() == "mine"
    assert not link.is_symlink()


def test_what_is_no_file_is_found_before_anything_is_paid_for(tmp_path: Path) -> None:
    # Reading a FIFO would hang the run; a folder cannot be replaced by a file.
    folder, fifo, dangling = (task(tmp_path, name) for name in ("folder", "fifo", "dangling"))
    folder.path.mkdir(parents=True)
    os.mkfifo(fifo.path)
    dangling.path.symlink_to(tmp_path / "nothing")
    for one in (folder, fifo):
        with pytest.raises(ZbeamError, match=f"something else .*{one.path.name}"):
            require_usable(Plan((one, dangling), tmp_path))
    require_usable(Plan((dangling,), tmp_path))
