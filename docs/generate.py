"""Write the generated parts of the documentation: `make docs`. With --check, only say whether they are up to date.

Between `<!-- NAME -->` and `<!-- /NAME -->` in README.md and the pages of docs/, and all of docs/cli.md and
docs/formats.md. --check leaves docs/formats.md to tests/test_formats.py, which makes every raster of it anyway.
"""

from __future__ import annotations

import ast
import itertools
import json
import os
import re
import sys
from pathlib import Path

os.environ.update(COLUMNS="100", TERMINAL_WIDTH="100", NO_COLOR="1")

import formats
import typer

from geoovseg.cli import app
from geoovseg.evaluation.datasets import names as data_sets
from geoovseg.evaluation.datasets import read_data_set
from geoovseg.methods.cards import OWN as METHODS
from geoovseg.prompts import class_lists

ROOT = Path(__file__).parents[1]


def methods_table() -> str:
    lines = ["| `-m` | method | what it does | needs | cost | source |", "|---|---|---|---|---|---|"]
    needs = {"clip": "CLIP", "sam3": "SAM 3", "vfm": "vision model", "sam": "SAM", "regions": "regions"}
    for name, c in METHODS.items():
        used = ", ".join(needs[kind] for kind in c.needs)
        lines.append(f"| `{name}` | {c.title} | {c.about} | {used} | {c.cost:g} x | {c.paper} |")
    return "\n".join(lines)


def scenes_table() -> str:
    found = json.loads((ROOT / "docs" / "demo_scenes.json").read_text())
    rows = {(r["method"], r["upsample"]): r for r in found["rows"]}
    lines = ["| method | mIoU, bilinear | mIoU, guided | seconds per megapixel, bilinear |", "|---|---|---|---|"]
    for name, card in METHODS.items():
        if "sam" in card.needs or "clip" not in card.needs:
            other = "Segment Anything" if "sam" in card.needs else "SAM 3"
            lines.append(f"| {card.title} | needs {other}, of which there is no demo model | | |")
            continue
        plain = rows[name, "bilinear"]
        sharp = rows.get((name, "guided"))  # of another version's way, where there is none
        guided = "its own" if card.jbu or card.at_pixels else f"{sharp['miou']:.3f}" if sharp else "not measured"
        lines.append(f"| {card.title} | {plain['miou']:.3f} | {guided} | {plain['seconds_per_megapixel']:.1f} |")
    return "\n".join(lines)


def settings_table(name: str) -> str:
    lines = ["| setting | default | what it does, and where the value comes from |", "|---|---|---|"]
    lines += [f"| `{f.name}` | {str(f.default).lower()} | {f.about} |" for f in METHODS[name].fields]
    return "\n".join(lines)


def record_table() -> str:
    """The fields of the run record, with the strings under them."""
    tree = ast.parse((ROOT / "geoovseg" / "labels" / "record.py").read_text())
    (body,) = (node.body for node in tree.body if isinstance(node, ast.ClassDef))
    lines = ["| key | type | what |", "|---|---|---|"]
    for node, after in itertools.pairwise(body):
        if isinstance(node, ast.AnnAssign):
            kind = ast.unparse(node.annotation).replace("|", "or").replace("tuple", "list").replace("Mapping", "object")
            lines.append(f"| `{ast.unparse(node.target)}` | {kind} | {ast.literal_eval(after.value)} |")
    return "\n".join(lines)


def datasets_table() -> str:
    """What the data sets' own files say of them."""
    lines = [
        "| name | data set | files | truth | classes | images | laid out | licence |",
        "|---|---|---|---|---|---|---|---|",
    ]
    codes = {"index": "index, 255 unknown", "reduce_zero": "index + 1, 0 unknown", "binary": "0 and 255, or 0 and 1"}
    for name in data_sets():
        d = read_data_set(name)
        files = f"`*{d.image_suffix}`, `*{d.truth_suffix}`"
        coded = codes[d.code] + (", or the published colours" if d.colours else "")
        count = d.expect.get("images", "")
        title = f"[{d.title}]({d.source})"
        lines.append(
            f"| `{name}` | {title} | {files} | {coded} | {len(d.labels)} | {count} | {d.layout} | {d.licence} |"
        )
    return "\n".join(lines)


def lists_line() -> str:
    own = [name for name in class_lists() if not name.endswith(("-coninfer", "-ov3"))]
    others = "ConInfer's as `NAME-coninfer`, SegEarth-OV3's as `NAME-ov3`, where they differ"
    return "Lists in the package: " + ", ".join(f"`{name}`" for name in own) + f"; and {others}."


def filled(text: str, parts: dict[str, str]) -> str:
    """The text with what stands between each pair of marks replaced."""
    for name, part in parts.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        text = re.sub(pattern, lambda m, t=part: f"{m[1]}{t}\n{m[2]}", text, flags=re.DOTALL)
    return text


def cli_reference() -> str:
    root = typer.main.get_command(app)
    parts = ["# Commands\n\nWritten by `make docs` from the commands themselves.\n"]
    for path in _commands(root, ()):
        parts.append(f"## geoovseg {' '.join(path)}\n\n```\n{_help(root, path).rstrip()}\n```\n")
    return "\n".join(parts)


def _commands(command: object, path: tuple[str, ...]) -> list[tuple[str, ...]]:
    children = getattr(command, "commands", None)
    if children is None:
        return [path]
    return [found for name, child in children.items() for found in _commands(child, (*path, name))]


def _help(root: object, path: tuple[str, ...]) -> str:
    command, context = root, root.make_context("geoovseg", [], resilient_parsing=True)
    for name in path:
        command = command.commands[name]
        context = type(context)(command, info_name=name, parent=context)
    return command.get_help(context)


def targets() -> dict[Path, str]:
    """Files and what they should hold, but for docs/formats.md. Every part must have its marks in one page."""
    whole = {ROOT / "docs" / "cli.md": cli_reference()}
    parts = {"methods": methods_table(), "scenes": scenes_table(), "lists": lists_line(), "record": record_table()}
    parts["datasets"] = datasets_table()
    parts |= {f"settings {name}": settings_table(name) for name in METHODS}
    pages = {path: path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
    for name in parts:
        found = [path.name for path, text in pages.items() if f"<!-- {name} -->" in text and path not in whole]
        if len(found) != 1:
            sys.exit(f"the marks <!-- {name} --> belong in one page, but are in {', '.join(found) or 'none'}")
    return {path: filled(text, parts) for path, text in pages.items()} | whole


def main() -> None:
    check = "--check" in sys.argv
    wanted = targets() | ({} if check else {ROOT / "docs" / "formats.md": formats.page()})
    stale = {path: text for path, text in wanted.items() if not path.exists() or path.read_text() != text}
    if check:
        sys.exit(f"not up to date, run `make docs`: {', '.join(p.name for p in stale)}" if stale else 0)
    for path, text in stale.items():
        path.write_text(text)
        print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
