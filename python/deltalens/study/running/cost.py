"""What studies cost that are about to run: tokens through the model, files, and scans."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deltalens.cost.dry_run import Work
from deltalens.cost.total import Cost
from deltalens.engine import plan
from deltalens.engine.cost.resampling import resampling_cost
from deltalens.engine.decoder import TensorDecoder
from deltalens.pairs.encode import other_tokens, rows_tokens
from deltalens.study.ablation.first_order import checked_pairs
from deltalens.study.options import StudyGradients, of_model
from deltalens.study.ranking.prepared import PreparedStudy
from deltalens.study.run import WORK_DIRECTORY
from deltalens.study.running.capture import sites_lacking, with_other_rows
from deltalens.study.running.row_store import RowStore, shard_bytes, shards
from deltalens.study.tokens.effects import LATENTS_KEPT, tokens_kept

_PASSES = 3  # forward ones that a forward and a backward take as long as
_TOKEN_TEXT = 10  # bytes of a token as text in quotes, about
_LATENT_TEXT = 1500  # bytes of what is written of a ranked latent beside its values, about
_RECORD = 6000  # bytes of metadata, about


def missing_shards(study: PreparedStudy, directory: Path | None) -> list[range]:
    """The pairs of each shard that a run in ``directory`` is still to capture."""
    if directory is None:
        return shards(len(study.pairs))
    return RowStore(directory / WORK_DIRECTORY, study.encoded, study.site.d_model).missing


def study_work(
    studies: Sequence[PreparedStudy], missing: Sequence[Sequence[range]], check: int, flips: int
) -> Work:
    """Of studies of the same pairs; ``missing``: each one's :func:`missing_shards`.

    The prompts that were read to tell attention sinks are not counted.
    """
    if not studies:
        return Work(Cost())
    captured, rows = _capture(studies, missing)
    checked = sum(_checked_tokens(study, check) for study in studies)
    files = max(_token_files(study, flips) for study in studies)
    cost = captured + Cost(
        forward=checked,
        scratch=files + sum(map(_shards_bytes, studies, missing)),
        disk=sum(map(_result_bytes, studies)),
        seconds=sum(_scan_seconds(study, flips) for study in studies),
    )
    each = captured.backward / rows * _PASSES if rows else 1.0
    return Work(cost, tokens=rows, later=checked / each)


def _capture(
    studies: Sequence[PreparedStudy], missing: Sequence[Sequence[range]]
) -> tuple[Cost, int]:
    """Of all passes; and the tokens of the rows."""
    options, total, rows = studies[0].options, Cost(), 0
    for shard, lacking in sites_lacking(missing, len(studies[0].pairs)):
        if not lacking:
            continue
        pairs = [studies[0].encoded[pair] for pair in shard]
        tokens, others = sum(map(rows_tokens, pairs)), sum(map(other_tokens, pairs))
        captured = len(with_other_rows(studies[number] for number in lacking))
        total += gradients_cost(options.gradients, tokens, options.steps * captured)
        total += Cost(forward=others)
        rows += tokens + others
    return total, rows


def gradients_cost(gradients: StudyGradients, tokens: int, steps: int) -> Cost:
    """Of rows of so many tokens; ``steps``, at all sites together, are for integrated ones."""
    if of_model(gradients) == "integrated":
        return Cost(forward=tokens * (steps + 1), backward=tokens * steps)
    return Cost(forward=tokens, backward=tokens)


def _checked_tokens(study: PreparedStudy, check: int) -> int:
    """Of the first latents' ablation."""
    if not check or study.by_latents is not None:
        return 0
    pairs = [study.encoded[pair] for pair in checked_pairs(len(study.encoded))]
    return (1 + min(check, study.options.k)) * sum(map(rows_tokens, pairs))


def _lengths(study: PreparedStudy, pairs: Sequence[int]) -> list[int]:
    return [study.encoded[pair].counted_rows for pair in pairs]


def _shards_bytes(study: PreparedStudy, missing: Sequence[range]) -> int:
    return sum(
        shard_bytes([study.encoded[pair] for pair in shard], study.site.d_model)
        for shard in missing
    )


def _token_files(study: PreparedStudy, flips: int) -> int:
    """Bytes of all pairs' rows in one piece, which scores by latents and p-values need."""
    numbers = sum(_lengths(study, range(len(study.encoded)))) * study.site.d_model
    if study.by_latents is not None:
        return (4 + 8) * numbers
    return (4 + 4) * numbers if _is_tested(study, flips) else 0


def _is_tested(study: PreparedStudy, flips: int) -> bool:
    return bool(flips) and len(study.encoded) > 1


def _scan_seconds(study: PreparedStudy, flips: int) -> float:
    """By the planner, at rates assumed of the device; it knows nothing of scores by latents."""
    if study.by_latents is not None:
        return 0.0
    device, decoder, k = study.scan_device, study.decoder, study.options.k
    tokens = sum(_lengths(study, range(len(study.encoded))))
    shape = tokens, decoder.n_latents, decoder.d_model
    held = isinstance(decoder, TensorDecoder)
    resident = held and decoder.rows(0, 0).device.type == device.type
    impl = study.options.impl
    scan = plan(
        *shape,
        k=k,
        dtype=decoder.dtype,
        device=device,
        form="quadratic",
        impl=impl,
        resident=resident,
    ).cost.seconds
    if not _is_tested(study, flips):
        return scan
    apart = resampling_cost(
        tokens,
        len(study.encoded),
        *shape[1:],
        flips=flips,
        dtype=decoder.dtype,
        device=device,
        impl=impl,
        resident=resident,
    )
    return scan + apart.seconds


def _result_bytes(study: PreparedStudy) -> int:
    """About what :meth:`~deltalens.study.Attribution.save` writes."""
    pairs, k, d_model = len(study.encoded), study.options.k, study.site.d_model
    kept = min(tokens_kept(k), sum(_lengths(study, range(pairs))))
    read = sum(map(rows_tokens, study.encoded))
    numbers = [
        8 * pairs * k,
        4 * kept * min(k, LATENTS_KEPT),
        4 * pairs * d_model + 24 * d_model,
        8 * study.decoder.n_latents if study.options.save_scores else 0,
        0 if study.baseline.latent_mean is None else 8 * len(study.baseline.latent_mean),
    ]
    text = _TOKEN_TEXT * (kept + read // 2) + _LATENT_TEXT * k + _RECORD
    return sum(numbers) + text
