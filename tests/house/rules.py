"""The house's laws as functions: each takes a file's tree (or the root folder) and returns what breaks it.

`test_walls.py` runs them on the package and shows, on small trees of its own, that each one bites.
"""

import ast
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from house.names import FAMILY_NAMED as FAMILY_NAMED
from house.names import family_names

PACKAGE = "vinnow"


@dataclass(frozen=True)
class Room:
    """What a room may import of ours, and its Ray: "no", "reading" (`ray.data` alone) or "yes"."""

    may: frozenset[str]
    ray: str


def _room(*may: str, ray: str) -> Room:
    return Room(frozenset(may), ray)


ROOMS = {
    "store": _room(ray="no"),
    "pool": _room("store", ray="reading"),
    "models": _room("store", "pool", ray="no"),
    "select": _room("store", ray="no"),
    "actors": _room("store", "pool", "models", ray="yes"),
    "train": _room("store", "pool", "models", ray="yes"),
    "evaluate": _room("store", "pool", "models", "actors", ray="yes"),
    "pipelines": _room(
        "store", "pool", "models", "select", "actors", "train", "evaluate", ray="yes"
    ),
}  # fmt: skip
# of these rooms only one file may be imported there
ALONE = {("evaluate", "actors"): "pool"}
ROOT_FILES = {"__init__.py": frozenset({"pipelines"}), "__main__.py": frozenset({"pipelines"})}
BESIDE = {"tests", "benchmarks", "docs", "examples"}
LEFTOVERS = {"runs", "build", "dist"}

MAX_FILE, MAX_FUNCTION, MAX_PARAMETERS = 400, 60, 6
# files that may catch everything without raising it there, and why; a process edge would be another
SWALLOWERS: dict[str, str] = {
    "pipelines/serve/app.py": "a request that meets a bug is answered with 500 and its traceback logged; the others go on",
    "pipelines/runs/sweeping/told.py": "a tracker's server that fails is told once; trials and their results go on",
    "store/meters.py": "a dashboard's numbers that cannot be exported are told once; the work that they are of goes on",
}
PICKLERS = {"pickle", "cloudpickle", "dill", "shelve", "marshal", "joblib"}
# what renders a chat template, in transformers' sandbox but without a limit of time; and the files that bound it
RENDERERS = {"apply_chat_template", "render_jinja_template", "compile_jinja_template", "_compile_jinja_template"}
RENDERING = {"pool/rendering.py"}
# modules of Jinja: its sandbox, and what one is made with, which renders nothing
SANDBOX = {"sandbox", "loaders", "runtime", "exceptions", "ext", "nodes"}
IMPORTERS = {"import_module", "__import__"}
# the one place that imports by a name found on disk
SCANNERS = {"store/scan.py"}


@dataclass(frozen=True)
class Source:
    """One Python file: its path from the root (POSIX), its tree and its number of lines."""

    path: str
    tree: ast.Module
    lines: int

    @property
    def room(self) -> str:
        """The top-level folder, or "" for a file at the root."""
        return self.path.split("/")[0] if "/" in self.path else ""


def parse(path: str, text: str) -> Source:
    """Make a Source of a text."""
    return Source(path, ast.parse(text), len(text.splitlines()))


def python_files(root: Path) -> list[str]:
    """List the Python files of the tree, without hidden folders and what runs and builds leave behind."""
    paths = []
    for folder, below, names in os.walk(root):
        # pruned, not filtered: a virtual environment below the root has tens of thousands of files
        left = LEFTOVERS if Path(folder) == root else set()  # `pipelines/runs/` is code
        below[:] = [d for d in below if not d.startswith(".") and d != "__pycache__" and d not in left]
        paths += [(Path(folder) / n).relative_to(root).as_posix() for n in names if n.endswith(".py")]
    return sorted(paths)


def sources(root: Path) -> list[Source]:
    """Parse the package: every Python file that is not beside the rooms."""
    paths = [p for p in python_files(root) if p.split("/")[0] not in BESIDE]
    return [parse(p, (root / p).read_text(encoding="utf-8")) for p in paths]


# ---- imports -------------------------------------------------------------------------------------


