"""Sizes and dimensions by keyword, where they may also be given one by one."""

from functools import partial

import pytest

import facula

CALLS = {
    "reshape": ({"shape": (3, 2)}, (3, 2)),
    "view": ({"size": (3, 2)}, (3, 2)),
    "permute": ({"dims": (1, 0)}, (3, 2)),
    "expand": ({"size": (4, 2, 3)}, (4, 2, 3)),
    "repeat": ({"repeats": (2, 2)}, (4, 6)),
    "tile": ({"dims": (1, 2)}, (2, 6)),
    "flip": ({"dims": (0, 1)}, (2, 3)),
}


@pytest.mark.parametrize("name", CALLS)
def test_by_keyword_one_by_one_and_as_a_list(name):
    x = facula.arange(6)[:1] if name == "expand" else facula.arange(6).reshape(2, 3)
    named, shape = CALLS[name]
    (given,) = named.values()
    method = getattr(x, name)
    assert tuple(method(**named).shape) == shape
    for found in (method(*given), method(list(given))):
        assert facula.equal(found, method(**named))
    if name in ("reshape", "permute", "tile", "flip"):
        function = partial(getattr(facula, name), x)
        assert facula.equal(function(**named), method(**named))
        assert facula.equal(function(given), method(**named))
    with pytest.raises(TypeError):
        method(nonsense=given)
