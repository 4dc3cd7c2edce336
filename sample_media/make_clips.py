"""Make the clips beside this file, and README.md that tells what happens in each.

python sample_media/make_clips.py
"""

from pathlib import Path

from omniqa.nano import world
from omniqa.nano.clips import write_clip

SIDE = 224  # pixels; nano is shown 168 of them
# name: seed, seconds, scenes, and what to ask; seeds are of the test set, which nano was not trained on
CLIPS = {
    "hello": (24, 4, 1, ("Which coloured shape is shown while you hear the voice?", "Is a yellow star shown?")),
    "tiger": (
        193,
        8,
        2,
        ("Which is heard first, the voice or the noise?", "Which coloured shape is shown while you hear the voice?"),
    ),
    "river": (361, 12, 3, ("Which word is spoken?", "What is heard first?")),
    "window": (346, 16, 4, ("Which digit is shown?", "What does the voice say?")),
}
HEAD = """# Sample media

Clips of [nano's world](../docs/nano.md), made from its scripts, so that what happens in them is known. None of them was
used in training.

| file | length | what happens, scene by scene | ask |
|---|---|---|---|
"""
TAIL = """
    omniqa ask sample_media/hello.mp4 "Which coloured shape is shown while you hear the voice?" --model nano

All by `python sample_media/make_clips.py`.
"""


def main() -> None:
    """Write the clips and the page."""
    here, rows = Path(__file__).parent, []
    for name, (seed, seconds, scenes, asked) in CLIPS.items():
        script = world.draw(seed, seconds, scenes)
        write_clip(here / f"{name}.mp4", script, SIDE)
        rows.append(f"| `{name}.mp4` | {seconds} s | {world.description(script)} | {'<br>'.join(asked)} |\n")
    (here / "README.md").write_text(HEAD + "".join(rows) + TAIL, encoding="utf-8")


if __name__ == "__main__":
    main()
