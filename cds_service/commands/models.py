"""``cds models``: which weights are installed, what they are, and whether they are what their manifest says."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table

from cds_service.commands.session import prepare
from dermoscopy.errors import Misconfigured

app = typer.Typer(no_args_is_help=True, help="List, show and verify the installed model packages.")
Choice = Annotated[str, typer.Argument(help="name==version; the champion if not given")]


@app.command("list")
def list_models() -> None:
    """List every installed model; the champion is marked."""
    settings = prepare(migrated=False)
    from cds_service.bootstrap import chosen_package
    from models.registry import installed

    chosen = chosen_package(settings)
    table = Table("model", "version", "title", "weights", "forms", "answers")
    for package in installed(settings.models_dir):
        size = f"{package.manifest.bytes / 1e6:.1f} MB"
        name, version = package.manifest.name, package.manifest.version
        answers = (name, version) == (chosen.reference.name, chosen.reference.version)
        mark = f"champion ({chosen.precision})" if answers else ""
        table.add_row(name, version, package.manifest.title, size, ", ".join(package.precisions), mark)
    Console().print(table)


@app.command()
def show(model: Choice = "") -> None:
    """Print the manifest: digests, preprocessing, operating point, data, licence."""
    settings = prepare(migrated=False)
    from models.manifest import MANIFEST_NAME
    from models.registry import champion

    package = champion(settings.models_dir, model or settings.model)
    Console().print(Syntax((package.folder / MANIFEST_NAME).read_text(encoding="utf-8"), "yaml", word_wrap=True))


@app.command()
def verify(model: Choice = "") -> None:
    """Check the files of one model, or of all, against the digests in their manifests."""
    settings = prepare(migrated=False)
    from models.registry import champion, installed

    packages = [champion(settings.models_dir, model)] if model else list(installed(settings.models_dir))
    if not packages:
        raise Misconfigured(f"no model is installed in {settings.models_dir}")
    for package in packages:
        package.verify()
        Console().print(f"{package.manifest.name}=={package.manifest.version}: weights are what the manifest says")
