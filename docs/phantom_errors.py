"""Errors of the measures on phantoms whose geometry is known from a formula: `python docs/phantom_errors.py`."""

from __future__ import annotations

import sys

import numpy as np

from dermoscopy.domain import DermoscopicImage
from dermoscopy.phantoms import KINDS, phantom
from models.measure import largest_region, measure


def main(seeds: int) -> None:
    """Print a Markdown table over ``seeds`` phantoms of each kind and two sizes, masks taken from the formula."""
    print("| frame | measure | mean error | largest error |")
    print("|---|---|---|---|")
    for rows, columns in ((450, 600), (225, 300)):
        errors: dict[str, list[float]] = {}
        for kind in KINDS[:-1]:
            for seed in range(seeds):
                made = phantom(seed, kind=kind, rows=rows, columns=columns)
                region = largest_region(made.mask)
                assert region is not None
                found, truth = measure(DermoscopicImage(made.pixels, ""), region), made.geometry
                for name in ("area_px", "equivalent_diameter_px", "perimeter_px"):
                    relative = 100.0 * (getattr(found, name) / getattr(truth, name) - 1.0)
                    errors.setdefault(f"{name} (%)", []).append(relative)
                irregularity = truth.perimeter_px**2 / (4.0 * np.pi * truth.area_px)
                errors.setdefault("border_irregularity", []).append(found.border_irregularity - irregularity)
                errors.setdefault("asymmetry", []).append(found.asymmetry - truth.asymmetry)
                distance = float(np.hypot(*np.subtract(found.centroid, truth.centroid)))
                errors.setdefault("centroid (pixels)", []).append(distance)
        for name, values in errors.items():
            worst = max(values, key=abs)
            print(f"| {columns} × {rows} | {name} | {np.mean(values):+.4f} | {worst:+.4f} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50)
