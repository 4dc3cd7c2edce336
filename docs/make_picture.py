"""Draws docs/ask.svg: frames of a sample clip, and what `omniqa ask` really prints about it.

python docs/make_picture.py
"""

import base64
import io
import re
import subprocess
import sys
from pathlib import Path

import av
from PIL import Image
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
CLIP = "sample_media/tiger.mp4"
QUESTIONS = ("Which coloured shape is shown while you hear the voice?", "What happens, in order?")
TIMES = (0.5, 2.5, 4.5, 6.5)  # seconds
SIDE, GAP, COLUMNS = 224, 12, 106  # pixels, pixels, characters


def frames() -> list[Image.Image]:
    """The clip's pictures at TIMES."""
    with av.open(str(ROOT / CLIP)) as container:
        shown = [(float(frame.time), frame.to_image()) for frame in container.decode(video=0)]
    return [next(image for at, image in shown if at >= time).resize((SIDE, SIDE)) for time in TIMES]


def answers() -> list[str]:
    """What the command line says, run anew."""
    said = []
    for question in QUESTIONS:
        command = [sys.executable, "-m", "omniqa", "ask", CLIP, question, "--model", "nano"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        said.append(f'$ omniqa ask {CLIP} "{question}" --model nano')
        said += [*done.stdout.splitlines(), *(line for line in done.stderr.splitlines() if "knows its own" not in line)]
    return said


def terminal(lines: list[str]) -> str:
    """The terminal as SVG. Its fonts are the reader's own: nothing is fetched."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for line in lines:
        quiet = line.startswith("$") or " s · " in line
        console.print(Text(line, style="dim" if quiet else "bold"), highlight=False)
    return re.sub(r"@font-face \{.*?\}", "", console.export_svg(title="omniqa"), flags=re.DOTALL)


def picture(images: list[Image.Image], screen: str) -> str:
    """Frames in a row, the terminal below."""
    width = len(images) * (SIDE + GAP) - GAP
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', screen)
    if box is None:
        raise ValueError("Rich's SVG has no viewBox.")
    height = width * float(box[2]) / float(box[1])
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {SIDE + GAP + height:.0f}">']
    for number, (image, time) in enumerate(zip(images, TIMES, strict=True)):
        png = io.BytesIO()
        image.quantize(32).save(png, "PNG", optimize=True)
        data = base64.b64encode(png.getvalue()).decode()
        x = number * (SIDE + GAP)
        parts.append(f'<image x="{x}" width="{SIDE}" height="{SIDE}" href="data:image/png;base64,{data}"/>')
        parts.append(f'<text x="{x + 10}" y="{SIDE - 10}" fill="#ddd" font-family="sans-serif">{time} s</text>')
    place = f'<svg x="0" y="{SIDE + GAP}" width="{width}" height="{height:.0f}" '
    return "\n".join([*parts, screen.replace("<svg ", place, 1), "</svg>\n"])


if __name__ == "__main__":
    (ROOT / "docs" / "ask.svg").write_text(picture(frames(), terminal(answers())), encoding="utf-8")
