"""The vocabulary that every other layer speaks: dtypes, devices, errors, configuration."""
