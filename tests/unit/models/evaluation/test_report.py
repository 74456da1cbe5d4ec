"""The whole report of a tiny network on drawn lesions, and the page that is made of it."""

import json
import re
from html.parser import HTMLParser

import pytest

from dermoscopy.errors import Misconfigured, UnreadableObject
from models.evaluation.command import Extent, evaluate, evaluate_package, write_report
from models.evaluation.dataset import Case, Dataset
from models.evaluation.layouts import open_dataset
from models.evaluation.pictures import draw_pictures
from models.evaluation.report import render
from models.registry import open_package
from models.training.card_from_reports import report_sections
from tests.unit.models.conftest import tiny_graph, tiny_manifest, write_manifest
from tests.unit.models.evaluation.conftest import encoded, mask_bytes, write_table

CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
VOID = {"meta", "br", "img", "link", "hr", "input"}


class Page(HTMLParser):
    """What is in the page: tags with attributes, text, and whether every tag is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.words = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data):
        self.words.append(data)

    def having(self, attribute):
        return [attributes[attribute] for _, attributes in self.tags if attribute in attributes]


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    weights = tiny_graph()
    manifest = tiny_manifest(weights)
    manifest["decision"] = {"weights": {**dict.fromkeys(CLASSES, 1.0), "mel": 1.5}}
    manifest["prediction_sets"] = {
        "method": "mondrian-lac",
        "alpha": 0.1,
        "thresholds": dict.fromkeys(CLASSES, 0.12),
        "largest_set": 3,
    }
    folder = store / "tiny" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(weights)
    write_manifest(folder, manifest)
    return open_package(store, "tiny", "1.0.0")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, drawings):
    place = tmp_path_factory.mktemp("clinic")
    (place / "masks").mkdir()
    rows = []
    for name, label, lesion, pixels, mask in drawings:
        (place / f"{name}.png").write_bytes(encoded(pixels))
        (place / "masks" / f"{name}.png").write_bytes(mask_bytes(mask))
        rows.append({"image_id": name, "dx": label, "lesion_id": lesion, "sex": "male", "age": "61"})
    write_table(place / "clinic.csv", rows)
    return open_dataset(place, CLASSES)


@pytest.fixture(scope="module", autouse=True)
def _few_strangers():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.evaluation.command.STRANGERS_PER_FAMILY", 1)
        yield


@pytest.fixture(scope="module")
def report(package, dataset):
    return evaluate(package, dataset, Extent(thorough=True, draws=50, threads=1, command="cds evaluate tiny clinic"))


def test_the_report_is_plain_json_and_says_the_same_again(package, dataset, report):
    written = json.loads(json.dumps(report, allow_nan=False))
    again = evaluate(package, dataset, Extent(thorough=True, draws=50, threads=1, command="cds evaluate tiny clinic"))
    for one in (written, again):
        one.pop("cost")
        one["provenance"].pop("seconds")
    assert written == json.loads(json.dumps(again))


def test_every_part_is_there(report):
    assert {
        "figures", "per_class", "confusion_matrix", "roc", "operating_points", "reliability", "selective",
        "missed_melanomas", "prediction_sets", "outline", "abstention", "triage", "subgroups", "distortions",
        "faithfulness", "gate", "cost", "provenance",
    } <= set(report)  # fmt: skip
    assert report["dataset"] == report["dataset"] | {
        "images": 6, "lesions": 3, "labelled": 6, "classes": {"mel": 2, "nv": 4},
    }  # fmt: skip
    assert report["provenance"]["model_sha256"] == report["model"]["sha256"]
    assert report["prediction_sets"]["promised"] == pytest.approx(0.9)


def test_missed_melanomas_are_those_called_otherwise(report):
    missed = report["missed_melanomas"]
    matrix = report["confusion_matrix"]["counts"]
    row = matrix[CLASSES.index("mel")]
    assert missed["called_otherwise"] == len(missed["cases"]) == sum(row) - row[CLASSES.index("mel")]
    probabilities = [one["melanoma_probability"] for one in missed["cases"]]
    assert probabilities == sorted(probabilities)


def test_the_page_stands_alone(report):
    text = render(report)
    page = Page(text)
    assert not {"script", "img", "link", "iframe", "object", "image"} & {tag for tag, _ in page.tags}
    assert "http" not in text.replace("http-equiv", "") and "base64" not in text and "url(" not in text
    assert all(link.startswith("#") for link in page.having("href"))
    assert "default-src 'none'" in text


def test_every_section_is_there_and_the_contents_lead_to_it(report):
    page = Page(render(report))
    sections = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert sections == [
        "figures", "diagnosis", "melanoma", "missed", "calibration", "uncertainty", "abstention", "outline",
        "distortions", "subgroups", "maps", "gate", "cost", "images", "provenance",
    ]  # fmt: skip
    anchors = {link[1:] for link in page.having("href")}
    assert anchors == set(sections)


def test_the_page_can_be_read_without_seeing_it(report):
    page = Page(render(report))
    charts = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(charts) >= 7
    assert all(chart["role"] == "img" and chart["aria-label"] for chart in charts)
    tables = [tag for tag, _ in page.tags].count("table")
    assert [tag for tag, _ in page.tags].count("caption") == tables
    assert {attributes.get("scope") for tag, attributes in page.tags if tag == "th"} == {"col", "row"}
    assert page.tags[0] == ("html", {"lang": "en"})
    identifiers = page.having("id")
    assert len(identifiers) == len(set(identifiers))
    assert all(name in identifiers for name in page.having("aria-labelledby"))


def test_the_same_figures_give_the_same_page(report):
    assert render(report) == render(json.loads(json.dumps(report)))


def test_what_a_table_says_cannot_become_markup(report):
    harmful = json.loads(json.dumps(report))
    harmful["dataset"]["name"] = "<script>alert(1)</script>"
    harmful["dataset"]["notes"] = ["<b>bold</b>"]
    harmful["outline"]["worst"][0]["id"] = '"><img src=x>'
    page = Page(render(harmful))
    assert not {"script", "img", "b"} & {tag for tag, _ in page.tags}
    assert "<b>bold</b>" in page.words


def test_masks_alone_make_a_report_of_the_outline(package, dataset):
    unlabelled = Dataset(
        "outlines",
        "masks",
        tuple(Case(case.id, case.pixels, case.mask, "", case.id) for case in dataset.cases),
        dataset.digest,
    )
    report = evaluate(package, unlabelled, Extent(draws=20, threads=1))
    assert set(report["figures"]) == {"mean_jaccard", "thresholded_jaccard", "failed_outlines", "mean_dice"}
    sections = [attributes["id"] for tag, attributes in Page(render(report)).tags if tag == "section"]
    assert sections == ["figures", "abstention", "outline", "cost", "images", "provenance"]


def test_bad_images_are_all_named_or_left_out_and_counted(package, dataset):
    def broken():
        raise UnreadableObject("scan7.png: broken image: truncated")

    bad = Case("scan7", broken, lambda: None, "nv", "scan7")
    mixed = Dataset("mixed", "images", (*dataset.cases, bad), dataset.digest)
    with pytest.raises(UnreadableObject, match=r"1 of 7 images cannot be used: scan7.png.*--skip-bad"):
        evaluate(package, mixed, Extent(draws=20, threads=1))
    report = evaluate(package, mixed, Extent(draws=20, threads=1, skip_bad=True))
    assert report["dataset"]["images"] == 6
    assert report["dataset"]["left_out"] == [{"id": "scan7", "why": "scan7.png: broken image: truncated"}]
    assert "1 images were left out" in " ".join(Page(render(report)).words)
    with pytest.raises(Misconfigured, match="none of the 1 images can be read"):
        evaluate(package, Dataset("bad", "images", (bad,), ""), Extent(draws=20, threads=1, skip_bad=True))


def test_a_package_gets_one_report_per_data_set_and_the_first_leads_to_the_others(package, dataset, tmp_path):
    evaluate_package(package, {"HAM test": dataset, "Task 1": dataset}, tmp_path, Extent(draws=20, threads=1))
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"report.html", "report.json", "report-task-1.html", "report-task-1.json"}
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "report-task-1.html" in page.having("href")


def test_a_report_holds_no_picture_and_pictures_are_drawn_apart(package, dataset, report, tmp_path):
    write_report(report, tmp_path)
    index = draw_pictures(package, dataset, report, tmp_path / "pictures")
    missed, worst = report["missed_melanomas"]["cases"], report["outline"]["worst"]
    assert len(list((tmp_path / "pictures").glob("*.png"))) == len(missed) + len(worst)
    text = index.read_text(encoding="utf-8")
    assert all(one["id"] in text for one in worst)
    assert b"\x89PNG" not in (tmp_path / "report.html").read_bytes()


def test_the_model_card_repeats_the_report_and_nothing_else(report):
    card = "\n\n".join(report_sections({"report": report, "report-other": report}))
    for heading in ("Held-out images", "Melanoma on held-out images", "Knowing when not to answer", "Robustness",
                    "Fairness", "Gate", "Are the maps faithful?", "Cost and forms"):  # fmt: skip
        assert f"## {heading}" in card
    assert "(evaluation/report-other.html)" in card
    assert f"{report['figures']['mean_jaccard']['value']:.3f}" in card
    assert not re.search(r"\bnan\b|None", card)
    for line in card.splitlines():
        if line.startswith("|"):
            assert line.endswith("|")
    assert report_sections({}) == []
