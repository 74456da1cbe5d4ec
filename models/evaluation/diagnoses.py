"""What tables of other collections call the seven classes, brought to the model's own names."""

from __future__ import annotations

import re
from collections.abc import Collection

SYNONYMS = {
    "akiec": (
        "akiec", "ak", "ack", "actinic keratosis", "actinic keratoses", "solar keratosis", "solar or actinic keratosis",
        "actinic keratoses and intraepithelial carcinoma", "intraepithelial carcinoma", "bowen", "bowens disease",
        "bowen disease", "squamous cell carcinoma in situ", "scc in situ",
    ),
    "bcc": ("bcc", "basal cell carcinoma", "basal cell carcinomas", "basalioma"),
    "bkl": (
        "bkl", "benign keratosis", "benign keratoses", "benign keratosis like lesion", "benign keratosis like lesions",
        "pigmented benign keratosis", "seborrheic keratosis", "seborrhoeic keratosis", "sek", "sk", "solar lentigo",
        "lichenoid keratosis", "lichen planus like keratosis", "lplk",
    ),
    "df": ("df", "dermatofibroma", "dermatofibromas"),
    "mel": (
        "mel", "melanoma", "melanomas", "malignant melanoma", "melanoma in situ", "melanoma invasive",
        "invasive melanoma", "melanoma nos", "lentigo maligna", "lentigo maligna melanoma",
        "superficial spreading melanoma", "nodular melanoma", "acral melanoma", "acral lentiginous melanoma",
    ),
    "nv": (
        "nv", "nev", "nevus", "naevus", "nevi", "naevi", "melanocytic nevus", "melanocytic nevi", "melanocytic naevus",
        "melanocytic naevi", "clark nevus", "atypical nevus", "dysplastic nevus", "blue nevus", "congenital nevus",
        "dermal nevus", "reed or spitz nevus", "spitz nevus", "common nevus",
    ),
    "vasc": (
        "vasc", "vascular", "vascular lesion", "vascular lesions", "angioma", "angiomas", "hemangioma", "haemangioma",
        "cherry angioma", "angiokeratoma", "pyogenic granuloma", "hemorrhage", "haemorrhage",
    ),
}  # fmt: skip
"""Names by class, in lower case. Invasive squamous cell carcinoma is in none of the seven, so it is not here."""

UNLABELLED = frozenset({"", "unknown", "unk", "nan", "na", "n a", "none", "null", "other unknown"})
_CLASS_OF = {name: label for label, names in SYNONYMS.items() for name in names}


def class_of(text: str, classes: Collection[str]) -> str | None:
    """The class that ``text`` names: empty if it says that none is known, ``None`` if the model has no such class.

    Case, punctuation and what stands in brackets do not count: ``Melanoma (in situ)`` is ``mel``.
    """
    words = " ".join(re.findall(r"[a-z0-9]+", re.sub(r"\(.*?\)", " ", text.replace("'", "").lower())))
    if words in UNLABELLED:
        return ""
    label = words if words in classes else _CLASS_OF.get(words)
    return label if label in classes else None
