"""Memory shared with NumPy, DLPack and buffers; copies, pickles, numbers."""

from __future__ import annotations

import copy
import gc
import pickle

import numpy as np
import pytest

import facula

DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")


@pytest.mark.parametrize("name", DTYPES)
def test_numpy_shares_memory_both_ways(name):
    a = np.array([[1, 0, 1], [0, 1, 1]], dtype=name)
    x = facula.from_numpy(a)
    assert x.dtype is getattr(facula, name) and x.data_ptr() == a.ctypes.data
    b = x.numpy()
    assert b.dtype == a.dtype and b.ctypes.data == a.ctypes.data
    a[0, 1] = 1
    assert x[0, 1].item() == a[0, 1] and b[0, 1] == a[0, 1]
    x[1, 0] = 1
    assert a[1, 0] == 1


def test_strided_memory_is_shared_as_it_is():
    a = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    x = facula.from_numpy(a[:, ::2].transpose(2, 0, 1))
    assert x.stride() == (1, 12, 8) and not x.is_contiguous()
    np.testing.assert_array_equal(x.numpy(), a[:, ::2].transpose(2, 0, 1))
    y = x[1:, :, 0]
    assert np.shares_memory(y.numpy(), a)
    np.testing.assert_array_equal((y + 1).numpy(), a[:, ::2].transpose(2, 0, 1)[1:, :, 0] + 1)


def test_memory_lives_as_long_as_it_is_seen():
    x = facula.from_numpy(np.full(1000, 7.0))
    y = facula.arange(5).numpy()
    gc.collect()
    assert x.sum().item() == 7000.0 and y.tolist() == [0, 1, 2, 3, 4]


def test_what_numpy_may_not_have_or_give():
    with pytest.raises(RuntimeError, match="requires grad"):
        facula.ones(2, requires_grad=True).numpy()
    assert facula.ones(2, requires_grad=True).numpy(force=True).tolist() == [1, 1]
    with pytest.raises(TypeError, match="bfloat16"):
        facula.ones(2, dtype=facula.bfloat16).numpy()
    with pytest.raises(ValueError, match="negative"):
        facula.from_numpy(np.arange(3)[::-1])
    with pytest.raises(TypeError):
        facula.from_numpy([1, 2])
    with pytest.raises(TypeError):
        facula.from_numpy(np.array(["a"]))
    with pytest.raises(NotImplementedError, match="complex"):
        facula.from_numpy(np.array([1j]))
    with pytest.raises(ValueError, match="byte order"):
        facula.from_numpy(np.arange(3, dtype=">i4"))
    with pytest.warns(UserWarning, match="not writable"):
        facula.from_numpy(np.broadcast_to(np.ones(1), 3))


def test_numpy_functions_take_tensors():
    x = facula.tensor([1.0, 2.0])
    np.testing.assert_array_equal(np.asarray(x), [1, 2])
    np.testing.assert_array_equal(np.asarray(x, dtype=np.int32), [1, 2])
    assert isinstance(np.float32(2) * x, facula.Tensor) and (np.float32(2) * x).tolist() == [2, 4]
    assert isinstance(x + np.float64(1), facula.Tensor)
    assert isinstance(np.sin(x), facula.Tensor)
    assert (x * np.ones(2)).tolist() == [1, 2] and np.add(x, 1).tolist() == [2, 3]


def test_dlpack_with_numpy():
    a = np.arange(12, dtype=np.int32).reshape(3, 4)
    x = facula.from_dlpack(a[:, 1:])
    assert x.data_ptr() == a.ctypes.data + 4 and x.stride() == (4, 1)
    b = np.from_dlpack(facula.arange(6).reshape(2, 3).t())
    np.testing.assert_array_equal(b, np.arange(6).reshape(2, 3).T)
    assert facula.zeros(1).__dlpack_device__() == (1, 0)
    del x
    gc.collect()
    assert a.sum() == 66


def test_dlpack_with_pytorch():
    torch = pytest.importorskip("torch")
    for dtype in ("float32", "bfloat16", "int64", "uint8", "float16"):
        t = torch.arange(6).to(getattr(torch, dtype)).reshape(2, 3)
        x = facula.from_dlpack(t)
        assert x.data_ptr() == t.data_ptr() and x.dtype is getattr(facula, dtype)
        back = torch.from_dlpack(x)
        assert back.data_ptr() == t.data_ptr() and torch.equal(back, t)
        x.add_(1)
        assert t[0, 0] == 1
    b = facula.from_dlpack(torch.tensor([True, False]))
    assert b.dtype is facula.bool and b.tolist() == [True, False]


def test_dlpack_errors_and_release():
    with pytest.raises(BufferError):
        facula.ones(2, requires_grad=True).__dlpack__()
    with pytest.raises(TypeError):
        facula.from_dlpack(3)
    capsule = facula.ones(2).__dlpack__()
    facula.from_dlpack(capsule)
    with pytest.raises(TypeError, match="capsule"):
        facula.from_dlpack(capsule)
    from facula.tensor import interop

    gc.collect()
    before = len(interop._exported)
    for _ in range(10):
        facula.ones(2).__dlpack__()
        np.from_dlpack(facula.ones(2))
    gc.collect()
    assert len(interop._exported) == before


def test_frombuffer():
    data = bytearray(np.arange(4, dtype=np.float32).tobytes())
    x = facula.frombuffer(data, dtype=facula.float32)
    x[0] = 5.0
    assert np.frombuffer(data, np.float32)[0] == 5.0
    y = facula.frombuffer(data, dtype=facula.float32, count=2, offset=4)
    assert y.tolist() == [1.0, 2.0]
    for named in ({"offset": 16}, {"count": 5}, {"offset": -1}, {"offset": 2, "count": -1}):
        with pytest.raises(ValueError):
            facula.frombuffer(data, dtype=facula.float32, **named)
    with pytest.raises(ValueError):
        facula.frombuffer(bytearray(), dtype=facula.float32)
    with pytest.warns(UserWarning, match="not writable"):
        assert facula.frombuffer(bytes(8), dtype=facula.int64).tolist() == [0]


def test_storages():
    x = facula.arange(6, dtype=facula.float32)
    s, v = x.untyped_storage(), x[2:].untyped_storage()
    assert s == v and s.nbytes() == 24 and s.data_ptr() == x.data_ptr() and len(s.buffer()) == 24
    assert x[2:].storage_offset() == 2


@pytest.mark.parametrize("name", [*DTYPES, "bfloat16"])
def test_items_and_lists(name):
    x = facula.tensor([[1, 0], [1, 1]], dtype=getattr(facula, name))
    number = bool if name == "bool" else float if "float" in name else int
    assert x.tolist() == [[1, 0], [1, 1]] and type(x[0, 0].item()) is number
    assert x.t().tolist() == [[1, 1], [0, 1]]
    with pytest.raises(RuntimeError):
        x.item()
    assert facula.zeros(2, 0).tolist() == [[], []]


def test_copies_and_pickles():
    x = facula.arange(6, dtype=facula.float32).reshape(2, 3).requires_grad_()
    for y in (copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert y.requires_grad and y.tolist() == x.tolist() and y.data_ptr() != x.data_ptr()
    view = x.detach().t()
    assert pickle.loads(pickle.dumps(view)).tolist() == view.tolist()
    assert copy.copy(x).data_ptr() == x.data_ptr() and copy.copy(x).requires_grad
    pair = [x, x]
    again = copy.deepcopy(pair)
    assert again[0] is again[1]
    with pytest.raises(RuntimeError, match="leaves|explicitly"):
        copy.deepcopy(x * 2)
