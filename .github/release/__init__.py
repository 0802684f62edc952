"""The steps of a release, each in the module of its name: see docs/releasing.rst."""
