"""A clinician's way through the pages, in a real browser with a real OpenID provider: from the EHR, and alone."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from cds_service.login.app_context import app_context
from dermoscopy.overlay import encode_png
from dermoscopy.phantoms import Kind, phantom
from tests.peers.browser import chromium, grave_faults
from tests.peers.fixtures import entered
from tests.peers.openid import OpenIdProvider, openid_provider
from tests.peers.openid.server import SECRET
from tests.peers.processes import free_port, wait_until
from tests.service import SYSTEM, RunningService, running_service

pytestmark = [pytest.mark.peers, pytest.mark.slow, pytest.mark.timeout(300)]

TOKEN = "a-token-for-the-camera-0123"
PATIENT, OTHER = "MRN-4711", "MRN-0815"
PEOPLE = {
    "derma": {"name": "Dr. Ada Example", "roles": ["dermatology"], "fhirUser": "Practitioner/7"},
    "nurse": {"name": "Nora Nurse", "roles": ["ward", "reader"]},
    "clerk": {"name": "Carl Clerk", "roles": ["billing"]},
    "patient": {"name": "Pia Patient", "fhirUser": "Patient/p1"},
}
BACK = "66643007"
CHART = {"resourceType": "Patient", "id": "p1", "identifier": [{"system": SYSTEM, "value": PATIENT}]}
TRIAGE = "/cds-services/dermoscopy-triage"
SCOPES = ["launch", "openid", "fhirUser", "profile", "patient/*.read"]


@dataclass
class House:
    """A service with three analysed images, and the provider that people log in at."""

    service: RunningService
    provider: OpenIdProvider
    earlier: str
    now: str
    of_another: str

    def leaves(self, action: str) -> list[dict[str, Any]]:
        """Entries of the audit log with this action, oldest first."""
        with contextlib.closing(sqlite3.connect(self.service.folder / "data" / "cds.sqlite3")) as database:
            database.row_factory = sqlite3.Row
            found = database.execute("SELECT * FROM audit_leaf WHERE action = ? ORDER BY at", (action,)).fetchall()
        return [dict(row) for row in found]

    def card(self) -> dict[str, Any]:
        """The card of `now` as the EHR gets it for the patient's chart."""
        call = {
            "hook": "patient-view",
            "hookInstance": "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea",
            "fhirServer": self.provider.fhir,
            "context": {"userId": "Practitioner/7", "patientId": "p1"},
            "prefetch": {"patient": CHART},
        }
        answer = self.service.client.post(f"{TRIAGE}", json=call).raise_for_status()
        cards = [one for one in answer.json()["cards"] if self.now in one["links"][0].get("appContext", "")]
        assert len(cards) == 1, answer.text
        return dict(cards[0])

    def give_feedback(self, card: dict[str, Any]) -> None:
        """The clinician accepted the card."""
        said = {"card": card["uuid"], "outcome": "accepted", "outcomeTimestamp": "2026-03-14T12:00:00Z"}
        said["acceptedSuggestions"] = []
        self.service.client.post(f"{TRIAGE}/feedback", json={"feedback": [said]}).raise_for_status()


