from dermoscopy.domain import LesionClass
from dermoscopy.wording import not_excluded

SET = (LesionClass.MEL, LesionClass.NV)


def test_a_set_in_words():
    assert not_excluded(SET, {"set.alpha": 0.1}) == (
        "Cannot be excluded at an error rate of 10 %: melanoma, melanocytic nevus."
    )
    assert not_excluded(SET[:1], {"set.alpha": 0.05}).endswith("error rate of 5 %: melanoma only.")


def test_a_model_without_sets_says_nothing():
    assert not_excluded((), {"set.alpha": 0.1}) == ""
    assert not_excluded(SET, {}) == "Cannot be excluded: melanoma, melanocytic nevus."
