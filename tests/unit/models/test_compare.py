"""Lesions drawn to grow by known factors, turned and shifted; other lesions of the site; images without a scale."""

from __future__ import annotations

import csv
import io
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import cache
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from dermoscopy.domain import Acquisition, Analysis, DermoscopicImage, Mask, Quality, RGBPixels
from dermoscopy.lesions import Candidates, Change, Fact, MatchState, Sighting
from dermoscopy.phantoms import lesion_of
from dermoscopy.ports import Pictured
from models.compare import LesionComparison
from models.manifest import Repeatability
from models.measure import largest_region, measure
from models.registry import open_package
from tests.findings import NOON, make_finding, make_header

FLOOR = Repeatability(
    pairs=317, area_log=0.2472, asymmetry=0.0571, border_irregularity=0.313, colour_count=1.0, colour_variety=0.2598,
    melanoma_risk=0.2638, malignancy_risk=0.2995,
)  # fmt: skip
ROWS, COLUMNS = 300, 400


@cache
def drawn(radius: float, seed: int = 5) -> tuple[RGBPixels, Mask]:
    """A three-lobed lesion of ``radius`` pixels in the middle of skin that ``seed`` makes."""
    turn = np.linspace(0.0, 2.0 * np.pi, 400, endpoint=False)
    away = radius * (1.0 + 0.1 * np.cos(3 * turn))
    outline = np.stack([ROWS / 2 + away * np.sin(turn), COLUMNS / 2 + away * np.cos(turn)], axis=1)
    made = lesion_of(outline, seed, rows=ROWS, columns=COLUMNS)
    return made.pixels, made.mask


