"""docs/config.md, made from the configs' own fields: `python benchmarks/_config_page.py` rewrites it."""

from pathlib import Path

from vinnow.pipelines.configs import page

PAGE = Path(__file__).resolve().parent.parent / "docs" / "config.md"

if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
