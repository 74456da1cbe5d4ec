"""What each network of the zoo costs: ``python -m models.training.architectures.cost`` writes it as JSON.

Parameters and multiplications are counted on shapes alone (torch's ``meta`` device); the size is that of the ONNX file
with random weights, which is the same with trained ones.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from models.training.architectures import ARCHITECTURES, build_network
from models.training.configuration import Architecture
from models.training.export import export

logger = logging.getLogger("models.training")

RESULTS = Path(__file__).parents[1] / "results" / "architectures.json"
SIZE = 224


def counted(options: Architecture, size: int = SIZE) -> dict[str, float]:
    """Parameters in millions, and billions of multiplications and additions for one image of ``size`` pixels.

    Convolutions and matrix products are counted, as torch's ``FlopCounterMode`` does: two operations each.
    """
    with torch.device("meta"):
        network = build_network(options).eval()
        image = torch.zeros(1, 3, size, size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return {"parameters_million": parameters / 1e6, "gmacs": counter.get_total_flops() / 2e9}


def exported_megabytes(options: Architecture, size: int = SIZE) -> float:
    """Size of the ONNX file in 10^6 bytes; the export checks it against torch."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export(build_network(options), size, [0.0] * options.classes, path)
        return path.stat().st_size / 1e6


def main(arguments: list[str] | None = None) -> int:
    """Count every architecture, at 224 pixels and the options' defaults."""
    parser = argparse.ArgumentParser(prog="python -m models.training.architectures.cost", description="Count the zoo.")
    parser.add_argument("--output", type=Path, default=RESULTS, help="JSON file to write")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    result: dict[str, dict[str, float]] = {}
    for name in ARCHITECTURES:
        options = Architecture(name=name, pretrained=False)
        result[name] = {**counted(options), "onnx_megabytes": exported_megabytes(options)}
        logger.info("%s %s", name, result[name])
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps({"size": SIZE, "networks": result}, indent=1) + "\n", encoding="utf-8")
    print(given.output)  # noqa: T201 - this is the command line
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
