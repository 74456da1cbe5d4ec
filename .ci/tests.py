"""Runs the whole suite: first what may run side by side, then, alone, what is slow or talks to a real counterpart.

Two pytest runs, one closing line: the second run would otherwise hide what the first one found.
"""

import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ALONE = "slow or peers or crash"
PHASES = (
    ("side by side", ["-n", "2", "-m", f"not ({ALONE})"]),
    ("one at a time: slow tests, crash tests and real counterparts", ["-m", ALONE]),
)
NOTHING_COLLECTED = 5


def run(arguments: list[str], report: Path) -> int:
    """One pytest run; its exit status, where an empty selection is no failure."""
    command = [sys.executable, "-m", "pytest", *arguments, f"--junitxml={report}", *sys.argv[1:]]
    status = subprocess.run(command, check=False).returncode
    return 0 if status == NOTHING_COLLECTED else status


def count(report: Path) -> dict[str, int]:
    """Passed, failed, skipped and errors of one run."""
    if not report.exists():
        return {}
    suite = ElementTree.parse(report).getroot().find("testsuite")
    if suite is None:
        return {}
    numbers = {name: int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")}
    return {
        "failed": numbers["failures"],
        "passed": numbers["tests"] - numbers["failures"] - numbers["errors"] - numbers["skipped"],
        "skipped": numbers["skipped"],
        "error": numbers["errors"],
    }


def main() -> int:
    """Run both phases, even where the first one fails, and close with their sum."""
    begun = time.monotonic()
    worst, total = 0, dict.fromkeys(("failed", "passed", "skipped", "error"), 0)
    with tempfile.TemporaryDirectory() as folder:
        for index, (title, arguments) in enumerate(PHASES):
            print(f"\n-- tests, {title}", flush=True)
            report = Path(folder) / f"{index}.xml"
            worst = max(worst, run(arguments, report))
            for name, number in count(report).items():
                total[name] += number

    if total["skipped"]:
        print("\nA skipped test says its reason above (SKIPPED …): mostly a program that is not installed here.")
    if worst == 0 and total["passed"]:
        print("\nEverything that ran works. Both runs together:")
    else:
        print("\nSomething does not work: read the first FAILED or ERROR above. Both runs together:")
        worst = worst or NOTHING_COLLECTED
    outcome = ", ".join(f"{number} {name}" for name, number in total.items() if number) or "no tests ran"
    print(f" {outcome} in {time.monotonic() - begun:.2f}s ".center(100, "="), flush=True)
    return worst


if __name__ == "__main__":
    sys.exit(main())
