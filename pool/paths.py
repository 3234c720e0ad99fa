"""How image paths are spelled: absolute ones under the root, roots that links may leave, and the file that was meant.

Nothing here decides what may be read: that is `images.resolve`, by where a path really leads.
"""

import os
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from urllib.parse import unquote, urlsplit

# an image root of which symbolic links may lead out ("links:/data"); made by --follow-links, kept in pool.json
LINKS = "links:"
# folders with more names than this are not searched for a near one
MANY = 200_000


def split_root(root: str) -> tuple[str, bool]:
    """Return an image root without its mark, and whether symbolic links may lead out of it."""
    return (root.removeprefix(LINKS), True) if root.startswith(LINKS) else (root, False)


def with_links(root: str | None, follow: bool) -> str | None:
    """Return the root with the mark, if links may be followed."""
    return f"{LINKS}{split_root(root)[0]}" if root and follow else root


def absolute_root(root: str | None) -> str | None:
    """Return a root as every working folder and machine finds it; a URI is so already."""
    if not root or "://" in root:
        return root
    plain, follow = split_root(root)
    return with_links(os.path.abspath(plain), follow)


def below_root(path: str, root: str | None) -> str:
    """Return an absolute path (or file:// URI) under a local root as a relative one; any other path as it is."""
    if not path.startswith(("/", "file:")) or not root:
        return path
    plain = unquote(urlsplit(path).path) if path.startswith("file:") else path
    if ".." in plain.split("/"):
        return path
    plain = os.path.normpath(plain)
    for base in _bases(root):
        if plain.startswith(base) and len(plain) > len(base):
            return plain[len(base) :]
    return path


@lru_cache(16)
def _bases(root: str) -> tuple[str, ...]:
    folder = split_root(root)[0]
    if "://" in folder:
        return ()
    folders = dict.fromkeys((os.path.abspath(folder), os.path.realpath(folder)))
    return tuple(f.rstrip("/") + "/" for f in folders)


def why_outside(path: str) -> str:
    """Say why a path that cannot be below the root is not looked for."""
    if path.startswith(("http://", "https://", "data:")):
        return f"{path[:80]!r} is a URL; pictures are not fetched: save it under the image root and name that file."
    return f"{path!r} is absolute or climbs out of the image root. Give a root (--images) that holds it."


def near(base: str, path: str) -> str | None:
    """Return the relative path of a file that was probably meant by one that is not there; None if there is none.

    Tried: other slashes, %-escapes, white space, a query behind the name, a first folder too many or too few, another
    case or Unicode form, another ending.
    """
    for candidate in _spellings(path, os.path.basename(base)):
        actual = _walk(base, [p for p in candidate.split("/") if p not in ("", ".")])
        if actual is not None and actual != path:
            return actual
    return None


def _spellings(path: str, root_name: str) -> Iterator[str]:
    plain = path.replace("\\", "/").strip()
    forms = dict.fromkeys((plain, unquote(plain), plain.split("?", 1)[0].split("#", 1)[0]))
    yield from forms
    for form in forms:
        folders = [p for p in form.split("/") if p not in ("", ".")]
        if len(folders) > 1 and (folders[0] == root_name or folders[0] == folders[1]):
            yield "/".join(folders[1:])
    for form in forms:
        # an absolute path of another machine: its tail may be here
        folders = [p for p in form.split("/") if p not in ("", ".", "..")]
        yield from ("/".join(folders[i:]) for i in range(1, min(len(folders), 8)))


def _walk(base: str, components: list[str]) -> str | None:
    """Follow a path by the nearest name in each folder; links are not followed out of the base."""
    if not components or ".." in components:
        return None
    here: list[str] = []
    for depth, name in enumerate(components):
        names = _names(os.path.join(base, *here))
        exact = names.get(name) or names.get(_folded(name))
        if exact is None and depth + 1 == len(components):
            stem = _folded(os.path.splitext(name)[0])
            exact = names.get(f"\0{stem}")
        if exact is None:
            return None
        here.append(exact)
    full = os.path.join(base, *here)
    inside = os.path.realpath(full).startswith(os.path.realpath(base).rstrip("/") + "/")
    return "/".join(here) if inside and os.path.isfile(full) else None


@lru_cache(32)
def _names(folder: str) -> dict[str, str]:
    """Return a folder's names by themselves, by their folded form and, behind a zero, by their stem."""
    try:
        with os.scandir(folder) as entries:
            listed = [entry.name for _, entry in zip(range(MANY + 1), entries, strict=False)]
    except OSError:
        return {}
    if len(listed) > MANY:
        return {}
    names: dict[str, str] = {}
    for name in sorted(listed):
        names.setdefault(f"\0{_folded(os.path.splitext(name)[0])}", name)
        names.setdefault(_folded(name), name)
    return names | {name: name for name in listed}


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
