"""Every distribution against PyTorch's of the same name, and its samples against its moments."""

from __future__ import annotations

import numpy as np
import pytest

import facula
from facula import distributions as ours
from facula.distributions import constraints

torch = pytest.importorskip("torch")
theirs = pytest.importorskip("torch.distributions")
pytestmark = pytest.mark.conformance
RNG = np.random.default_rng(3)


def positive(*shape):
    return RNG.uniform(0.6, 2.5, shape)


def real(*shape):
    return RNG.standard_normal(shape)


def share(*shape):
    return RNG.uniform(0.1, 0.9, shape)


def spd(n):
    a = RNG.standard_normal((n, n))
    return a @ a.T + np.eye(n)


SCALAR, UNIT = real(3), share(4, 3)
#: name -> (arguments, values); arrays become tensors of either library.
CASES = {
    "Normal": ((real(3), positive(3)), real(4, 3)),
    "Laplace": ((real(3), positive(3)), real(4, 3)),
    "Cauchy": ((real(3), positive(3)), real(4, 3)),
    "HalfNormal": ((positive(3),), positive(4, 3)),
    "HalfCauchy": ((positive(3),), positive(4, 3)),
    "Uniform": ((-positive(3), positive(3)), real(4, 3) * 0.1),
    "Exponential": ((positive(3),), positive(4, 3)),
    "Gamma": ((positive(3), positive(3)), positive(4, 3)),
    "InverseGamma": ((positive(3) + 2, positive(3)), positive(4, 3)),
    "Chi2": ((positive(3) * 3,), positive(4, 3)),
    "Beta": ((positive(3), positive(3)), UNIT),
    "StudentT": ((positive(3) + 2.5, real(3), positive(3)), real(4, 3)),
    "FisherSnedecor": ((positive(3) * 3, positive(3) + 4.5), positive(4, 3)),
    "Pareto": ((positive(3) * 0.2, positive(3) + 2), positive(4, 3)),
    # PyTorch's takes single precision alone.
    "GeneralizedPareto": (tuple(map(np.float32, (-positive(3), positive(3), share(3) * 0.4))),
                          positive(4, 3).astype("float32")),
    "VonMises": ((real(3), positive(3)), real(4, 3)),
    "LogNormal": ((real(3), positive(3)), positive(4, 3)),
    "Gumbel": ((real(3), positive(3)), real(4, 3)),
    "Weibull": ((positive(3), positive(3)), positive(4, 3)),
    "Kumaraswamy": ((positive(3) + 1, positive(3) + 1), UNIT),
    "LogisticNormal": ((real(2), positive(2)), np.array([[0.2, 0.3, 0.5], [0.6, 0.1, 0.3]])),
    "Bernoulli": ((share(3),), np.array([[0.0, 1, 1], [1, 0, 1]])),
    "ContinuousBernoulli": ((np.array([0.3, 0.5, 0.9]),), UNIT),
    "Geometric": ((share(3),), np.array([[0.0, 1, 4], [2, 0, 1]])),
    "Binomial": ((7, share(3)), np.array([[0.0, 1, 7], [2, 3, 1]])),
    "NegativeBinomial": ((positive(3) * 3, share(3)), np.array([[0.0, 1, 7], [2, 3, 1]])),
    "Poisson": ((positive(3) * 4,), np.array([[0.0, 1, 7], [2, 3, 1]])),
    "Categorical": ((share(2, 4),), np.array([[0, 3], [2, 1]])),
    "OneHotCategorical": ((share(2, 3),), np.eye(3)[[0, 2]]),
    "Multinomial": ((5, share(3)), np.array([[0.0, 3, 2], [1, 1, 3]])),
    "RelaxedBernoulli": ((np.array(0.7), share(3)), UNIT),
    "RelaxedOneHotCategorical": ((np.array(0.7), share(3)), np.array([[0.2, 0.3, 0.5]])),
    "Dirichlet": ((positive(2, 3),), np.array([[0.2, 0.3, 0.5], [0.6, 0.1, 0.3]])),
    "MultivariateNormal": ((real(2, 3), spd(3)), real(4, 2, 3)),
    "LowRankMultivariateNormal": ((real(3), real(3, 2), positive(3)), real(4, 3)),
    "Wishart": ((np.array([4.5, 6.0]), spd(3)), spd(3)),
    "LKJCholesky": ((3, np.array([0.7, 2.0])), np.linalg.cholesky(
        np.array([[1, 0.3, -0.2], [0.3, 1, 0.1], [-0.2, 0.1, 1]]))),
}  # fmt: skip
NUMBERS = ("mean", "mode", "variance", "stddev")
#: Without a formula of PyTorch's, or where it gives something else on purpose.
OTHER = {
    ("Weibull", "mode"),
    ("Kumaraswamy", "mode"),
    ("LowRankMultivariateNormal", "stddev"),
    ("Beta", "mode"),
    ("ContinuousBernoulli", "mode"),
    ("Bernoulli", "mode"),
    ("Dirichlet", "mode"),
}


