"""What the demo model is told: words for the classes, sentences around them, and the byte-pair vocabulary."""

from __future__ import annotations

import gzip
import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from geoovseg.demo.scenes import CLASSES

SYNONYMS: dict[str, tuple[str, ...]] = {
    "building": ("building", "house", "roof", "buildings"),
    "road": ("road", "street", "roads", "asphalt road"),
    "water": ("water", "river", "lake", "pond"),
    "tree": ("tree", "forest", "trees", "woodland"),
    "grass": ("grass", "lawn", "meadow", "grassland"),
    "cropland": ("cropland", "agriculture", "farmland", "agricultural", "crop field"),
    "bare soil": ("bare soil", "bareland", "bare ground", "barren", "soil"),
    "parking lot": ("parking lot", "car park", "parking", "parking area"),
}
UMBRELLAS: dict[str, tuple[str, ...]] = {
    "vegetation": ("tree", "grass", "cropland"),
    "urban": ("building", "road", "parking lot"),
}
"""Words that stand for a class only where nothing more precise was asked for."""
ABSENT = (
    "vehicle", "car", "airplane", "ship", "bridge", "railway", "swimming pool", "solar panel", "person", "dog", "snow",
    "cloud", "tennis court", "stadium", "harbor", "sand", "background", "clutter",
)  # fmt: skip
"""Words for what the scenes do not show, or do not label: never the right answer."""
PHRASES = (
    "{}", "an aerial photo of {}", "an aerial image of {}", "a satellite image of {}", "a drawing of {}",
    "an overhead view of {}", "{} seen from above",
)  # fmt: skip


def all_words() -> list[str]:
    """Every word the model is trained on."""
    return [*(w for name in CLASSES for w in SYNONYMS[name]), *UMBRELLAS, *ABSENT]


def train_bpe(texts: Iterable[str], merges: int) -> list[str]:
    """Byte-pair merges learned from texts, most frequent first, in the format of open_clip's tokenizer."""
    words = Counter(w for text in texts for w in text.lower().replace(".", " .").replace(",", " ,").split())
    pieces = {w: (*w[:-1], w[-1] + "</w>") for w in words}
    learned: list[str] = []
    while len(learned) < merges:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in pieces.items():
            for pair in itertools.pairwise(parts):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = min(pairs, key=lambda p: (-pairs[p], p))
        learned.append(" ".join(best))
        pieces = {w: _join(parts, best) for w, parts in pieces.items()}
    return learned


def _join(parts: Sequence[str], pair: tuple[str, str]) -> tuple[str, ...]:
    out: list[str] = []
    for part in parts:
        if out and (out[-1], part) == pair:
            out[-1] += part
        else:
            out.append(part)
    return tuple(out)


def write_bpe(merges: Sequence[str], path: Path) -> None:
    """Write merges as the gzip file open_clip's `SimpleTokenizer` reads; it drops the first line."""
    text = "\n".join(["#version: geoovseg demo", *merges])
    path.write_bytes(gzip.compress(text.encode(), mtime=0))
