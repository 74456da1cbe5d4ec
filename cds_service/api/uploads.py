"""The body of ``POST /api/v1/analyze``: base64 in JSON, or multipart. The bytes themselves say what image they are."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import UploadFile

from cds_service.api.refusals import FieldError, InvalidRequest, MalformedRequest, UnsupportedMediaType
from dermoscopy.domain import ImageHeader, PatientIdentity
from dermoscopy.errors import Rejected
from dermoscopy.patients import IssuerMap

PLAIN = r"^[^\\\x00-\x1f\x7f]*$"
"""What a DICOM LO or SH value may hold (PS3.5 6.2): no backslash, no control characters."""

ReadObject = Callable[[bytes, PatientIdentity], tuple[bytes, ImageHeader]]
"""Image bytes and the patient of objects that name none → (bytes to keep, header). Raises `Rejected`."""
NOBODY = PatientIdentity("", "")


class PatientReference(BaseModel):
    """Whose image it is: identifier system (FHIR) or issuer (DICOM) and value. The pair is the patient."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    system: Annotated[str, Field(max_length=200, pattern=PLAIN)] = Field(
        default="", description="FHIR identifier system or DICOM Issuer of Patient ID; empty means the default issuer"
    )
    id: Annotated[str, Field(min_length=1, max_length=64, pattern=PLAIN)]

    def identity(self) -> PatientIdentity:
        return PatientIdentity(self.system.strip(), self.id.strip())


class AnalyzeFields(BaseModel):
    """What may be said of an image besides its bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    patient: PatientReference | None = Field(default=None, description="Without one the image is held for a person")
    body_site: Annotated[str, Field(pattern=r"^[1-9][0-9]{5,17}$")] | None = Field(
        default=None, description="SNOMED CT code", examples=["66643007"]
    )
    laterality: Literal["R", "L", "B", "U"] | None = None
    accession: Annotated[str, Field(max_length=16, pattern=PLAIN)] | None = None
    wait: Annotated[float, Field(ge=0, le=120)] | None = Field(
        default=None, description="Seconds to wait for the result; never more than the service's own limit"
    )


class AnalyzeJson(AnalyzeFields):
    """An image as base64, with what is known of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    image: str = Field(
        min_length=1,
        json_schema_extra={"format": "byte"},
        description="PNG, JPEG or DICOM Part 10, base64 (RFC 4648, 4)",
    )


@dataclass(frozen=True, slots=True)
class Upload:
    """An image and what the sender said of it."""

    image: bytes
    fields: AnalyzeFields


def encoded_size(limit: int) -> int:
    """Largest body that can carry an image of ``limit`` bytes: base64 is a third longer, fields come on top."""
    return limit * 4 // 3 + 64 * 1024


async def read_upload(request: Request) -> Upload:
    """Dependency: the upload, whatever way it came.

    Raises `MalformedRequest`, `InvalidRequest`, `UnsupportedMediaType`.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        body = await request.body()
        return await run_in_threadpool(_from_json, body)
    if kind == "multipart/form-data":
        return await _from_form(request)
    raise UnsupportedMediaType(
        "Send application/json (the image as base64) or multipart/form-data (the image as a file)."
    )


def _from_json(body: bytes) -> Upload:
    try:
        said = AnalyzeJson.model_validate_json(body)
    except ValidationError as error:
        raise _wrong(error) from error
    return Upload(decode_base64(said.image), AnalyzeFields(**{k: getattr(said, k) for k in AnalyzeFields.model_fields}))


def decode_base64(text: str) -> bytes:
    """Bytes of standard base64, line breaks allowed. Raises `InvalidRequest` that says what is wrong with it."""
    if text.startswith("data:"):
        raise InvalidRequest(
            [FieldError(pointer="#/image", detail="send the base64 text alone, without data:…;base64,")]
        )
    try:
        data = text.encode("ascii")
        if any(byte in data for byte in b"\r\n"):
            data = data.translate(None, b"\r\n")
        decoded = base64.b64decode(data, validate=True)
    except UnicodeEncodeError as error:
        detail = f"not base64: character {error.start} is not ASCII"
        raise InvalidRequest([FieldError(pointer="#/image", detail=detail)]) from error
    except binascii.Error as error:
        raise InvalidRequest([FieldError(pointer="#/image", detail=f"not base64: {error}")]) from error
    if not decoded:
        raise InvalidRequest([FieldError(pointer="#/image", detail="the image is empty")])
    return decoded


async def _from_form(request: Request) -> Upload:
    async with request.form(max_files=1, max_fields=16, max_part_size=4096) as form:
        names = [name for name, _ in form.multi_items()]
        wrong = [
            FieldError(pointer=f"#/{name}", detail="given more than once")
            for name in sorted(set(names))
            if names.count(name) > 1
        ]
        image = form.get("image")
        if not isinstance(image, UploadFile):
            wrong.append(FieldError(pointer="#/image", detail="send the image as a file part named image"))
        if wrong:
            raise InvalidRequest(wrong)
        assert isinstance(image, UploadFile)
        values = {name: value for name, value in form.multi_items() if name != "image"}
        data = await image.read()
    try:
        fields = AnalyzeFields.model_validate(_nested(values))
    except ValidationError as error:
        raise _wrong(error) from error
    if not data:
        raise InvalidRequest([FieldError(pointer="#/image", detail="the image is empty")])
    return Upload(data, fields)


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Form fields ``patient_system`` and ``patient_id`` as the object they are in JSON; empty fields are absent."""
    said = {name: value for name, value in values.items() if value != ""}
    patient = {key: said.pop(f"patient_{key}") for key in ("system", "id") if f"patient_{key}" in said}
    return said | ({"patient": patient} if patient else {})


def _wrong(error: ValidationError) -> Exception:
    if any(e["type"] == "json_invalid" for e in error.errors(include_input=False, include_url=False)):
        reason = error.errors(include_input=False, include_url=False)[0].get("ctx", {}).get("error", "invalid JSON")
        return MalformedRequest(f"The body is not JSON: {reason}.")
    found = [{**e, "loc": ("body", *e["loc"])} for e in error.errors(include_input=False, include_url=False)]
    return RequestValidationError(found)


def complete(header: ImageHeader, said: AnalyzeFields, issuers: IssuerMap) -> ImageHeader:
    """``header`` with what the request says where the object itself is silent.

    Raises `Rejected` when object and request name different patients.
    """
    patient = header.patient
    if said.patient is not None:
        named = issuers.canonical(said.patient.identity())
        own = issuers.canonical(patient)
        if patient.known and own != named and not (own.patient_id == named.patient_id and not own.issuer):
            raise Rejected(
                "The DICOM object names another patient than the request: send it without one, or correct it."
            )
        patient = patient if patient.known and own == named else named
    return replace(
        header,
        patient=patient,
        accession_number=header.accession_number or (said.accession or "").strip(),
        body_site_code=header.body_site_code or said.body_site or "",
        laterality=header.laterality or said.laterality or "",
    )
