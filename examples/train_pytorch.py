"""Train a small colorizer with PyTorch on a complete dataset for a few steps.

    python -m examples.train_pytorch data/tfrecords --workers 4

`dataset.examples` is a map-style dataset: worker processes of the DataLoader read single records,
in any order. The model is a small version of deep-koalarization: an encoder of the lightness, the
embedding of the complete image joined at each position, and a decoder of a* and b*.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from beam_pipeline import dataset


class Pairs(Dataset):
    """What the model sees of each example: lightness, embedding, and a*, b*, channels first."""

    def __init__(self, examples: dataset.Examples):
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        example = self._examples[index]
        l, ab = (example[name].transpose(2, 0, 1) for name in ("image_l", "image_ab"))
        return l, example["image_embedding"], ab


class Colorizer(nn.Module):
    """A model (L, embedding) -> ab, scaled as in the dataset, for images of any size."""

    def __init__(self, embedding_size: int, width: int = 16):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
        )
        self.fusion = nn.Conv2d(2 * width + embedding_size, 2 * width, 1)
        self.decoder = nn.Sequential(
            nn.ReLU(), nn.Conv2d(2 * width, 2, 3, padding=1), nn.Tanh(), nn.Upsample(scale_factor=4)
        )

    def forward(self, l: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        features = self.encoder(l)
        everywhere = embedding[:, :, None, None].expand(-1, -1, *features.shape[2:])
        ab = self.decoder(self.fusion(torch.cat([features, everywhere], dim=1)))
        return ab[:, :, : l.shape[2], : l.shape[3]]


def train(loader: DataLoader, model: nn.Module, steps: int) -> list[float]:
    """Train a model; return the loss of each step."""
    optimizer = torch.optim.Adam(model.parameters())
    losses = []
    epochs = itertools.chain.from_iterable(itertools.repeat(loader))
    for l, embedding, ab in itertools.islice(epochs, steps):
        loss = nn.functional.mse_loss(model(l, embedding), ab)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument(
        "dataset", metavar="DATASET", help="a complete folder, made with the network"
    )
    parser.add_argument("--steps", type=int, default=30, help="batches (default: %(default)s)")
    parser.add_argument(
        "--batch_size", type=int, default=8, help="images in a batch (default: %(default)s)"
    )
    parser.add_argument(
        "--workers", type=int, default=2, help="processes that read (default: %(default)s)"
    )
    options = parser.parse_args(argv)
    torch.manual_seed(0)
    try:
        embedding_size = dataset.read_info(options.dataset).embedding_size
        examples = dataset.examples(options.dataset)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    if not embedding_size:
        print(f"{options.dataset} was made without the network", file=sys.stderr)
        return 2
    settings: dict[str, Any] = {"persistent_workers": True} if options.workers else {}
    loader = DataLoader(
        Pairs(examples), options.batch_size, shuffle=True, num_workers=options.workers, **settings
    )
    losses = train(loader, Colorizer(embedding_size), options.steps)
    print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f} in {len(losses)} steps")
    return 0


if __name__ == "__main__":
    sys.exit(main())
