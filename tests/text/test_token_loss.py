"""The loss against PyTorch's own, and the chunked form against the plain one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from interlocking_backprop.engine.losses import Loss
from interlocking_backprop.text.token_loss import TokenLoss


def case(dtype=torch.float64, ignored=True) -> tuple[Tensor, Tensor, Tensor]:
    """Features (B, T, C), weights (V, C) and targets (B, T)."""
    torch.manual_seed(0)
    features = torch.randn(3, 7, 5).to(dtype).requires_grad_()
    weight = torch.randn(11, 5).to(dtype).requires_grad_()
    target = torch.randint(0, 11, (3, 7))
    if ignored:
        target[0, :3] = target[2, 6] = -100
    return features, weight, target


def test_mean_over_the_positions_that_count():
    features, weight, target = case()
    logits = features @ weight.T
    expected = F.cross_entropy(logits.flatten(0, 1), target.flatten())
    torch.testing.assert_close(TokenLoss()(logits, target), expected)
    assert TokenLoss().n_samples(target).item() == 17


@pytest.mark.parametrize("chunk_tokens", [1, 4, 21, 1000])
@pytest.mark.parametrize("ignored", [False, True])
def test_chunks_give_the_same_loss_and_gradients(chunk_tokens, ignored):
    features, weight, target = case(ignored=ignored)
    loss = TokenLoss(chunk_tokens=chunk_tokens)
    plain = loss(features @ weight.T, target)
    chunked = loss((features, weight), target)
    torch.testing.assert_close(chunked, plain, rtol=1e-12, atol=0)
    expected = torch.autograd.grad(3 * plain, (features, weight))
    for _ in range(2):
        gradients = torch.autograd.grad(3 * chunked, (features, weight), retain_graph=True)
        torch.testing.assert_close(gradients, expected, rtol=1e-12, atol=1e-14)


def test_gradients_of_chunks_by_differences():
    features, weight, target = case()
    assert torch.autograd.gradcheck(lambda f, w: TokenLoss(chunk_tokens=4)((f, w), target), (features, weight))


def test_scores_too_large_for_exp():
    features, weight, target = case()
    large = (features * 1e4, weight)
    torch.testing.assert_close(TokenLoss()(large, target), TokenLoss()(large[0] @ weight.T, target))


@pytest.mark.parametrize("chunked", [False, True])
def test_all_ignored_is_zero_and_so_is_the_gradient(chunked):
    features, weight, target = case()
    output = (features, weight) if chunked else features @ weight.T
    loss = TokenLoss()(output, torch.full_like(target, -100))
    assert loss.item() == 0
    for gradient in torch.autograd.grad(loss, (features, weight)):
        assert torch.equal(gradient, torch.zeros_like(gradient))
    assert TokenLoss().n_samples(torch.full_like(target, -100)).item() == 0


def test_another_index_to_ignore():
    features, weight, target = case(ignored=False)
    target[0, :3] = 4
    loss = TokenLoss(ignore_index=4, chunk_tokens=4)
    kept = target != 4
    expected = F.cross_entropy((features @ weight.T)[kept], target[kept])
    torch.testing.assert_close(loss(features @ weight.T, target), expected)
    torch.testing.assert_close(loss((features, weight), target), expected)


def test_micro_batches_weighted_by_what_counts_are_the_whole_batch():
    features, weight, target = case()
    loss = TokenLoss()
    whole = loss(features @ weight.T, target)
    parts = [loss(f @ weight.T, t) * loss.n_samples(t) for f, t in zip(features, target, strict=True)]
    torch.testing.assert_close(torch.stack(parts).sum() / loss.n_samples(target), whole)


@pytest.mark.parametrize("chunked", [False, True])
def test_low_precision_is_summed_in_float32(chunked):
    torch.manual_seed(0)
    features = torch.randn(2, 3000, 8).bfloat16().requires_grad_()
    weight = torch.randn(11, 8).bfloat16().requires_grad_()
    target = torch.randint(0, 11, (2, 3000))
    output = (features, weight) if chunked else features @ weight.T
    loss = TokenLoss(chunk_tokens=500)(output, target)
    exact = TokenLoss()(features.double() @ weight.double().T, target)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-3)
    gradients = torch.autograd.grad(loss, (features, weight))
    for gradient, expected in zip(gradients, torch.autograd.grad(exact, (features, weight)), strict=True):
        assert gradient.dtype == torch.bfloat16
        torch.testing.assert_close(gradient, expected, rtol=0.02, atol=0.01 * expected.abs().max().item())


def test_under_autocast_products_are_in_low_precision_and_gradients_are_not():
    features, weight, target = case(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = TokenLoss(chunk_tokens=4)((features, weight), target)
    exact = TokenLoss()((features, weight), target)
    assert loss.dtype == torch.float32
    assert loss.item() != exact.item()
    assert loss.item() == pytest.approx(exact.item(), rel=1e-2)
    for gradient, expected in zip(
        torch.autograd.grad(loss, (features, weight)), torch.autograd.grad(exact, (features, weight)), strict=True
    ):
        assert gradient.dtype == torch.float32
        torch.testing.assert_close(gradient, expected, rtol=0.05, atol=0.01)


def saved_bytes(output: tuple[Tensor, Tensor] | Tensor, loss: TokenLoss, target: Tensor) -> int:
    """What the loss keeps for its backward pass."""
    saved: dict[int, int] = {}

    def note(t: Tensor) -> Tensor:
        saved[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        loss(output, target)
    return sum(saved.values())


def test_chunks_keep_gradients_of_their_inputs_in_place_of_logits():
    features, weight = torch.randn(1, 4096, 16, requires_grad=True), torch.randn(2000, 16, requires_grad=True)
    target = torch.randint(0, 2000, (1, 4096))
    logits_bytes = 4096 * 2000 * 4
    assert saved_bytes(features @ weight.T, TokenLoss(), target) >= logits_bytes
    assert saved_bytes((features, weight), TokenLoss(chunk_tokens=256), target) < 0.03 * logits_bytes


def test_library_asks_for_nothing_more_than_output_and_target():
    loss = Loss(TokenLoss())
    assert not loss.wants_component_input
    assert not loss.wants_network_input


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"shape \(2, 5, 11\), the target \(2, 4\); expected \(B, T, V\) and \(B, T\)"):
        TokenLoss()(torch.randn(2, 5, 11), torch.zeros(2, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"shape \(2, 5, 3\), the target \(10,\)"):
        TokenLoss()((torch.randn(2, 5, 3), torch.randn(11, 3)), torch.zeros(10, dtype=torch.int64))


@pytest.mark.parametrize("chunk_tokens", [0, 1.5, True])
def test_bad_chunk_size(chunk_tokens):
    with pytest.raises(ValueError, match=r"chunk_tokens is .*; expected a whole number of at least 1"):
        TokenLoss(chunk_tokens=chunk_tokens)
