"""Recipes: plans for sizes that were never seen give what plans made from scratch give."""

import threading

import numpy as np
import pytest

import facula as torch
from facula.eager import dispatch
from facula.library import OPS
from facula.tensor.functions import site_of

F = torch.nn.functional


def recipes(name):
    return sum(len(r) for r in site_of(OPS[name]).recipes.values())


VIEWS = {
    "view": lambda x, n, m: x.view(n, 2, m // 2, 3),
    "reshape": lambda x, n, m: x.reshape(-1, m, 3),
    "flatten": lambda x, n, m: x.flatten(0, 1),
    "transpose": lambda x, n, m: x.transpose(2, 0),
    "permute": lambda x, n, m: x.permute(2, 0, 1),
    "unsqueeze": lambda x, n, m: x.unsqueeze(2),
    "expand": lambda x, n, m: x.unsqueeze(0).expand(n, -1, m, 3),
    "narrow": lambda x, n, m: x.narrow(1, 2, m - 2),
    "split": lambda x, n, m: x.split(m // 2, 1)[1],
    "chunk": lambda x, n, m: x.chunk(2, 1)[1],
    "unfold": lambda x, n, m: x.unfold(1, 4, 2),
    "diagonal": lambda x, n, m: x.diagonal(0, 1, 2),
    "unflatten": lambda x, n, m: x.unflatten(1, (2, m // 2)),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_of_many_sizes(name):
    """Against plans made from scratch, with gradients through some."""
    f, expected = VIEWS[name], []
    sizes = [(2, 4), (3, 4), (2, 6), (5, 10), (4, 8), (7, 14), (3, 12)]
    for n, m in sizes:
        dispatch.forget()
        y = f(torch.arange(n * m * 3).float().reshape(n, m, 3), n, m)
        expected.append((y.shape, y.stride(), y.tolist()))
    dispatch.forget()
    for k, (n, m) in enumerate(sizes):
        x = torch.arange(n * m * 3).float().reshape(n, m, 3)
        y = f(x, n, m)
        assert y._is_view() and y._storage is x._storage
        assert (y.shape, y.stride(), y.tolist()) == expected[k]
        if k in (0, 4):
            leaf = x.clone().requires_grad_()
            f(leaf * 2, n, m).sum().backward()
            place = y.long().reshape(-1)
            counts = torch.zeros(x.numel()).index_add(0, place, torch.ones(place.numel()))
            assert leaf.grad.reshape(-1).tolist() == (2 * counts).tolist()


def test_a_reshape_that_must_copy():
    for n in range(3, 9):
        x = torch.arange(n * 4).reshape(n, 4).t()
        expected = np.arange(n * 4).reshape(n, 4).T.reshape(2, 2 * n)
        assert x.reshape(2, 2 * n).tolist() == expected.tolist()


def test_one_recipe_serves_all_sizes():
    dispatch.forget()
    for n in range(2, 40):
        x = torch.ones(n, n + 1)
        assert F.gelu(x).shape == x.shape
        assert torch.transpose(x, 0, 1).shape == (n + 1, n)
    assert recipes("gelu") == 1 and recipes("transpose") == 1


def test_sizes_that_decide_everything_make_no_more_recipes():
    dispatch.forget()
    for n in range(2, 40):
        parts = torch.split(torch.ones(n, 2), 2)
        assert len(parts) == -(-n // 2)
    assert recipes("split") <= dispatch.MOST_RECIPES + 2


def test_guards_choose_among_recipes():
    """Broadcasting and equal sizes are different Programs for arguments of one kind."""
    for n, m in ((3, 3), (4, 4), (5, 5)):
        assert (torch.ones(n, 2) + torch.ones(m, 2)).shape == (n, 2)
    with pytest.raises(RuntimeError, match="[Bb]roadcast|match"):
        torch.ones(3, 2) + torch.ones(4, 2)
    assert (torch.ones(6, 2) + torch.ones(6, 2)).sum().item() == 24


def test_first_without_and_then_with_gradients():
    for n in (3, 4, 5):
        x = torch.full((n, 2), 3.0, requires_grad=True)
        with torch.no_grad():
            assert not torch.exp(x * x).requires_grad
        y = x * x
        assert y.requires_grad
        y.sum().backward()
        assert x.grad.tolist() == [[6.0, 6.0]] * n
        with torch.no_grad():
            assert not (x * x).requires_grad


def test_random_ops_draw_for_each_size():
    for n in (5, 9, 17):
        torch.manual_seed(3)
        first = torch.rand(n), F.dropout(torch.ones(n), 0.5), torch.rand(n)
        torch.manual_seed(3)
        dispatch.forget()
        again = torch.rand(n), F.dropout(torch.ones(n), 0.5), torch.rand(n)
        assert [x.tolist() for x in first] == [x.tolist() for x in again]
        assert first[0].tolist() != first[2].tolist()


def test_plans_are_forgotten_when_there_are_too_many(monkeypatch):
    monkeypatch.setattr(dispatch, "MAX_PLANS", 50)
    dispatch.forget()
    for n in range(200):
        torch.neg(torch.ones(2, n + 2))
    assert len(site_of(OPS["neg"]).rows) <= 50
    assert recipes("neg") == 1


def test_threads_may_plan_at_once():
    dispatch.forget()
    w, failed = torch.randn(5, 4), []

    def work(first):
        for n in range(first, first + 60):
            x = torch.ones(n, 4)
            if not torch.equal(F.linear(x, w)[n - 1], F.linear(x[:1], w)[0]):
                failed.append(n)

    threads = [threading.Thread(target=work, args=(2 + k % 2,)) for k in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failed