def send(service: RunningService, seed: int, kind: Kind, patient: str) -> str:
    """Take in a phantom and wait for its result."""
    picture = encode_png(phantom(seed, kind=kind, rows=300, columns=400, hairs=3).pixels)
    said = {
        "image": base64.b64encode(picture).decode(),
        "patient": {"id": patient},
        "body_site": BACK,
        "laterality": "L",
        "wait": 60,
    }
    answer = service.client.post("/api/v1/analyze", json=said).raise_for_status()
    assert answer.status_code == 200
    return str(answer.json()["report_id"])


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    port, provider_port = free_port(), free_port()
    issuer = f"http://localhost:{provider_port}"
    settings: dict[str, object] = {
        "port": port,
        "api_tokens": [{"name": "camera", "token": TOKEN, "role": "admin"}],
        "login": {
            "issuer": issuer,
            "client_id": "page",
            "client_secret": SECRET,
            "name": "Example Hospital",
            "scopes": ["openid", "profile", "roles"],
            "roles": {"dermatology": "review", "reader": "read"},
        },
        "hooks_fhir_servers": [f"{issuer}/fhir"],
        "smart_launch_servers": [{"base_url": f"{issuer}/fhir", "client_id": "smart", "scopes": SCOPES}],
    }
    with contextlib.ExitStack() as stack:
        service = stack.enter_context(running_service(folder / "service", **settings))
        service.client.headers["Authorization"] = f"Bearer {TOKEN}"
        earlier = send(service, 3, "nevus", PATIENT)
        now = send(service, 2, "melanoma-like", PATIENT)
        other = send(service, 4, "vascular", OTHER)
        provider = entered(
            stack,
            openid_provider(
                folder,
                port=provider_port,
                callback=f"{service.url}/login/callback",
                people=PEOPLE,
                patients=[CHART],
                launches={
                    "chart": {"patient": "p1", "appContext": app_context(now)},
                    "strange": {"patient": "p1", "appContext": app_context(other)},
                    "plain": {"patient": "p1"},
                },
            ),
        )
        yield House(service, provider, earlier, now, other)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with contextlib.ExitStack() as stack:
        yield entered(stack, chromium())


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    made = browser.new_context(viewport={"width": 1280, "height": 900})
    made.set_default_timeout(20_000)
    yield made
    made.close()


def launch(house: House, context: BrowserContext, who: str, name: str = "chart") -> Page:
    """The EHR opens our page for the patient of the chart; ``who`` logs in there."""
    page = context.new_page()
    page.goto(f"{house.service.url}/launch?iss={house.provider.fhir}&launch={name}")  # the EHR adds both to the link
    page.get_by_label("Name").fill(who)
    page.get_by_role("button", name="Log in").click()
    return page


def test_from_the_card_to_the_amended_report(house: House, context: BrowserContext) -> None:
    card = house.card()
    (link,) = card["links"]
    assert (link["type"], link["url"]) == ("smart", f"{house.service.url}/launch")
    assert link["appContext"] == app_context(house.now)  # what the EHR hands on as the context of the launch "chart"
    page = launch(house, context, "derma")
    page.wait_for_url(f"{house.service.url}/analyses/{house.now}")
    asked = house.provider.requests()[-1]
    assert asked["aud"] == house.provider.fhir and asked["code_challenge_method"] == "S256" and asked["nonce"]
    expect(page.get_by_text("Dr. Ada Example").first).to_be_visible()
    expect(page.get_by_text("not cleared as a medical device")).to_be_visible()

    the_layers_lie_over_the_image(page)
    the_picture_zooms(page)

    # a second window, opened before anything was said
    late = context.new_page()
    late.goto(page.url)

    page.get_by_role("button", name="Edit the outline").click()
    corner = page.get_by_role("button", name=re.compile("^Corner 1 of"))
    before = corner.get_attribute("aria-label")
    box = corner.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] - 12, box["y"] - 9, steps=4)
    page.mouse.up()
    assert corner.get_attribute("aria-label") != before
    corner.press("ArrowUp")
    count = len(json.loads(page.locator("#outline").input_value()))
    corner.press("Enter")  # one more corner, and away again
    assert len(json.loads(page.locator("#outline").input_value())) == count + 1
    page.get_by_role("button", name="Undo").click()
    drawn = json.loads(page.locator("#outline").input_value())
    assert len(drawn) == count
    assert page.get_by_role("radio", name="Correct").is_checked()
    page.get_by_label("Class", exact=True).select_option("bcc")
    page.get_by_label("Comment (shown").fill("Arborising vessels.")
    page.get_by_role("button", name="Record the review").click()
    expect(page.get_by_text("Your review is recorded")).to_be_visible()
    expect(page.get_by_text("amended by a clinician").first).to_be_visible()
    expect(page.get_by_text("Arborising vessels.")).to_be_visible()
    assert page.locator("polygon.clinician").count() == 1

    the_second_window_is_told(late)

    who = f"{house.provider.issuer}|derma"
    said = house.service.client.get(f"/api/v1/analyses/{house.now}/reviews").raise_for_status().json()
    assert said["report_status"] == "amended"
    assert [one["verdict"] for one in said["reviews"]] == ["corrected", "commented"]
    assert [list(corner) for corner in said["reviews"][0]["outline"]] == drawn
    assert {one["reviewer"] for one in said["reviews"]} == {who}
    assert [leaf["actor"] for leaf in house.leaves("review.recorded")] == [who, who]
    assert house.leaves("login.succeeded")[-1]["actor"] == who
    assert {leaf["actor"] for leaf in house.leaves("analysis.read")} >= {who}
    the_report_follows(house)
    house.give_feedback(card)
    (told,) = house.leaves("card.feedback")
    kept = json.loads(told["details"])
    assert (kept["outcome"], kept["card"], kept["known"]) == ("accepted", card["uuid"], True)