def made(library, module, name, grad=False):
    args, value = CASES[name]
    leaves = []

    def enter(x):
        if not isinstance(x, np.ndarray):
            return x
        t = library.tensor(x)
        if grad and x.dtype.kind == "f":
            leaves.append(t.requires_grad_())
        return t

    args = [enter(a) for a in args]
    return getattr(module, name)(*args), library.tensor(value), leaves


def close(a, b, what, tolerance=1e-6):
    assert tuple(a.shape) == tuple(b.shape), f"{what}: {tuple(a.shape)} and {tuple(b.shape)}"
    a, b = a.detach().numpy(), b.detach().numpy()
    tolerance = max(tolerance, 1e-5 if b.dtype == np.float32 else 0)
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=what)


@pytest.mark.parametrize("name", CASES)
def test_densities_and_moments(name):
    d, value, xs = made(facula, ours, name, grad=True)
    reference, there, ys = made(torch, theirs, name, grad=True)
    assert d.batch_shape == tuple(reference.batch_shape)
    assert d.event_shape == tuple(reference.event_shape)
    got, want = d.log_prob(value), reference.log_prob(there)
    close(got, want, f"{name}.log_prob")
    mine = facula.autograd.grad(got.sum(), xs, allow_unused=True)
    other = torch.autograd.grad(want.sum(), ys, allow_unused=True)
    for a, b in zip(mine, other):
        if b is not None and a is not None:
            close(a, b, f"slope of {name}.log_prob")
    for what in (*NUMBERS, "entropy", "cdf", "icdf"):
        if (name, what) in OTHER:
            continue
        try:
            want = getattr(reference, what)
            argument = {"cdf": (there,), "icdf": (torch.tensor(UNIT).to(there.dtype),)}.get(
                what, ()
            )
            want = want(*argument) if callable(want) else want
        except (NotImplementedError, RuntimeError, ValueError):
            continue
        argument = {"cdf": (value,), "icdf": (facula.tensor(UNIT).to(value.dtype),)}.get(what, ())
        try:
            got = getattr(d, what)
            got = got(*argument) if callable(got) else got
        except NotImplementedError:
            continue
        close(got, want, f"{name}.{what}", 2e-6)


@pytest.mark.parametrize("name", [n for n in CASES if n not in ("Cauchy", "HalfCauchy")])
def test_samples_have_the_moments(name):
    facula.manual_seed(1)
    d, _, _ = made(facula, ours, name)
    x = d.sample((4000,))
    assert tuple(x.shape) == (4000, *d.batch_shape, *d.event_shape) and not x.requires_grad
    try:
        mean, spread = d.mean, d.stddev
    except NotImplementedError:
        return
    if name == "VonMises" or not np.isfinite(mean.numpy()).all():
        return
    if np.isfinite(spread.numpy()).all():
        distance = (x.double().mean(0) - mean).abs() / (spread / 4000**0.5 + 1e-9)
        assert float(distance.max()) < 6.5, f"{name}: {distance}"
    support = d.support
    if support is not None and not constraints.is_dependent(support):
        assert bool(support.check(x).all())
    expanded = d.expand((2, *d.batch_shape))
    assert tuple(expanded.sample().shape) == (2, *d.batch_shape, *d.event_shape)


@pytest.mark.parametrize("name", ["Gamma", "Beta", "Dirichlet", "StudentT", "Normal", "Weibull"])
def test_samples_carry_gradients(name):
    """The slope of the mean of samples is that of the mean."""
    facula.manual_seed(5)
    d, _, xs = made(facula, ours, name, grad=True)
    weights = facula.tensor(RNG.standard_normal((*d.batch_shape, *d.event_shape)))
    got = facula.autograd.grad((d.rsample((20000,)).mean(0) * weights).sum(), xs)
    want = facula.autograd.grad((d.mean * weights).sum(), xs, allow_unused=True)
    for a, b in zip(got, want):
        if b is not None:
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=0.1, atol=0.06)


