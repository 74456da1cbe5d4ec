"""Status codes: what is answered and what is made of answers (PS3.2 N.7.3).

The codes and most meanings are those of the tables that answer; what is made of a peer's answer is found by asking the
code that judges it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from dermoscopy.errors import DestinationUnavailable, Rejected
from dicom_listener import admission, commitment, commitment_request, query, retrieve
from dicom_listener.admission import Refusal
from dicom_listener.conformance.deployment import Deployment
from dicom_listener.conformance.document import Section, Table, rows
from dicom_listener.deliver import cstore
from dicom_listener.dicomweb_store import SOP_CLASS_NOT_SUPPORTED, SYNTAX_NOT_SUPPORTED, Outcome, status_for
from dicom_listener.status import OUT_OF_RESOURCES, STATUS_BY_ERROR, SUCCESS

FURTHER: Final[Mapping[int, tuple[str, str]]] = {
    SUCCESS: ("Success", "The sender may delete its copy"),
    0xA700: ("Refused: Out of Resources", "Nothing was kept: send again later"),
    0xA900: ("Error: Data Set does not match SOP Class", "Correct the sender"),
    0xC000: ("Error: Cannot understand", "Send again; look at the sender"),
    0xC100: ("Error: Cannot understand", "Send in a transfer syntax of 1.1"),
    0xC110: ("Error: Cannot understand", "Send one still picture of a permitted size"),
    0xC120: ("Error: Cannot understand", "None"),
    0xC130: ("Error: Cannot understand", "See the routing rules of this site"),
    0xC140: ("Error: Cannot understand", "See the PACS: its answers mix patients up"),
    0xC1FF: ("Error: Cannot understand", "See the log"),
    0xC211: ("Error: Cannot understand", "Send again; report it"),
}
"""Status → service status (PS3.4 Table B.2-1), what the sender should do. A code without words stops the statement."""
_ANY: Final = "peer"
_STORE: Final = {
    0x0000: "Success",
    0x0001: "Requested optional attributes are not supported",
    0x0107: "Attribute list warning",
    0x0110: "Processing failure",
    0x0111: "Duplicate SOP Instance",
    0x0116: "Attribute value out of range",
    0x0122: "SOP Class not supported",
    0x0124: "Not authorized",
    0x0213: "Resource limitation",
    0xA700: "Refused: out of resources (A7xx)",
    0xA900: "Error: data set does not match SOP Class (A9xx)",
    0xB000: "Warning (Bxxx)",
    0xC000: "Error: cannot understand (Cxxx)",
}
_FIND: Final = {
    0x0000: "Success: matching is complete",
    0x0122: "SOP Class not supported",
    0x0124: "Not authorized",
    0xA700: "Refused: out of resources (A7xx)",
    0xA900: "Error: identifier does not match SOP Class",
    0xC000: "Failed: unable to process (Cxxx)",
    0xFE00: "Cancel",
}
_RETRIEVE: Final = {
    0x0000: "Success: all sub-operations complete",
    0x0122: "SOP Class not supported",
    0xA701: "Refused: out of resources, matches cannot be counted",
    0xA702: "Refused: out of resources, sub-operations cannot be done",
    0xA801: "Refused: move destination unknown",
    0xA900: "Error: identifier does not match SOP Class",
    0xB000: "Sub-operations complete, one or more failures",
    0xC000: "Failed: unable to process (Cxxx)",
    0xFE00: "Cancel",
}
_ACTION: Final = {
    0x0000: "Success",
    0x0110: "Processing failure",
    0x0112: "No such SOP Instance",
    0x0115: "Invalid argument value",
    0x0122: "SOP Class not supported",
    0x0123: "No such action",
    0x0210: "Duplicate invocation",
    0x0213: "Resource limitation",
}


def status_codes(deployment: Deployment) -> Section:
    """N.7.3."""
    return Section(
        "7.3",
        "Status codes",
        sections=(
            Section("7.3.1", "Association rejection and abort", (_rejections(),)),
            Section("7.3.2", "DIMSE services", (*_answered(), *_judged())),
            Section("7.3.3", "DICOM Web Services", (_http(deployment), _reasons())),
        ),
    )


def _rejections() -> Table:
    known = [one for one in vars(admission).values() if isinstance(one, Refusal)]
    table = [(f"{one.result}/{one.source}/{one.diagnostic}", one.reason, _again(one)) for one in known]
    table.append(("1/2/2", "protocol version is not supported", "Correct the sender"))
    columns = ("Result/source/diagnostic", "Meaning", "Further behaviour")
    return Table("rejections", "A-ASSOCIATE-RJ (PS3.8 Table 9-21)", columns, rows(sorted(table)))


def _again(refusal: Refusal) -> str:
    return "Transient: try again later" if refusal.result > 1 else "Permanent: see 6.2"


def _answered() -> Iterator[Table]:
    """What the service answers as SCP."""
    store = {SUCCESS: ["Stored, or kept and held for a person"]}
    for _, code, comment in STATUS_BY_ERROR:
        store.setdefault(code, []).append(comment)
    yield Table(
        "store-statuses",
        "C-STORE, answered as SCP",
        ("Status", "Service status", "Error Comment", "Further behaviour"),
        rows((f"{code:04X}", FURTHER[code][0], "; ".join(told), FURTHER[code][1]) for code, told in store.items()),
    )
    action = [(SUCCESS, "The request is recorded; the report follows"), *commitment.REFUSALS]
    yield Table(
        "commitment-statuses",
        "Storage commitment N-ACTION, answered as SCP",
        ("Status", "Error Comment"),
        rows((f"{code:04X}", told) for code, told in action),
    )
    yield Table(
        "report-statuses",
        "Storage commitment N-EVENT-REPORT, answered as SCU",
        ("Status", "Meaning"),
        rows((f"{code:04X}", told) for code, told in commitment_request.ANSWERS),
    )


def _judged() -> Iterator[Table]:
    """What the service makes of answers as SCU."""
    yield _behaviour("stored-statuses", "C-STORE, as SCU", _STORE, lambda code: cstore.judge(code, _ANY, "object"))
    yield _behaviour("find-statuses", "C-FIND, as SCU", _FIND, lambda code: query.judge(code, _ANY))
    yield _behaviour(
        "retrieve-statuses", "C-MOVE and C-GET, as SCU", _RETRIEVE, lambda code: retrieve.judge(code, _ANY, "request")
    )

    def asked(code: int) -> None:
        if not commitment_request.judge(code, _ANY):
            raise DestinationUnavailable("not taken now")

    yield _behaviour("action-statuses", "Storage commitment N-ACTION, as SCU", _ACTION, asked)


def _behaviour(key: str, title: str, meanings: Mapping[int, str], judge: Callable[[int], bool | None]) -> Table:
    def further(code: int) -> str:
        try:
            return "Done; a warning is logged" if judge(code) else "Done"
        except DestinationUnavailable as error:
            return "Tried again later" + (f", after {error.retry_after:g} s or more" if error.retry_after else "")
        except Rejected:
            return "Given up; a person is told"

    table = [(f"{code:04X}", meaning, further(code)) for code, meaning in meanings.items()]
    table.append(("none", "No answer in time, association lost", "Tried again later"))
    return Table(key, title, ("Status", "Meaning", "Further behaviour"), rows(table))


def _http(deployment: Deployment) -> Table:
    stored, failed, busy = Outcome(), Outcome(failure=0xC000), Outcome(failure=OUT_OF_RESOURCES)
    table = [
        (200, "Found, or every object is stored"),
        (status_for([stored, failed]), "Store: some objects are stored, the others stand in Failed SOP Sequence"),
        (204, "Search: nothing is found"),
        (status_for([failed]), "Store: none is stored"),
        (status_for([busy]), "Store: none is stored for want of room: send again after Retry-After"),
        *deployment.refusals,
    ]
    return Table("web-statuses", "HTTP statuses of the origin server", ("Status", "Meaning"), rows(sorted(table)))


def _reasons() -> Table:
    table = [
        (f"{code:04X}", "; ".join(comment for _, one, comment in STATUS_BY_ERROR if one == code))
        for code in dict.fromkeys(code for _, code, _ in STATUS_BY_ERROR)
    ]
    table += [
        (f"{SOP_CLASS_NOT_SUPPORTED:04X}", "SOP class not taken"),
        (f"{SYNTAX_NOT_SUPPORTED:04X}", "Transfer syntax cannot be decoded"),
    ]
    return Table("failure-reasons", "Failure Reason (0008,1197) of Store", ("Code", "Meaning"), rows(table))
