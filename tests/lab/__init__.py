"""A network lab on one Linux machine: real NATs, real delays, a real coturn, and everything that breaks them.

`python3 run.py lab` is the door for people; `Lab`'s docstring is the one for tests.
"""

from tests.lab.coturn import TurnOptions
from tests.lab.lab import Lab
from tests.lab.namespaces import LabUnavailable, missing
from tests.lab.shaper import Shape
from tests.lab.topology import KINDS, Site

__all__ = ["KINDS", "Lab", "LabUnavailable", "Shape", "Site", "TurnOptions", "missing"]
