from __future__ import annotations

import math

import pytest

from deltalens.judge.listed import Listed, numbers_listed, spelling


def listed(*places):
    """Of {token: probability}, the first of each place being the reply's token."""
    tokens = []
    for place in places:
        pairs = [(token, math.log(p)) for token, p in place.items()]
        tokens.append(Listed(*pairs[0], pairs))
    return tokens


@pytest.mark.parametrize(
    ("places", "numbers"),
    [
        ([{"30": 0.5, "40": 0.5}], {30: 0.5, 40: 0.5}),
        ([{"REFUSAL": 0.7, "30": 0.2, "40": 0.1}], {30: 0.2, 40: 0.1}),
        ([{"100": 0.5, " 0": 0.25, "0": 0.25}], {100: 0.5, 0: 0.5}),
        ([{"101": 0.9, "7": 0.1}], {7: 0.1}),
        ([{"-5": 0.5, "5.5": 0.2, "²": 0.2, "five": 0.1}], {}),
        ([{"05": 0.5, "٥": 0.2}], {}),
        ([{"▁95": 0.5, "Ġ90": 0.2}], {95: 0.5, 90: 0.2}),
        ([{" ": 0.8, "90": 0.2}, {"95": 0.5, "90": 0.5}], {90: 0.6, 95: 0.4}),
        ([{"95": 0.8, "90": 0.2}, {".": 0.9, "0": 0.1}], {90: 0.2, 95: 0.72}),
        ([{"100": 1.0}, {"0": 0.75, "<|im_end|>": 0.25}], {100: 0.25}),
        ([], {}),
    ],
)
def test_numbers_by_hand(places, numbers):
    assert dict(numbers_listed(listed(*places))) == pytest.approx(numbers)


@pytest.mark.parametrize(
    ("places", "kind"),
    [
        ([{"95": 0.9, "9": 0.1}], "whole"),
        ([{"5": 0.9, "10": 0.01}], "whole"),
        ([{"100": 0.9, "9": 0.1}, {"0": 1.0}], "whole"),
        ([{"9": 0.6, "8": 0.4}, {"5": 0.5, "0": 0.5}], "split"),
        ([{"▁": 0.9}, {"9": 0.6}, {"5": 0.5}], "split"),
        ([{" ": 0.9}, {"9": 0.6}, {"5": 0.5}], "split"),
        ([{"9": 0.6}, {" 5": 0.5}], "unclear"),
        ([{"9": 0.6, "8": 0.4}], "unclear"),
        ([{"9": 0.6, "8": 0.4}, {"<|im_end|>": 0.9, "5": 0.1}], "unclear"),
        ([{"0": 0.9995, "1": 0.0005}], "whole"),
        ([{"0": 0.99, "1": 0.01}], "unclear"),
        ([{"REFUSAL": 0.99}], "whole"),
        ([], "whole"),
    ],
)
def test_what_a_reply_shows_of_the_servers_tokens(places, kind):
    assert spelling(listed(*places)) == kind
