"""A stage is done once, and again when what it rests on or what it wrote is not what it was."""

import pytest

from models.training.stages import Stages, code_digest


@pytest.fixture
def work(tmp_path):
    """A stage's work that counts itself, and the file it writes."""
    path = tmp_path / "out.txt"

    def do():
        path.write_text("done")
        do.times += 1

    do.times = 0
    return do, path


def test_what_stands_is_skipped_and_said(work, tmp_path, caplog):
    do, path = work
    with caplog.at_level("INFO", "models.training"):
        assert Stages(tmp_path).once("pack", ["a"], [path], do)
        assert not Stages(tmp_path).once("pack", ["a"], [path], do)
    assert do.times == 1
    assert "skipping pack: out.txt stands" in caplog.text


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_text("other")])
def test_an_output_that_does_not_stand_is_made_again(work, tmp_path, spoil):
    do, path = work
    Stages(tmp_path).once("pack", ["a"], [path], do)
    spoil(path)
    assert Stages(tmp_path).once("pack", ["a"], [path], do)
    assert path.read_text() == "done"


def test_other_inputs_do_it_again(work, tmp_path):
    do, path = work
    Stages(tmp_path).once("pack", ["a"], [path], do)
    assert Stages(tmp_path).once("pack", ["b"], [path], do)


def test_a_killed_stage_is_in_no_record(work, tmp_path):
    do, path = work

    def killed():
        path.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Stages(tmp_path).once("pack", ["a"], [path], killed)
    assert Stages(tmp_path).once("pack", ["a"], [path], do)


def test_a_stage_without_its_output_is_not_done(tmp_path):
    absent = tmp_path / "absent"
    Stages(tmp_path).once("pack", ["a"], [absent], lambda: None)
    assert Stages(tmp_path).once("pack", ["a"], [absent], lambda: None)


def test_a_record_that_was_cut_off_counts_as_empty(work, tmp_path):
    do, path = work
    Stages(tmp_path).once("pack", ["a"], [path], do)
    (tmp_path / "stages.json").write_text('{"pack": {')
    assert Stages(tmp_path).once("pack", ["a"], [path], do)


def test_the_digest_of_code_tells_packages_apart():
    assert code_digest("models/training") == code_digest("models/training")
    assert code_digest("models/training") != code_digest("models")
