"""The contrastive loss of the text encoders and the scorer."""

import pytest
import torch
import torch.nn.functional as F

from engine.reference.contrastive import contrastive_loss


def embeddings(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(4)
    return torch.randn(count, 16, generator=rng), torch.randn(count, 16, generator=rng)


def test_with_one_right_caption_each_it_is_the_cross_entropy_of_the_diagonal() -> None:
    image_ND, text_ND = embeddings(6)
    loss = contrastive_loss(image_ND, text_ND, match_NN=torch.eye(6), scale=torch.tensor(10.0))
    logit_NN = 10 * F.cosine_similarity(image_ND[:, None], text_ND[None], dim=-1)
    right = torch.arange(6)
    expected = (F.cross_entropy(logit_NN, right) + F.cross_entropy(logit_NN.T, right)) / 2
    torch.testing.assert_close(loss, expected)


def test_two_images_of_one_caption_share_its_probability() -> None:
    text_ND = torch.eye(2)
    match_NN = torch.tensor([[1.0, 1.0], [1.0, 1.0]])
    loss = contrastive_loss(text_ND, text_ND, match_NN=match_NN, scale=torch.tensor(0.0))
    assert float(loss) == pytest.approx(torch.tensor(2.0).log().item())


def test_autocast_does_not_round_its_logits() -> None:
    image_ND, text_ND = embeddings(32)
    arguments = {"match_NN": torch.eye(32), "scale": torch.tensor(100.0)}
    expected = contrastive_loss(image_ND, text_ND, **arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(contrastive_loss(image_ND, text_ND, **arguments), expected)
