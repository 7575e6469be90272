"""Files that hold the old bytes or the new, never a mix."""

import os
from pathlib import Path


def write_bytes(path: Path, data: bytes) -> None:
    """Replaces a file atomically: killed at any moment, it holds the old bytes or the new, never a mix."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":  # elsewhere a folder cannot be opened
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # makes the rename itself last
        finally:
            os.close(folder)
