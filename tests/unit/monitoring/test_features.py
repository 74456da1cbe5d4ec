"""Features: flat, finite, without anything about the patient, and stored once."""

import json
from dataclasses import replace
from datetime import timedelta

from dermoscopy.domain import Acquisition, Remark
from monitoring.features import features, store_features, stored_features
from tests.unit.monitoring.conftest import make_analysis


def test_features_are_flat_finite_and_say_nothing_of_the_patient(analysis):
    found = features(analysis)
    assert all(value is None or isinstance(value, (float, int, str)) for value in found.values())
    text = json.dumps(found, allow_nan=False)
    assert "SECRET" not in text
    assert analysis.id not in text


def test_keys_are_the_same_for_every_image(analysis):
    assert (
        list(features(analysis)) == list(features(make_analysis(5))) == list(features(make_analysis(6, lesion=False)))
    )
    assert features(make_analysis(6, lesion=False))["lesion_area_percent"] is None


def test_the_same_analysis_has_the_same_features(analysis):
    assert features(analysis) == features(make_analysis())


def test_how_the_picture_was_taken_and_decoded_is_a_stratum(analysis):
    taken = replace(
        analysis,
        acquisition=Acquisition(True, False, "alcohol", 10.0, "scope"),
        remarks=(Remark("lossy", ""), Remark("profile_absent", "")),
    )
    found = {name: value for name, value in features(taken).items() if name.startswith("stratum_")}
    assert found["stratum_contact"] == "yes" and found["stratum_polarised"] == "no"
    assert (found["stratum_immersion"], found["stratum_magnification"]) == ("alcohol", "10")
    assert (found["stratum_lossy"], found["stratum_profile"]) == ("yes", "absent")
    assert features(analysis)["stratum_profile"] == "sRGB"


def test_stored_once_and_read_by_window(begin, analysis):
    for _ in range(2):
        with begin() as session:
            store_features(session, analysis)
    at, second = analysis.created_at, timedelta(seconds=1)
    digest = analysis.finding.model.digest
    with begin() as session:
        assert list(stored_features(session, since=at, until=at + second, model_digest=digest)) == [features(analysis)]
        assert list(stored_features(session, since=at, until=at + second)) == [features(analysis)]
        assert list(stored_features(session, since=at + second, until=at + 2 * second)) == []
        assert list(stored_features(session, since=at - second, until=at)) == []
        assert list(stored_features(session, since=at, until=at + second, model_digest="other")) == []
