"""Two studies side by side, against brute force and hand-counted lists."""

from __future__ import annotations

import itertools
import json
import math
import random
from dataclasses import replace
from fractions import Fraction

import pytest
import torch

import deltalens
from deltalens.cli.main import main
from deltalens.errors import InputError
from deltalens.study import Comparison, compare
from deltalens.study.comparison.rank_statistics import mean_ranks, overlap_probability, spearman
from helpers.tiny_study import (
    D_MODEL,
    SITE,
    make_model,
    make_pairs,
    make_tokenizer,
)

N_LATENTS = 60


def ranks_naively(values: list[float]) -> list[float]:
    """One plus how many are smaller, plus half of how many others are equal."""
    return [
        1 + sum(other < value for other in values) + (values.count(value) - 1) / 2
        for value in values
    ]


def correlation_naively(x: list[float], y: list[float]) -> float:
    a, b = ranks_naively(x), ranks_naively(y)
    mean = (len(x) + 1) / 2
    top = sum((p - mean) * (q - mean) for p, q in zip(a, b, strict=True))
    squares = [sum((p - mean) ** 2 for p in ranks) for ranks in (a, b)]
    return top / math.sqrt(squares[0] * squares[1])


@pytest.mark.parametrize("values", [1000, 4])
@pytest.mark.parametrize("n", [2, 3, 17, 60])
def test_spearman_with_and_without_ties(n, values):
    draw = random.Random(n)
    x, y = ([float(draw.randrange(values)) for _ in range(n)] for _ in range(2))
    x[0], x[1], y[0], y[1] = 0.0, 1.0, 0.0, 2.0
    assert mean_ranks(torch.tensor(x)).tolist() == ranks_naively(x)
    found = spearman(torch.tensor(x), torch.tensor(y))
    assert found == pytest.approx(correlation_naively(x, y), abs=1e-12)


def test_spearman_of_known_and_of_meaningless_values():
    # d² sums to 194: 1 − 6·194 / (10·99)
    iq = torch.tensor([106.0, 100, 86, 101, 99, 103, 97, 113, 112, 110])
    hours = torch.tensor([7.0, 27, 2, 50, 28, 29, 20, 12, 6, 17])
    assert spearman(iq, hours) == pytest.approx(-29 / 165)
    assert spearman(iq, -iq) == pytest.approx(-1.0)
    for few in (torch.tensor([]), torch.tensor([1.0]), torch.tensor([1.0, 1.0])):
        assert math.isnan(spearman(few, few))


@pytest.mark.parametrize(("first", "second", "total"), [(2, 3, 6), (4, 4, 6), (1, 5, 5)])
def test_overlap_probability_counts_every_pair_of_lists(first, second, total):
    one = set(range(first))
    overlaps = [len(one & set(other)) for other in itertools.combinations(range(total), second)]
    for shared in range(min(first, second) + 1):
        exact = sum(count >= shared for count in overlaps) / len(overlaps)
        assert overlap_probability(shared, first, second, total) == pytest.approx(exact, rel=1e-9)


def test_overlap_probability_of_a_large_dictionary():
    n, k = 2_000_000, 100
    whole = math.comb(n, k)
    terms = (Fraction(math.comb(k, x) * math.comb(n - k, k - x), whole) for x in range(3, k + 1))
    exact = float(sum(terms))
    assert overlap_probability(3, k, k, n) == pytest.approx(exact, rel=1e-6)


@pytest.fixture(scope="module")
def studies():
    """Two studies of one model with one decoder on different pairs, all scores kept."""
    model, tokenizer = make_model(), make_tokenizer()
    directions = torch.randn(N_LATENTS, D_MODEL, generator=torch.Generator().manual_seed(0))

    def study(seed=0, k=20, decoder=directions, site=SITE, **options):
        return deltalens.attribute(
            model,
            tokenizer,
            make_pairs(4, seed=seed),
            decoder,
            site=site,
            k=k,
            **{"save_scores": True, "baseline": deltalens.Baseline.zero(D_MODEL), **options},
        )

    return study


@pytest.fixture(scope="module")
def both(studies):
    return studies(0), studies(1)


def reordered(run, latents, **changes):
    """The same study with another list of latents, for counting by hand."""
    count = len(latents)
    values = torch.arange(count, 0, -1, dtype=torch.float32)
    signs = torch.tensor([1.0 if latent % 2 else -1.0 for latent in latents], dtype=torch.float64)
    return replace(
        run,
        latents=torch.tensor(latents),
        scores=values,
        push=signs,
        all_scores=None,
        **changes,
    )


def test_a_case_counted_by_hand(both):
    a = reordered(both[0], [5, 9, 2, 7, 1])
    b = reordered(both[1], [7, 3, 5, 4, 8, 2])
    found = compare(a, b, names=("one", "two"))
    assert [(item.latent, item.ranks) for item in found.shared] == [
        (5, (1, 3)),
        (7, (4, 1)),
        (2, (3, 6)),
    ]
    assert found.shared[0].scores == (5.0, 4.0)
    assert found.shared[0].pushes == (1.0, 1.0)
    assert all(item.same_push for item in found.shared)
    assert (found.k, found.n_latents, found.names) == ((5, 6), N_LATENTS, ("one", "two"))
    assert found.expected == 5 * 6 / N_LATENTS
    # Ranks (1, 3), (4, 1), (3, 6) are 1 2, 3 1, 2 3 among the three: 1 − 6·6 / (3·8)
    assert found.correlation == pytest.approx(-0.5)
    assert math.isnan(found.correlation_all)
    assert (found.top, found.same_top, found.top_ranks) == ((5, 7), False, (3, 4))
    top = compare(a, b, top=3)
    assert [item.latent for item in top.shared] == [5]
    assert math.isnan(top.correlation)
    assert top.k == (3, 3)


