"""The best word speaks for its class."""

from __future__ import annotations

import torch

from geoovseg.ops.classes import best_word, shares_of


def test_a_class_scores_as_its_best_word() -> None:
    scores = torch.tensor([0.1, 0.7, 0.3, 0.5]).view(1, 4, 1, 1)
    assert best_word(scores, [2, 1, 1]).flatten().tolist() == torch.tensor([0.7, 0.3, 0.5]).tolist()


def test_a_class_does_not_fade_as_synonyms_are_added() -> None:
    first = shares_of(best_word(torch.tensor([0.3, 0.28]).view(1, 2, 1, 1), [1, 1])[0], 50.0)
    more = shares_of(best_word(torch.tensor([0.3, 0.3, 0.29, 0.28]).view(1, 4, 1, 1), [3, 1])[0], 50.0)
    torch.testing.assert_close(first, more)


def test_confidence_is_the_softmax_of_scaled_cosines() -> None:
    scores = torch.tensor([[0.31, 0.2], [0.3, 0.25]]).view(2, 1, 2)
    confidence = shares_of(scores, 50.0).amax(0)
    expected = [1 / (1 + torch.exp(torch.tensor(-0.5))), 1 / (1 + torch.exp(torch.tensor(-2.5)))]
    torch.testing.assert_close(confidence[0], torch.stack(expected))


def test_shares_are_taken_as_they_are() -> None:
    assert shares_of(torch.tensor([0.2, 0.8]).view(2, 1, 1), None).amax().item() == torch.tensor(0.8).item()
