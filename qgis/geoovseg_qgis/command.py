"""The command geoovseg as QGIS runs it: found, started without QGIS's own Python, heard, and ended when told to."""

import json
import os
import shutil
import subprocess
import threading
from contextlib import suppress

from processing.core.ProcessingConfig import ProcessingConfig
from qgis.core import QgsProcessingException

SETTING = "GEOOVSEG_COMMAND"
HINT = (
    "geoovseg is not found. It is installed in a Python environment of its own, apart from QGIS:\n"
    "  python3 -m venv ~/geoovseg && ~/geoovseg/bin/pip install geoovseg\n"
    "Then say where the command is (~/geoovseg/bin/geoovseg) in Settings > Options > Processing > Providers > "
    "geoovseg, or have it on PATH, or in the environment variable GEOOVSEG_COMMAND."
)
PYTHON = ("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONNOUSERSITE", "PYTHONEXECUTABLE")
LIBRARIES = ("GDAL_DATA", "GDAL_DRIVER_PATH", "PROJ_LIB", "PROJ_DATA", "GDAL_PYTHON_DRIVER_PATH")


def found():
    """Where the command is. Raises QgsProcessingException with what to do."""
    given = ProcessingConfig.getSetting(SETTING) or os.environ.get("GEOOVSEG_COMMAND", "")
    path = os.path.expanduser(given.strip()) if given else shutil.which("geoovseg")
    if not path or not shutil.which(path):
        raise QgsProcessingException(f"{given} is no command.\n{HINT}" if given else HINT)
    return path


def environment():
    """That of QGIS without what is only for its own Python, GDAL and PROJ, which differ from those of geoovseg."""
    return {name: value for name, value in os.environ.items() if name not in PYTHON + LIBRARIES}


def run(arguments, feedback):
    """Run geoovseg with arguments; what it says goes to the log, how far it is to the bar. Returns its JSON object.

    Raises QgsProcessingException with its error.
    """
    command = [found(), *arguments]
    feedback.pushCommandInfo("geoovseg " + " ".join(map(_quoted, arguments)))
    flags = {"creationflags": subprocess.CREATE_NO_WINDOW} if os.name == "nt" else {}
    said, results = [], []
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8",
        errors="replace", env=environment(), **flags,
    ) as process:  # fmt: skip
        hearing = [
            threading.Thread(target=said.extend, args=(_lines(process.stderr, feedback),), daemon=True),
            threading.Thread(target=results.extend, args=(process.stdout,), daemon=True),
        ]
        for thread in hearing:
            thread.start()
        while process.poll() is None:
            if feedback.isCanceled():
                process.terminate()  # it removes what is half-written
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
        for thread in hearing:
            thread.join()
    if feedback.isCanceled():
        return {}
    if process.returncode:
        errors = [line for line in said if line.startswith("error: ")] or said[-3:]
        raise QgsProcessingException("\n".join(errors) or f"geoovseg ended with code {process.returncode}")
    return _last_object(results)


def _quoted(text):
    return f'"{text}"' if " " in text or not text else text


def _lines(stream, feedback):
    """What is said, line by line, less how far it is, which the bar is told."""
    for text in stream:
        line = text.rstrip()
        part = _progress(line)
        if part is not None:
            feedback.setProgress(100 * part)
            continue
        (feedback.pushWarning if line.startswith("warning: ") else feedback.pushInfo)(line)
        yield line


def _progress(line):
    """The part that is done, of a line that says it."""
    if not line.startswith('{"progress"'):
        return None
    try:
        return float(json.loads(line)["progress"])
    except (ValueError, KeyError, TypeError):
        return None


def _last_object(lines):
    for line in reversed(lines):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            return found
    return {}
