"""Calls as users write them, for mypy alone (`make style`): what is wrong in them is an error of that kind, no more."""

from geoovseg import Segmenter, Settings, segment


def right() -> None:
    """Types and names as they should be."""
    segment("a.tif", {"building": ["house"]}, tile=224, output="x.tif", progress=lambda done, total: None)
    segment("a.tif", vocabulary="loveda", bands=(3, 2, 1))
    Segmenter("road", model="demo").segment("a.tif", output="b.tif").labels.upper()


def wrong() -> None:
    """mypy says so: an ignore that is not needed is an error too."""
    segment("a.tif", "road", tile="wide")  # type: ignore[arg-type]
    segment("a.tif", "road", tlie=224)  # type: ignore[call-arg]
    Segmenter("road", tlie=224)  # type: ignore[call-arg]
    Settings(gsd="fine")  # type: ignore[arg-type]
