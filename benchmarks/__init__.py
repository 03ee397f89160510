"""Facula's figures against those of others, on this machine: ``python -m benchmarks``.

``measure.py`` is how everything is measured, ``worker.py`` what runs in the measured processes.
The themes, each a list of cases, are ``programs.py``, ``inference.py``, ``kernels.py``,
``growth.py``, ``startup.py`` and ``roofline.py``; ``page.py`` and ``plots.py`` write the results.
"""