def turned(picture: tuple[RGBPixels, Mask], degrees: float, zoom: float = 1.0) -> tuple[RGBPixels, Mask]:
    matrix = cv2.getRotationMatrix2D((COLUMNS / 2 + 7, ROWS / 2 - 5), degrees, zoom)
    pixels = cv2.warpAffine(picture[0], matrix, (COLUMNS, ROWS), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(pixels, np.uint8), cv2.warpAffine(picture[1].astype(np.uint8), matrix, (COLUMNS, ROWS)) > 0


def pictured(
    name: str, picture: tuple[RGBPixels, Mask], *, spacing: float | None = None, **changes: object
) -> Pictured:
    """``picture`` as analysed, its outline the drawn one."""
    pixels, mask = picture
    image = DermoscopicImage(pixels, name, None if spacing is None else (spacing, spacing))
    region = largest_region(mask)
    assert region is not None
    finding = replace(make_finding(), mask=mask, measurements=measure(image, region), **changes)  # type: ignore[arg-type]
    analysis = Analysis(
        name,
        f"image-{name}",
        NOON,
        finding,
        make_header(),
        image.rows,
        image.columns,
        name,
        image.spacing_mm,
        Acquisition(),
    )
    return Pictured(analysis, image)


def sighting(name: str, days: float) -> Sighting:
    return Sighting(name, f"image-{name}", NOON - timedelta(days=days), dated=True, body_site_code="123961009")


def compare(
    before: Sequence[Pictured], now: Pictured, *, floor: Repeatability | None = FLOOR, **found: object
) -> Change:
    """``before`` newest first, 90 days apart."""
    earlier = tuple(sighting(one.analysis.id, 90.0 * (n + 1)) for n, one in enumerate(before))
    by_name = {one.analysis.id: one for one in before}
    load: Callable[[Sighting], Pictured | None] = lambda one: by_name[one.analysis_id]  # noqa: E731
    made = LesionComparison(floor)(now, sighting("now", 0), replace(Candidates(earlier), **found), load)  # type: ignore[arg-type]
    assert made is not None
    return made


def named(change: Change, name: str) -> Fact:
    return next(fact for fact in change.facts if fact.name == name)


def test_growth_in_millimetres_is_found_beyond_noise() -> None:
    before, after = drawn(40), drawn(52)
    change = compare([pictured("before", before, spacing=0.05)], pictured("now", turned(after, 30), spacing=0.05))
    assert change.match.state is MatchState.LIKELY
    assert change.prior_id == "before"
    assert change.days == 90
    area = named(change, "area")
    assert area.beyond_noise
    assert area.after_value / area.before_value == pytest.approx(after[1].sum() / before[1].sum(), rel=0.02)  # type: ignore[operator]
    assert area.unit == "mm2"
    assert "Area grew from" in change.summary
    assert named(change, "equivalent_diameter").beyond_noise


def test_the_same_lesion_turned_and_closer_has_grown_by_nothing() -> None:
    """Without a scale: the zoom comes from the skin beside the lesion."""
    change = compare([pictured("before", drawn(40))], pictured("now", turned(drawn(40), -40, 1.3)))
    area = named(change, "area")
    assert change.match.state is MatchState.LIKELY
    assert change.match.zoom == pytest.approx(1.3, rel=0.02)
    assert change.match.turn_degrees == pytest.approx(40, abs=2)
    assert area.unit == "%"
    assert area.after_value == pytest.approx(100, abs=4)
    assert area.beyond_noise is False
    assert "excludes no change" in change.summary


def test_growth_without_a_scale_is_told_relative_to_the_skin_around() -> None:
    before, after = drawn(40), drawn(52)
    change = compare([pictured("before", before)], pictured("now", turned(after, 15, 0.9)))
    area = named(change, "area")
    assert area.beyond_noise
    assert area.after_value == pytest.approx(100 * after[1].sum() / before[1].sum(), rel=0.04)


def test_a_common_scale_from_the_lesion_alone_does_not_reassure() -> None:
    """Bare skin around: were the lesion to grow with all its structures, it would look like a closer picture."""
    pixels, mask = drawn(90)
    bare = np.where(cv2.dilate(mask.astype(np.uint8), np.ones((5, 5)))[..., None] > 0, pixels, np.uint8(190))
    change = compare([pictured("before", (bare, mask))], pictured("now", turned((bare, mask), 10, 1.1)))
    assert change.match.state is MatchState.LIKELY
    area = named(change, "area")
    assert area.beyond_noise is None
    assert "rests on the lesion itself" in area.words


def test_another_lesion_at_the_only_earlier_image_is_uncertain_and_nothing_is_reassuring() -> None:
    change = compare([pictured("before", drawn(40, 6))], pictured("now", drawn(40)))
    assert change.match.state is MatchState.UNCERTAIN
    assert "not certain" in change.summary
    assert not any(fact.beyond_noise is False for fact in change.facts)
    assert named(change, "size").before_value is None


def test_several_lesions_of_a_site_are_not_compared() -> None:
    change = compare([pictured("a", drawn(40, 6)), pictured("b", drawn(40, 7))], pictured("now", drawn(40)))
    assert change.match.state is MatchState.NOT_COMPARED
    assert change.prior_id == ""
    assert change.facts == ()
    assert "2 earlier images" in change.summary
    rivals = compare([pictured("a", drawn(40, 6))], pictured("now", drawn(40)), rivals=1)
    assert rivals.match.state is MatchState.NOT_COMPARED


def test_of_several_lesions_of_a_site_the_registered_one_is_compared() -> None:
    others = [pictured("a", drawn(40, 6)), pictured("right", drawn(40)), pictured("b", drawn(40, 7))]
    change = compare(others, pictured("now", turned(drawn(52), 20)))
    assert change.prior_id == "right"
    assert change.candidates == 3
    assert change.days == 180


def test_a_tracked_lesion_is_the_same_though_the_pictures_do_not_register() -> None:
    change = compare([pictured("before", drawn(40, 6))], pictured("now", drawn(40)), stated=True)
    assert change.match.state is MatchState.SAME_LESION
    assert "could not be laid over" in change.match.words
    assert named(change, "size").before == "not comparable"


def test_two_lesions_on_one_piece_of_skin_are_not_taken_for_one() -> None:
    """The pictures agree, but each outlines another place."""
    pixels, mask = drawn(30)
    elsewhere = np.zeros_like(mask)
    elsewhere[20:60, 20:60] = True
    change = compare([pictured("before", (pixels, elsewhere))], pictured("now", (pixels, mask)))
    assert change.match.state is MatchState.UNCERTAIN
    assert not any(fact.beyond_noise is False for fact in change.facts)


def test_stated_scales_that_the_skin_contradicts_are_not_used() -> None:
    """One of the headers is wrong by a factor of two: no growth, and no shrinking, may come of it."""
    before = pictured("before", drawn(40), spacing=0.1)
    change = compare([before], pictured("now", drawn(40), spacing=0.05))
    assert [fact.name for fact in change.facts if fact.name in ("area", "size")] == ["size"]
    assert "contradict" in named(change, "size").words


@pytest.mark.parametrize("reason", ["no floor", "another model"])
def test_what_the_noise_is_unknown_of_is_never_called_a_change_nor_unchanged(reason: str) -> None:
    now = pictured("now", drawn(52), spacing=0.05)
    changes: dict[str, object] = {}
    if reason == "another model":
        changes["model"] = replace(now.analysis.finding.model, digest="9" * 64)
    before = pictured("before", drawn(40), spacing=0.05, **changes)
    change = compare([before], now, floor=None if reason == "no floor" else FLOOR)
    assert {fact.beyond_noise for fact in change.facts} == {None}
    assert "It cannot be told whether this changed: area" in change.summary


def test_a_poor_image_silences_no_growth_and_reassures_of_nothing() -> None:
    poor = Quality(False, ("blurred",), {})
    grown = compare([pictured("before", drawn(40), quality=poor)], pictured("now", drawn(52)))
    assert named(grown, "area").beyond_noise
    same = compare([pictured("before", drawn(40))], pictured("now", drawn(40), quality=poor))
    assert not any(fact.beyond_noise is False for fact in same.facts)


def test_risks_and_tier_are_told_and_only_beyond_noise_called_a_change() -> None:
    before = pictured("before", drawn(40), melanoma_risk=0.10, malignancy_risk=0.80)
    change = compare([before], pictured("now", drawn(40), melanoma_risk=0.87, malignancy_risk=0.87))
    assert named(change, "melanoma_risk").beyond_noise
    assert "Melanoma risk rose from 10.0 % to 87.0 %" in change.summary
    assert named(change, "malignancy_risk").beyond_noise is False
    assert named(change, "tier").beyond_noise is None


def test_without_an_outline_risks_are_compared_all_the_same() -> None:
    before = pictured("before", drawn(40))
    gone = replace(before.analysis, finding=replace(before.analysis.finding, measurements=None))
    change = compare([Pictured(gone, before.image)], pictured("now", drawn(40)))
    assert [fact.name for fact in change.facts] == ["melanoma_risk", "malignancy_risk", "tier"]


def test_earlier_images_that_cannot_be_read_are_said_to_be_so() -> None:
    made = LesionComparison(FLOOR)(
        pictured("now", drawn(40)), sighting("now", 0), Candidates((sighting("gone", 90),)), lambda one: None
    )
    assert made is not None
    assert made.match.state is MatchState.NOT_COMPARED
    assert "cannot be read" in made.summary


def test_comparing_twice_says_the_same() -> None:
    before, now = pictured("before", drawn(40)), pictured("now", turned(drawn(52), 20))
    assert compare([before], now) == compare([before], now)


def test_real_pictures_of_one_lesion_are_matched_and_those_of_others_are_not(shared_data: Path) -> None:
    """Twelve lesions of HAM10000 with two pictures each, and each beside the next lesion."""
    table = shared_data / "ham10000.csv"
    archives = sorted(shared_data.glob("ham10000-images-256-*.tar"))
    if not table.is_file() or not archives:
        pytest.skip(f"{shared_data} holds no HAM10000 crops")
    with tarfile.open(archives[0]) as archive:
        first_of_archive = {Path(name).stem for name in archive.getnames()[:900]}
    lesions: dict[str, list[str]] = {}
    with table.open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            if row["image_id"] in first_of_archive:
                lesions.setdefault(row["lesion_id"], []).append(row["image_id"])
    pairs = [images[:2] for images in lesions.values() if len(images) > 1][:12]
    assert len(pairs) == 12
    wanted = {name for pair in pairs for name in pair}
    pixels: dict[str, RGBPixels] = {}
    with tarfile.open(archives[0]) as archive:
        for member in archive:
            if Path(member.name).stem in wanted:
                data = archive.extractfile(member)
                assert data is not None
                pixels[Path(member.name).stem] = np.asarray(Image.open(io.BytesIO(data.read())).convert("RGB"))
    middle = np.zeros((256, 256), bool)
    middle[64:192, 64:192] = True
    shown = {name: pictured(name, (picture, middle)) for name, picture in pixels.items()}
    same = [compare([shown[one]], shown[other]).match.state for one, other in pairs]
    other = [compare([shown[a[0]]], shown[b[0]]).match.state for a, b in pairwise(pairs)]
    assert same.count(MatchState.LIKELY) >= 9
    assert MatchState.LIKELY not in other


def test_the_installed_champion_knows_its_noise() -> None:
    store = Path(__file__).resolve().parents[3] / "models" / "store"
    change = open_package(store, "lesionnet-lite0", "1.1.0").manifest.thresholds.change
    assert change is not None
    assert change.pairs > 100
