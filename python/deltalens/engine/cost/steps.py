"""What a scan costs in every form and implementation, part by part, with a screen where it pays."""

from __future__ import annotations

from collections.abc import Iterator

from deltalens.engine.cost.parts import (
    Shape,
    Step,
    check,
    moment,
    moment_bound,
    narrow,
    prepare_moment,
    prepare_rows,
    rank,
    rescore_moment,
    rescore_rows,
    row_bound,
    scan,
    squaring,
    units,
)
from deltalens.engine.cost.roofs import Roofs
from deltalens.engine.cost.widths import expected_width, share_left, width_for
from deltalens.engine.impl import cpp as cpp_impl
from deltalens.engine.numerics.spectral import MOST_SQUARINGS
from deltalens.engine.topk.band import upper_room

ARRIVAL = "wait for rows"

_WIDTH, _SCREEN_WIDTH = 8, 4  # bytes in fp32, and in bfloat16, of two numbers


def steps(form: str, impl: str, shape: Shape, roofs: Roofs) -> tuple[Step, ...]:
    """The steps of ``form`` ("token" or "quadratic") with an implementation, in order."""
    of_form = _token_steps if form == "token" else _quadratic_steps
    found = tuple(of_form(impl, shape, roofs))
    return found if shape.resident else (*found, _arrival(found, shape, roofs))


def screened(form: str, impl: str, shape: Shape, roofs: Roofs) -> bool:
    """Whether a scan for the best latents goes through a screen first: where there is one and it
    takes less time, with its bound and with narrowing what it leaves, than a scan without."""
    has_screen = impl == "triton" or (impl == "cpp" and cpp_impl.has_screen(shape.dtype))
    if shape.k is None or not has_screen:
        return False
    through, without = (
        sum(step.seconds for step in of_scan(form, impl, shape, roofs))
        for of_scan in (_screen_steps, _plain_steps)
    )
    return through < without


def screen_width(form: str, impl: str, shape: Shape, roofs: Roofs) -> float:
    """The width (:mod:`deltalens.engine.cost.widths`) from which narrowing what a screen leaves
    takes less time than another squaring for its bound, and half its candidates' room is free."""
    assert shape.k is not None
    exact, _ = units(impl, shape, roofs)
    plain = scan(form, impl, exact, shape, roofs).seconds
    affordable = squaring(impl, shape, roofs).seconds / plain
    room = upper_room(shape.k) / (2 * shape.n_latents)
    return width_for(min(affordable, room), shape.k, shape.n_latents)


def _squarings(form: str, impl: str, shape: Shape, roofs: Roofs) -> int:
    """As many as a bound takes to be that narrow."""
    enough = screen_width(form, impl, shape, roofs)
    for count in range(MOST_SQUARINGS):
        if _width(form, shape, count) <= enough:
            return count
    return MOST_SQUARINGS


def _screen_steps(form: str, impl: str, shape: Shape, roofs: Roofs) -> Iterator[Step]:
    exact, screen = units(impl, shape, roofs)
    squarings = _squarings(form, impl, shape, roofs)
    if form == "token":
        yield prepare_rows(shape, roofs, width=_SCREEN_WIDTH, tiles=shape.tiles)
        yield row_bound(impl, shape, roofs, squarings)
    else:
        yield prepare_moment(impl, shape, roofs)
        yield moment_bound(impl, shape, roofs, squarings)
    yield scan(form, impl, screen, shape, roofs)
    if form == "token":
        yield prepare_rows(shape, roofs, width=_WIDTH, tiles=1)
    else:
        yield prepare_moment(impl, shape, roofs)
    yield narrow(form, impl, exact, shape, roofs, _candidates(form, shape, squarings))


def _width(form: str, shape: Shape, squarings: int) -> float:
    return expected_width(form, shape.tokens, shape.d_model, squarings, shape.dtype)


def _candidates(form: str, shape: Shape, squarings: int) -> int:
    assert shape.k is not None
    width = _width(form, shape, squarings)
    left = round(share_left(width, shape.k, shape.n_latents) * shape.n_latents)
    if left > upper_room(shape.k):  # then the scorer goes over the decoder
        return shape.n_latents
    return min(max(2 * shape.k, left), shape.n_latents)


def _plain_steps(form: str, impl: str, shape: Shape, roofs: Roofs) -> Iterator[Step]:
    if impl != "reference" and form == "token":
        yield prepare_rows(shape, roofs, width=_WIDTH, tiles=shape.tiles)
    elif impl != "reference":
        yield prepare_moment(impl, shape, roofs)
    yield scan(form, impl, units(impl, shape, roofs)[0], shape, roofs)


def _scan_steps(form: str, impl: str, shape: Shape, roofs: Roofs) -> Iterator[Step]:
    of_scan = _screen_steps if screened(form, impl, shape, roofs) else _plain_steps
    return of_scan(form, impl, shape, roofs)


def _token_steps(impl: str, shape: Shape, roofs: Roofs) -> Iterator[Step]:
    yield check(shape, roofs, times=1)
    yield from _scan_steps("token", impl, shape, roofs)
    if shape.k is not None:
        yield rank(shape, roofs)
        yield rescore_rows(shape.k, shape, roofs)


def _quadratic_steps(impl: str, shape: Shape, roofs: Roofs) -> Iterator[Step]:
    yield check(shape, roofs, times=2)  # the moment checks what it is given, too
    yield moment(shape, roofs)
    yield from _scan_steps("quadratic", impl, shape, roofs)
    if shape.k is not None:
        yield rank(shape, roofs)
        yield rescore_moment(shape.k, shape, roofs)


def _arrival(others: tuple[Step, ...], shape: Shape, roofs: Roofs) -> Step:
    """What is left of bringing the rows from disk or host, which goes on while others are used."""
    hidden = sum(step.seconds for step in others if step.name in ("scan", "rank"))
    moved = shape.decoder_bytes
    return Step(ARRIVAL, 0.0, moved, max(0.0, moved / roofs.link - hidden))