def test_divergences():
    for (p, q), _ in list(ours.kl._FORMULAS.items()):
        names = p.__name__, q.__name__
        if not all(n in CASES for n in names):
            continue
        pair, reference = [], []
        for name in names:
            pair.append(made(facula, ours, name)[0])
            reference.append(made(torch, theirs, name)[0])
        try:
            want = theirs.kl_divergence(*reference)
        except NotImplementedError:
            continue
        close(ours.kl_divergence(*pair), want, f"KL of {names}")
    with pytest.raises(NotImplementedError):
        ours.kl_divergence(ours.Normal(0.0, 1.0), ours.Poisson(1.0))


def test_compositions():
    d = ours.Independent(ours.Normal(facula.zeros(2, 3), facula.ones(2, 3)), 1)
    assert d.batch_shape == (2,) and d.log_prob(facula.zeros(2, 3)).shape == (2,)
    mix = facula.tensor([0.3, 0.7])
    args = (facula.tensor([-1.0, 2.0]), facula.tensor([0.5, 1.5]))
    m = ours.MixtureSameFamily(ours.Categorical(mix), ours.Normal(*args))
    t = theirs.MixtureSameFamily(
        theirs.Categorical(torch.tensor([0.3, 0.7])),
        theirs.Normal(torch.tensor([-1.0, 2.0]), torch.tensor([0.5, 1.5])),
    )
    x = facula.linspace(-3, 4, 9)
    close(m.log_prob(x), t.log_prob(torch.from_numpy(x.numpy())), "mixture", 1e-5)
    close(m.variance, t.variance, "variance", 1e-5)
    assert m.sample((5, 2)).shape == (5, 2)


TRANSFORMS = {
    "ExpTransform": (), "SigmoidTransform": (), "SoftplusTransform": (), "TanhTransform": (),
    "StickBreakingTransform": (), "CorrCholeskyTransform": (),
}  # fmt: skip


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms(name):
    a = real(4, 3)
    t, r = getattr(ours, name)(), getattr(theirs, name)()
    x, y = facula.tensor(a), torch.tensor(a)
    close(t(x), r(y), name)
    close(t.inv(t(x)), y, f"{name}.inv", 1e-5)
    close(t.log_abs_det_jacobian(x, t(x)), r.log_abs_det_jacobian(y, r(y)), f"slope of {name}")


def test_constraints_and_their_transforms():
    for name in ("positive", "unit_interval", "simplex", "real", "corr_cholesky", "lower_cholesky",
                 "positive_definite"):  # fmt: skip
        constraint = getattr(constraints, name)
        shape = (3, 3) if name in ("lower_cholesky", "positive_definite") else (4, 3)
        x = facula.tensor(real(*shape))
        assert bool(constraint.check(ours.transform_to(constraint)(x)).all()), name
    t = ours.biject_to(constraints.interval(-2.0, 3.0))
    assert bool(constraints.interval(-2.0, 3.0).check(t(facula.tensor(real(5)))).all())


def test_bad_arguments():
    for call in (
        lambda: ours.Normal(0.0, -1.0), lambda: ours.Bernoulli(), lambda: ours.Bernoulli(1.5),
        lambda: ours.Uniform(1.0, 0.0), lambda: ours.Poisson(1.0).log_prob(facula.tensor(0.5)),
        lambda: ours.Categorical(facula.tensor([0.5, 0.5])).log_prob(facula.tensor(2)),
        lambda: ours.Normal(facula.zeros(2), 1.0).log_prob(facula.zeros(3)),
        lambda: ours.Normal(0.0, 1.0).log_prob(0.5),
    ):  # fmt: skip
        with pytest.raises(ValueError):
            call()


def test_poisson_and_binomial_numbers():
    facula.manual_seed(2)
    rate = facula.tensor([0.0, 0.5, 8.0, 40.0, 1000.0]).expand(20000, 5)
    x = facula.poisson(rate)
    np.testing.assert_allclose(x.mean(0).numpy(), rate[0].numpy(), rtol=0.03)
    np.testing.assert_allclose(x.var(0).numpy(), rate[0].numpy(), rtol=0.06)
    n, p = facula.tensor([5.0, 100.0, 1000.0]), facula.tensor([0.3, 0.02, 0.8])
    x = facula.binomial(n.expand(20000, 3), p.expand(20000, 3))
    np.testing.assert_allclose(x.mean(0).numpy(), (n * p).numpy(), rtol=0.03)
    np.testing.assert_allclose(x.var(0).numpy(), (n * p * (1 - p)).numpy(), rtol=0.06)
    with pytest.raises(RuntimeError):
        facula.poisson(facula.tensor([-1.0]))
