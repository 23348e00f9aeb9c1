import numpy as np
import pytest
from classifier import CLASSES, PATCH, Classifier
from raytracer import SHAPES, random_args, render

DEMO_COUNT = 160


@pytest.fixture(scope="module")
def classifier():
    return Classifier.train(seed=0)


@pytest.fixture(scope="module")
def demo(classifier):
    """Whether each of some demo renders is classified correctly, and its render_args."""
    rng = np.random.default_rng(1234)
    all_args = [random_args(rng) for _ in range(DEMO_COUNT)]
    is_correct = [
        CLASSES[classifier.predict(render(args, size=64)["rgb"]).argmax()] == args["shape"]
        for args in all_args
    ]
    return np.array(is_correct), all_args


def test_there_is_a_class_for_each_shape():
    assert set(CLASSES) == set(SHAPES)


@pytest.mark.parametrize("size", [PATCH, 64, 100])
def test_a_prediction_is_a_distribution_over_the_classes(classifier, size):
    probabilities = classifier.predict(render({}, size=size)["rgb"])

    assert probabilities.shape == (len(CLASSES),)
    assert probabilities.dtype == np.float32
    assert probabilities.min() >= 0.0
    assert probabilities.sum() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_ordinary_view_of_each_shape_is_recognised(classifier, shape):
    args = {"shape": shape, "floor": "plain", "camera_elevation_deg": 25.0}

    assert CLASSES[classifier.predict(render(args)["rgb"]).argmax()] == shape


def test_most_demo_renders_are_classified_correctly_and_some_are_not(demo):
    is_correct, _ = demo

    assert 0.75 < is_correct.mean() < 0.98  # Chance is 0.25.


def test_it_fails_more_often_from_far_and_from_above(demo):
    is_correct, all_args = demo
    is_hard = np.array(
        [
            args["camera_elevation_deg"] > 60.0 or args["camera_distance_m"] > 5.2
            for args in all_args
        ]
    )

    assert is_correct[is_hard].mean() < is_correct[~is_hard].mean() - 0.05


def test_the_same_seed_gives_the_same_classifier_and_another_does_not(classifier):
    rgb = render({"shape": "cone"}, size=64)["rgb"]
    probabilities = classifier.predict(rgb)

    assert np.array_equal(Classifier.train(seed=0).predict(rgb), probabilities)
    assert not np.array_equal(Classifier.train(seed=1).predict(rgb), probabilities)


def test_a_prediction_leaves_the_picture_as_it_was(classifier):
    rgb = render({}, size=64)["rgb"]
    rgb.flags.writeable = False

    classifier.predict(rgb)


def test_a_picture_too_small_to_look_at_is_refused(classifier):
    with pytest.raises(ValueError, match="pixels"):
        classifier.predict(np.zeros((3, PATCH - 1, PATCH), dtype=np.float32))