def imports(source: Source) -> Iterator[tuple[int, str]]:
    """Yield (line, absolute dotted name) of every import, lazy, type-only and `import_module("…")` ones too.

    `from a import b` yields `a` and `a.b`, since `b` may be a module.
    """
    package = [PACKAGE, *source.path.split("/")[:-1]]
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield node.lineno, module
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and _called(node) in IMPORTERS:
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield node.lineno, _absolute(first.value, package)


def _absolute(name: str, package: list[str]) -> str:
    dots = len(name) - len(name.lstrip("."))
    return ".".join([*package[: len(package) - dots + 1], name[dots:]]) if dots else name


def _called(node: ast.Call) -> str:
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def illegal_arrows(source: Source) -> list[str]:
    """Imports of rooms that the table does not allow to this one."""
    if source.room:
        may = ROOMS[source.room].may | {source.room} if source.room in ROOMS else frozenset()
    else:
        may = ROOT_FILES.get(source.path, frozenset())
    problems = set()
    for line, name in imports(source):
        parts = name.split(".")
        if parts[0] == PACKAGE and len(parts) > 1 and parts[1] in ROOMS and parts[1] not in may:
            problems.add((line, parts[1]))
        alone = ALONE.get((source.room, parts[1] if len(parts) > 1 else ""))
        if alone and parts[0] == PACKAGE and parts[2:3] != [alone]:
            problems.add((line, f"{parts[1]}, but {alone}.py"))
    return [
        f"{source.path}:{line}: {source.room or 'the root'} may not import {room}" for line, room in sorted(problems)
    ]


def circles(package: list[Source]) -> list[str]:
    """Modules that import each other in a ring, lazily too: none of them can be read, tested or moved alone."""
    names = {".".join([PACKAGE, *s.path.removesuffix(".py").split("/")]): s for s in package}
    below = {name: {n for _, n in imports(source) if n in names and n != name} for name, source in names.items()}
    rings = {frozenset(_reached(n, below) & {m for m in names if n in _reached(m, below)}) for n in names}
    return sorted(f"{', '.join(sorted(ring))} import each other" for ring in rings if len(ring) > 1)


def _reached(name: str, below: dict[str, set[str]]) -> set[str]:
    """Return what a module imports, and what that does, and so on."""
    seen, waiting = set[str](), [name]
    while waiting:
        new = below[waiting.pop()] - seen
        seen |= new
        waiting += new
    return seen


