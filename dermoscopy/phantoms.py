"""Synthetic dermoscopy images with exactly known lesion geometry, for the demonstration and the tests.

No patient is in them: skin, pigment network, globules, streaks, vessels, hairs and the vignette of the lens are drawn
from a seeded generator, so that the same arguments give the same bytes. They look plausible to the eye; they are not
evidence of how an algorithm does on real skin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from dermoscopy.domain import Mask, RGBPixels

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Kind = Literal["nevus", "melanoma-like", "keratosis", "vascular", "empty"]
KINDS: tuple[Kind, ...] = ("nevus", "melanoma-like", "keratosis", "vascular", "empty")

_OVERSAMPLING = 720


@dataclass(frozen=True, slots=True)
class Geometry:
    """What is known of the outline, from its formula and not from its pixels; all 0 for an empty phantom.

    ``centre`` is (row, column) of the pole of the outline r(θ), the area's ``centroid`` is apart from it;
    ``asymmetry`` (0…1) is the mean share without a counterpart after folding about both principal axes, counted on the
    outline drawn at 720 samples per diameter.
    """

    centre: tuple[float, float]
    centroid: tuple[float, float]
    area_px: float
    perimeter_px: float
    equivalent_diameter_px: float
    asymmetry: float


@dataclass(frozen=True, slots=True)
class Phantom:
    """``pixels`` uint8 RGB [rows, columns, 3]; ``mask`` bool [rows, columns]: pixel centres inside the outline."""

    kind: Kind
    seed: int
    pixels: RGBPixels
    mask: Mask
    geometry: Geometry


@dataclass(frozen=True, slots=True)
class Outline:
    """A star-shaped outline r(θ) = radius · (1 + Σ aₖ cos(k θ + φₖ)), stretched by ``elongation`` and turned.

    ``harmonics`` holds (k, aₖ, φₖ); Σ|aₖ| < 1. Elongation keeps the area.
    """

    centre: tuple[float, float]
    radius: float
    elongation: float = 1.0
    angle: float = 0.0
    harmonics: tuple[tuple[int, float, float], ...] = ()

    def level(self, rows: Float32, columns: Float32) -> Float32:
        """Signed pixels to the outline along the radius (negative inside), at points of any shape."""
        y, x = rows - np.float32(self.centre[0]), columns - np.float32(self.centre[1])
        stretch = math.sqrt(self.elongation)
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        u = (x * cosine + y * sine) / stretch
        v = (y * cosine - x * sine) * stretch
        theta = np.arctan2(v, u)
        border = np.full_like(theta, self.radius)
        for k, amplitude, phase in self.harmonics:
            border += self.radius * amplitude * np.cos(k * theta + phase)
        return np.asarray(np.hypot(u, v) - border, dtype=np.float32)

    def polygon(self, points: int = 20_000) -> Float64:
        """float64 [points, 2] of (row, column) on the outline."""
        theta = np.linspace(0.0, 2.0 * math.pi, points, endpoint=False)
        r = np.full_like(theta, self.radius)
        for k, amplitude, phase in self.harmonics:
            r += self.radius * amplitude * np.cos(k * theta + phase)
        stretch = math.sqrt(self.elongation)
        u, v = r * np.cos(theta) * stretch, r * np.sin(theta) / stretch
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        return np.column_stack([self.centre[0] + u * sine + v * cosine, self.centre[1] + u * cosine - v * sine])

    def geometry(self) -> Geometry:
        """Area, perimeter and centroid of the fine polygon (shoelace), asymmetry by folding it at high resolution."""
        points = self.polygon()
        following = np.roll(points, -1, axis=0)
        cross = points[:, 1] * following[:, 0] - following[:, 1] * points[:, 0]
        signed = 0.5 * cross.sum()
        centroid = ((points + following) * cross[:, None]).sum(axis=0) / (6.0 * signed)
        steps = following - points
        area = abs(float(signed))
        return Geometry(
            centre=self.centre,
            centroid=(float(centroid[0]), float(centroid[1])),
            area_px=area,
            perimeter_px=float(np.hypot(steps[:, 0], steps[:, 1]).sum()),
            equivalent_diameter_px=2.0 * math.sqrt(area / math.pi),
            asymmetry=self._asymmetry((float(centroid[0]), float(centroid[1]))),
        )

    def _asymmetry(self, centroid: tuple[float, float]) -> float:
        offsets = self.polygon() - centroid
        reach = float(np.hypot(offsets[:, 0], offsets[:, 1]).max()) * 1.01
        grid = np.linspace(-reach, reach, _OVERSAMPLING, dtype=np.float32)
        square_y, square_x = np.meshgrid(grid, grid, indexing="ij")
        inside = self.level(square_y + np.float32(centroid[0]), square_x + np.float32(centroid[1])) <= 0.0
        y, x = square_y[inside], square_x[inside]
        angle = 0.5 * math.atan2(2.0 * float(np.mean(x * y)), float(np.mean(x * x) - np.mean(y * y)))
        cosine, sine = np.float32(math.cos(angle)), np.float32(math.sin(angle))
        u, v = x * cosine + y * sine, y * cosine - x * sine
        unmatched = []
        for mirror_u, mirror_v in ((u, -v), (-u, v)):
            column = np.asarray(mirror_u * cosine - mirror_v * sine + centroid[1], dtype=np.float32)
            row = np.asarray(mirror_u * sine + mirror_v * cosine + centroid[0], dtype=np.float32)
            unmatched.append(float(np.mean(self.level(row, column) > 0.0)))
        return sum(unmatched) / 2.0


def phantom(
    seed: int, *, kind: Kind = "nevus", rows: int = 450, columns: int = 600, hairs: int = 0, vignette: bool = True
) -> Phantom:
    """Draw one synthetic dermoscopy image.

    ``hairs`` is how many lie across the picture; ``vignette`` darkens the corners as the lens does. Raises
    `ValueError` for an unknown kind or a frame below 32 × 32.
    """
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is unknown; there is: {', '.join(KINDS)}")
    if min(rows, columns) < 32:
        raise ValueError(f"a phantom needs 32 × 32 pixels or more, not {rows} × {columns}")
    random = np.random.default_rng([seed, KINDS.index(kind), rows, columns])
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    canvas = _skin(random, rows, columns)
    mask = np.zeros((rows, columns), dtype=bool)
    geometry = Geometry((0.0, 0.0), (0.0, 0.0), 0.0, 0.0, 0.0, 0.0)
    if kind != "empty":
        outline = _outline(random, kind, rows, columns)
        level = outline.level(y, x)
        mask, geometry = level <= 0.0, outline.geometry()
        canvas = _LESIONS[kind](random, canvas, level, outline)
        canvas = np.asarray(cv2.GaussianBlur(canvas, (0, 0), max(0.5, outline.radius / 120.0)), dtype=np.float32)
    for _ in range(hairs):
        _draw_hair(random, canvas)
    if vignette:
        distance = np.hypot((y - rows / 2) / (rows / 2), (x - columns / 2) / (columns / 2))
        canvas *= (1.0 - 0.32 * np.clip((distance - 0.75) / 0.65, 0.0, 1.0) ** 1.5)[..., None].astype(np.float32)
    canvas += random.normal(0.0, 1.6, canvas.shape).astype(np.float32)
    return Phantom(kind, seed, np.clip(np.rint(canvas), 0, 255).astype(np.uint8), mask, geometry)


def _outline(random: np.random.Generator, kind: Kind, rows: int, columns: int) -> Outline:
    side = min(rows, columns)
    strength = {"nevus": 0.02, "keratosis": 0.035, "vascular": 0.03, "melanoma-like": 0.15}[kind]
    orders = range(1, 9) if kind == "melanoma-like" else range(2, 5)
    harmonics = tuple(
        (k, float(strength * random.uniform(0.5, 1.0) / math.sqrt(k)), float(random.uniform(0.0, 2.0 * math.pi)))
        for k in orders
    )
    size = {"nevus": 0.24, "keratosis": 0.27, "vascular": 0.22, "melanoma-like": 0.28}[kind]
    return Outline(
        centre=(
            rows / 2 + float(random.uniform(-0.05, 0.05)) * side,
            columns / 2 + float(random.uniform(-0.05, 0.05)) * side,
        ),
        radius=side * size * float(random.uniform(0.9, 1.08)),
        elongation=float(random.uniform(1.05, 1.35)),
        angle=float(random.uniform(0.0, math.pi)),
        harmonics=harmonics,
    )


def _noise(random: np.random.Generator, rows: int, columns: int, scale: float) -> Float32:
    """Smooth noise [rows, columns], mean 0 and deviation 1, with features of about ``scale`` pixels."""
    small = (max(2, math.ceil(rows / scale) + 3), max(2, math.ceil(columns / scale) + 3))
    coarse = random.normal(0.0, 1.0, small).astype(np.float32)
    smooth = np.asarray(cv2.resize(coarse, (columns, rows), interpolation=cv2.INTER_CUBIC), dtype=np.float32)
    return (smooth - smooth.mean()) / max(float(smooth.std()), 1e-6)


def _skin(random: np.random.Generator, rows: int, columns: int) -> Float32:
    """Float RGB [rows, columns, 3] of lesion-free skin: tone, slow gradient, redness, fine relief."""
    light, deep = np.array([224.0, 176.0, 156.0]), np.array([190.0, 138.0, 112.0])
    tone = light + (deep - light) * float(random.uniform(0.0, 1.0))
    side = float(min(rows, columns))
    slow = _noise(random, rows, columns, side / 1.5)[..., None] * np.array([7.0, 8.0, 8.0])
    redness = _noise(random, rows, columns, side / 9.0)[..., None] * np.array([1.2, -2.0, -1.6])
    relief = (_noise(random, rows, columns, 2.5) * 1.6 + _noise(random, rows, columns, 6.0) * 1.4)[..., None]
    return np.asarray(tone + slow + redness + relief, dtype=np.float32)


def _blend(canvas: Float32, colour: Float32 | tuple[float, float, float], weight: Float32) -> Float32:
    return np.asarray(canvas + (np.asarray(colour, np.float32) - canvas) * weight[..., None], dtype=np.float32)


def _inside(level: Float32, softness: float) -> Float32:
    """1 inside the outline, 0 outside, 0.5 on it."""
    return np.asarray(1.0 / (1.0 + np.exp(np.clip(level / softness, -30.0, 30.0))), dtype=np.float32)


def _network(random: np.random.Generator, level: Float32, mesh: float) -> Float32:
    """Pigment network: dark lines 0…1 around pale holes about ``mesh`` pixels apart (bubbled cells)."""
    rows, columns = level.shape
    seeds = np.full((rows, columns), 255, dtype=np.uint8)
    grid_y, grid_x = np.mgrid[0 : rows + mesh : mesh, 0 : columns + mesh : mesh]
    jitter = random.uniform(-0.38 * mesh, 0.38 * mesh, (2, *grid_y.shape))
    y = np.clip(np.rint(grid_y + jitter[0]), 0, rows - 1).astype(int)
    x = np.clip(np.rint(grid_x + jitter[1]), 0, columns - 1).astype(int)
    seeds[y, x] = 0
    distance = cv2.distanceTransform(seeds, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    lines = np.clip((distance - 0.42 * mesh) / (0.22 * mesh), 0.0, 1.0)
    return np.asarray(cv2.GaussianBlur(lines, (0, 0), max(0.6, mesh / 12.0)), dtype=np.float32)


def _draw_nevus(random: np.random.Generator, canvas: Float32, level: Float32, outline: Outline) -> Float32:
    inside = _inside(level, max(1.5, outline.radius / 22.0))
    depth = np.clip(-level / outline.radius, 0.0, 1.0)
    canvas = _blend(canvas, (168.0, 112.0, 74.0), inside * 0.85)
    canvas = _blend(canvas, (120.0, 72.0, 46.0), inside * np.sqrt(depth) * 0.75)
    mesh = max(4.0, outline.radius / 11.0)
    return _blend(canvas, (92.0, 54.0, 36.0), inside * _network(random, level, mesh) * 0.55)


def _draw_melanoma_like(random: np.random.Generator, canvas: Float32, level: Float32, outline: Outline) -> Float32:
    rows, columns = level.shape
    inside = _inside(level, max(1.0, outline.radius / 60.0))
    patches = _noise(random, rows, columns, outline.radius / 2.0)
    veil = _noise(random, rows, columns, outline.radius / 1.6)
    canvas = _blend(canvas, (142.0, 88.0, 58.0), inside * 0.9)
    canvas = _blend(canvas, (72.0, 40.0, 30.0), inside * np.clip(patches * 0.7 + 0.35, 0.0, 0.95))
    canvas = _blend(canvas, (104.0, 110.0, 126.0), inside * np.clip((veil - 0.75) * 1.3, 0.0, 0.85))
    canvas = _blend(canvas, (30.0, 22.0, 22.0), inside * np.clip((-veil - 1.0) * 1.8, 0.0, 0.95))
    canvas = _blend(canvas, (196.0, 92.0, 84.0), inside * np.clip((-patches - 1.25) * 1.4, 0.0, 0.8))
    lines = _network(random, level, max(4.0, outline.radius / 9.0))
    canvas = _blend(canvas, (48.0, 28.0, 24.0), inside * lines * np.clip(0.3 + patches, 0.0, 0.55))
    border = outline.polygon(720)
    for index in random.choice(720, size=22, replace=False):
        root = border[index]
        outward = root - np.asarray(outline.centre)
        inner, outer = root - outward * float(random.uniform(0.1, 0.22)), root
        _draw_line(canvas, inner, outer, (70.0, 42.0, 34.0), max(1, round(outline.radius / 40.0)))
    for _ in range(26):
        radial, theta = math.sqrt(float(random.uniform(0.02, 0.75))), float(random.uniform(0.0, 2.0 * math.pi))
        spot = _inner_point(outline, 0.75 * radial, theta)
        _draw_dot(canvas, spot, (38.0, 24.0, 24.0), outline.radius * float(random.uniform(0.012, 0.04)))
    return canvas


def _draw_keratosis(random: np.random.Generator, canvas: Float32, level: Float32, outline: Outline) -> Float32:
    rows, columns = level.shape
    inside = _inside(level, max(0.8, outline.radius / 90.0))
    folds = _noise(random, rows, columns, outline.radius / 7.0)
    canvas = _blend(canvas, (156.0, 116.0, 84.0), inside * 0.9)
    canvas = _blend(canvas, (104.0, 74.0, 54.0), inside * np.clip(folds * 0.6 + 0.25, 0.0, 0.8))
    for index in range(60):
        radial, theta = math.sqrt(float(random.uniform(0.0, 0.85))), float(random.uniform(0.0, 2.0 * math.pi))
        spot = _inner_point(outline, 0.8 * radial, theta)
        colour = (232.0, 222.0, 196.0) if index % 2 else (66.0, 46.0, 36.0)
        _draw_dot(canvas, spot, colour, outline.radius * float(random.uniform(0.015, 0.045)))
    return canvas


def _draw_vascular(random: np.random.Generator, canvas: Float32, level: Float32, outline: Outline) -> Float32:
    inside = _inside(level, max(1.2, outline.radius / 40.0))
    canvas = _blend(canvas, (186.0, 70.0, 76.0), inside * 0.85)
    lacunae = 1.0 - _network(random, level, max(6.0, outline.radius / 3.2))
    canvas = _blend(canvas, (124.0, 22.0, 44.0), inside * np.clip(lacunae * 1.2 - 0.25, 0.0, 1.0) * 0.8)
    return _blend(canvas, (206.0, 150.0, 150.0), inside * (1.0 - np.clip(lacunae, 0.0, 1.0)) * 0.35)


_LESIONS = {
    "nevus": _draw_nevus,
    "melanoma-like": _draw_melanoma_like,
    "keratosis": _draw_keratosis,
    "vascular": _draw_vascular,
}


def _inner_point(outline: Outline, share: float, theta: float) -> Float64:
    """(row, column) at ``share`` of the way from the pole to the outline."""
    border = outline.polygon(360)[int(math.degrees(theta)) % 360]
    return np.asarray(outline.centre + share * (border - outline.centre), dtype=np.float64)


def _draw_line(
    canvas: Float32, start: Float64, end: Float64, colour: tuple[float, float, float],
    thickness: int,
) -> None:  # fmt: skip
    ends = [tuple(round(16.0 * float(value)) for value in point[::-1]) for point in (start, end)]
    cv2.line(canvas, ends[0], ends[1], colour, thickness, cv2.LINE_AA, 4)


def _draw_dot(canvas: Float32, where: Float64, colour: tuple[float, float, float], radius: float) -> None:
    reach = math.ceil(radius) + 2
    row, column = round(float(where[0])), round(float(where[1]))
    top, left = max(0, row - reach), max(0, column - reach)
    patch = canvas[top : row + reach + 1, left : column + reach + 1]
    if patch.size == 0:
        return
    y, x = np.mgrid[top : top + patch.shape[0], left : left + patch.shape[1]]
    weight = np.clip(radius + 0.5 - np.hypot(y - where[0], x - where[1]), 0.0, 1.0)[..., None] * 0.85
    patch += ((np.asarray(colour) - patch) * weight).astype(np.float32)


def _draw_hair(random: np.random.Generator, canvas: Float32) -> None:
    _hair(random, canvas, (52.0, 40.0, 36.0))


def _hair(random: np.random.Generator, canvas: Float32, colour: float | tuple[float, float, float] = 1.0) -> None:
    rows, columns = canvas.shape[:2]
    start, end = random.uniform(0.0, 1.0, (2, 2)) * (rows, columns)
    bend = (start + end) / 2.0 + random.normal(0.0, 0.12, 2) * min(rows, columns)
    t = np.linspace(0.0, 1.0, 60)[:, None]
    curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end
    points = np.rint(curve[:, ::-1] * 16.0).astype(np.int32).reshape(-1, 1, 2)
    thickness = max(1, round(min(rows, columns) / 220.0))
    cv2.polylines(canvas, [points], False, colour, thickness, cv2.LINE_AA, 4)


def geometry_of(polygon: Float64) -> Geometry:
    """Geometry of a closed polygon float64 [n, 2] of (row, column): shoelace formulas, asymmetry folded at 720 samples.

    ``centre`` is the centroid. Raises `ValueError` for a polygon without area.
    """
    following = np.roll(polygon, -1, axis=0)
    cross = polygon[:, 1] * following[:, 0] - following[:, 1] * polygon[:, 0]
    signed = 0.5 * float(cross.sum())
    if abs(signed) < 1e-9:
        raise ValueError("the polygon has no area")
    centroid = ((polygon + following) * cross[:, None]).sum(axis=0) / (6.0 * signed)
    offsets = polygon - centroid
    reach = float(np.hypot(offsets[:, 0], offsets[:, 1]).max()) * 1.01
    scale = _OVERSAMPLING / (2.0 * reach)
    inside = _filled((offsets + reach) * scale, _OVERSAMPLING + 1, _OVERSAMPLING + 1)
    row, column = (values / scale - reach for values in np.nonzero(inside))
    angle = 0.5 * math.atan2(2.0 * float(np.mean(row * column)), float(np.mean(column**2) - np.mean(row**2)))
    cosine, sine = math.cos(angle), math.sin(angle)
    u, v = column * cosine + row * sine, row * cosine - column * sine
    unmatched = []
    for mirror_u, mirror_v in ((u, -v), (-u, v)):
        down = np.rint((mirror_u * sine + mirror_v * cosine + reach) * scale).astype(int)
        right = np.rint((mirror_u * cosine - mirror_v * sine + reach) * scale).astype(int)
        unmatched.append(1.0 - float(np.mean(inside[down.clip(0, _OVERSAMPLING), right.clip(0, _OVERSAMPLING)])))
    steps = following - polygon
    middle = (float(centroid[0]), float(centroid[1]))
    return Geometry(
        centre=middle,
        centroid=middle,
        area_px=abs(signed),
        perimeter_px=float(np.hypot(steps[:, 0], steps[:, 1]).sum()),
        equivalent_diameter_px=2.0 * math.sqrt(abs(signed) / math.pi),
        asymmetry=sum(unmatched) / 2.0,
    )


def lesion_of(polygon: Float64, seed: int, *, rows: int = 450, columns: int = 600) -> Phantom:
    """A plain brown lesion with a sharp border of any shape: ``polygon`` float64 [n, 2] of (row, column)."""
    random = np.random.default_rng([seed, 99, rows, columns])
    mask = _filled(polygon, rows, columns)
    geometry = geometry_of(polygon)
    inside = np.asarray(cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5), np.float32)
    outside = np.asarray(cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5), np.float32)
    weight = _inside(outside - inside, max(0.8, geometry.equivalent_diameter_px / 120.0))
    canvas = _blend(_skin(random, rows, columns), (134.0, 84.0, 56.0), weight * 0.9)
    spots = np.clip(_noise(random, rows, columns, geometry.equivalent_diameter_px / 8.0), 0.0, 1.5) / 1.5
    canvas = _blend(canvas, (84.0, 50.0, 36.0), np.asarray(weight * spots * 0.7, np.float32))
    canvas += random.normal(0.0, 1.6, canvas.shape).astype(np.float32)
    return Phantom("nevus", seed, np.clip(np.rint(canvas), 0, 255).astype(np.uint8), mask, geometry)


def with_hair(pixels: RGBPixels, count: int, seed: int, *, light: bool = False) -> tuple[RGBPixels, Mask]:
    """``pixels`` with ``count`` curved hairs drawn over them, and where these are; ``light``: white instead of dark."""
    random = np.random.default_rng([seed, 7, count])
    rows, columns = pixels.shape[:2]
    cover = np.zeros((rows, columns), np.float32)
    for _ in range(count):
        _hair(random, cover)
    colour = (232.0, 222.0, 206.0) if light else (52.0, 40.0, 36.0)
    drawn = _blend(pixels.astype(np.float32), colour, cover)
    return np.clip(np.rint(drawn), 0, 255).astype(np.uint8), cover >= 0.5


def with_ruler(
    pixels: RGBPixels, pixels_per_mm: float, start: tuple[float, float], angle: float, *, millimetres: int = 10
) -> RGBPixels:
    """``pixels`` with a ruler as contact dermoscopes carry it: a line from ``start`` (row, column) at ``angle``
    (radians, clockwise from the rows' direction) with ticks every 0.1 mm, longer ones every 0.5 and 1 mm.
    """
    fine = 4
    along = np.array([math.cos(angle), math.sin(angle)])
    across = np.array([along[1], -along[0]])
    rows, columns = pixels.shape[:2]
    cover = np.zeros((rows * fine, columns * fine), np.uint8)
    width = max(1, round(0.03 * pixels_per_mm * fine))

    def line(first: Float64, second: Float64) -> None:
        ends = [tuple(int(v) for v in np.rint(point * fine * 16.0)) for point in (first, second)]
        cv2.line(cover, ends[0], ends[1], 255, width, cv2.LINE_AA, 4)

    origin = np.array([start[1], start[0]])
    line(origin, origin + along * millimetres * pixels_per_mm)
    for tick in range(10 * millimetres + 1):
        length = 0.6 if tick % 10 == 0 else 0.4 if tick % 5 == 0 else 0.22
        foot = origin + along * tick * pixels_per_mm / 10.0
        line(foot, foot + across * length * pixels_per_mm)
    weight = np.asarray(cv2.resize(cover, (columns, rows), interpolation=cv2.INTER_AREA), np.float32) / 255.0
    drawn = _blend(pixels.astype(np.float32), (46.0, 38.0, 36.0), weight * 0.85)
    return np.clip(np.rint(drawn), 0, 255).astype(np.uint8)


def _filled(polygon: Float64, rows: int, columns: int) -> Mask:
    """Pixels [rows, columns] whose centres lie inside the polygon (even-odd rule), row by row."""
    mask = np.zeros((rows, columns), dtype=bool)
    y0, x0 = polygon.T
    y1, x1 = np.roll(polygon, -1, axis=0).T
    for row in range(max(0, math.ceil(float(y0.min()))), min(rows - 1, math.floor(float(y0.max()))) + 1):
        cut = (y0 <= row) != (y1 <= row)
        crossings = np.sort(x0[cut] + (row - y0[cut]) / (y1[cut] - y0[cut]) * (x1[cut] - x0[cut]))
        for left, right in zip(crossings[::2], crossings[1::2], strict=True):
            mask[row, max(0, math.ceil(left)) : max(0, math.floor(right) + 1)] = True
    return mask
