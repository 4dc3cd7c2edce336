"""The rooms of the package: a lower one never imports a higher one, and no imports go in a circle."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import typer

import omniqa
from omniqa.cli.app import app
from omniqa.cli.flags import flag

ROOT = Path(omniqa.__file__).parent
# From below, as in docs/architecture.md. What lies loose in omniqa/ and is not named here is a tool that any room uses.
ROOMS = (
    ("models.base",),
    ("media",),
    ("runtime",),
    ("pruning",),
    ("models",),
    ("cache",),
    ("pipeline",),
    ("nano",),
    ("jobs",),
    ("eval", "bench"),
    ("report",),
    ("serve",),
    ("integrations",),
    ("cli",),
    ("__main__",),
)


def height(module):
    """Of a module, by its dotted name below omniqa; 0 for the tools."""
    rooms = {room: number for number, rooms in enumerate(ROOMS, start=1) for room in rooms}
    parts = module.split(".")
    names = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((rooms[name] for name in names if name in rooms), 0)


def imported(path, types):
    """Modules of omniqa that a file imports, inside functions, too; with `types`, also those for annotations alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    checks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    left_out = {id(node) for check in checks for node in ast.walk(check) if not types}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in left_out and (node.module or "").startswith("omniqa"):
            for name in node.names:
                module = f"{node.module}.{name.name}"
                is_module = ROOT.parent.joinpath(*module.split(".")).with_suffix(".py").exists()
                yield (module if is_module else node.module).partition(".")[2]


def modules(types=True):
    paths = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in ROOT.rglob("*.py")}
    return {name: set(imported(path, types)) - {""} for name, path in paths.items() if not name.endswith("__init__")}


def test_lower_rooms_never_import_higher_ones():
    pairs = [(name, other) for name, others in modules().items() for other in others]
    assert len(pairs) > 400
    assert not [f"{name} imports {other}" for name, other in pairs if height(other) > height(name)]


def test_no_imports_go_in_a_circle():
    TopologicalSorter(modules(types=False)).prepare()


def test_only_the_families_and_nano_know_a_family_by_name():
    files = [path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0] not in ("models", "nano")]
    assert len(files) > 100
    assert not [str(path) for path in files if re.search(r"qwen|1516[4-5]\d", path.read_text(encoding="utf-8"), re.I)]


def test_what_a_family_counts_in_is_said_nowhere_else():
    """A file outside models/ takes patch, merge, pixels, positions and chunks from a Geometry."""
    named = re.compile(
        r"^\s*_?(PATCH|MERGE|CELL|TEMPORAL_PATCH|POSITIONS_PER\w+|SECONDS_PER_CHUNK|M\w+_PIXELS)\b.*= *\d", re.M
    )
    files = [path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0] != "models"]
    assert not [str(path) for path in files if named.search(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("room", [room for rooms in ROOMS for room in rooms])
def test_every_room_is_there(room):
    path = ROOT.joinpath(*room.split("."))
    assert path.is_dir() or path.with_suffix(".py").is_file()


def flags_of(command):
    """All names of the options of a command of the app, and of the commands below it."""
    for parameter in command.params:
        yield from (name for name in (*parameter.opts, *parameter.secondary_opts) if name.startswith("-"))
    for below in getattr(command, "commands", {}).values():
        yield from flags_of(below)


def flags():
    return {*flags_of(typer.main.get_command(app)), "--help", "-h"}


def strings(path):
    return [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if is_text(node)]


def is_text(node):
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


MARKED = re.compile(r"\{(\w+)(?:=([^{}]*))?\}")
OTHER_PROGRAMS = re.compile(r"ulimit -v|--format=csv\S*")


def test_only_the_command_line_names_its_flags():
    known = flags()
    assert {"--max-frames", "--set", "-Q"} <= known
    files = [path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0] != "cli"]
    named = [
        f"{path}:{node.lineno} {name}"
        for path in files
        for node in strings(path)
        for name in re.findall(r"(?<![\w<>-])--?[A-Za-z][\w-]*", OTHER_PROGRAMS.sub("", node.value))
        if name in known
    ]
    assert not named


NO_FLAG = {"total_pixels"}  # options of the library that the command line does not have


def test_every_option_that_an_error_names_is_a_flag():
    known = flags()
    found = set()
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "field" and is_text(node.value):
                found.add((node.value.value, None))
            if isinstance(node, ast.keyword) and node.arg == "advice":
                texts = [text.value for text in ast.walk(node.value) if is_text(text)]
                found |= {(name, value or None) for text in texts for name, value in MARKED.findall(text)}
    assert len(found) > 20
    unknown = {name for name, value in found if flag(name, value).partition(" ")[0] not in known}
    assert unknown <= NO_FLAG
