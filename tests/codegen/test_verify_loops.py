"""The verifier of kernels: each rule broken once."""

from __future__ import annotations

import pytest

from facula.base import dtypes as D
from facula.base.errors import CompileError
from facula.ir import loops as L
from facula.ir.verify_loops import verify

F32 = D.float32
RULES = {}


def breaks(message):
    def register(build):
        RULES[build.__name__] = message, build
        return build

    return register


@breaks('x is written, but its access is "r"')
def writes_input(k, x, y, n):
    k.store(x, 0, 1.0)


@breaks('y is read, but its access is "w"')
def reads_output(k, x, y, n):
    k.store(y, 0, y[0])


@breaks("expected float32, got int64")
def stores_other_dtype(k, x, y, n):
    k.store(y, 0, n)


@breaks("i0 is not bound here")
def index_after_its_loop(k, x, y, n):
    with k.serial(0, n) as i:
        pass
    k.store(y, i, 1.0)


@breaks("z is no parameter of the kernel")
def foreign_buffer(k, x, y, n):
    k.store(L.Buffer("z", F32, "w"), 0, 1.0)


@breaks("a vector loop inside of another")
def nested_vectors(k, x, y, n):
    with k.vector(0, n), k.vector(0, n):
        pass


@breaks("a parallel loop inside of a vector loop")
def parallel_in_vector(k, x, y, n):
    with k.vector(0, n), k.parallel(0, n):
        pass


@breaks("an if inside of a vector loop")
def if_in_vector(k, x, y, n):
    with k.vector(0, n) as i, k.if_(i > 2):
        pass


@breaks("is from outside of the vector loop")
def assigns_outer_local(k, x, y, n):
    r = k.local(F32)
    with k.vector(0, n) as i:
        k.assign(r, x[i])


@breaks("is from outside of the parallel loop")
def parallel_sum(k, x, y, n):
    r = k.local(F32)
    with k.parallel(0, n) as i:
        k.reduce(r, "add", x[i])


@breaks("is not declared here")
def local_of_a_branch(k, x, y, n):
    with k.if_(n > 3):
        r = k.local(F32)
    k.store(y, 0, r)


@breaks("bounds are not constants")
def unrolls_a_size(k, x, y, n):
    with k.unroll(0, n):
        pass


@breaks("a step of 0")
def no_step(k, x, y, n):
    with k.serial(0, n, 0):
        pass


@breaks("has 1 dimensions, got 2 indices")
def tile_rank(k, x, y, n):
    t = k.local(F32, 0.0, (4,))
    k.store(y, 0, t[1, 2])


@breaks("no op is called 'cube'")
def unknown_op(k, x, y, n):
    k.store(y, 0, L.call("cube", x[0]))


@breaks("pow of 1 operands, expected 2")
def operands(k, x, y, n):
    k.store(y, 0, L.call("pow", x[0]))


@breaks("exp of int64")
def exp_of_int(k, x, y, n):
    k.store(y, L.call("exp", n), 1.0)


@breaks("shl of float32")
def shift_of_float(k, x, y, n):
    k.store(y, 0, L.call("shl", x[0], x[1]))


@breaks("no reduction is called 'sub'")
def reduces_sub(k, x, y, n):
    r = k.local(F32)
    k.reduce(r, "sub", x[0])


@breaks("is reduced by two ops in one vector loop")
def two_ops(k, x, y, n):
    r = k.local(F32)
    with k.vector(0, n) as i:
        k.reduce(r, "add", x[i])
        k.reduce(r, "max", x[i])


@breaks("is reduced and read in one vector loop")
def reads_what_it_reduces(k, x, y, n):
    r = k.local(F32)
    with k.vector(0, n) as i:
        k.reduce(r, "add", x[i])
        k.store(y, i, r)


@breaks("bits of another size")
def bits(k, x, y, n):
    k.store(y, L.bitcast(x[0], D.int64), 1.0)


@breaks("a number other than 0")
def check_status(k, x, y, n):
    k.check(n > 0, 0)


@breaks("is no square tile")
def oblong(k, x, y, n):
    k.transpose(k.local(F32, 0.0, (4, 8)))


@pytest.mark.parametrize("name", RULES)
def test_rule(name):
    message, build = RULES[name]
    k = L.Builder(name)
    build(k, k.buffer("x", F32), k.buffer("y", F32, "w"), k.size("n"))
    with pytest.raises(CompileError) as caught:
        verify(k.kernel())
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"loops: kernel {name}: ")
