"""What asks kept features: the text side of the model they were made with, and no more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from geoovseg.errors import UsageError
from geoovseg.features.store import FeatureStore
from geoovseg.models.cards import model_card
from geoovseg.models.download import file_sha256
from geoovseg.models.load import load_whole, resolve_device
from geoovseg.models.weights import find_weights
from geoovseg.ops.upsample import bilinear
from geoovseg.prompts import templates
from geoovseg.run.job import Facts
from geoovseg.run.places import WithPlaces
from geoovseg.run.predictor import DIGESTS, Predictor, asked_words, counted
from geoovseg.run.stored import needs_of
from geoovseg.settings import Settings
from geoovseg.vocabulary import Vocabulary
from geoovseg.windows.in_flight import InFlight, device_memory
from geoovseg.windows.memory import CPU_BATCH


def load_asker(vocabulary: Vocabulary, settings: Settings, store: FeatureStore) -> Predictor:
    """What asks kept features some words, which needs no more than the text side of their model.

    Raises the errors of the words, and UsageError where the model is another one by now.
    """
    said = store.about
    device, record = resolve_device(settings.device), said.record
    encoder = WithPlaces(
        store,
        lambda: _same_model(record),
        templates(settings.templates),
        weights=f"{model_card(record['model']).arch} {record['weights_sha256']}",
        width=said.depth,
    )
    words, dropped, text = asked_words(vocabulary, settings, encoder, device)
    scale = float(settings.settings.get("scale", said.scale))
    needs = needs_of(said, settings, device_memory(device))
    facts = Facts(
        vocabulary=encoder.named(words), dropped=dropped, needs=needs, scale=scale, device=str(device),
        precision=record["precision"], batch_size=CPU_BATCH, planned=CPU_BATCH, windows=record["windows_of_blocks"],
        notes=tuple(record["notes"]),
        digests={name: record[name] for name in DIGESTS},
    )  # fmt: skip
    method: Any = Stored(scale)
    return Predictor(
        settings=settings, facts=facts, method=method, upsample=bilinear, device=device, in_flight=InFlight(CPU_BATCH),
        text=text, won=counted(words, device),
    )  # fmt: skip


def _same_model(record: Mapping[str, Any]) -> tuple[Any, Any]:
    """The model that features were made with. Raises UsageError where its weights are others."""
    card = model_card(record["model"])
    if file_sha256(find_weights(card)) != record["weights_sha256"]:
        raise UsageError(f"the weights of {card.name} are not those that the features were made with")
    return load_whole(card)


@dataclass(frozen=True)
class Stored:
    """What a method leaves to be known once its features are kept."""

    scale: float
    unit: ClassVar[Literal["cosine"]] = "cosine"
    at_once: ClassVar[None] = None
