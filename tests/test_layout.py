"""The rules of the house, read from the sources."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "nearfar"
FILES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))

FLOORS = [
    ["batch", "distributed", "files", "optim", "machine"],
    ["contrast", "method"],
    ["losses"],
    [
        *("attacks", "clustering", "color_flow", "explanation", "heads", "lab", "local", "memory", "mixing", "norms"),
        "patches",
    ],
    ["methods"],
]
"""From the ground up: a room imports from lower floors, and from its own room."""

ABOVE_METHODS = {
    "fit",
    "log",
    "loop",
    "feeder",
    "samplers",
    "health",
    "data",
    "views",
    "recipes",
    "plans",
    "images",
    "tables",
    "kinds",
    "probing",
    "micro_batch",
    "duplicates",
    "doctor",
    "onnx_export",
    "comparison",
    "classifier",
    "finetuning",
    "distillation",
    "training",
    "run",
    "cli",
    "evaluation",
    "report",
    "journal",
    "checkpoints",
}
BESIDE = ["views", "data", "evaluation", "encoders", "optim", "report"]
"""These serve the top, and know neither methods nor what stands on them."""

TORCH_FREE = [
    *("__init__.py", "settings.py", "plans.py", "methods/__init__.py", "files.py", "journal.py"),
    *(
        "cli/__init__.py",
        "cli/main.py",
        "cli/methods.py",
        "cli/train.py",
        "cli/use.py",
        "cli/demo.py",
        "cli/doctor.py",
        "cli/compare.py",
        "cli/advice.py",
        "cli/fewlabels.py",
        "cli/console.py",
    ),
    *sorted(name for name in FILES if name.startswith("recipes/")),
]


@cache
def imports(name: str, *, lazy: bool = True) -> frozenset[str]:
    """The modules that a file of the package imports; without `lazy`, only those that importing it needs at once."""
    tree = ast.parse((SOURCE / name).read_text(encoding="utf-8"))
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not lazy:
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not lazy:
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: imports are absolute"
            assert node.module is not None
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    return frozenset(found)


def room(module: str) -> str | None:
    """The room of a module of ours: that of nearfar.losses.pairwise is losses."""
    parts = module.split(".")
    return (
        parts[1]
        if parts[0] == "nearfar"
        and len(parts) > 1
        and (SOURCE / parts[1]).with_suffix(".py").exists() | (SOURCE / parts[1]).is_dir()
        else None
    )


def rooms(name: str) -> set[str]:
    """The rooms that a file imports from, but its own."""
    own = Path(name).parts[0].removesuffix(".py")
    return {found for module in imports(name) if (found := room(module)) is not None} - {own}


def inside(*names: str) -> list[str]:
    return [file for file in FILES if Path(file).parts[0].removesuffix(".py") in names]


def test_there_is_something_to_check() -> None:
    assert len(FILES) > 40
    assert rooms("methods/moco.py") >= {"memory", "losses", "heads", "method"}
    for names in (*FLOORS, BESIDE):
        for name in names:
            assert inside(name), f"there is no room {name!r}"


@pytest.mark.parametrize("floor", range(len(FLOORS)))
def test_a_room_imports_only_from_rooms_below(floor: int) -> None:
    below = {name for names in FLOORS[:floor] for name in names}
    for file in inside(*FLOORS[floor]):
        if file == "methods/__init__.py":
            continue
        assert rooms(file) <= below, f"{file} imports from {sorted(rooms(file) - below)}"


def test_methods_know_nothing_of_data_and_training() -> None:
    for file in inside("methods"):
        assert not rooms(file) & ABOVE_METHODS, file


def test_rooms_that_serve_the_top_do_not_know_it() -> None:
    for file in inside(*BESIDE):
        assert not rooms(file) & {
            "methods",
            "fit",
            "recipes",
            "plans",
            "images",
            "tables",
            "kinds",
            "probing",
            "training",
            "run",
            "cli",
        }, file


def test_losses_and_contrast_can_be_used_alone() -> None:
    for file in inside("losses", "contrast"):
        assert rooms(file) <= {"losses", "contrast", "distributed", "batch"}, file
        taken = {module for module in imports(file) if module.startswith("nearfar.batch.")}
        assert taken <= {"nearfar.batch.MISSING"}, file


def test_the_loop_knows_no_method() -> None:
    for file in inside("fit", "log", "loop", "feeder", "health"):
        assert not rooms(file) & {"methods", "losses", "memory", "data", "views", "encoders", "training", "run"}


def test_only_one_file_speaks_to_other_processes() -> None:
    for file in FILES:
        named = {module for module in imports(file) if module.startswith("torch.distributed")}
        assert file == "distributed.py" or not named, file
        calls = re.findall(r"torch\.distributed\.|\bdist\.", (SOURCE / file).read_text(encoding="utf-8"))
        assert file == "distributed.py" or not calls, file
        wraps = any("DistributedDataParallel" in module for module in imports(file))
        assert wraps == (file == "fit.py"), file


@pytest.mark.parametrize("file", TORCH_FREE)
def test_what_help_needs_does_not_import_torch(file: str) -> None:
    heavy = {module.split(".")[0] for module in imports(file, lazy=False)} & {
        "torch",
        "timm",
        "sklearn",
        "numpy",
        "scipy",
    }
    assert not heavy
    ours = {module for module in imports(file, lazy=False) if room(module) is not None}
    free = {f"nearfar.{name.removesuffix('.py').removesuffix('/__init__').replace('/', '.')}" for name in TORCH_FREE}
    assert {module for module in ours if not any(module == f or module.startswith(f"{f}.") for f in free)} == set()


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, nearfar, nearfar.cli, nearfar.settings; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_public_names_are_there() -> None:
    import nearfar

    for name in nearfar.__all__:
        assert getattr(nearfar, name) is not None
    importlib.import_module("nearfar.training.loop")  # a file of the same name as a function
    assert nearfar.training.loop is importlib.import_module("nearfar.run").fit
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = nearfar.nothing


def test_a_method_is_one_short_file() -> None:
    for file in inside("methods"):
        lines = len((SOURCE / file).read_text(encoding="utf-8").splitlines())
        assert lines <= 100 or file == "methods/__init__.py", f"{file} has {lines} lines"


def test_no_file_is_long() -> None:
    for file in FILES:
        lines = len((SOURCE / file).read_text(encoding="utf-8").splitlines())
        assert lines <= 600, f"{file} has {lines} lines"


def test_tests_mirror_the_sources() -> None:
    tests = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    for file in inside("losses", "memory", "clustering", "data", "views", "encoders", "optim"):
        name = Path(file).stem
        if name not in ("__init__", "color"):
            assert f"test_{name}.py" in tests, file


def test_no_line_of_code_uses_what_the_house_does_without() -> None:
    for file in FILES:
        for node in ast.walk(ast.parse((SOURCE / file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.args.kwarg is not None and not node.name.startswith("_"):
                allowed = {"run.py": {"fit"}, "methods/__init__.py": {"build"}}
                assert node.name in allowed.get(file, set()), f"{file}: {node.name} takes **{node.args.kwarg.arg}"


def tracked() -> list[Path]:
    """The text files of the project: those that git knows, or all that are not built."""
    try:
        named = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
        paths = [ROOT / name for name in named.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        paths = [path for path in ROOT.rglob("*") if not any(part.startswith((".", "_")) for part in path.parts)]
    suffixes = {
        ".py",
        ".md",
        ".toml",
        ".yaml",
        ".yml",
        ".json",
        ".jsonl",
        ".txt",
        ".cfg",
        ".cff",
        ".html",
        ".css",
        ".js",
        ".csv",
    }
    return [path for path in paths if path.is_file() and (path.suffix in suffixes or path.name in ("Makefile", "run"))]


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    # Written in parts, so that this file does not hold what it looks for.
    roots = "|".join(("home", "Users", "root", "work", "mnt", "tmp", "opt", "scratch"))
    place = re.compile(rf"(?<![\w.~/:>-])(?:/(?:{roots})/[\w.-]+|[A-Z]:\\\\?Users)")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in tracked()
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if place.search(line)
    ]
    assert found == []


def test_the_floors_are_floors() -> None:
    assert all(not set(low) & set(high) for low, high in pairwise(FLOORS))
