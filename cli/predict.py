"""What a model says of each file."""
from __future__ import annotations

import json
from pathlib import Path

from cli.common import Asked, described, in_words, loaded, prepared, read_file
from cli.lines import each
from serving import messages
from serving.engine import See
from serving.settings import Settings


def predict(settings: Settings, asked: Asked, as_json: bool = False) -> int:
    """A line each; the exit code."""
    work, wish = prepared(settings, asked)
    loaded(work, wish)

    def one(file: Path) -> None:
        look = work.look(See(read_file(file), wish))
        if as_json:
            print(json.dumps(messages.plain(described(file, look)), ensure_ascii=False), flush=True)
        else:
            print(f"{file}: {in_words(look.prediction)}", flush=True)

    return each(asked.files, one)
