"""The recipe that made the pilot."""

from ropewalk.pilot.pretrain import pilot_model, scale_queries


def test_scaled_queries_scale_attentions_logits_and_nothing_else() -> None:
    model = pilot_model(0)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    scale_queries(model, 1.25)
    for name, weight in model.named_parameters():
        assert weight.equal(before[name] * (1.25 if name.endswith("q_proj.weight") else 1.0)), name
