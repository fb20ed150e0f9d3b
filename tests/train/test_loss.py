"""The chunked cross-entropy equals torch's, gradients included, whatever the chunk."""

import pytest
import torch

from ropewalk.model import loss as loss_module
from ropewalk.model.head import BodyAndHead
from ropewalk.model.loss import summed_cross_entropy


@pytest.mark.parametrize("rows", [1, 3, 16, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_chunks_change_nothing(rows: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_module, "CHUNK_NUMBERS", {"cpu": rows * 37})
    generator = torch.Generator().manual_seed(rows)
    hidden = torch.randn(50, 12, generator=generator, dtype=dtype, requires_grad=True)
    weight = torch.randn(37, 12, generator=generator, dtype=dtype, requires_grad=True)
    targets = torch.randint(0, 37, (50,), generator=generator)
    shares = torch.rand(50, generator=generator, dtype=dtype)
    (3 * summed_cross_entropy(hidden, weight, targets, shares)).backward()
    ours = hidden.grad, weight.grad
    hidden.grad = weight.grad = None
    theirs = torch.nn.functional.cross_entropy(hidden @ weight.t(), targets, reduction="none")
    (3 * (theirs * shares).sum()).backward()
    for our, their in zip(ours, (hidden.grad, weight.grad), strict=True):
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-4)  # the sum is kept in float32


def test_a_frozen_head_gets_no_gradient() -> None:
    hidden = torch.randn(5, 4, requires_grad=True)
    weight = torch.randn(7, 4)
    summed_cross_entropy(hidden, weight, torch.zeros(5, dtype=torch.long), torch.ones(5)).backward()
    assert hidden.grad is not None and weight.grad is None


def test_logits_are_finite_where_exponentials_are_not() -> None:
    hidden = torch.full((2, 1), 300.0, requires_grad=True)
    weight = torch.tensor([[1.0], [0.5]])
    value = summed_cross_entropy(hidden, weight, torch.tensor([0, 1]), torch.ones(2))
    value.backward()
    assert value.item() == pytest.approx(150.0) and bool(hidden.grad.isfinite().all())


def test_body_and_head_know_a_plain_model(tiny_llama) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    assert BodyAndHead(model).is_plain
    tokens = torch.arange(20)[None]
    parts = BodyAndHead(model)
    torch.testing.assert_close(parts.head(parts.hidden(tokens)), model(tokens).logits)  # type: ignore[misc]
