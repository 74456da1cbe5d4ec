"""Pictures that are no dermoscopy, by family: what the gate must keep out, drawn anew from a seed.

Every family varies in colour, scale, layout and sharpness from picture to picture, so that no single trait gives it
away. Drawn pictures are a floor, not a proof: a real clinical photograph is richer than these. Where scikit-learn or
matplotlib is installed, crops of the photographs that they carry (a portrait, a building, a flower; CC BY 2.0 and
public domain) stand beside the drawn ones; `empty_crops` cuts skin without lesion out of real dermoscopy.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from dermoscopy.domain import Mask, RGBPixels
from dermoscopy.phantoms import phantom

Random = np.random.Generator
Float32 = npt.NDArray[np.float32]
Colour = tuple[float, float, float]

SIZES = ((450, 600), (512, 512), (480, 640), (768, 1024))
PHOTOGRAPHS = (
    ("sklearn", "datasets/images/china.jpg"),
    ("sklearn", "datasets/images/flower.jpg"),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
)
"""Package and path of photographs that others carry."""


def families(count: int, seed: int = 0) -> Mapping[str, Iterator[RGBPixels]]:
    """``count`` pictures of every drawn family, by name; the same arguments give the same bytes."""
    return {name: _several(draw, count, (seed, family)) for family, (name, draw) in enumerate(FAMILIES.items())}


def _several(draw: Callable[[Random, int, int], RGBPixels], count: int, seed: tuple[int, ...]) -> Iterator[RGBPixels]:
    return (_one(draw, np.random.default_rng([*seed, number])) for number in range(count))


def _one(draw: Callable[[Random, int, int], RGBPixels], random: Random) -> RGBPixels:
    rows, columns = SIZES[int(random.integers(len(SIZES)))]
    if random.random() < 0.25:
        rows, columns = columns, rows
    return draw(random, rows, columns)


def photographs(count: int, seed: int = 0) -> Iterator[RGBPixels]:
    """``count`` crops of the installed photographs, at random places and sizes; none where no such package is there."""
    pictures = [picture for package, name in PHOTOGRAPHS if (picture := _packaged(package, name)) is not None]
    random = np.random.default_rng([seed, 1000])
    for number in range(count if pictures else 0):
        picture = pictures[number % len(pictures)]
        rows, columns = picture.shape[:2]
        side = int(min(rows, columns) * random.uniform(0.35, 1.0))
        top, left = int(random.integers(rows - side + 1)), int(random.integers(columns - side + 1))
        crop = picture[top : top + side, left : left + side]
        yield np.ascontiguousarray(crop[:, ::-1] if random.random() < 0.5 else crop)


def _packaged(package: str, name: str) -> RGBPixels | None:
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        return None
    picture = cv2.imread(str(Path(found.origin).parent / name), cv2.IMREAD_COLOR)
    return None if picture is None else np.asarray(picture[..., ::-1], np.uint8)


def empty_crops(images: Iterable[tuple[RGBPixels, Mask]], smallest: int = 96) -> Iterator[RGBPixels]:
    """Skin without lesion: the largest square of each image at least 8 pixels from its ``mask``, if ``smallest`` fits.

    Black corners of the lens do not count as skin. What a crop shows is real: hair, pores, light.
    """
    for pixels, mask in images:
        away = cv2.dilate(mask.astype(np.uint8), np.ones((17, 17), np.uint8))
        taken = ((away > 0) | (pixels.max(axis=2) < 60)).astype(np.uint8)
        square = _largest_free_square(taken)
        if square is not None and square[2] >= smallest:
            row, column, side = square
            yield np.ascontiguousarray(pixels[row : row + side, column : column + side])


def _largest_free_square(taken: npt.NDArray[np.uint8]) -> tuple[int, int, int] | None:
    """(row, column, side) of the largest square without a taken pixel: the widest place by chessboard distance."""
    padded = np.pad(1 - taken, 1)
    distance = cv2.distanceTransform(padded, cv2.DIST_C, 3)[1:-1, 1:-1]
    row, column = np.unravel_index(int(distance.argmax()), distance.shape)
    reach = int(distance[row, column]) - 1
    return None if reach < 1 else (int(row) - reach, int(column) - reach, 2 * reach + 1)


# --- what the families are drawn of


def _cloud(random: Random, rows: int, columns: int, scale: float) -> Float32:
    """Smooth noise [rows, columns], mean 0 and deviation 1."""
    coarse = random.normal(0.0, 1.0, (math.ceil(rows / scale) + 3, math.ceil(columns / scale) + 3)).astype(np.float32)
    smooth = np.asarray(cv2.resize(coarse, (columns, rows), interpolation=cv2.INTER_CUBIC), np.float32)
    return (smooth - smooth.mean()) / max(float(smooth.std()), 1e-6)


def _plain(random: Random, rows: int, columns: int, colour: Colour, unrest: float = 6.0) -> Float32:
    """One colour under uneven light, [rows, columns, 3]."""
    light = 1.0 + 0.08 * _cloud(random, rows, columns, min(rows, columns) / 1.5)
    grain = unrest * (_cloud(random, rows, columns, 30.0) + 0.5 * _cloud(random, rows, columns, 3.0))
    return np.asarray(np.asarray(colour, np.float32) * light[..., None] + grain[..., None], np.float32)


def _skin_colour(random: Random) -> Colour:
    tones = ((236, 200, 178), (224, 172, 145), (198, 140, 108), (150, 100, 72), (92, 60, 44))
    return tuple(float(v + random.normal(0, 6)) for v in tones[int(random.integers(len(tones)))])  # type: ignore[return-value]


def _any_colour(random: Random, low: int = 20, high: int = 245) -> Colour:
    return tuple(float(v) for v in random.integers(low, high, 3))  # type: ignore[return-value]


def _lay(canvas: Float32, shape: npt.NDArray[np.uint8], surface: Float32, softness: float) -> None:
    """Put ``surface`` on the canvas where ``shape`` is 255, shaded towards its edge like something round."""
    weight = np.asarray(cv2.GaussianBlur(shape, (0, 0), softness), np.float32)[..., None] / 255.0
    depth = np.asarray(cv2.distanceTransform(shape, cv2.DIST_L2, 5), np.float32)
    round_ = 0.72 + 0.28 * np.minimum(1.0, depth / max(1.0, 0.5 * float(depth.max())))[..., None]
    canvas += (surface * round_ - canvas) * weight


def _photographed(random: Random, canvas: Float32) -> RGBPixels:
    """Light, focus, sensor noise and JPEG of a camera."""
    rows, columns = canvas.shape[:2]
    lit = (
        canvas
        * float(random.uniform(0.8, 1.12))
        * (1.0 + 0.05 * _cloud(random, rows, columns, columns / 1.2))[..., None]
    )
    lit = np.asarray(cv2.GaussianBlur(lit, (0, 0), float(random.uniform(0.5, 1.4))), np.float32)
    lit = lit + random.normal(0.0, float(random.uniform(1.0, 4.0)), lit.shape)
    pixels = np.clip(np.rint(lit), 0, 255).astype(np.uint8)
    _, encoded = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(70, 96))])
    decoded = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)
    return np.ascontiguousarray(decoded[..., ::-1])


def _moles(random: Random, canvas: Float32, shape: npt.NDArray[np.uint8], most: int) -> None:
    inside = np.argwhere(shape > 0)
    for _ in range(int(random.integers(1, most + 1))):
        row, column = inside[int(random.integers(len(inside)))]
        radius = max(2, round(min(shape.shape) * float(random.uniform(0.006, 0.02))))
        colour = tuple(float(v) for v in random.uniform((70, 40, 30), (130, 85, 60)))
        axes = (radius, max(1, round(radius * float(random.uniform(0.7, 1.0)))))
        cv2.ellipse(
            canvas, (int(column), int(row)), axes, float(random.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA
        )


# --- the families


def _limb(random: Random, rows: int, columns: int) -> RGBPixels:
    """An arm or leg, sometimes a hand, at arm's length over cloth or furniture, with a mole or two."""
    canvas = _plain(random, rows, columns, _any_colour(random), float(random.uniform(2, 12)))
    if random.random() < 0.5:  # woven cloth
        period = float(random.uniform(4, 14))
        y, x = np.mgrid[:rows, :columns]
        canvas += (8.0 * np.sin(2 * math.pi * (x + y) / period) * np.sin(2 * math.pi * (x - y) / period))[..., None]
    shape = np.zeros((rows, columns), np.uint8)
    angle, side = float(random.uniform(0, math.pi)), min(rows, columns)
    middle = np.array([columns, rows]) * random.uniform(0.4, 0.6, 2)
    along = np.array([math.cos(angle), math.sin(angle)])
    width = side * float(random.uniform(0.16, 0.3))
    if random.random() < 0.5:
        across = np.array([-along[1], along[0]])
        taper = float(random.uniform(0.6, 1.0))
        corners = [
            middle - along * 2 * side + across * width, middle - along * 2 * side - across * width,
            middle + along * 2 * side - across * width * taper, middle + along * 2 * side + across * width * taper,
        ]  # fmt: skip
        cv2.fillPoly(shape, [np.rint(corners).astype(np.int32)], 255, cv2.LINE_AA)
    else:
        palm = (int(middle[0]), int(middle[1]))
        cv2.ellipse(shape, palm, (int(width), int(width * 0.85)), math.degrees(angle), 0, 360, 255, -1, cv2.LINE_AA)
        for finger in range(5):
            turn = angle + (finger - 2) * float(random.uniform(0.26, 0.36))
            tip = middle + np.array([math.cos(turn), math.sin(turn)]) * width * float(random.uniform(1.8, 2.3))
            cv2.line(shape, palm, (int(tip[0]), int(tip[1])), 255, max(6, int(width * 0.34)), cv2.LINE_AA)
        wrist = middle - along * 2 * side
        cv2.line(shape, palm, (int(wrist[0]), int(wrist[1])), 255, max(8, int(width * 1.1)), cv2.LINE_AA)
    shape = np.where(shape > 127, 255, 0).astype(np.uint8)
    _lay(canvas, shape, _plain(random, rows, columns, _skin_colour(random), 3.0), 1.5)
    _moles(random, canvas, shape, 3)
    return _photographed(random, canvas)