def the_layers_lie_over_the_image(page: Page) -> None:
    stage = page.locator("#now-stage")
    stage.scroll_into_view_if_needed()
    plain = stage.screenshot()
    for name in ("Heat-map", "Mask", "Hair"):
        box = page.locator("#now-viewer").get_by_role("checkbox", name=name)
        box.check()
        layer = page.locator(f"#now-viewer [data-layer={name.lower().partition('-')[0]}]")
        page.wait_for_function("one => one.complete && one.naturalWidth > 0", arg=layer.element_handle())
        assert stage.screenshot() != plain, f"{name} is not drawn"
        slider = page.locator("#now-viewer").get_by_label(f"Opacity of {name}", exact=False)
        slider.fill("25")
        assert layer.evaluate("one => getComputedStyle(one).opacity") == "0.25"
        box.uncheck()
    assert stage.screenshot() == plain


def the_picture_zooms(page: Page) -> None:
    stage = page.locator("#now-stage")
    stage.focus()
    for key in ("+", "+", "ArrowRight"):
        stage.press(key)
    expect(page.locator("#now-viewer [data-zoomed]")).to_have_text("156 %")
    both = [page.locator(f"#{key}-stage .sheet").evaluate("one => one.style.transform") for key in ("now", "prior")]
    assert both[0] == both[1] and "scale(1.5625)" in both[0]
    stage.press("0")
    expect(page.locator("#now-viewer [data-zoomed]")).to_have_text("100 %")


def the_second_window_is_told(late: Page) -> None:
    late.get_by_role("radio", name="Comment only").check()
    late.get_by_label("Comment (shown").fill("I would watch it.")
    late.get_by_role("button", name="Record the review").click()
    expect(late.get_by_text("Another review came first").first).to_be_visible()
    expect(late.get_by_text("Arborising vessels.")).to_be_visible()
    assert late.get_by_label("Comment (shown").input_value() == "I would watch it."
    late.get_by_role("button", name="Record the review").click()
    expect(late.get_by_text("Your review is recorded")).to_be_visible()


def the_report_follows(house: House) -> None:
    """The workflow draws the results anew: the stored FHIR report says that it is amended."""

    def amended() -> bool:
        bundle = json.loads(house.service.file(house.now, "report"))
        reports = [e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == "DiagnosticReport"]
        return [report["status"] for report in reports] == ["amended"]

    wait_until(amended, "the report to be amended", seconds=60)


def test_a_launch_is_for_one_patient(house: House, context: BrowserContext) -> None:
    page = launch(house, context, "derma", "plain")
    page.wait_for_url(f"{house.service.url}/worklist")
    page.get_by_label("Status").select_option("all")
    page.get_by_role("button", name="Show").click()
    assert page.get_by_role("link", name="Open analysis").count() == 2
    answer = page.goto(f"{house.service.url}/analyses/{house.of_another}")
    assert answer is not None and answer.status == 403
    expect(page.get_by_text("chart of another patient")).to_be_visible()
    for part in ("layers/image", "files/report"):
        refused = context.request.get(f"{house.service.url}/analyses/{house.of_another}/{part}")
        assert refused.status == 403
    assert context.request.get(f"{house.service.url}/api/v1/analyses").status == 401  # a login is for the pages alone
    assert house.leaves("analysis.refused")[-1]["actor"] == f"{house.provider.issuer}|derma"
    page.goto(f"{house.service.url}/worklist")
    page.get_by_label("Patient id").fill(OTHER)
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_text("0 analyses of this patient")).to_be_visible()
    assert OTHER not in page.url


def test_a_link_to_another_patients_result_shows_nothing(house: House, context: BrowserContext) -> None:
    page = launch(house, context, "derma", "strange")
    expect(page.get_by_text("chart of another patient")).to_be_visible()


