"""Behaviours at sites with SAEs: one capture a behaviour, one scan of each decoder for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from deltalens.cost.dry_run import is_dry
from deltalens.errors import InputError
from deltalens.lm import Pair
from deltalens.lm.several import AnySite, Asked, resolve_sites
from deltalens.ranks.alone import alone
from deltalens.storage.lock import lock_in
from deltalens.study.baseline import Baseline, baselines_of
from deltalens.study.ranking.prepared import PreparedStudy
from deltalens.study.run import check_no_run, is_complete, site_directory
from deltalens.study.running.finish import StudyRun
from deltalens.study.running.prepare import SiteSource, prepare
from deltalens.study.running.request import Request, RequestOptions
from deltalens.study.running.studies import run_studies
from deltalens.study.survey.directory import Contents, Place, check_names, forget
from deltalens.study.survey.result import Survey, key_of
from deltalens.study.survey.summary import write_summary

if TYPE_CHECKING:
    from typing_extensions import Unpack


def survey(
    model: nn.Module,
    tokenizer: Any,
    behaviours: Mapping[str, Sequence[Pair]],
    decoders: Mapping[AnySite, Any],
    *,
    baseline: Baseline | Tensor | Sequence[Baseline | Tensor] | Mapping[AnySite, Baseline | Tensor],
    run_dir: str | Path,
    metadata: Mapping[str, Any] | None = None,
    **options: Unpack[RequestOptions],
) -> Survey:
    """A study of every behaviour at every site: by (behaviour, site), as the sites were named.

    behaviours: pairs by name, which names a directory below ``run_dir``; decoders: for each site a
    decoder or an SAE, or several by name, whose studies are then found by (behaviour, site, name);
    baseline and options as those of :func:`~deltalens.attribute` with several sites, but that
    ``check`` is 0: exact ablation shares nothing and takes longer than all else.

    Each study is to the bit what :func:`~deltalens.attribute` makes of that behaviour at that site
    alone, and an ordinary run: ``run_dir/behaviour/site-12``, or ``site-12/name`` of several SAEs.
    A behaviour's pairs go through the model once for all sites; a decoder is scanned once for the
    rankings of all behaviours and once for their p-values (with score="latent" for each). Rows wait
    on disk until their site is ranked: 12 bytes · tokens · d_model of each study.

    The same call continues a survey that was cut: what is captured, and what is finished, is not
    done again. Behaviours, sites and named SAEs may be added to it. ``run_dir/survey.json`` sums up
    everything that it holds.

    Raises :class:`InputError`, before anything is written, for everything that does not fit; a
    study that fails later keeps none of the others from its result.
    """
    options.setdefault("check", 0)
    request, directory = Request(**options), Path(run_dir)
    if not behaviours or not decoders:
        raise InputError("a survey needs at least one behaviour and one site")
    check_names(behaviours, "behaviour")
    places = _places(model, decoders, baseline)
    pair_sets: dict[str | None, list[Pair]] = {n: list(p) for n, p in behaviours.items()}
    sources = [place.source for place in places]
    sets = prepare(
        model, tokenizer, pair_sets, sources, request.options(tokenizer), request.batch_tokens
    )
    with alone(lock_in(directory), request.ranks):
        return _made(directory, behaviours, places, sets, request, metadata or {})


def _made(
    directory: Path,
    behaviours: Mapping[str, Any],
    places: Sequence[_Asked],
    sets: Sequence[Sequence[PreparedStudy]],
    request: Request,
    metadata: Mapping[str, Any],
) -> Survey:
    contents = request.ranks.from_first(lambda: _contents(directory, behaviours, places, sets))
    runs = [
        [
            _run(directory, name, place, study, metadata)
            for place, study in zip(places, studies, strict=True)
        ]
        for name, studies in zip(behaviours, sets, strict=True)
    ]
    request.ranks.from_first(lambda: _begin(directory, contents, runs))
    try:
        results = run_studies(runs, request.running())
    finally:
        if request.ranks.first and not is_dry():
            _sum_up(directory)
    keys = [key_of(name, place.name, place.sae) for name in behaviours for place in places]
    found = [result for of_behaviour in results for result in of_behaviour]
    at = [f"{name}/{place.below}" for name in behaviours for place in places]
    return Survey(directory, dict(zip(keys, found, strict=True)), dict(zip(keys, at, strict=True)))


@dataclass(frozen=True)
class _Asked:
    """A site as it was named, and one of its SAEs, by name where there are several."""

    name: AnySite
    sae: str | None
    source: SiteSource

    @property
    def below(self) -> str:
        """Where below a behaviour's directory its run lies."""
        path = site_directory(Path(), self.source.site)
        return (path if self.sae is None else path / self.sae).as_posix()


def _places(model: nn.Module, decoders: Mapping[AnySite, Any], baseline: Any) -> list[_Asked]:
    asked = Asked(list(decoders), several=True)
    sites = resolve_sites(model, asked.names)
    found = []
    for name, site, one in zip(asked.names, sites, baselines_of(asked, baseline), strict=True):
        given = decoders[name]
        named = given if isinstance(given, Mapping) else {None: given}
        check_names([sae for sae in named if sae is not None], "SAE")
        found += [_Asked(name, sae, SiteSource(site, each, one)) for sae, each in named.items()]
    return found


def _contents(
    directory: Path,
    behaviours: Mapping[str, Any],
    places: Sequence[_Asked],
    sets: Sequence[Sequence[PreparedStudy]],
) -> Contents:
    """What the directory will hold."""
    first = sets[0]
    options = {
        name: value for name, value in first[0].settings["options"].items() if name != "site"
    }
    held = [
        Place(place.source.site.name, place.sae, place.below, _of_place(study.settings))
        for place, study in zip(places, first, strict=True)
    ]
    model = first[0].settings["fingerprints"]["model"]
    return Contents(options, model, list(behaviours), held).with_earlier(directory)


def _begin(directory: Path, contents: Contents, runs: Sequence[Sequence[StudyRun]]) -> None:
    for run in chain(*runs):
        if run.directory is not None:
            is_complete(run.directory, run.study.settings)  # refuses what is no part of the survey
    if not is_dry():
        contents.save(directory)


def _sum_up(directory: Path) -> None:
    """Of what is finished, also where something failed; nothing stays where nothing was made."""
    there = Survey.load(directory)
    if there:
        write_summary(there)
    else:
        forget(directory)


def _of_place(settings: Mapping[str, Any]) -> dict[str, str]:
    known = settings["fingerprints"]
    return {name: known[name] for name in ("sae", "baseline", "latent_mean") if name in known}


def _run(
    directory: Path,
    behaviour: str,
    place: _Asked,
    study: PreparedStudy,
    metadata: Mapping[str, Any],
) -> StudyRun:
    path = directory / behaviour / place.below
    if place.sae is not None:
        check_no_run(path.parent)
    label = f"{behaviour}, {study.site.name}" + ("" if place.sae is None else f", {place.sae}")
    return StudyRun(study, path, {"behaviour": behaviour, **metadata}, label)
