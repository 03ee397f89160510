"""The two languages of the compiler: ``program`` (a typed graph) and ``loops`` (kernels)."""
