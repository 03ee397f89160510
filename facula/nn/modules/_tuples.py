"""Sizes given as one number or one for each dimension."""


def ntuple(value, n):
    """``value`` as a tuple of ``n``: repeated if it is one number, else as it is."""
    if isinstance(value, (tuple, list)):
        return tuple(value)
    return (value,) * n
