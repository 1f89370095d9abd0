"""A machine without a network lab skips the tests that need one, in the words of the lab itself."""

from tests.lab.conftest import pytest_runtest_setup

__all__ = ["pytest_runtest_setup"]
