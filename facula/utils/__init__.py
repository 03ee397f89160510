"""Tools beside the networks themselves: :mod:`facula.utils.data` feeds them."""
