"""The rooms of the package: a lower one never imports a higher one, and no imports go in a circle."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import omniqa

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
    ("testing",),
    ("jobs",),
    ("eval", "bench"),
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


@pytest.mark.parametrize("room", [room for rooms in ROOMS for room in rooms])
def test_every_room_is_there(room):
    path = ROOT.joinpath(*room.split("."))
    assert path.is_dir() or path.with_suffix(".py").is_file()
