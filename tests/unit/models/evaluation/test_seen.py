from models.evaluation.seen import seen_images, warning


def test_images_that_made_the_model_are_counted_by_fold(build_package, tmp_path):
    (tmp_path / "a.csv").write_text("image_id,fold\nI1,train\nI2,test\nI3,validation\n", encoding="utf-8")
    (tmp_path / "b.csv").write_text("image_id,fold\nJ1,train\n", encoding="utf-8")
    data = {"split": {"file": "a.csv"}, "further": [{"split": {"file": "b.csv"}}, {"split": {"file": "absent.csv"}}]}
    manifest = build_package(lambda document: document.update(data=data)).manifest

    seen = seen_images(manifest, ["I1", "i2", "I3", "J1", "stranger"], tmp_path)

    assert seen == {"train": 2, "validation": 1}
    assert "3 of these 5 images made this model (train 2, validation 1)" in warning(seen, 5)
    assert seen_images(manifest, ["I2", "stranger"], tmp_path) == {}
