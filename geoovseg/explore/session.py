"""What is open in the browser: a scene, labels or kept features, the question asked of these, and what was saved."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from geoovseg.errors import UsageError
from geoovseg.explore.asked import Asked, write_classes
from geoovseg.explore.kept import Kept
from geoovseg.explore.opened import Opened
from geoovseg.explore.pictures import codes_of, label_tile, nothing, scene_tile
from geoovseg.explore.pyramid import Pyramid, Square
from geoovseg.explore.question import Found, Question
from geoovseg.explore.saving import Saving
from geoovseg.run.asker import load_asker
from geoovseg.run.stored import as_encoded
from geoovseg.settings import Settings
from geoovseg.vocabulary import read_vocabulary


@dataclass
class Session:
    """One view for one person; tiles are made by several threads at once."""

    opened: Opened
    folder: Path
    """where what is saved goes"""
    templates: str = Settings().templates
    classes: tuple[Asked, ...] = ()
    background: str = Settings().background
    threshold: float | None = None
    version: int = 0
    question: Question | None = None
    saving: Saving | None = None
    _stack: ExitStack = field(default_factory=ExitStack)
    _lock: Lock = field(default_factory=Lock)
    _reading: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="geoovseg-explore-")))
        self._kept = None if self.opened.store is None else Kept(self.opened.store)

    def close(self) -> None:
        """End what is being saved, and remove what was kept for the view."""
        if self.saving is not None:
            self.saving.stop()
        self._stack.close()

    @property
    def pyramid(self) -> Pyramid:
        """Of everything that is open, which lies on one grid."""
        return Pyramid(self.opened.grid.height, self.opened.grid.width)

    def ask(self, classes: Sequence[Asked], background: str, threshold: float | None) -> None:
        """Ask kept features other words. Raises UsageError where none are kept, and what asking raises."""
        if self.opened.store is None or self._kept is None:
            raise UsageError("only kept features are asked other words; open what geoovseg encode made")
        if threshold is not None and not 0 <= threshold <= 1:
            raise UsageError(f"the threshold {threshold} must be from 0 to 1")
        if not background.isprintable():
            raise UsageError(f"the background {ascii(background)[:40]} has characters that cannot be printed")
        with self._lock:
            asked = (tuple(classes), background)
            if self.question is None or asked != (self.classes, self.background):
                self.question = self._asked(classes, background)
                self.classes, self.background = asked
            self.threshold = threshold
            self.version += 1

    def _asked(self, classes: Sequence[Asked], background: str) -> Question:
        assert self.opened.store is not None
        assert self._kept is not None
        words = read_vocabulary(str(write_classes(self._folder, f"question_{self.version}", classes, self.opened)[0]))
        given = Settings(templates=self.templates, background=background)
        settings = as_encoded(given, os.fspath(self.opened.store.path))
        with settings.access():
            return Question(self._kept, load_asker(words, settings, self.opened.store))

    def scene_tile(self, level: int, x: int, y: int) -> bytes:
        """A tile of the scene. Raises SceneError."""
        square = self.pyramid.square(level, x, y)
        if square is None or self.opened.scene is None:
            return nothing()
        with self._reading:
            return scene_tile(self.opened.scene, self.pyramid, square)

    def label_tile(self, level: int, x: int, y: int, *, outlines: bool) -> bytes:
        """A tile of the labels, or of what words say. Raises SceneError."""
        square = self.pyramid.square(level, x, y)
        if square is None:
            return nothing()
        found = self._found(square, self.pyramid.inside(square))
        return nothing() if found is None else label_tile(found, self.colours(), outlines=outlines)

    def _found(self, square: Square, size: tuple[int, int]) -> Any:
        if self.question is not None:
            return self.question.of(square, *size, self.threshold).codes
        if self.opened.labels is None:
            return None
        with self._reading:
            return codes_of(self.opened.labels, self.pyramid, square)

    def colours(self) -> dict[int, tuple[int, ...]]:
        """By code."""
        if self.question is None:
            return {entry.code: entry.rgb for entry in self.opened.legend}
        classes = self.question.asker.vocabulary.classes
        return {code: tuple(bytes.fromhex(each.colour[1:])) for code, each in enumerate(classes, start=1)}

    def at(self, col: float, row: float) -> dict[str, Any]:
        """What is at a pixel: its place, class, confidence, and how like it is to each word."""
        grid = self.opened.grid
        if not (0 <= col < grid.width and 0 <= row < grid.height):
            return {}
        x, y = grid.transform * (col, row)
        said: dict[str, Any] = {"col": int(col), "row": int(row), "x": x, "y": y, "crs": self.opened.crs_name}
        code, sure = self._at(int(row), int(col))
        if code is None or code < 0:
            return {**said, "class": None}
        names = {entry["code"]: entry["name"] for entry in self.legend(cover=False)}
        said |= {"code": code, "class": names.get(code, "background" if not code else f"class {code}")}
        if sure is not None:
            said["confidence"] = round(sure, 3)
        if self.question is not None:
            words = self.question.words_at(int(row), int(col))
            said["words"] = [{"word": word.name, "score": round(word.score, 4)} for word in words[:12]]
        return said

    def _at(self, row: int, col: int) -> tuple[int | None, float | None]:
        if self.question is not None:
            found: Found = self.question.of(Square(row, col, 1), 1, 1, self.threshold)
            return int(found.codes[0, 0]), float(found.sure[0, 0])
        if self.opened.labels is None:
            return None, None
        with self._reading:
            return int(codes_of(self.opened.labels, Pyramid(row + 1, col + 1), Square(row, col, 1))[0, 0]), None

    def legend(self, *, cover: bool = True) -> list[dict[str, Any]]:
        """Classes with code, name and colour; shares and hectares, of few cells of kept features."""
        if self.question is None:
            return self.opened.legend_as_said()
        shares, areas = self.question.cover(self.threshold) if cover else ({}, None)
        found, colours = [], self.colours()
        names = dict(enumerate(self.question.asker.vocabulary.names, start=1))
        if self.question.first == 0 or self.threshold is not None:
            names = {0: "background", **names}
        for code, name in names.items():
            colour = "#{:02x}{:02x}{:02x}".format(*colours[code]) if code in colours else None
            entry: dict[str, Any] = {"code": code, "name": name, "colour": colour}
            entry |= {"share": shares.get(code, 0.0)} if cover else {}
            found.append(entry if areas is None else {**entry, "hectares": areas.get(code, 0.0)})
        return found

    def state(self, *, cover: bool = True) -> dict[str, Any]:
        """Everything a page has to know; what classes cover, which takes a moment, only if asked."""
        opened, pyramid = self.opened, self.pyramid
        return {
            "title": opened.title,
            "height": pyramid.height,
            "width": pyramid.width,
            "levels": pyramid.levels,
            "offset": pyramid.offset,
            "metres": opened.metres,
            "scene": opened.scene is not None,
            "labels": opened.labels is not None or self.question is not None,
            "asks": opened.store is not None,
            "notes": list(opened.notes),
            "version": self.version,
            "background": self.background,
            "threshold": self.threshold,
            "classes": [
                {**asdict(each), "words": list(each.words), "examples": list(each.examples)} for each in self.classes
            ],
            "legend": self.legend(cover=cover),
            "saving": None if self.saving is None else self.saving.state(),
        }

    def save(self, name: str) -> dict[str, Any]:
        """Begin to write labels, polygons and the class file by the command that is shown. Raises UsageError."""
        with self._lock:
            return self._save(name)

    def _save(self, name: str) -> dict[str, Any]:
        if self.question is None or self.opened.store is None:
            raise UsageError("nothing was asked yet: type words first")
        if self.saving is not None and self.saving.state()["running"]:
            raise UsageError(f"{self.saving.labels.name} is being written; wait for it")
        more = [] if self.background == "auto" else ["--background", self.background]
        more += [] if self.threshold is None else ["--threshold", f"{self.threshold:g}"]
        more += [] if self.templates == Settings().templates else ["--templates", self.templates]
        self.saving = Saving.begin(self.opened, self.folder, name, self.classes, more)
        return self.saving.state()