def absolute_imports(source: Source) -> list[str]:
    """Imports of our own by an absolute name: they break where it is not installed."""
    problems = []
    for node in ast.walk(source.tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names = [node.module]
        # `import select` is the standard library's
        ours = (ROOMS.keys() - {"select"}) | {PACKAGE}
        problems += [f"{source.path}:{node.lineno}: import {n} relatively" for n in names if n.split(".")[0] in ours]
    return problems


def hidden_imports(source: Source) -> list[str]:
    """Imports whose name cannot be read off the source: they could cross any wall."""
    if source.path in SCANNERS:
        return []
    calls = [n for n in ast.walk(source.tree) if isinstance(n, ast.Call)]
    return [
        f"{source.path}:{n.lineno}: imports a computed name"
        for n in calls
        if _called(n) in {*IMPORTERS, "spec_from_file_location"}
        and not (n.args and isinstance(n.args[0], ast.Constant))
    ]


def ray_use(source: Source) -> list[str]:
    """Ray where the table says no, or more of it than reading."""
    kind = ROOMS[source.room].ray if source.room in ROOMS else "no"
    if kind == "yes":
        return []
    names = [(line, n) for line, n in imports(source) if n.split(".")[0] == "ray"]
    if kind == "no":
        lines = sorted({line for line, _ in names})
        return [f"{source.path}:{line}: no Ray in {source.room or 'the root'}" for line in lines]
    wrong = [(line, n) for line, n in names if n != "ray" and not n.startswith("ray.data")]
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ray":
            wrong += [(node.lineno, f"ray.{node.attr}")] if node.attr != "data" else []
    return [f"{source.path}:{line}: {source.room} may only read with ray.data, not {n}" for line, n in wrong]


# ---- sizes ---------------------------------------------------------------------------------------


def functions(source: Source) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield every function, nested ones and methods too."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def fat_files(source: Source) -> list[str]:
    """Files over the limit."""
    return [f"{source.path}: {source.lines} lines, {MAX_FILE} at most"] if source.lines > MAX_FILE else []


def fat_functions(source: Source) -> list[str]:
    """Functions over the limit, signature and docstring counted."""
    sizes = [(f, (f.end_lineno or f.lineno) - f.lineno + 1) for f in functions(source)]
    return [
        f"{source.path}:{f.lineno}: {f.name} has {n} lines, {MAX_FUNCTION} at most"
        for f, n in sizes
        if n > MAX_FUNCTION
    ]


def wide_functions(source: Source) -> list[str]:
    """Functions with more parameters than a config should replace; a Typer command's are its options.

    A Triton kernel takes pointers and numbers, nothing that could hold them together.
    """
    problems = []
    for f in functions(source):
        calls = [d.func if isinstance(d, ast.Call) else d for d in f.decorator_list]
        if any(isinstance(c, ast.Attribute) and c.attr in {"command", "callback", "jit"} for c in calls):
            continue
        a = f.args
        names = [x.arg for x in [*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg] if x]
        n = len(names) - (bool(names) and names[0] in {"self", "cls"})
        if n > MAX_PARAMETERS:
            problems.append(f"{source.path}:{f.lineno}: {f.name} has {n} parameters, {MAX_PARAMETERS} at most")
    return problems


# ---- errors and untrusted bytes ------------------------------------------------------------------


def broad_excepts(source: Source) -> list[str]:
    """`except Exception` (or wider) that swallows, where nothing allows it."""
    if source.path in SWALLOWERS:
        return []
    problems = []
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        names = {k.id if isinstance(k, ast.Name) else getattr(k, "attr", None) for k in kinds if k}
        broad = node.type is None or names & {"Exception", "BaseException"}
        if broad and not any(isinstance(n, ast.Raise) for s in node.body for n in _same_scope(s)):
            problems.append(f"{source.path}:{node.lineno}: swallows every error; name the ones that it means")
    return problems


def _same_scope(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _same_scope(child)


def unsafe_loading(source: Source) -> list[str]:
    """Code that would run what a data file or a checkpoint says."""
    problems = [
        f"{source.path}:{line}: {n} can run code that a file carries"
        for line, n in imports(source)
        if n.split(".")[0] in PICKLERS and n.count(".") == 0
    ]
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Call):
            continue
        keywords = {k.arg: k.value for k in node.keywords if k.arg}
        owner = node.func.value if isinstance(node.func, ast.Attribute) else None
        is_torch_load = _called(node) == "load" and isinstance(owner, ast.Name) and owner.id == "torch"
        if is_torch_load and not _is(keywords.get("weights_only"), True):
            problems.append(f"{source.path}:{node.lineno}: torch.load without weights_only=True")
        for name in ("trust_remote_code", "allow_pickle"):
            if name in keywords and not _is(keywords[name], False):
                problems.append(f"{source.path}:{node.lineno}: {name} must not be given")
    return problems


def open_templates(source: Source) -> list[str]:
    """Jinja outside of its sandbox, and templates rendered where no one bounds them: a checkpoint brings its own."""
    names = [(line, n.split(".")) for line, n in imports(source)]
    lines = {line for line, n in names if n[0] == "jinja2" and not SANDBOX.issuperset(n[1:2] or [""])}
    problems = [
        f"{source.path}:{line}: renders what a checkpoint brings; take jinja2.sandbox" for line in sorted(lines)
    ]
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and _called(node) in RENDERERS and source.path not in RENDERING:
            problems.append(f"{source.path}:{node.lineno}: {_called(node)} renders a template that may never end")
    return problems


def _is(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


FILE_RULES = (
    illegal_arrows,
    absolute_imports,
    hidden_imports,
    ray_use,
    fat_files,
    fat_functions,
    wide_functions,
    broad_excepts,
    unsafe_loading,
    open_templates,
    family_names,
)
