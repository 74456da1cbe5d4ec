"""A teacher's answers, and what a student loses by differing from them."""

# ruff: noqa: E402 - the skips where torch is absent must come before what imports it
import shutil
from pathlib import Path

import pytest
import yaml

torch = pytest.importorskip("torch", reason="torch is not installed: `make test` installs it where it can")
pytest.importorskip("efficientnet_lite_pytorch", reason="what training needs is not installed (requirements/train.txt)")

import models.training
from models.registry import champion, open_package
from models.training.architectures import build_network
from models.training.architectures.contract import NetworkOutputs
from models.training.batches import Batch
from models.training.configuration import Architecture, Distillation, Input, load_configuration
from models.training.distillation import (
    Answers,
    Teacher,
    TeacherMissing,
    distillation_loss,
    soft_mask_loss,
    soft_target_loss,
    teacher_from_checkpoint,
    teacher_from_package,
    teacher_loss,
)

pytestmark = pytest.mark.training

STORE = Path(models.training.__file__).parents[1] / "store"
SEEN = Input(size=64, fill=(0, 0, 0), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


def outputs_of(class_logits, mask_logits):
    return NetworkOutputs(mask_logits, class_logits, torch.zeros(len(class_logits), 7, 1, 1), torch.zeros(1))


def test_a_student_that_agrees_loses_nothing_and_learns_nothing():
    logits = torch.randn(4, 7, requires_grad=True)
    loss = soft_target_loss(logits, logits.detach() + 3.0, temperature=2.0)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert logits.grad.abs().max() < 1e-6


def test_the_soft_target_loss_is_the_divergence_of_softened_probabilities():
    student, teacher = torch.tensor([[1.0, 0.0, 0, 0, 0, 0, 0]]), torch.tensor([[0.0, 2.0, 0, 0, 0, 0, 0]])
    p, q = (teacher / 4).softmax(1), (student / 4).softmax(1)
    expected = (p * (p / q).log()).sum() * 16
    assert soft_target_loss(student, teacher, 4.0).item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_gradient_keeps_its_size_when_the_temperature_rises():
    teacher, sizes = torch.tensor([[3.0, 1.0, 0, 0, 0, 0, 0]]), []
    for temperature in (4.0, 16.0):
        student = torch.zeros(1, 7, requires_grad=True)
        soft_target_loss(student, teacher, temperature).backward()
        sizes.append(student.grad.norm().item())
    assert sizes[1] == pytest.approx(sizes[0], rel=0.3)


def test_a_mask_of_another_size_is_brought_to_the_students():
    teacher = torch.full((1, 1, 8, 8), -20.0)
    teacher[..., 4:] = 20.0
    right = torch.full((1, 1, 16, 16), -8.0)
    right[..., 8:] = 8.0
    assert soft_mask_loss(right, teacher) < 0.5
    assert soft_mask_loss(-right, teacher) > 5


def test_weights_of_zero_switch_the_terms_off():
    outputs = outputs_of(torch.randn(2, 7), torch.randn(2, 1, 4, 4))
    answers = Answers(torch.randn(2, 7), torch.randn(2, 1, 4, 4))
    parts = [
        distillation_loss(outputs, answers, Distillation(teacher="x", diagnosis=d, outline=o)).item()
        for d, o in ((0, 0), (1, 0), (0, 1), (1, 1))
    ]
    assert parts[0] == 0.0
    assert parts[3] == pytest.approx(parts[1] + parts[2], rel=1e-5)


def test_the_teacher_sees_the_students_view_at_its_own_size_and_norm():
    shown = []

    def answers(image):
        shown.append(image)
        return Answers(torch.zeros(1, 7), torch.zeros(1, 1, 96, 96))

    pixels = torch.full((1, 3, 64, 64), 0.6)
    image = (pixels - torch.tensor(SEEN.mean).reshape(1, 3, 1, 1)) / torch.tensor(SEEN.std).reshape(1, 3, 1, 1)
    Teacher(96, (0.1, 0.2, 0.3), (0.5, 0.5, 0.5), answers).look(image, SEEN)
    assert shown[0].shape == (1, 3, 96, 96)
    assert shown[0].mean(dim=(0, 2, 3)).tolist() == pytest.approx([1.0, 0.8, 0.6], abs=1e-5)


def test_a_run_teaches_by_its_best_checkpoint(settings, configuration_file, tmp_path):
    its = load_configuration(configuration_file)
    torch.manual_seed(1)
    network = build_network(its.architecture).eval()
    checkpoint = tmp_path / "out" / "miniature-0.0.1" / "checkpoints" / "best.pt"
    with pytest.raises(TeacherMissing, match="train miniature first"):
        teacher_from_checkpoint(its, checkpoint)
    checkpoint.parent.mkdir(parents=True)
    torch.save({"average": network.state_dict()}, checkpoint)

    student = {**settings, "name": "student", "distillation": {"teacher": configuration_file.name, "outline": 2.0}}
    path = tmp_path / "student.yaml"
    path.write_text(yaml.safe_dump(student))
    configuration = load_configuration(path)
    further = teacher_loss(configuration, tmp_path, tmp_path / "out")
    image = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = network(image)
    assert torch.allclose(
        further.teacher.look(image, configuration.input).class_logits, expected.class_logits, atol=1e-5
    )

    logits = torch.zeros(2, 7, requires_grad=True)
    drawn = torch.zeros(2, 1, 64, 64, requires_grad=True)
    batch = Batch(image, torch.zeros(2, 1, 64, 64), torch.tensor([0, 1]), torch.tensor([True, True]))
    further(outputs_of(logits, drawn), batch).backward()
    assert drawn.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in network.parameters())