def test_pushes_that_disagree(both):
    a = reordered(both[0], [5, 9])
    b = replace(reordered(both[1], [5, 9]), push=torch.tensor([-1.0, 1.0], dtype=torch.float64))
    assert [item.same_push for item in compare(a, b).shared] == [False, True]
    assert compare(a, b).same_top


def test_nothing_shared(both):
    found = compare(reordered(both[0], [1, 2]), reordered(both[1], [3, 4]))
    assert found.shared == []
    assert found.probability == pytest.approx(1.0)
    assert found.top_ranks == (None, None)
    assert math.isnan(found.correlation)


def test_all_scores(both):
    a, b = both
    found = compare(a, b)
    x, y = a.all_scores.tolist(), b.all_scores.tolist()
    assert found.correlation_all == pytest.approx(correlation_naively(x, y), abs=1e-9)
    shared = set(a.latents.tolist()) & set(b.latents.tolist())
    assert {item.latent for item in found.shared} == shared
    top = int(a.latents[0])
    assert found.top_ranks[0] == 1 + sum(value > y[top] for value in y)


def test_a_study_with_itself(both):
    found = compare(both[0], both[0])
    assert len(found.shared) == 20
    assert found.same_top
    assert found.top_ranks == (1, 1)
    assert found.correlation == pytest.approx(1.0)
    assert found.correlation_all == pytest.approx(1.0)


@pytest.mark.parametrize("ranking", ["bottom", "abs"])
def test_other_rankings(studies, ranking):
    a, b = (studies(seed, k=3, ranking=ranking) for seed in (0, 1))
    found = compare(a, b)
    merit = {"bottom": torch.neg, "abs": torch.abs}[ranking](b.all_scores).tolist()
    assert found.top_ranks[0] == 1 + sum(value > merit[found.top[0]] for value in merit)
    x, y = (
        {"bottom": torch.neg, "abs": torch.abs}[ranking](run.all_scores).tolist() for run in (a, b)
    )
    assert found.correlation_all == pytest.approx(correlation_naively(x, y), abs=1e-9)


def test_what_cannot_be_compared(studies, both):
    a = both[0]
    other = torch.randn(N_LATENTS, D_MODEL)
    by_latent = {**a.metadata, "options": {**a.metadata["options"], "score": "latent"}}
    for b, message in (
        (studies(1, decoder=other), "A and B used different SAEs"),
        (studies(1, site=0), r"at different sites, blocks\.1\.hook_resid_post and blocks\.0\."),
        (studies(1, ranking="bottom"), r"differ in ranking \(top and bottom\)"),
        (studies(1, normalize=False), r"differ in normalize \(True and False\)"),
        (replace(a, metadata=by_latent), r"differ in score \(direction and latent\)"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            compare(a, b)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="A kept 20 latents, asked for the top 21"):
        compare(*both, top=21)
    with pytest.raises(InputError, match="top must be at least 1"):
        compare(*both, top=0)


def test_what_may_differ_is_said(studies, both):
    found = compare(both[0], studies(1, loss="mean", present_only=True))
    assert found.differences == {"loss": ("sum", "mean"), "present_only": (False, True)}
    assert compare(*both).differences == {}
    shifted = studies(1, baseline=deltalens.Baseline.zero(D_MODEL).mean + 1)
    assert compare(both[0], shifted).differences.keys() == {"baseline"}


def test_files(both, tmp_path):
    for found in (
        compare(*both),
        compare(reordered(both[0], [1, 2]), reordered(both[1], [3, 4, 1])),
    ):
        found.save(tmp_path / "c.json")
        json.loads((tmp_path / "c.json").read_text(), parse_constant=pytest.fail)
        loaded = Comparison.load(tmp_path / "c.json")
        assert loaded.as_dict() == found.as_dict()
        assert loaded.shared == found.shared
        assert math.isnan(loaded.correlation) == math.isnan(found.correlation)
    for content in ("{", "[]", "{}", '{"names": 1}'):
        (tmp_path / "c.json").write_text(content)
        with pytest.raises(InputError, match=r"c.json is no comparison"):
            Comparison.load(tmp_path / "c.json")
    with pytest.raises(InputError, match="cannot read"):
        Comparison.load(tmp_path / "nowhere.json")


def test_the_command(both, tmp_path, capsys, monkeypatch):
    runs = [str(tmp_path / name) for name in ("a", "b")]
    for run, path in zip(both, runs, strict=True):
        run.save(path)
    out = tmp_path / "c.json"
    found = compare(*both, names=(runs[0], runs[1]))
    assert main(["compare", *runs, "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        **json.loads(json.dumps(found.as_dict())),
        "same_top": found.same_top,
    }
    assert Comparison.load(out).as_dict() == found.as_dict()
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["compare", *runs]) == 0
    text = capsys.readouterr().out
    assert f"{len(found.shared)} of the top 20 of A and the top 20 of B are shared" in text
    rows = [line.split()[:3] for line in text.splitlines() if line.split()[:1]]
    for item in found.shared:
        assert [str(item.latent), *map(str, item.ranks)] in rows
    assert main(["compare", *runs, "--top", "50"]) == 2
    assert "kept 20 latents" in capsys.readouterr().err
    assert main(["compare", runs[0], str(tmp_path)]) == 2
    assert "is no complete run" in capsys.readouterr().err
