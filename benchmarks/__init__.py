"""Benchmarks: this stack beside the others that a program can load, in the same run on the same machine.

Run `python -m benchmarks --help`; README.md says what each work measures and what came out.
"""
