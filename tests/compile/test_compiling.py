"""``facula.compiler``: what programs say about captures."""

import pytest

import facula
from facula.eager.capture import CaptureError


def test_is_compiling_is_said_while_a_function_is_captured():
    def f(x):
        return x + (1 if facula.compiler.is_compiling() else 2)

    assert facula.compile(f)(facula.ones(2)).tolist() == [2.0, 2.0]
    assert f(facula.ones(2)).tolist() == [3.0, 3.0]


def test_a_disabled_function_sees_values():
    @facula.compiler.disable
    def largest(x):
        return x.max().item()

    def f(x):
        return x / largest(x)

    with pytest.warns(UserWarning, match="largest is disabled"):
        assert facula.compile(f)(facula.tensor([2.0, 4.0])).tolist() == [0.5, 1.0]
    with pytest.raises(CaptureError, match="largest is disabled"):
        facula.compile(f, fullgraph=True)(facula.tensor([2.0, 4.0]))
    assert largest(facula.tensor([2.0, 4.0])) == 4.0


def test_reset_forgets_captures():
    f = facula.compile(lambda x: x * 2)
    for _ in range(3):
        f(facula.ones(2))
    assert f.captured.count == 1
    facula.compiler.reset()
    assert f.captured.count == 0
    assert f(facula.ones(2)).tolist() == [2.0, 2.0]
    assert f.captured.count == 1


def test_the_passes_are_still_there():
    from facula.compiler import pipeline

    assert pipeline.compile_program
    with pytest.raises(AttributeError, match="nonsense"):
        _ = facula.compiler.nonsense


def sizes(x):
    n, m = x.shape
    return {
        "shape": x.shape,
        "more": [n * 2 + 1, [m, n], len(x), x.dim()],
        "text": (f"{n}x{m}", f"{n:3d}", str(x.shape), str([n]), repr(m)),
        n: x.sum(),
    }


def test_sizes_in_results_are_numbers():
    captured = facula.compile(sizes, fullgraph=True)
    for rows in (3, 5, 3):
        x = facula.ones(rows, 2)
        found, expected = captured(x), sizes(x)
        assert found.pop(rows).item() == expected.pop(rows).item()
        assert found == expected
        assert type(found["shape"]) is facula.Size
        assert all(type(n) is int for n in (*found["shape"], *found["more"][1]))


def test_a_size_alone_compiles_nothing_again():
    captured = facula.compile(lambda x: (x.shape[0], x * 2), fullgraph=True)
    for rows in (3, 5, 8):
        assert captured(facula.ones(rows))[0] == rows
    assert captured.captured.count == 1
