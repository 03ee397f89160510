"""Machine code, memory and threads: what runs a program once it is text.

The way of a kernel: :mod:`jit` turns LLVM text into addresses (with :mod:`cache` keeping objects on
disk, for the processor that :mod:`host` describes); :mod:`launch` makes of them, and of a
description of arguments and outputs, a builtin function that Python calls in 60 to 100 ns;
:mod:`storage` gives outputs their memory; :mod:`threads` runs parallel loops; :mod:`random` keeps
the state of random streams; :mod:`native` makes Python types and builtins out of machine code.

Nothing here sees a graph, a shape or a dtype. llvmlite is imported at first use, not before.
"""