def test_no_teacher_no_loss_and_a_wrong_name_is_said(settings, configuration_file, tmp_path):
    assert teacher_loss(load_configuration(configuration_file), tmp_path, tmp_path) is None
    path = tmp_path / "student.yaml"
    path.write_text(yaml.safe_dump({**settings, "distillation": {"teacher": "nobody.yaml"}}))
    with pytest.raises(TeacherMissing, match="neither a configuration file nor a package"):
        teacher_loss(load_configuration(path), tmp_path, tmp_path)


def test_an_installed_package_teaches_as_it_serves(tmp_path):
    from models.preprocess import prepare

    package = champion(STORE)
    teacher = teacher_from_package(package)
    pixels = torch.randint(0, 256, (teacher.size, teacher.size, 3), generator=torch.Generator().manual_seed(0))
    prepared = torch.from_numpy(prepare(pixels.numpy().astype("uint8"), package.manifest.preprocessing).tensor)
    seen = Input(size=teacher.size, fill=(0, 0, 0), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    image = (pixels.permute(2, 0, 1)[None].float() / 255 - 0.5) / 0.25
    direct, looked = teacher.answers(prepared), teacher.look(image, seen)
    assert torch.allclose(direct.class_logits, looked.class_logits, atol=1e-3)
    assert torch.allclose(direct.mask_logits, looked.mask_logits, atol=1e-2)
    assert direct.class_logits.std() > 0.1


def test_a_package_that_answers_for_other_classes_is_refused(tmp_path):
    folder = tmp_path / "other" / "1.0.0"
    package = champion(STORE)
    folder.mkdir(parents=True)
    for name in ("manifest.yaml", package.manifest.file):
        shutil.copy(package.folder / name, folder / name)
    manifest = yaml.safe_load((folder / "manifest.yaml").read_text())
    manifest["name"], manifest["version"] = "other", "1.0.0"
    manifest["classes"] = [name for name in manifest["classes"] if name != "vasc"]
    manifest["calibration"] = {"method": "temperature", "temperature": 1.0, "fold": "none"}
    for named_by_class in ("decision", "prediction_sets"):
        manifest.pop(named_by_class)
    (folder / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    with pytest.raises(TeacherMissing, match="does not answer for akiec"):
        teacher_from_package(open_package(tmp_path, "other", "1.0.0"))


def test_a_teachers_own_weights_are_never_downloaded(configuration_file, tmp_path):
    its = load_configuration(configuration_file)
    torch.save({"average": build_network(its.architecture).state_dict()}, tmp_path / "best.pt")
    named = its.model_copy(
        update={"architecture": Architecture(**{**its.architecture.model_dump(), "pretrained": True, "weights": "a/b"})}
    )
    assert teacher_from_checkpoint(named, tmp_path / "best.pt").size == 64
