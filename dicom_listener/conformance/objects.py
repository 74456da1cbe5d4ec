"""Annexes: the objects that are made, module by module and attribute by attribute, their content, and their codes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from pydicom.uid import UID

from dermoscopy.codes import LOCAL_UID, SCHEMES
from dermoscopy.domain import ArtifactKind
from dicom_listener.conformance.attributes import Attribute, Module, attributes, module_for, modules_of, used
from dicom_listener.conformance.content import codes, tree, values_of
from dicom_listener.conformance.document import Section, Table, rows
from dicom_listener.conformance.examples import Example
from dicom_listener.render.modules import SERIES_NUMBERS

TITLES: Final = {
    ArtifactKind.SOURCE: "Wrapped picture",
    ArtifactKind.SEG: "Segmentation",
    ArtifactKind.SR: "Structured report",
    ArtifactKind.SECONDARY_CAPTURE: "Secondary capture",
    ArtifactKind.REJECTION_NOTE: "Rejection note",
}
WHEN: Final = {
    ArtifactKind.SOURCE: "a picture came as PNG or JPEG; patient, accession number, site and side are as given with it",
    ArtifactKind.SEG: "a lesion was found, or a clinician outlined one",
    ArtifactKind.SR: "an image was analysed, and anew at each amendment",
    ArtifactKind.SECONDARY_CAPTURE: "an image was analysed, and anew at each amendment",
    ArtifactKind.REJECTION_NOTE: "an amendment replaced or withdrew objects, for archives that know IOCM",
}
_TREES: Final = (ArtifactKind.SR, ArtifactKind.REJECTION_NOTE)


def of_kind(found: Sequence[Example], kind: ArtifactKind) -> list[Example]:
    """The examples of one kind."""
    return [example for example in found if example.kind is kind]


def is_extended(found: Sequence[Example]) -> bool:
    """Whether the objects have attributes that are in no module of their IOD (PS3.2, Standard Extended SOP Class)."""
    modules = modules_of(str(found[0].dataset.SOPClassUID))
    return any(module_for(one.path, modules) is None for one in attributes(found))


def templates(found: Sequence[Example]) -> Table:
    """Root templates of documents (PS3.2 N.1.1.1)."""
    roots = {
        (UID(str(example.dataset.SOPClassUID)).name, str(one.TemplateIdentifier), str(one.MappingResource))
        for example in found
        for one in example.dataset.get("ContentTemplateSequence") or []
    }
    columns = ("SOP Class", "Root template", "Mapping resource")
    return Table("sr-root-templates", "Root templates", columns, rows(sorted(roots)))


def information_objects(found: Sequence[Example]) -> Section:
    """Annex A."""
    kinds = [kind for kind in TITLES if of_kind(found, kind)]
    private = sorted({f"{int(e.tag):08X}" for x in found for e in x.dataset.iterall() if e.tag.is_private})
    return Section(
        "A",
        "Information Object Definitions",
        (
            "Walked in objects rendered from phantoms: with and without scale, lesion, accession number and issuer, "
            "from photographs and from pictures, before and after a clinician's review. *Type* is that of PS3.3 within "
            "its module; nested attributes are marked by >. A value after AUTO is the same in all of them.",
        ),
        (
            *(_iod(f"A.{place}", kind, of_kind(found, kind)) for place, kind in enumerate(kinds, 1)),
            Section(
                f"A.{len(kinds) + 1}",
                "Private attributes",
                (f"Present: {', '.join(private)}." if private else "None: no object holds a private attribute.",),
            ),
            Section(f"A.{len(kinds) + 2}", "Specialized and private SOP classes", ("None.",)),
        ),
    )


def _iod(number: str, kind: ArtifactKind, found: Sequence[Example]) -> Section:
    uid = str(found[0].dataset.SOPClassUID)
    modules = modules_of(uid)
    walked = attributes(found)
    beyond = [one.name for one in walked if module_for(one.path, modules) is None]
    extended = f"Standard Extended: {', '.join(beyond)} beyond its IOD." if beyond else "Standard SOP Class."
    return Section(
        number,
        f"{TITLES[kind]}: {UID(uid).name}",
        (f"Made when {WHEN[kind]}. Series Number {SERIES_NUMBERS[kind]}. {extended}",),
        (
            Section(f"{number}.1", f"Modules of the {TITLES[kind].lower()}", (_modules(kind, modules, found),)),
            Section(f"{number}.2", f"Attributes of the {TITLES[kind].lower()}", (_attributes(kind, walked, modules),)),
        ),
    )


def _modules(kind: ArtifactKind, modules: Sequence[Module], found: Sequence[Example]) -> Table:
    table = [(module.entity, module.name, module.usage, presence) for module, presence in used(modules, found)]
    columns = ("IE", "Module", "Usage", "Presence")
    return Table(f"modules-{kind.value}", "Modules", columns, rows(table))


def _attributes(kind: ArtifactKind, walked: Sequence[Attribute], modules: Sequence[Module]) -> Table:
    table = []
    for one in walked:
        where = module_for(one.path, modules)
        depth = ">" * (len(one.path) - 1)
        module, needed = (where[0].name, where[1]) if where else ("extension", "")
        table.append((f"{depth}{one.name}", one.tag, one.vr, module, needed, one.presence, one.source))
    columns = ("Attribute", "Tag", "VR", "Module", "Type", "Presence", "Source and value")
    return Table(f"attributes-{kind.value}", "Attributes", columns, rows(table))


def report_content(found: Sequence[Example]) -> Section:
    """Annex B."""
    sections = tuple(
        Section(f"B.{place}", f"{TITLES[kind]} content", (_content(kind, of_kind(found, kind)),))
        for place, kind in enumerate(_TREES, 1)
    )
    told = (
        "Concept names with their nesting; texts, names and numbers are left out. An algorithm is named after TID "
        "4019, a clinician's groups carry an observer context of their own (TID 1002, 1003)."
    )
    return Section("B", "Structured Report content encoding", (told,), sections)


def _content(kind: ArtifactKind, found: Sequence[Example]) -> Table:
    table = []
    for item in tree(found):
        relation, value_type, concept = item.place[-1]
        table.append((">" * (len(item.place) - 1) + concept, relation, value_type, item.presence, values_of(item)))
    columns = ("Concept", "Relationship", "Value type", "Presence", "Codes and units")
    return Table(f"content-{kind.value}", "Content items", columns, rows(table))


def code_sets(found: Sequence[Example]) -> Section:
    """Annex E."""
    table = [
        (scheme, value, meaning, ", ".join(TITLES[kind] for kind in TITLES if kind.value in kinds))
        for (scheme, value), (meaning, kinds) in codes(found).items()
    ]
    return Section(
        "E",
        "Code set usage",
        ("What no standard code says exactly carries a code of the private scheme, and never a neighbour's.",),
        (
            Section("E.1", "Coding schemes", (_schemes(found),)),
            Section(
                "E.2",
                "Codes in the objects of Annex A",
                (Table("codes", "Codes", ("Scheme", "Value", "Meaning", "Objects"), rows(table)),),
            ),
        ),
    )


def _schemes(found: Sequence[Example]) -> Table:
    by_designator = {designator: system for system, designator in SCHEMES.items()}

    def named() -> Iterator[tuple[str, str]]:
        for designator in sorted({scheme for scheme, _ in codes(found)}):
            private = designator.startswith("99")
            yield (
                designator,
                f"private, UID {LOCAL_UID}" if private else by_designator.get(designator, "PS3.16 Table 8-1"),
            )

    return Table("coding-schemes", "Coding schemes", ("Designator", "What it is"), rows(named()))
