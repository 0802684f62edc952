"""The fixtures of project.py, for all tests here."""

from project import dist, indexes, made, tree, untagged

__all__ = ["dist", "indexes", "made", "tree", "untagged"]
