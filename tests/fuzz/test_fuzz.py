"""Mutated media through the command line: a bounded run, and that mutations hit what they aim at.

The whole run is `python -m tests.fuzz.run --count 1080 --seed 1 -o fuzz.jsonl`.
"""

import json
import random
import subprocess
import sys

import av
import pytest

from tests.conftest import ROOT
from tests.fuzz import seeds
from tests.fuzz.layouts import PARSERS
from tests.fuzz.mutate import mutated

FILES, SEED = 40, 3
CONTAINERS = 20  # at least
# Their encoders are slow; what is tested of them is tested of other containers with the same parser.
SLOW = ("libvpx", "dvvideo")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a container's whole file; the test is skipped if this build of FFmpeg can't write it."""
    folder, made = tmp_path_factory.mktemp("seeds"), {}
    pictures, sound = seeds.clip()

    def get(name):
        if name not in made:
            try:
                made[name] = seeds.make(name, folder, pictures, sound)
            except (av.error.FFmpegError, av.codec.codec.UnknownCodecError, ValueError) as error:
                pytest.skip(f"{name} can't be written here: {error}")
        return made[name]

    return get


def numbers(data, parser, kind):
    """What the fields of a kind say, in a whole file."""
    fields = [one for one in PARSERS[parser](data).fields if one.kind == kind]
    return {int.from_bytes(data[one.at : one.at + one.size], "little" if one.little else "big") for one in fields}


@pytest.mark.parametrize("name", ["mp4, index in front", "mov", "mkv", "avi", "gif", "apng"])
def test_a_parser_finds_the_size_of_the_picture(whole, name):
    said = numbers(whole(name), seeds.SEEDS[name].layout, "dimension")
    width, height = seeds.SEEDS[name].size
    assert any({width, height} <= {number >> shift for number in said} for shift in (0, 16))


@pytest.mark.parametrize(
    ("name", "kind"), [("wav", "rate"), ("w64", "rate"), ("mp4, index in front", "time scale"), ("mov", "time scale")]
)
def test_a_parser_finds_the_rate_of_the_sound(whole, name, kind):
    assert seeds.SEEDS[name].rate in numbers(whole(name), seeds.SEEDS[name].layout, kind)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ts", "id"),
        ("flv", "size"),
        ("ogg flac", "lacing"),
        ("mkv", "lacing"),
        ("mpeg-ps", "time"),
        ("asf", "time"),
        ("mxf", "table"),
        ("aac", "size"),
    ],
)
def test_a_parser_finds_the_fields_of_every_chunk(whole, name, kind):
    layout = PARSERS[seeds.SEEDS[name].layout](whole(name))
    assert sum(one.kind == kind for one in layout.fields) >= 10
    assert len(layout.chunks) >= 4
    assert all(0 <= start < end for start, end in layout.chunks)


@pytest.mark.parametrize("name", [name for name, seed in seeds.SEEDS.items() if seed.video not in SLOW])
def test_a_mutation_is_the_same_for_the_same_seed_and_changes_the_file(whole, name):
    data, parser = whole(name), seeds.SEEDS[name].layout
    changed = [mutated(data, parser, random.Random(number)) for number in range(12)]
    assert changed == [mutated(data, parser, random.Random(number)) for number in range(12)]
    assert sum(one != data for one, _ in changed) >= 9


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux counts it")
def test_every_mutated_file_ends_with_0_3_or_5_and_what_ffmpeg_decodes_is_answered(tmp_path):
    pytest.importorskip("torch")
    found = tmp_path / "cases.jsonl"
    command = [sys.executable, "-m", "tests.fuzz.run", "--count", str(FILES), "--seed", str(SEED), "--untimed",
               "-o", found]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len({json.loads(line)["seed"] for line in found.read_text().splitlines()}) >= CONTAINERS
