"""Checks the documents: every relative link and every #heading that they name exists."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(?<!\\)\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")


def documents() -> list[Path]:
    """Every Markdown file that is, or is about to be, in the repository."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    names = listed.stdout.split("\n") if listed.returncode == 0 else [str(p) for p in ROOT.glob("[!.]*/**/*.md")]
    return sorted({ROOT / name for name in names if name and (ROOT / name).exists()})


def anchors(text: str) -> set[str]:
    """The #names that a document's headings get."""
    headings = re.findall(r"^#{1,6}\s+(.+?)\s*#*$", FENCE.sub("", text), re.MULTILINE)
    slugs = (re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-") for heading in headings)
    return set(slugs)


def broken(document: Path) -> list[str]:
    """What a document points at and is not there."""
    text = document.read_text(encoding="utf-8")
    found = []
    for target in LINK.findall(CODE.sub("", FENCE.sub("", text))):
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        name, _, heading = target.partition("#")
        path = (document.parent / name).resolve() if name else document
        if not path.exists():
            found.append(f"{document.relative_to(ROOT)}: {target} does not exist")
        elif heading and path.suffix == ".md" and heading not in anchors(path.read_text(encoding="utf-8")):
            found.append(f"{document.relative_to(ROOT)}: {target} has no such heading")
    return found


def main() -> int:
    """Print what is broken; fail if anything is."""
    problems = [problem for document in documents() for problem in broken(document)]
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
