"""Padding and the places where completion tokens are predicted."""

from __future__ import annotations

import torch

from deltalens.lm.rows import TokenRow, pad_rows

ROWS = [
    TokenRow([1, 5, 6, 7], [8, 9], [False, True, True, True]),
    TokenRow([4], [3, 2, 11], [True]),
    TokenRow([1, 5], [10], [False, True]),
]


def test_right_padding() -> None:
    batch = pad_rows(ROWS, [7, 3, 5])
    assert batch.rows.tolist() == [7, 3, 5]
    assert batch.input_ids.tolist() == [[1, 5, 6, 7, 8], [4, 3, 2, 0, 0], [1, 5, 0, 0, 0]]
    assert batch.counted.tolist() == [
        [False, True, True, True, False],
        [True, False, False, False, False],
        [False, True, False, False, False],
    ]
    assert batch.position_ids is None  # as the model itself counts
    assert batch.model_inputs().keys() == {"input_ids", "attention_mask"}


def test_left_padding() -> None:
    batch = pad_rows(ROWS, [0, 1, 2], side="left")
    assert batch.input_ids.tolist() == [[1, 5, 6, 7, 8], [0, 0, 4, 3, 2], [0, 0, 0, 1, 5]]
    assert batch.attention_mask.tolist() == [[1] * 5, [0, 0, 1, 1, 1], [0, 0, 0, 1, 1]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4], [0, 0, 0, 1, 2], [0, 0, 0, 0, 1]]
    assert batch.counted.tolist() == [
        [False, True, True, True, False],
        [False, False, True, False, False],
        [False, False, False, False, True],
    ]


def test_each_completion_token_is_predicted_by_the_token_before_it() -> None:
    for side in ("right", "left"):
        batch = pad_rows(ROWS, [0, 1, 2], side=side)
        found = list(zip(batch.target_rows.tolist(), batch.offsets.tolist(), strict=True))
        assert found == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 0)]
        assert batch.targets.tolist() == [8, 9, 3, 2, 11, 10]
        before = batch.input_ids[batch.target_rows, batch.target_positions]
        assert before.tolist() == [7, 8, 4, 3, 2, 5]


def test_rows_without_completion() -> None:
    batch = pad_rows([TokenRow([1, 2], [], [True, True]), TokenRow([3], [], [True])], [0, 1])
    assert batch.input_ids.tolist() == [[1, 2], [3, 0]]
    assert batch.targets.numel() == batch.target_positions.numel() == 0


def test_to_a_device() -> None:
    batch = pad_rows(ROWS, [0, 1, 2])
    assert batch.to(torch.device("cpu")) is batch
    moved = batch.to(torch.device("meta"))
    assert moved.counted.device.type == moved.rows.device.type == "meta"
