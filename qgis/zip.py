"""Pack the plugin: `python qgis/zip.py OUT.zip`, which QGIS installs under Plugins > Install from ZIP."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
FOLDER = "geoovseg_qgis"


def main(target: str) -> None:
    """All files of the plugin's folder, and the licence."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted((HERE / FOLDER).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                packed.write(path, path.relative_to(HERE))
        packed.write(HERE.parent / "LICENSE", f"{FOLDER}/LICENSE")
    print(target)


if __name__ == "__main__":
    main(sys.argv[1])
