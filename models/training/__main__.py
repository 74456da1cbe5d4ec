"""``python -m models.training CONFIG``: the training command where the service is not installed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dermoscopy.errors import DermoscopyError
from models.training.command import train


def main() -> int:
    """Parse the arguments and train; 2 and one line where something that the user gave is wrong."""
    parser = argparse.ArgumentParser(prog="python -m models.training", description=train.__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("config", type=Path, help="a YAML file, such as models/training/configs/lesionnet-lite0.yaml")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of HAM10000 archives")
    parser.add_argument("--output", type=Path, default=Path("var/training"), help="checkpoints, log, decoded images")
    parser.add_argument("--store", type=Path, help="where the package goes (default: OUTPUT/store)")
    parser.add_argument("--restart", action="store_true", help="throw away an earlier run's checkpoints")
    parser.add_argument("--skip-bad", action="store_true", help="leave out images that cannot be read, by name")
    given = parser.parse_args()
    try:
        package = train(given.config, given.data, given.output, given.store, given.restart, given.skip_bad)
    except DermoscopyError as error:
        print(error, file=sys.stderr)  # noqa: T201 - this is the command line
        return 2
    print(package)  # noqa: T201 - this is the command line
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
