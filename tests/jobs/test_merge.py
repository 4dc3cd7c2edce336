"""Shards are joined where they are whole and belong together, and refused with a reason where not."""

import json
from dataclasses import replace

import pytest

from omniqa.errors import UsageError
from omniqa.jobs import runfile
from omniqa.jobs.clips import Shard
from omniqa.jobs.merge import check, join
from omniqa.jobs.table import CsvCodec
from tests.jobs.test_runner import lines, timeless
from tests.near import near

COUNT = 4


@pytest.fixture
def shards(start, qa, tmp_path):
    """Three clips in four shards, so that one at least is empty."""
    paths = [tmp_path / f"shard {index}.jsonl" for index in range(1, COUNT + 1)]
    for index, path in enumerate(paths, start=1):
        batch = start(path=path, shard=Shard(index, COUNT))
        list(batch.go_on(qa))
    return paths


def change(path, **fields):
    replace(runfile.read(path), **fields).write(path)


def rewrite(path, change):
    path.write_text("".join(json.dumps(row) + "\n" for row in change(lines(path))))


@pytest.fixture
def fullest(shards):
    return max(shards, key=lambda path: len(lines(path)))


def test_shards_joined_are_the_whole_batch_and_can_be_gone_on_with(shards, start, qa, tmp_path):
    list(start(path=tmp_path / "whole.jsonl").go_on(qa))
    out = tmp_path / "joined.jsonl"
    checked = check(shards[::-1])
    assert (checked.lines, checked.failed) == (6, 0)
    join(checked, out)
    assert out.read_bytes() == b"".join(path.read_bytes() for path in shards)
    by_id = {row["id"]: row for row in timeless(tmp_path / "whole.jsonl")}
    assert {row["id"]: row for row in timeless(out)} == near(by_id)
    assert list(start(path=out).go_on(qa)) == []
    assert runfile.read(out) == runfile.read(tmp_path / "whole.jsonl")
    with pytest.raises(UsageError, match="there already"):
        join(checked, out)


def test_a_missing_shard_is_named(shards):
    with pytest.raises(UsageError, match="Of 4 shards, these are missing: 2/4, 3/4"):
        check([shards[0], shards[3]])


def test_a_shard_given_twice_is_named(shards, tmp_path):
    again = tmp_path / "again.jsonl"
    again.write_bytes(shards[0].read_bytes())
    runfile.read(shards[0]).write(again)
    with pytest.raises(UsageError, match="are both shard 1/4"):
        check([*shards, again])


def test_a_line_that_is_gone_or_there_twice_is_noticed(shards, fullest):
    whole = fullest.read_bytes()
    rewrite(fullest, lambda rows: rows[1:])
    with pytest.raises(UsageError, match="is not finished"):
        check(shards)
    fullest.write_bytes(whole[:-10])
    with pytest.raises(UsageError, match="is not finished"):
        check(shards)
    fullest.write_bytes(whole)
    rewrite(fullest, lambda rows: [*rows[:-1], rows[0]])
    with pytest.raises(UsageError, match="and again in"):
        check(shards)


def test_a_shard_that_was_ended_is_not_joined(shards, fullest, start, tmp_path):
    start(path=tmp_path / "new.jsonl", shard=Shard(2, 4))
    change(fullest, finished={})
    with pytest.raises(UsageError, match=r"is not finished\. Run its command again"):
        check(shards)


def test_shards_of_different_batches_are_not_joined(shards, start, tmp_path):
    run = runfile.read(shards[1])
    ((name, settings),) = run.settings.items()
    change(shards[1], settings={"other": settings | {"method": "none"}})
    with pytest.raises(UsageError, match="method was 'omnidrop', not 'none'"):
        check(shards)
    change(shards[1], settings={name: settings}, asked=run.asked | {"questions": 7})
    with pytest.raises(UsageError, match="another list of videos"):
        check(shards)
    change(shards[1], asked=run.asked, shard="2/5")
    with pytest.raises(UsageError, match=r"is one of [45]"):
        check(shards)


def test_answers_of_two_models_are_not_joined(shards, fullest):
    rewrite(fullest, lambda rows: [rows[0] | {"model": "another"}, *rows[1:]])
    with pytest.raises(UsageError, match="the model"):
        check(shards)


def test_files_that_are_no_shards_are_refused(shards, tmp_path):
    with pytest.raises(UsageError, match="is no file"):
        check([tmp_path / "gone.jsonl"])
    runfile.path_of(shards[0]).unlink()
    with pytest.raises(UsageError, match=r"lacks .*\.run\.json"):
        check(shards)


def test_tables_are_joined_too_whichever_of_them_are_empty(shards, tmp_path):
    table = CsvCodec.with_fields([])
    assert not all(map(lines, shards))
    for path in shards:
        path.write_bytes(table.header + b"".join(map(table.encode, lines(path))) if lines(path) else b"")
    out = tmp_path / "joined.csv"
    join(check(shards), out)
    assert out.read_bytes().count(table.header) == 1
    assert out.read_bytes().count(b"\n") == 7