def test_who_is_no_clinician_is_not_let_in(house: House, context: BrowserContext) -> None:
    page = launch(house, context, "patient")
    expect(page.get_by_text("This page is for clinicians")).to_be_visible()
    answer = page.goto(f"{house.service.url}/launch?iss=http://evil.example/fhir&launch=chart")
    assert answer is not None and answer.status == 403 and page.url.startswith(house.service.url)
    page.goto(f"{house.service.url}/login/callback?state={'x' * 43}&code=stolen")
    expect(page.get_by_text("This browser did not begin this login")).to_be_visible()
    assert len(house.leaves("login.failed")) >= 3


def test_alone_with_a_login_and_out_again(house: House, context: BrowserContext) -> None:
    page = context.new_page()
    page.goto(f"{house.service.url}/analyses/{house.earlier}")
    page.get_by_role("link", name="Log in with Example Hospital").click()
    page.get_by_label("Name").fill("nurse")
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{house.service.url}/analyses/{house.earlier}")
    expect(page.get_by_text("Your login may look, and not review")).to_be_visible()
    page.goto(f"{house.service.url}/worklist")
    page.get_by_label("Patient id").fill(PATIENT)
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_text("2 analyses of this patient")).to_be_visible()
    cookies = {one["name"]: one for one in context.cookies(house.service.url)}
    assert cookies["cds"]["httpOnly"] and cookies["cds"]["sameSite"] == "Lax"
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_text("You are logged out here")).to_be_visible()
    context.add_cookies([{"name": "cds", "value": cookies["cds"]["value"], "url": house.service.url}])
    page.goto(f"{house.service.url}/worklist")  # a kept cookie opens nothing any more
    assert page.url.startswith(f"{house.service.url}/login")
    assert house.leaves("login.ended")[-1]["actor"] == f"{house.provider.issuer}|nurse"


def test_who_has_no_role_stays_outside(house: House, context: BrowserContext) -> None:
    page = context.new_page()
    page.goto(f"{house.service.url}/login/start")
    page.get_by_label("Name").fill("clerk")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_text("none of your roles may use this service")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_grave_stands_in_the_way_of_anybody(house: House, browser: Browser, scheme: Any) -> None:
    context = browser.new_context(color_scheme=scheme, viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto(f"{house.service.url}/login")
    assert grave_faults(page) == []
    page.get_by_label("API token").fill(TOKEN)
    page.get_by_role("button", name="Log in with a token").click()
    for path in ("/", "/worklist?status=all", f"/analyses/{house.now}"):
        page.goto(house.service.url + path, wait_until="networkidle")
        if path.startswith("/analyses"):
            page.get_by_role("button", name="Edit the outline").click()
        assert grave_faults(page) == [], path
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, f"{path} is wider than the phone"
    context.close()


def test_two_fingers_zoom_on_a_phone(house: House, browser: Browser) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.set_extra_http_headers({"Authorization": f"Bearer {TOKEN}"})
    page.goto(f"{house.service.url}/analyses/{house.now}", wait_until="networkidle")
    page.locator("#now-stage").scroll_into_view_if_needed()
    box = page.locator("#now-stage").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    fingers = context.new_cdp_session(page)
    for kind, apart in (("touchStart", 30), ("touchMove", 45), ("touchMove", 60), ("touchEnd", None)):
        points = [] if apart is None else [{"x": x - apart, "y": y, "id": 0}, {"x": x + apart, "y": y, "id": 1}]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    expect(page.locator("#now-viewer [data-zoomed]")).to_have_text("200 %")
    context.close()


def test_the_report_prints_on_two_pages_of_a4(house: House, context: BrowserContext) -> None:
    page = context.new_page()
    page.set_extra_http_headers({"Authorization": f"Bearer {TOKEN}"})
    page.goto(f"{house.service.url}/analyses/{house.now}", wait_until="networkidle")
    pdf = page.pdf(prefer_css_page_size=True)
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 2
    page.emulate_media(media="print")
    expect(page.get_by_text("not cleared as a medical device")).to_be_visible()
    expect(page.locator("#now-stage img.base")).to_be_visible()
    expect(page.locator("form#review")).to_be_hidden()
    Path(house.service.folder / "report.pdf").write_bytes(pdf)
