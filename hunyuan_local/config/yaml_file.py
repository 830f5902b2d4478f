"""Reads a YAML file, with libyaml where PyYAML has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

# libyaml's parser takes a tenth of the time.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Path) -> Any:
    """Parse a file in UTF-8, with or without a byte order mark.

    Raises:
        OSError, UnicodeDecodeError: the file cannot be read as text.
        yaml.YAMLError: it is not valid YAML; the message has the line.
    """
    text = path.read_text(encoding="utf-8-sig")
    try:
        return yaml.load(text, _LOADER)
    except yaml.YAMLError:
        return yaml.safe_load(text)  # fails as well; its message also quotes the line
