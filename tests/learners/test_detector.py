"""The detector finds what is there, repeats itself and refuses what does not fit; its table is torchmetrics'."""

import numpy as np
import pytest
import torch
from torchmetrics.detection import MeanAveragePrecision

from chexgen_lib.estimates.resampling import Resampling
from chexgen_lib.images import ImageError
from chexgen_lib.learners import detector as d
from chexgen_lib.learners.base import LearnerConfig
from tests.builders import BOX_CLASSES, BOX_SIDE, boxed_squares, guessed_boxes


def train(data, seed=0, steps=3, val=None, learning_rate=1e-3):
    config = LearnerConfig(steps, seed, size="ci", batch_size=8, learning_rate=learning_rate, checks=3)
    return d.train_detector(*data, BOX_CLASSES, config, val=val)


def overall(detector, data):
    return d.evaluate(data[1], detector.predict(data[0]), BOX_CLASSES)["map"].item()


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Sums in another order end in other weights: with the threads fixed, a training ends alike on every machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def trained(one_thread):
    return train(boxed_squares(64), steps=150, learning_rate=3e-3, val=boxed_squares(16, 1))


def test_it_finds_the_squares_of_unseen_images(trained):
    images, boxes = boxed_squares(24, 2)
    predicted = trained.predict(images, batch_size=5)
    assert overall(trained, (images, boxes)) > 0.7
    best = max(predicted[0], key=lambda box: box["score"])
    assert best["class"] == "bright" and best["score"] > 0.5 and list(best) == ["class", *"xywh", "score"]
    np.testing.assert_allclose([best[k] for k in "xywh"], [boxes[0][0][k] for k in "xywh"], atol=0.1)
    larger = trained.predict(np.kron(images[:1], np.ones((2, 2), np.uint8)))[0][0]
    assert larger["x"] == pytest.approx(best["x"], abs=0.05)  # fractions, whatever the image's size


def test_boxes_of_other_images_are_learnt_less_well(trained):
    images, boxes = boxed_squares(64)
    mislabelled = train((images, boxes[8:] + boxes[:8]), steps=150, learning_rate=3e-3)
    test = boxed_squares(24, 2)
    assert overall(mislabelled, test) < overall(trained, test) / 2


def test_the_best_validation_weights_are_kept(trained):
    assert [check["step"] for check in trained.history] == [50, 100, 150]
    assert overall(trained, boxed_squares(16, 1)) == pytest.approx(
        max(h["val_map50"] for h in trained.history), abs=1e-6
    )


