"""The mathematics of inversion, on velocities that are known."""

import pytest
import torch

from chexgen_lib.sampling.inversion import against, flow_times, invert, noised, return_along, sample_down

FILM = torch.arange(8.0).reshape(1, 2, 2, 2) / 8


def towards(noise):
    """The velocity of a flow all of whose paths end in one noise: (noise - x) / (1 - t), straight."""
    return lambda times: lambda x, k: (noise - x) / (1 - times[k])


def constant(value):
    return lambda x, k: torch.full_like(x, value)


def bent(x, k):
    return torch.sin(3 * x) + k


def test_times_rise_to_the_strength_and_follow_the_shift():
    assert flow_times(4, 0.8) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    shifted = flow_times(4, 0.8, shift=3)
    assert shifted[0] == 0 and shifted[-1] == pytest.approx(0.8)
    even = [t / (3 - 2 * t) for t in shifted]  # the shift undone
    assert [b - a for a, b in zip(even, even[1:], strict=False)] == pytest.approx([even[1]] * 4)
    for steps, strength, words in (
        (0, 0.8, "num_inference_steps"),
        (True, 0.8, "not True"),
        (4, 0.0, "strength"),
        (4, 1.1, "strength"),
    ):
        with pytest.raises(ValueError, match=words):
            flow_times(steps, strength)


def test_inversion_follows_a_straight_path_exactly():
    noise, times = torch.full_like(FILM, -1.0), flow_times(5, 0.9)
    path = invert(towards(noise)(times), FILM, times)
    assert torch.allclose(path.states[-1], noised(FILM, noise, 0.9), atol=1e-6)
    assert len(path.states) == len(path.velocities) == 6
    assert torch.allclose(sample_down(towards(noise)(times), path.states[-1], times), FILM, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 3])
def test_no_change_returns_the_film_whatever_the_number_of_steps(steps):
    path = invert(bent, FILM, flow_times(steps, 0.9))
    back = return_along(path, against(bent, bent, 5.0))
    assert torch.allclose(back, FILM, atol=1e-6)
    assert not torch.allclose(sample_down(bent, path.states[-1], path.times), FILM, atol=1e-2), "Euler alone does not"


def test_a_change_adds_what_the_requests_differ_by():
    times = flow_times(4, 0.8)
    path = invert(constant(1.0), FILM, times)
    moved = return_along(path, constant(3.0)) - FILM
    assert torch.allclose(moved, torch.full_like(FILM, -2 * 0.8), atol=1e-6)
    weighed = return_along(path, against(constant(3.0), constant(1.0), 2.0)) - FILM
    assert torch.allclose(weighed, 2 * moved, atol=1e-6)


def test_what_is_kept_does_not_change():
    share = torch.tensor([[0.0, 1.0], [1.0, 0.0]])[None, None]
    moved = return_along(invert(constant(1.0), FILM, flow_times(4, 0.8)), constant(3.0), share) - FILM
    assert torch.equal(moved != 0, (share != 0).expand_as(moved))
