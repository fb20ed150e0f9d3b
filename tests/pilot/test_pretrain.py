"""The recipe that made the pilot."""

import torch

from ropewalk.pilot.pretrain import pilot_model, scale_queries, set_to_mean


def test_scaled_queries_scale_attentions_logits_and_nothing_else() -> None:
    model = pilot_model(0)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    scale_queries(model, 1.25)
    for name, weight in model.named_parameters():
        assert weight.equal(before[name] * (1.25 if name.endswith("q_proj.weight") else 1.0)), name


def test_the_mean_of_states_is_taken_weight_by_weight() -> None:
    model, others = pilot_model(0), [pilot_model(seed) for seed in (1, 2)]
    set_to_mean(model, [list(other.parameters()) for other in others])
    for weight, one, other in zip(model.parameters(), *(list(o.parameters()) for o in others), strict=True):
        torch.testing.assert_close(weight, (one + other) / 2)