def test_the_seed_decides_the_result():
    data, before = boxed_squares(8), torch.get_rng_state()
    a, b, other = (train(data, seed).net.state_dict() for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not torch.equal(a["roi_heads.box_head.fc6.weight"], other["roi_heads.box_head.fc6.weight"])


def test_images_without_boxes_teach_that_nothing_is_there():
    images, boxes = boxed_squares(8)
    detector = train((images, [[] for _ in boxes]), steps=20, learning_rate=3e-3)
    assert all(parameter.isfinite().all() for parameter in detector.net.parameters())
    assert detector.predict(images) == [[]] * 8


def test_uint8_equals_float(trained):
    images = boxed_squares(3, 5)[0]
    assert trained.predict(images) == trained.predict(images.astype(np.float32) / 255)


def test_boxes_move_with_their_pixels():
    images = torch.full((40, 1, BOX_SIDE, BOX_SIDE), -1.0)
    images[:, :, 20:36, 8:28] = 1
    box = {"boxes": torch.tensor([[8, 20, 20, 16]]) / BOX_SIDE, "labels": torch.tensor([1])}
    moved, targets = d.augment(images, [box] * 40, torch.Generator().manual_seed(0))
    for image, target in zip(moved, targets, strict=True):
        rows, columns = ((image[0] > 0).any(dim).nonzero().flatten() for dim in (1, 0))
        edges = torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        assert (target["boxes"][0] - edges).abs().max() <= 1
        assert target["labels"].tolist() == [2]  # 0 is the background
    lefts = torch.stack([target["boxes"][0, 0] for target in targets])
    assert lefts.std() > 0.5 and lefts.max() < BOX_SIDE / 2  # it moves, and never changes sides


def test_boxes_are_cut_off_at_the_edge_and_dropped_beyond_it():
    sliver = {"boxes": torch.tensor([[0.98, 0.4, 0.02, 0.2], [0.9, 0.4, 0.1, 0.2]]), "labels": torch.tensor([0, 1])}
    targets = d.augment(torch.zeros(60, 1, BOX_SIDE, BOX_SIDE), [sliver] * 60, torch.Generator().manual_seed(0))[1]
    kept = [target["labels"].tolist() for target in targets]
    assert [1, 2] in kept and [2] in kept
    assert max(target["boxes"].max() for target in targets) <= BOX_SIDE


def corners(boxes, scale=1000):
    rows = [[b["x"], b["y"], b["x"] + b["w"], b["y"] + b["h"]] for b in boxes]
    labels = torch.tensor([BOX_CLASSES.index(b["class"]) for b in boxes], dtype=torch.int64)
    return {"boxes": scale * torch.tensor(rows).reshape(-1, 4), "labels": labels}


def once(truth, predicted):
    """AP and AR of each class and their means, [3, 2], of the images as they are."""
    return d.resampled(truth, predicted, BOX_CLASSES, np.ones((1, len(truth)), int))[0]


def test_values_are_those_of_torchmetrics():
    truth, predicted = guessed_boxes(40, 0)
    metric = MeanAveragePrecision(iou_thresholds=[0.5], class_metrics=True)
    scores = [torch.tensor([box["score"] for box in boxes], dtype=torch.float32) for boxes in predicted]
    guessed = [{**corners(boxes), "scores": s} for boxes, s in zip(predicted, scores, strict=True)]
    metric.update(guessed, [corners(boxes) for boxes in truth])
    expected = metric.compute()
    for m, kind in enumerate(("map", "mar_100")):
        values = once(truth, predicted)[:, m]
        assert values == pytest.approx([*expected[f"{kind}_per_class"].tolist(), expected[kind].item()], abs=1e-6)
        assert 0.1 < values[0] < 0.9  # neither trivial


def test_a_resample_equals_evaluating_the_resampled_images():
    truth, predicted = guessed_boxes(12, 1)
    counts = Resampling(np.arange(12), 5).weights
    for row, values in zip(counts, d.resampled(truth, predicted, BOX_CLASSES, counts), strict=True):
        drawn = np.repeat(np.arange(12), row)
        expected = d.evaluate([truth[i] for i in drawn], [predicted[i] for i in drawn], BOX_CLASSES)
        for m, kind in enumerate(("map", "mar_100")):
            whole = [*expected[f"{kind}_per_class"].tolist(), expected[kind].item()]
            np.testing.assert_allclose(values[:, m], whole, atol=1e-6)


def test_a_class_that_is_not_there_is_shown_but_not_averaged():
    truth, predicted = guessed_boxes(10, 2)
    truth = [[box for box in boxes if box["class"] == "bright"] for boxes in truth]
    bright, dark, mean = once(truth, predicted)
    assert np.isnan(dark).all() and (bright == mean).all() and (bright > 0).all()
    assert once(truth, [[] for _ in truth])[0].tolist() == [0, 0]
    assert np.isnan(once([[], []], [[], []])).all()


def test_stored_boxes_are_the_same_again():
    truth, predicted = guessed_boxes(6, 3)
    for boxes in (truth, [[], *predicted], [[], []]):
        stored = d.to_arrays(boxes, BOX_CLASSES)
        assert all(isinstance(values, np.ndarray) for values in stored.values())
        again = d.from_arrays(stored, len(boxes), BOX_CLASSES)
        assert [[box["class"] for box in one] for one in again] == [[box["class"] for box in one] for one in boxes]
        for one, other in zip(again, boxes, strict=True):
            for box, expected in zip(one, other, strict=True):
                assert box.keys() == expected.keys()
                assert [box[k] for k in "xywh"] == pytest.approx([expected[k] for k in "xywh"], abs=1e-6)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"x": 0.9, "w": 0.2}, r"train row 1: box .* must lie in the image"),
        ({"y": -0.1}, "must lie in the image"),
        ({"w": -0.2}, "w, h > 0"),
        ({"h": 0.0}, "w, h > 0"),
        ({"x": np.nan}, "must lie in the image"),
        ({"class": "cat"}, r"train row 1: box of 'cat'"),
    ],
)
def test_a_wrong_box_is_named(change, message):
    images, boxes = boxed_squares(4)
    boxes[1] = [{"class": "bright", "x": 0.1, "y": 0.1, "w": 0.2, "h": 0.2} | change]
    with pytest.raises(ValueError, match=message):
        train((images, boxes))


def test_what_does_not_fit_is_refused():
    images, boxes = boxed_squares(4)
    with pytest.raises(ValueError, match=r"train: 3 images need as many lists of boxes .* got 4"):
        train((images[:3], boxes))
    with pytest.raises(ValueError, match=r"row 0: box .* lacks \['h'\]"):
        train((images, [[{"class": "bright", "x": 0, "y": 0, "w": 1}], [], [], []]))
    with pytest.raises(ValueError, match="val: no image has a box"):
        train((images, boxes), val=(images, [[]] * 4))
    with pytest.raises(ImageError, match="square"):
        train((images[:, :32], boxes))
    with pytest.raises(ImageError, match="at least one image"):
        train((images, boxes)).predict(images[:0])


def test_the_papers_size_is_a_resnet50_with_a_feature_pyramid():
    with torch.device("meta"):
        net = d._network(d.SIZES["paper"], 7)
    assert net.transform.min_size == (1000,) and net.roi_heads.box_predictor.cls_score.out_features == 8
    assert 41e6 < sum(p.numel() for p in net.parameters() if p.requires_grad) < 42e6
