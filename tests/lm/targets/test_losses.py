"""Completion losses, as they are and with the site edited."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from deltalens.errors import InputError
from deltalens.lm import RowBatch, TokenRow, completion_losses
from deltalens.lm import sites as sites_module
from helpers.families import (
    CONTEXT,
    FAMILIES,
    VOCABULARY,
    WIDTH,
    build,
    example,
    token_ids,
)

SIZES = [(9, 3), (2, 5), (17, 1), (6, 7), (9, 2)]


def made_rows() -> list[TokenRow]:
    return [
        TokenRow(
            token_ids(prompt, 2 * number),
            token_ids(completion, 2 * number + 1, bos=False),
            [False] + [True] * (prompt - 1),
        )
        for number, (prompt, completion) in enumerate(SIZES)
    ]


def edited_alone(model: Any, row: TokenRow, vector: torch.Tensor, layer: int) -> float:
    """The loss of one row with ``vector`` added at its counted tokens."""

    def hook(module: Any, args: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        changed = hidden.clone()
        for position, counted in enumerate(row.counted):
            if counted:
                changed[0, position] += vector
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    handle = sites_module.resolve_site(model, layer).module.register_forward_hook(hook)
    with torch.no_grad():
        ids = torch.tensor([row.prompt_ids + row.completion_ids])
        logits = model(ids).logits[0, len(row.prompt_ids) - 1 : -1].double()
    handle.remove()
    target = torch.tensor(row.completion_ids)
    return torch.nn.functional.cross_entropy(logits, target, reduction="sum").item()


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_without_and_with_an_edit(family: str) -> None:
    model, rows = build(family), made_rows()
    vectors = torch.randn(
        len(rows), WIDTH, dtype=model.dtype, generator=torch.Generator().manual_seed(0)
    )

    def edit(hidden: torch.Tensor, batch: RowBatch) -> torch.Tensor:
        return hidden + vectors[batch.rows][:, None] * batch.counted[..., None]

    exact = 1e-6 if model.dtype == torch.float32 else 1e-12
    plain = completion_losses(model, rows, site=1)
    edited = completion_losses(model, rows, site="layers.1", edit=edit)
    for number, row in enumerate(rows):
        _, _, expected = example(model, row.prompt_ids, row.completion_ids, 1)
        assert plain[number].item() == pytest.approx(expected, rel=exact)
        alone = edited_alone(model, row, vectors[number], 1)
        assert edited[number].item() == pytest.approx(alone, rel=exact)
        assert abs(edited[number] - plain[number]) > 1e-3


def test_mean_divides_by_the_completion() -> None:
    model, rows = build("llama"), made_rows()
    total = completion_losses(model, rows, site=0)
    mean = completion_losses(model, rows, site=0, loss="mean")
    lengths = torch.tensor([length for _, length in SIZES])
    torch.testing.assert_close(mean * lengths, total)


def test_results_are_float64_and_independent_of_batches() -> None:
    model, rows = build("mistral"), made_rows()
    whole = completion_losses(model, rows, site=1)
    assert whole.dtype == torch.float64
    assert whole.device.type == "cpu"
    alone = completion_losses(model, rows, site=1, batch_tokens=1)
    reverse = completion_losses(model, rows[::-1], site=1).flip(0)
    torch.testing.assert_close(alone, whole, rtol=1e-12, atol=0)
    torch.testing.assert_close(reverse, whole, rtol=1e-12, atol=0)


def test_edits_see_original_row_numbers_in_every_batch() -> None:
    seen: list[int] = []

    def edit(hidden: torch.Tensor, batch: RowBatch) -> torch.Tensor:
        seen.extend(batch.rows.tolist())
        assert hidden.shape[:2] == batch.counted.shape
        assert not hidden.requires_grad
        counts = [sum(made_rows()[number].counted) for number in batch.rows.tolist()]
        assert batch.counted.sum(1).tolist() == counts
        return hidden

    completion_losses(build("llama"), made_rows(), site=1, edit=edit, batch_tokens=20)
    assert sorted(seen) == list(range(len(SIZES)))


def test_edits_may_compute_in_another_dtype() -> None:
    model, rows = build("llama", torch.bfloat16), made_rows()
    found = completion_losses(model, rows, site=1, edit=lambda hidden, batch: hidden.double())
    torch.testing.assert_close(found, completion_losses(model, rows, site=1))


def test_out_of_memory_backs_off() -> None:
    model, rows = build("llama"), made_rows()
    expected = completion_losses(model, rows, site=1)

    def before(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if len(kwargs["input_ids"]) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    model.register_forward_pre_hook(before, with_kwargs=True)
    torch.testing.assert_close(completion_losses(model, rows, site=1), expected)


def test_no_rows() -> None:
    assert completion_losses(build("llama"), [], site=1).shape == (0,)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (TokenRow([], [5], []), "row 1: prompt and completion must have at least one token"),
        (TokenRow([5], [], [True]), "row 1: prompt and completion must have at least one token"),
        (TokenRow([5, 6], [7], [True]), "row 1: counted has 1 flags for 2 prompt tokens"),
        (TokenRow([5], [VOCABULARY], [True]), "row 1: token id 97 is outside"),
        (TokenRow([5] * CONTEXT, [5], [True] * CONTEXT), "= 65 tokens; the model's context is 64"),
    ],
)
def test_rows_that_do_not_fit_are_named(row: TokenRow, message: str) -> None:
    with pytest.raises(InputError, match=message):
        completion_losses(build("llama"), [made_rows()[0], row], site=1)


def test_nan_losses_are_named() -> None:
    def edit(hidden: torch.Tensor, batch: RowBatch) -> torch.Tensor:
        return torch.where((batch.rows == 3)[:, None, None], torch.nan, hidden)

    with pytest.raises(InputError, match=r"row 3: the loss is nan \(1 rows in all\)"):
        completion_losses(build("llama"), made_rows(), site=1, edit=edit)