def _torso(random: Random, rows: int, columns: int) -> RGBPixels:
    """A back or belly that fills the frame, with several moles, folds and the edge of a garment."""
    canvas = _plain(random, rows, columns, _skin_colour(random), 4.0)
    heading = float(random.uniform(0, 2 * math.pi))
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    ramp = ((x - columns / 2) * math.cos(heading) + (y - rows / 2) * math.sin(heading)) / max(rows, columns)
    canvas *= (1.0 - float(random.uniform(0.2, 0.9)) * np.clip(ramp, -0.3, 0.6))[..., None]
    _moles(random, canvas, np.full((rows, columns), 255, np.uint8), 25)
    if random.random() < 0.5:
        garment = np.where(ramp > random.uniform(0.2, 0.4), 255, 0).astype(np.uint8)
        _lay(canvas, garment, _plain(random, rows, columns, _any_colour(random), 8.0), 2.0)
    return _photographed(random, canvas)


def _face(random: Random, rows: int, columns: int) -> RGBPixels:
    """A head with hair, eyes, nose and mouth above clothed shoulders."""
    canvas = _plain(random, rows, columns, _any_colour(random, 60, 245), 4.0)
    side = min(rows, columns)
    middle = (int(columns * random.uniform(0.42, 0.58)), int(rows * random.uniform(0.38, 0.5)))
    across, down = int(side * random.uniform(0.2, 0.3)), int(side * random.uniform(0.28, 0.38))
    shoulders = np.zeros((rows, columns), np.uint8)
    cv2.ellipse(shoulders, (middle[0], rows), (int(across * 2.1), int(down * 0.9)), 0, 0, 360, 255, -1)
    _lay(canvas, shoulders, _plain(random, rows, columns, _any_colour(random, 10, 220), 8.0), 1.5)
    hair = np.zeros((rows, columns), np.uint8)
    cv2.ellipse(hair, (middle[0], middle[1] - down // 5), (int(across * 1.15), int(down * 1.1)), 0, 0, 360, 255, -1)
    red, green, blue = (float(v) for v in random.uniform(15, 150, 3) * (1.0, 0.8, 0.6))
    _lay(canvas, hair, _plain(random, rows, columns, (red, green, blue), 14.0), 2.0)
    skin = _skin_colour(random)
    face = np.zeros((rows, columns), np.uint8)
    cv2.rectangle(
        face, (middle[0] - across // 2, middle[1]), (middle[0] + across // 2, middle[1] + int(down * 1.35)), 255, -1
    )
    cv2.ellipse(face, middle, (across, down), 0, 0, 360, 255, -1)
    _lay(canvas, face, _plain(random, rows, columns, skin, 3.0), 1.5)
    for sign in (-1, 1):
        eye = (middle[0] + sign * int(across * 0.42), middle[1] - down // 6)
        cv2.ellipse(canvas, eye, (across // 6, across // 12), 0, 0, 360, (235, 230, 228), -1, cv2.LINE_AA)
        cv2.circle(canvas, eye, max(2, across // 13), _any_colour(random, 20, 110), -1, cv2.LINE_AA)
        brow = (eye[0], eye[1] - across // 5)
        cv2.ellipse(
            canvas, brow, (across // 4, across // 16), 0, 180, 360, (60, 42, 34), max(2, across // 18), cv2.LINE_AA
        )
    shade = tuple(0.82 * v for v in skin)
    cv2.line(
        canvas, middle, (middle[0] + across // 12, middle[1] + down // 4), shade, max(2, across // 14), cv2.LINE_AA
    )
    mouth = (middle[0], middle[1] + int(down * 0.52))
    cv2.ellipse(canvas, mouth, (across // 3, across // 12), 0, 0, 360, (176, 88, 86), -1, cv2.LINE_AA)
    _moles(random, canvas, face, 2)
    return _photographed(random, canvas)


def _document(random: Random, rows: int, columns: int) -> RGBPixels:
    """Printed or photographed pages: white to yellow paper, text in columns, tables, a stamp; sometimes turned."""
    paper = tuple(float(v) for v in np.array([250, 248, 244]) - random.uniform(0, 60) * np.array([0.1, 0.35, 0.9]))
    canvas = np.full((rows, columns, 3), paper, np.uint8)
    size = float(random.uniform(0.35, 1.0))
    ink = tuple(float(v) for v in random.uniform(5, 90, 3))
    words = (
        "patient",
        "lesion",
        "excision",
        "report",
        "naevus",
        "margin",
        "clear",
        "mm",
        "date",
        "12.04.",
        "the",
        "of",
    )
    pitch = round(34 * size)
    for y in range(pitch * 2, rows - pitch, pitch):
        if random.random() < 0.12:
            continue
        line = " ".join(words[int(k)] for k in random.integers(len(words), size=int(random.integers(3, 14))))
        cv2.putText(
            canvas,
            line,
            (int(20 * size) + 8, y),
            cv2.FONT_HERSHEY_SIMPLEX,
            size,
            ink,
            max(1, round(2 * size)),
            cv2.LINE_AA,
        )
    if random.random() < 0.4:
        for x in range(20, columns, columns // 4):
            cv2.line(canvas, (x, rows // 3), (x, rows // 2), ink, 1)
        for y in range(rows // 3, rows // 2, pitch):
            cv2.line(canvas, (20, y), (columns - 20, y), ink, 1)
    if random.random() < 0.3:
        cv2.circle(canvas, (columns * 3 // 4, rows * 3 // 4), 50, (170, 60, 70), 4, cv2.LINE_AA)
    if random.random() < 0.5:
        turn = cv2.getRotationMatrix2D((columns / 2, rows / 2), float(random.uniform(-20, 20)), 0.95)
        desk = _any_colour(random, 40, 200)
        turned = cv2.warpAffine(canvas, turn, (columns, rows), borderMode=cv2.BORDER_CONSTANT, borderValue=desk)
        return _photographed(random, np.asarray(turned, np.float32))
    return canvas


def _noise(random: Random, rows: int, columns: int) -> RGBPixels:
    """White noise, coarse noise and clouds, in all colours, in grey and in the colours of skin."""
    kind = int(random.integers(4))
    if kind == 0:
        return random.integers(0, 256, (rows, columns, 3), np.uint8)
    scale = float(random.choice([2.0, 6.0, 20.0, 60.0]))
    if kind == 1:
        grey = 128.0 + 50.0 * _cloud(random, rows, columns, scale)
        return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
    middle, spread = ((128.0, 128.0, 128.0), 55.0) if kind == 2 else (_skin_colour(random), 22.0)
    layers = [middle[k] + spread * _cloud(random, rows, columns, scale) for k in range(3)]
    return np.clip(np.stack(layers, axis=2), 0, 255).astype(np.uint8)


def _histology(random: Random, rows: int, columns: int) -> RGBPixels:
    """Haematoxylin and eosin: pink fibres, purple nuclei, white clefts, at several magnifications."""
    eosin = np.array([232.0, 168.0, 196.0]) + random.normal(0, 10, 3)
    canvas = np.asarray(eosin + 14.0 * _cloud(random, rows, columns, 40.0)[..., None] * (0.6, 1.2, 0.8), np.float32)
    angle = float(random.uniform(0, math.pi))
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    wave = 4.0 * _cloud(random, rows, columns, 60.0)
    canvas += (7.0 * np.sin((x * math.cos(angle) + y * math.sin(angle)) / 3.5 + wave))[..., None]
    clefts = _cloud(random, rows, columns, float(random.uniform(30, 90))) > random.uniform(1.0, 2.0)
    canvas[clefts] = (243.0, 240.0, 243.0)
    density = _cloud(random, rows, columns, float(random.uniform(60, 200)))
    size = float(random.choice([2.5, 4.0, 7.0, 12.0]))
    for _ in range(int(0.14 * rows * columns / size**2 / math.pi)):
        row, column = int(random.integers(rows)), int(random.integers(columns))
        if density[row, column] < random.normal(0.0, 0.8) or clefts[row, column]:
            continue
        axes = (max(1, round(size * random.uniform(0.8, 1.4))), max(1, round(size * random.uniform(0.5, 0.9))))
        stain = tuple(float(v) for v in np.array([96.0, 58.0, 140.0]) + random.normal(0, 16, 3))
        cv2.ellipse(canvas, (column, row), axes, float(random.uniform(0, 180)), 0, 360, stain, -1, cv2.LINE_AA)
    return _photographed(random, canvas)


def _screenshot(random: Random, rows: int, columns: int) -> RGBPixels:
    """Windows, bars, buttons, text and a chart in a light or dark theme."""
    dark = random.random() < 0.4
    canvas = np.full(
        (rows, columns, 3), _any_colour(random, 10, 60) if dark else _any_colour(random, 215, 255), np.uint8
    )
    ink = (225, 225, 230) if dark else (30, 32, 38)
    accent = _any_colour(random, 30, 230)
    cv2.rectangle(canvas, (0, 0), (columns, rows // 14), accent, -1)
    for _ in range(int(random.integers(3, 8))):
        left, top = int(random.integers(columns - 90)), int(random.integers(rows // 14, rows - 70))
        right, bottom = left + int(random.integers(80, columns // 2)), top + int(random.integers(50, rows // 2))
        cv2.rectangle(canvas, (left, top), (right, bottom), _any_colour(random, 30, 250), -1)
        cv2.rectangle(canvas, (left, top), (right, bottom), ink, 1)
        for y in range(top + 18, min(bottom, rows) - 6, 18):
            cv2.putText(
                canvas, "Study 2041  series 3  OK", (left + 6, y), cv2.FONT_HERSHEY_PLAIN, 0.9, ink, 1, cv2.LINE_AA
            )
    if random.random() < 0.5:
        steps = np.cumsum(random.normal(0, 9, 60)) + rows * 0.6
        chart = np.stack([np.linspace(columns * 0.1, columns * 0.9, 60), np.clip(steps, 20, rows - 20)], axis=1)
        cv2.polylines(canvas, [np.rint(chart).astype(np.int32)], False, accent, 2, cv2.LINE_AA)
    return canvas


def _radiograph(random: Random, rows: int, columns: int) -> RGBPixels:
    """Bones or a chest in grey, sometimes with the blue or brown tint of a film."""
    canvas = np.full((rows, columns), float(random.uniform(8, 40)), np.float32)
    canvas += 6.0 * _cloud(random, rows, columns, 120.0)
    if random.random() < 0.5:
        for offset in (-0.22, 0.22):
            lung = (int(columns * (0.5 + offset)), int(rows * 0.5))
            cv2.ellipse(canvas, lung, (int(columns * 0.16), int(rows * 0.34)), 0, 0, 360, 60.0, -1, cv2.LINE_AA)
        cv2.line(canvas, (columns // 2, 0), (columns // 2, rows), 190.0, columns // 12)
        for rib in range(9):
            y = int(rows * (0.15 + 0.08 * rib))
            cv2.ellipse(
                canvas, (columns // 2, y), (int(columns * 0.38), rows // 8), 0, 200, 340, 130.0, max(4, rows // 50)
            )
    else:
        for bone in range(int(random.integers(2, 6))):
            x = int(columns * (0.15 + 0.16 * bone))
            ends = (
                (x, int(rows * random.uniform(0.0, 0.2))),
                (x + int(random.normal(0, 30)), int(rows * random.uniform(0.7, 1.0))),
            )
            cv2.line(canvas, *ends, 185.0, max(10, columns // 16), cv2.LINE_AA)
            for end in ends:
                cv2.circle(canvas, end, max(9, columns // 22), 205.0, -1, cv2.LINE_AA)
    soft = np.asarray(cv2.GaussianBlur(canvas, (0, 0), 3.0), np.float32) + random.normal(0, 4, canvas.shape)
    tints = ((1.0, 1.0, 1.0), (0.86, 0.95, 1.08), (1.1, 0.98, 0.84))
    return np.clip(soft[..., None] * tints[int(random.integers(3))], 0, 255).astype(np.uint8)


def _fundus(random: Random, rows: int, columns: int) -> RGBPixels:
    """The back of an eye: an orange disc in a black frame, with vessels and a bright optic disc, as red as skin."""
    side = min(rows, columns)
    middle = np.array([columns / 2, rows / 2])
    colour = tuple(float(v) for v in np.array([196.0, 92.0, 44.0]) + random.normal(0, 14, 3))
    canvas = _plain(random, rows, columns, colour, 5.0)  # type: ignore[arg-type]
    disc = middle + np.array([side * float(random.uniform(0.12, 0.22)) * float(random.choice([-1, 1])), 0.0])
    for vessel in range(12):
        heading = 2 * math.pi * vessel / 12 + float(random.normal(0, 0.2))
        points = [disc]
        for _ in range(40):
            heading += float(random.normal(0, 0.12))
            points.append(points[-1] + side * 0.017 * np.array([math.cos(heading), math.sin(heading)]))
        line = np.rint(points).astype(np.int32).reshape(-1, 1, 2)
        cv2.polylines(
            canvas, [line], False, (120.0, 30.0, 22.0), max(1, int(side * random.uniform(0.004, 0.012))), cv2.LINE_AA
        )
    cv2.circle(canvas, (int(disc[0]), int(disc[1])), int(side * 0.06), (248.0, 206.0, 128.0), -1, cv2.LINE_AA)
    y, x = np.mgrid[:rows, :columns]
    canvas[np.hypot(x - middle[0], y - middle[1]) > 0.48 * side] = 4.0
    return _photographed(random, canvas)


def _empty(random: Random, rows: int, columns: int) -> RGBPixels:
    """Drawn skin without a lesion, with and without hair and vignette."""
    hairs = int(random.integers(0, 14))
    seed = int(random.integers(1 << 30))
    return phantom(
        seed, kind="empty", rows=rows, columns=columns, hairs=hairs, vignette=bool(random.random() < 0.5)
    ).pixels


FAMILIES: dict[str, Callable[[Random, int, int], RGBPixels]] = {
    "limb": _limb,
    "torso": _torso,
    "face": _face,
    "document": _document,
    "noise": _noise,
    "histology": _histology,
    "screenshot": _screenshot,
    "radiograph": _radiograph,
    "fundus": _fundus,
    "empty skin, drawn": _empty,
}
