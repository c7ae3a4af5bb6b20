"""Train a captioner from a folder with images/ and captions.tsv (split, image, caption; tabs).

    python -m training.captioner.train --data DIR --encoder ours           reproduces the shipped weights
    python -m training.captioner.train --data DIR --encoder lite0          on EfficientNet-Lite0's maps
    python -m training.captioner.train --data DIR --encoder b0|b1|b2|b3|s  on official ImageNet weights
    python -m training.captioner.train --data DIR --encoder FILE.npz       on an encoder that is there already

First the encoder (only `ours` is trained, see distill.py), then its maps of every picture, then the decoder:
the references word by word, in the end together with the encoder's last stage; then CIDEr as the reward. All
is kept in --work (some 12 GB for Flickr8k), and training goes on where it stopped.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from models.captioner.vocabulary import split
from training.captioner import learner, maps, teach
from training.captioner.maps import SIDE, Refused
from training.captioner.tune import tune

FRAME = ("<pad>", "<start>", "<end>", "<unk>")


@dataclass(frozen=True)
class Settings:
    """Everything that decides what comes out."""

    encoder: str = "ours"
    seed: int = 0
    least: int = 5
    views: int = 4
    epochs: int = 12
    tune_epochs: int = 3
    tune_rate: float = 8e-4
    reward_epochs: int = 6
    rate: float = 2e-3
    reward_rate: float = 3e-4
    patience: int = 3
    batch: int = 16
    dropout: float = 0.3
    reward_dropout: float = 0.2
    shorter: float = 1.0
    start: str | None = None


def read_captions(data: Path) -> dict[str, dict[str, list[str]]]:
    """Split -> picture -> captions as words joined by blanks."""
    table = data / "captions.tsv"
    if not table.exists() or not (data / "images").is_dir():
        raise Refused(f"{data} must hold a folder images/ and a file captions.tsv (split, image, caption)")
    splits: dict[str, dict[str, list[str]]] = {}
    for number, line in enumerate(table.read_text("utf-8").splitlines(), 1):
        parts = line.split("\t")
        if len(parts) != 3:
            raise Refused(
                f"line {number} of {table.name} must have 3 columns (split, image, caption), got {len(parts)}"
            )
        which, picture, caption = parts
        if words := [w for w in split(caption) if w.strip("'-")]:
            splits.setdefault(which, {}).setdefault(picture, []).append(" ".join(words))
    for which in ("train", "dev"):
        if which not in splits:
            raise Refused(
                f"{table.name} has no line of the split {which!r}; it has {', '.join(sorted(splits))}"
            )
    return splits


def vocabulary_of(captions: Sequence[Sequence[str]], least: int) -> list[str]:
    """The four marks, then every word said at least `least` times, in alphabetical order."""
    counts = Counter(word for own in captions for caption in own for word in caption.split())
    return [*FRAME, *sorted(word for word, n in counts.items() if n >= least)]


def pictures(data: Path, names: Sequence[str]) -> NDArray[np.uint8]:
    """The whole pictures squeezed to 224x224."""
    out = np.empty((len(names), SIDE, SIDE, 3), np.uint8)
    for i, name in enumerate(tqdm(names, desc="reading pictures", mininterval=2)):
        try:
            out[i] = np.asarray(Image.open(data / "images" / name).convert("RGB").resize((SIDE, SIDE)))
        except FileNotFoundError:
            raise Refused(f"captions.tsv names {name}, which is not in {data / 'images'}") from None
    return out


def run(data: Path, work: Path, out: Path, settings: Settings) -> dict[str, dict[str, float]]:
    """Encoder, maps, decoder, files and model card; returns the dev figures of each decoder file.

    `ours` learns its words from both encoders' maps, which are alike; the reward is each encoder's own.
    """
    splits = read_captions(data)
    work.mkdir(parents=True, exist_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    began = time.time()
    names = {which: sorted(splits[which]) for which in splits}
    words = vocabulary_of(list(splits["train"].values()), settings.least)
    index = {word: i for i, word in enumerate(words)}

    def shown(which: str) -> NDArray[np.uint8]:
        path = work / f"{which}_pictures.npy"
        if not path.exists():
            np.save(path, pictures(data, names[which]))
        return np.load(path)

    encoders, distillation = maps.encoders_of(
        settings.encoder,
        lambda: np.concatenate([shown(which) for which in names if which != "dev"]),
        lambda: shown("dev")[:300],
        work,
        settings.seed,
        settings.shorter,
    )
    def seen_by(encoder: maps.Encoder, name: str) -> tuple[teach.Maps, NDArray[np.float16]]:
        """Its maps of every view of the training pictures, and of the dev pictures."""
        ways = [maps.cached(work / f"train_{name}_{way}.npy", encoder.maps, partial(shown, "train"), way)
                for way in range(settings.views)]  # fmt: skip
        return ways, maps.cached(work / f"dev_{name}.npy", encoder.maps, partial(shown, "dev"))

    captions = [
        [[index.get(word, learner.UNKNOWN) for word in caption.split()] for caption in splits["train"][name]]
        for name in names["train"]
    ]
    references = [splits["dev"][name] for name in names["dev"]]
    seen = [seen_by(encoder, encoder.name) for encoder in encoders]
    torch.manual_seed(settings.seed)
    decoder = learner.Decoder(learner.Sizes(len(words), seen[0][1].shape[2]), settings.dropout)
    if settings.start:
        decoder.load_state_dict(learner.from_arrays(dict(np.load(settings.start))).state_dict())
    phase = partial(teach.teach, patience=settings.patience, seed=settings.seed, batch=settings.batch)
    both = teach.Lesson([way for ways, _ in seen for way in ways], captions)
    exam = teach.Exam(seen[0][1], references, words)
    phases = {
        "words": phase(decoder, both, exam, work / "words.pt", epochs=settings.epochs, rate=settings.rate)
    }
    figures = {}
    for encoder, (ways, dev) in zip(encoders, seen, strict=True):
        own = copy.deepcopy(decoder)
        if encoder.student and settings.tune_epochs:
            encoder, phases["tune"] = tune(
                encoder, own, shown, both, exam, work, views=settings.views, epochs=settings.tune_epochs,
                rate=settings.tune_rate, read_rate=2 * settings.tune_rate, seed=settings.seed,
                batch=settings.batch,
            )  # fmt: skip
            ways, dev = seen_by(encoder, f"{encoder.name}_tuned")
        own.dropout = settings.reward_dropout
        exam = teach.Exam(dev, references, words)
        phases[f"reward, {encoder.name}"] = phase(
            own, teach.Lesson(ways, captions), exam, work / f"reward_{encoder.name}.pt",
            epochs=settings.reward_epochs, rate=settings.reward_rate, reward=True,
        )  # fmt: skip
        # What is shipped is float16, so that is what is measured.
        final = learner.from_arrays(own.arrays())
        maps.write_half(out / encoder.decoder_file, encoder.unscaled(final.arrays()))
        for how, width in (("greedy", 1), ("beam 3", 3)):
            figures[f"{encoder.decoder_file} {how}"] = teach.examine(final, exam, width)[0]
    (out / "vocabulary.txt").write_text("\n".join(words) + "\n", "utf-8")
    for name in ("encoder_tuned.npz", "encoder.npz"):
        if (work / name).exists():
            (out / "encoder.npz").write_bytes((work / name).read_bytes())
            break
    counts = {which: len(own) for which, own in names.items()}
    card = model_card(settings, counts, len(words), distillation, phases, figures, time.time() - began)
    (out / "MODEL_CARD.md").write_text(card, "utf-8")
    return figures


def model_card(
    settings: Settings,
    counts: dict[str, int],
    words: int,
    distillation: maps.Figures,
    phases: dict[str, teach.Progress],
    figures: dict[str, dict[str, float]],
    seconds: float,
) -> str:
    """What was trained on what, how long, and how good it is."""
    scores = next(iter(figures.values()))
    hours = sum(p.seconds for p in phases.values()) / 3600
    lines = [
        "# A captioner's model card",
        "",
        f"Encoder `{settings.encoder}`, LSTM with soft attention over its last map, {words} words.",
        "",
        "## Data",
        "",
        *(f"- `{which}`: {count} pictures" for which, count in sorted(counts.items())),
        "",
        "The licence of the weights follows that of the data. Flickr8k (Hodosh, Young, Hockenmaier 2013) is "
        "for non-commercial research and education.",
        "",
        "## Steps",
        "",
        *(f"- distillation, {name}: {f}" for name, f in distillation.items()),
        *(f"- `{name}` {log}" for name, phase in phases.items() for log in phase.log),
        "",
        f"Decoder {hours:.2f} h, this run {seconds / 3600:.2f} h in all. "
        f"Settings: `{json.dumps(asdict(settings))}`.",
        "",
        "## Scores on dev",
        "",
        "| | " + " | ".join(scores) + " |",
        "|---" * (len(scores) + 1) + "|",
        *(f"| {name} | " + " | ".join(f"{v:.3f}" for v in f.values()) + " |" for name, f in figures.items()),
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("captioner-training"), help="checkpoints and maps")
    parser.add_argument("--out", type=Path, help="the finished weights (default: WORK/weights)")
    helps = {
        "least": "fewest times a word is said",
        "views": "ways of showing each picture to the decoder: whole, mirrored, then cut",
        "shorter": "scales the minutes of the distillation",
        "start": "a decoder file to go on from",
    }
    for name, default in asdict(Settings()).items():
        kind = str if default is None else type(default)
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=default, help=helps.get(name))
    args = vars(parser.parse_args(arguments))
    data, work, out = args.pop("data"), args.pop("work"), args.pop("out")
    try:
        figures = run(data, work, out or work / "weights", Settings(**args))
    except Refused as error:
        print(error, file=sys.stderr)
        return 2
    for name, values in figures.items():
        print(name, " ".join(f"{k} {v:.3f}" for k, v in values.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
