"""Plumbing of the demos: pictures, files, downloads and reports.

Nothing in here is needed to understand the layers or the algorithms.
"""
