"""What a user sees of --cache and `omniqa cache`."""

import json
import os

import pytest

from omniqa.cache.folder import SUFFIX


def test_a_second_ask_encodes_nothing_and_ls_and_clear_tell_of_it(ask, omniqa, clip, tmp_path):
    folder = tmp_path / "cache"
    answers = []
    for _ in range(2):
        code, out, err = ask(clip, "What is seen?", "--cache", folder, "--json")
        assert code == 0, err
        answers.append(json.loads(out))
    assert answers[0]["answer"] == answers[1]["answer"]
    assert answers[0]["timing_s"]["vision_encoder"] > 0
    assert answers[1]["timing_s"]["vision_encoder"] == answers[1]["timing_s"]["decode"] == 0

    code, out, _ = omniqa("cache", "ls", "--cache", folder, "--json")
    listed = json.loads(out)
    assert code == 0
    assert [one["name"] for one in listed["clips"]] == [str(clip)]
    assert str(clip) in omniqa("cache", "ls", "--cache", folder)[1]
    assert omniqa("cache", "clear", "--cache", folder)[1].startswith("1 clip, ")
    assert json.loads(omniqa("cache", "ls", "--cache", folder, "--json")[1]) == {"bytes": 0, "clips": []}


def test_quantised_weights_are_kept_listed_and_cleared(ask, omniqa, clip, tmp_path):
    folder = tmp_path / "weights"
    assert omniqa("cache", "ls", "--weights", "--weights-cache", folder)[1].endswith("0 models, 0.000 GB\n")
    code, _, err = ask(clip, "What is seen?", "--device", "cpu", "--quantize", "int8", "--weights-cache", folder)
    assert code == 0, err
    listed = json.loads(omniqa("cache", "ls", "--weights", "--weights-cache", folder, "--json")[1])
    assert len(listed["models"]) == 1
    assert listed["bytes"] == sum(path.stat().st_size for path in folder.iterdir()) > 0
    assert listed["models"][0]["name"] in omniqa("cache", "ls", "--weights", "--weights-cache", folder)[1]
    assert omniqa("cache", "clear", "--weights", "--weights-cache", folder)[1].startswith("1 model, ")
    assert os.listdir(folder) == []


@pytest.mark.parametrize("what", [("--quantize", "int4"), ("--quantize", "NF4")])
def test_what_can_not_be_quantised_is_a_usage_error(ask, clip, what):
    code, _, err = ask(clip, "What is seen?", *what)
    assert (code, "--quantize" in err) == (2, True)


def test_a_folder_of_clips_has_to_be_named(omniqa):
    code, _, err = omniqa("cache", "ls")
    assert (code, "--cache" in err) == (2, True)


def test_a_folder_that_is_not_there_is_told(omniqa, tmp_path):
    code, _, err = omniqa("cache", "ls", "--cache", tmp_path / "none")
    assert code == 2
    assert "There is no folder" in err


@pytest.mark.parametrize("size", ["inf", "nan", "-1", "0x10", "1e300", "", "20 GB"])
@pytest.mark.parametrize("option", ["--cache-size", "--max-download"])
def test_a_size_that_is_no_number_of_gigabytes_is_a_usage_error(ask, clip, option, size):
    code, _, err = ask(clip, "What is seen?", f"{option}={size}")
    assert (code, "is no number of gigabytes" in err) == (2, True)


def test_a_folder_in_which_pipes_have_the_names_of_entries_is_listed_and_cleared(omniqa, tmp_path):
    os.mkfifo(tmp_path / f"a{SUFFIX}")
    (tmp_path / f"b{SUFFIX}").write_bytes(b"\xff" * 100)
    code, out, err = omniqa("cache", "ls", "--cache", tmp_path)
    assert (code, "damaged" in out, err) == (0, True, "")
    assert omniqa("cache", "clear", "--cache", tmp_path)[:2] == (0, "1 clip, 0.000 GB deleted\n")
    assert os.listdir(tmp_path) == []


def test_reuse_static_tells_how_much_was_reused(ask, clip):
    code, out, err = ask(clip, "What is seen?", "--reuse-static", "255", "--json")
    assert code == 0, err
    media = json.loads(out)["media"]
    assert media["tokens_reused"] == pytest.approx(0.8)  # of five grids all but the first


def test_a_difference_out_of_range_is_refused(ask, clip):
    assert ask(clip, "What is seen?", "--reuse-static", "300")[0] == 2
