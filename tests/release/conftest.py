"""The fixtures of project.py, for all tests here."""

from project import built, dist, fresh, own_git, tree, untagged

__all__ = ["built", "dist", "fresh", "own_git", "tree", "untagged"]
