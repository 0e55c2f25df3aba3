"""Imported by nobody: a hub folder that names it must not bring it in."""

raise AssertionError("code outside the package was imported because a file named it")
