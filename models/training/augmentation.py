"""Variation of training images: what a clinic's camera, patient and framing do to the same lesion.

The data are square centre crops, but at run time the network sees whole frames (600 by 450 and the like) letterboxed to
a square. So part of the images is shown as such a frame: the crop becomes the middle of a wide or tall frame whose
sides continue by reflection, with bars of the letterbox fill outside. One affine warp does flip, turn, zoom and place,
the same for image and mask.
"""

from __future__ import annotations

import cv2
import numpy as np

from models.training.configuration import Augmentation
from models.training.datasets import Pixels

#: Long side to short side of the frames that dermoscopy cameras give.
ASPECTS = (4 / 3, 3 / 2, 16 / 9)


def augment(
    image: Pixels,
    mask: Pixels,
    size: int,
    fill: tuple[int, int, int],
    options: Augmentation,
    generator: np.random.Generator,
) -> tuple[Pixels, Pixels]:
    """One varied view: RGB [size, size, 3] and mask [size, size] from a crop and its mask."""
    side = image.shape[0]
    framed = generator.random() < options.frame_probability
    aspect = float(generator.choice(ASPECTS)) if framed else 1.0
    zoom = float(generator.uniform(*options.zoom)) if not framed else float(generator.uniform(0.9, 1.35))
    angle = float(generator.uniform(0, 360)) if options.rotation else 0.0
    if generator.random() < 0.5:
        angle = 90.0 * int(generator.integers(4))
    scale = zoom * size / (side * aspect)
    stretch = float(np.exp(generator.uniform(-0.08, 0.08)))
    flip = -1.0 if generator.random() < 0.5 else 1.0
    shift = generator.uniform(-0.08, 0.08, size=2) * size / aspect
    cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    turn = np.array([[cosine, -sine], [sine, cosine]]) @ np.diag([flip * scale * stretch, scale / stretch])
    centre = np.array([size / 2, size / 2]) + shift
    matrix = np.concatenate([turn, (centre - turn @ np.array([side / 2, side / 2])).reshape(2, 1)], axis=1)
    reflect = cv2.BORDER_REFLECT_101 if generator.random() < 0.85 else cv2.BORDER_REPLICATE
    out = cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=reflect)
    outline = cv2.warpAffine(mask, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=reflect)
    pixels = _colour(np.asarray(out, np.uint8), options, generator)
    pixels = _artefacts(pixels, options, generator)
    if framed:
        bar = round((size - size / aspect) / 2)
        bars = (slice(0, bar), slice(size - bar, size))
        tall = generator.random() < 0.15
        for rows in bars:
            where = (slice(None), rows) if tall else (rows, slice(None))
            pixels[where] = fill
            outline[where] = 0
    return pixels, np.where(outline > 127, 255, 0).astype(np.uint8)


def _colour(pixels: Pixels, options: Augmentation, generator: np.random.Generator) -> Pixels:
    """Brightness, contrast, saturation and a per-channel tint (lamp and skin), then blur or JPEG now and then.

    The first four are one affine map of RGB, so one pass: ``tint * (gain * (mix @ rgb - level) + level + offset)``.
    """
    gain = 1 + generator.uniform(-options.contrast, options.contrast)
    offset = 255 * generator.uniform(-options.brightness, options.brightness)
    tint = 1 + generator.uniform(-options.tint, options.tint, size=3)
    saturation = 1 + generator.uniform(-options.saturation, options.saturation)
    level = float(pixels[::8, ::8].mean())
    mix = saturation * np.eye(3) + (1 - saturation) / 3
    linear = tint[:, None] * gain * mix
    constant = tint * (level * (1 - gain) + offset)
    pixels = np.asarray(cv2.transform(pixels, np.concatenate([linear, constant[:, None]], axis=1)), np.uint8)
    if options.gamma:
        curve = 255 * (np.arange(256) / 255) ** np.exp(generator.uniform(-options.gamma, options.gamma))
        pixels = np.asarray(cv2.LUT(pixels, curve.astype(np.uint8)), np.uint8)
    if options.constancy_probability and generator.random() < options.constancy_probability:
        pixels = shades_of_grey(pixels)
    if generator.random() < options.blur_probability:
        pixels = np.asarray(cv2.GaussianBlur(pixels, (0, 0), float(generator.uniform(0.5, 1.5))), np.uint8)
    if generator.random() < options.jpeg_probability:
        quality = int(generator.integers(40, 85))
        _, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
        pixels = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)
    return pixels


def shades_of_grey(pixels: Pixels, power: float = 6.0) -> Pixels:
    """RGB [H, W, 3] with the lamp's colour taken out (Finlayson & Trezzi, "Shades of Gray", CIC 2004)."""
    seen = pixels[::4, ::4].reshape(-1, 3).astype(np.float64)
    light = np.mean(seen**power, axis=0) ** (1 / power) + 1e-6
    gain = np.clip(light.mean() / light, 0.5, 2.0)
    return np.asarray(cv2.transform(pixels, np.diag(gain)), np.uint8)


def _artefacts(pixels: Pixels, options: Augmentation, generator: np.random.Generator) -> Pixels:
    """Dark corners of a round lens, bubbles of gel, hairs, and the ticks of a ruler."""
    size = pixels.shape[0]
    if generator.random() < options.vignette_probability:
        radius = size * float(generator.uniform(0.5, 0.68))
        axis = np.arange(size, dtype=np.float32) - size / 2
        distance = np.sqrt(axis[:, None] ** 2 + axis[None] ** 2)
        light = np.clip((radius - distance) / (size * generator.uniform(0.01, 0.08)) + 1, 0, 1)
        pixels = (pixels * light[..., None]).astype(np.uint8)
    if options.bubble_probability and generator.random() < options.bubble_probability:
        for _ in range(int(generator.integers(1, 10))):
            centre = tuple(int(v) for v in generator.integers(0, size, 2))
            radius = int(generator.integers(2, max(3, size // 14)))
            shine = float(generator.uniform(150, 255))
            cv2.circle(pixels, centre, radius, (shine,) * 3, 1 if generator.random() < 0.7 else -1, cv2.LINE_AA)
    if generator.random() < options.hair_probability:
        t = np.linspace(0, 1, 14)[:, None]
        for _ in range(int(generator.integers(1, 8))):
            shade = tuple(float(v) for v in generator.uniform(10, 70) * np.array([1.1, 0.9, 0.8]))
            start, end = generator.uniform(0, size, size=(2, 2))
            bend = (start + end) / 2 + generator.normal(0, size / 8, size=2)
            curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end
            cv2.polylines(pixels, [curve.astype(np.int32)], False, shade, 1, cv2.LINE_AA)
    if generator.random() < options.ruler_probability:
        edge, step = int(generator.integers(4, 20)), float(generator.uniform(6, 14))
        for tick in range(int(size / step)):
            place, length = int(tick * step), 10 if tick % 5 == 0 else 5
            cv2.line(pixels, (place, size - edge), (place, size - edge - length), (20.0, 20.0, 20.0), 1)
    return pixels
