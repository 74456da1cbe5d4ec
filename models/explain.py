"""Why the algorithm says so: where it looked, and the ABCD features in plain words."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dermoscopy.domain import HeatMap, LesionMeasurements, ScaleSource
from models.preprocess import Placement
from models.scale import Ruler

_FRAME_CONTACT_WORTH_SAYING = 0.05
_HAIR_WORTH_SAYING = 0.02


def evidence_map(activation_map: npt.NDArray[np.float32], label: int, placement: Placement) -> HeatMap:
    """Evidence for class ``label`` at source size, 0…1, from class activation maps [C, h, w].

    A class activation map (Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016) shows
    where a class's logit comes from. The softmax sees only differences between logits, so the mean over all classes is
    taken out first; then evidence against the class is cut at 0 and the strongest place in the image set to 1. All
    zero where nothing speaks for the class.
    """
    relative = activation_map[label] - activation_map.mean(axis=0)
    evidence = np.maximum(placement.undo(np.ascontiguousarray(relative, dtype=np.float32)), np.float32(0.0))
    strongest = evidence.max()
    return evidence / strongest if strongest > 0.0 else evidence


def describe(
    lesion: LesionMeasurements | None, frame_contact: float, hair: float = 0.0, ruler: Ruler | None = None
) -> tuple[str, ...]:
    """The ABCD features as sentences; words for degrees are this project's, the numbers stand beside them.

    ``frame_contact`` is the share of the outline on the edge of the frame, ``hair`` the share of the frame under hair,
    ``ruler`` what the millimetres come from, if it is not the image's header.
    """
    if lesion is None:
        return ("No lesion could be outlined, so shape and colour were not measured.",)
    sentences = [
        f"Asymmetry: {_degree(lesion.asymmetry, 0.08, 0.16, 'nearly symmetric', 'somewhat asymmetric', 'asymmetric')}; "
        f"folded about its axes, {100 * lesion.asymmetry:.0f} % of the lesion has no counterpart.",
        f"Border: {_degree(lesion.border_irregularity, 1.4, 2.0, 'smooth', 'somewhat irregular', 'irregular')}; "
        f"the outline is {_outline_excess(lesion)} that of a circle of the same area.",
        f"Colour: {_colours(lesion)}.",
        _diameter(lesion),
    ]
    if frame_contact >= _FRAME_CONTACT_WORTH_SAYING:
        sentences.append(
            "The lesion touches the edge of the frame: its size is a lower bound, "
            "and asymmetry and border describe only what is seen."
        )
    if hair >= _HAIR_WORTH_SAYING:
        sentences.append(
            f"Hair or thin lines cover {100 * hair:.0f} % of the image: what crosses the lesion is left out of its "
            "colours; the classes and the outline are of the image as it is."
        )
    if lesion.scale_source is ScaleSource.RULER and ruler is not None:
        sentences.append(
            f"The scale was read from {ruler.ticks} marks of a ruler in the image, taken as {ruler.tick_mm:g} mm "
            f"apart: {ruler.pixels_per_mm:.1f} pixels per millimetre (± {100 * ruler.relative_error:.2g} %)."
        )
    return tuple(sentences)


def _degree(value: float, some: float, much: float, *words: str) -> str:
    return words[0] if value < some else words[1] if value < much else words[2]


def _outline_excess(lesion: LesionMeasurements) -> str:
    excess = 100.0 * (lesion.border_irregularity**0.5 - 1.0)
    return "about as long as" if excess < 1.5 else f"{excess:.0f} % longer than"


def _colours(lesion: LesionMeasurements) -> str:
    shares = sorted(lesion.colour_fractions.items(), key=lambda item: -item[1])
    present = [f"{name} {100 * share:.0f} %" for name, share in shares[: lesion.colour_count]]
    if not present:
        return "none of the six dermoscopic colours stands out from the surrounding skin"
    noun = "colour" if len(present) == 1 else "colours"
    return f"{len(present)} of the six dermoscopic {noun} ({', '.join(present)})"


def _diameter(lesion: LesionMeasurements) -> str:
    if lesion.equivalent_diameter_mm is None:
        return (
            f"Diameter: {lesion.equivalent_diameter_px:.0f} pixels, {lesion.area_percent:.0f} % of the frame; "
            "no scale is known, so millimetres are unknown."
        )
    beyond = "above" if lesion.equivalent_diameter_mm > 6.0 else "not above"
    return f"Diameter: {lesion.equivalent_diameter_mm:.1f} mm, {beyond} the 6 mm of the ABCD rule."
