"""How far apart two nodes are: the fixed one-way delay of a pair, before jitter and queues.

A pair's delay follows from the seed and the two indices alone, so it does not depend on who asks first.
"""

from __future__ import annotations

import math
import random
from typing import Protocol

import attrs

EARTH_RADIUS_KM = 6371.0
# A route is longer and slower than the straight line at 2/3 of the speed of light: 75 km of great circle cost about
# 1 ms of round trip, plus 4 ms for the two last miles (the figures of corrosion's simulator; 75 ms London to New York).
KM_PER_RTT_MS = 75.0
LAST_MILES_RTT_MS = 4.0

# (name, latitude, longitude, weight): where players sit. Weights are a guess after public player counts.
REGIONS: tuple[tuple[str, float, float, float], ...] = (
    ("new-york", 40.7, -74.0, 12.0),
    ("chicago", 41.9, -87.6, 7.0),
    ("dallas", 32.8, -96.8, 6.0),
    ("los-angeles", 34.1, -118.2, 9.0),
    ("sao-paulo", -23.6, -46.6, 8.0),
    ("london", 51.5, -0.1, 9.0),
    ("frankfurt", 50.1, 8.7, 12.0),
    ("warsaw", 52.2, 21.0, 6.0),
    ("madrid", 40.4, -3.7, 4.0),
    ("istanbul", 41.0, 29.0, 4.0),
    ("mumbai", 19.1, 72.9, 5.0),
    ("singapore", 1.4, 103.8, 5.0),
    ("tokyo", 35.7, 139.7, 6.0),
    ("seoul", 37.6, 127.0, 5.0),
    ("sydney", -33.9, 151.2, 2.0),
)
SCATTER_DEGREES = 2.0  # players live around a city, not in its town hall


class Latency(Protocol):
    """A symmetric distance between nodes."""

    def one_way_s(self, a: int, b: int) -> float:
        """The one-way delay between nodes `a` and `b`, in seconds."""
        ...


@attrs.frozen
class Constant:
    """Every pair is `rtt_s` apart."""

    rtt_s: float

    def one_way_s(self, a: int, b: int) -> float:
        return self.rtt_s / 2


@attrs.frozen
class Uniform:
    """A pair's round trip is drawn once from [low, high] seconds."""

    low_rtt_s: float
    high_rtt_s: float
    seed: int

    def one_way_s(self, a: int, b: int) -> float:
        return (self.low_rtt_s + (self.high_rtt_s - self.low_rtt_s) * pair_draw(self.seed, a, b)) / 2


@attrs.frozen
class Exponential:
    """A pair's round trip is `floor_rtt_s` plus an exponential draw, capped at 8 means so that no pair is absurd."""

    floor_rtt_s: float
    mean_extra_rtt_s: float
    seed: int

    def one_way_s(self, a: int, b: int) -> float:
        extra = -math.log(1.0 - pair_draw(self.seed, a, b)) * self.mean_extra_rtt_s
        return (self.floor_rtt_s + min(extra, 8 * self.mean_extra_rtt_s)) / 2


class Geographic:
    """Nodes live in the world's cities; a pair's round trip grows with the great circle between them."""

    __slots__ = ("_places", "_seed")

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._places: dict[int, tuple[str, float, float]] = {}

    def one_way_s(self, a: int, b: int) -> float:
        _, lat_a, lon_a = self.place(a)
        _, lat_b, lon_b = self.place(b)
        km = great_circle_km(lat_a, lon_a, lat_b, lon_b)
        return (km / KM_PER_RTT_MS + LAST_MILES_RTT_MS) / 2000

    def place(self, index: int) -> tuple[str, float, float]:
        """(region, latitude, longitude) of a node, the same each time."""
        known = self._places.get(index)
        if known is None:
            rng = random.Random(f"place/{self._seed}/{index}")
            name, latitude, longitude, _ = rng.choices(REGIONS, weights=[region[3] for region in REGIONS])[0]
            known = (name, latitude + rng.gauss(0, SCATTER_DEGREES), longitude + rng.gauss(0, SCATTER_DEGREES))
            self._places[index] = known
        return known


def great_circle_km(lat_a: float, lon_a: float, lat_b: float, lon_b: float) -> float:
    """The haversine distance between two points in degrees."""
    phi_a, phi_b = math.radians(lat_a), math.radians(lat_b)
    half_lat, half_lon = (phi_b - phi_a) / 2, math.radians(lon_b - lon_a) / 2
    h = math.sin(half_lat) ** 2 + math.cos(phi_a) * math.cos(phi_b) * math.sin(half_lon) ** 2
    return 2 * EARTH_RADIUS_KM * math.asin(min(1.0, math.sqrt(h)))


def pair_draw(seed: int, a: int, b: int) -> float:
    """A number in [0, 1) that follows from the seed and the unordered pair (the finaliser of splitmix64)."""
    low, high = (a, b) if a < b else (b, a)
    z = (seed * 0x9E3779B97F4A7C15 + (low << 32 | high) * 0xD1B54A32D192ED03 + 0x632BE59BD9B4E019) & (2**64 - 1)
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    return (z ^ (z >> 31)) / 2**64


def make_latency(model: str, seed: int, **figures: float) -> Latency:
    """The model that a scenario names: constant, uniform, exponential or geographic; figures in milliseconds."""
    seconds = {name.removesuffix("_ms") + "_s": value / 1000 for name, value in figures.items()}
    match model:
        case "constant":
            return Constant(seconds.get("rtt_s", 0.05))
        case "uniform":
            return Uniform(seconds["low_rtt_s"], seconds["high_rtt_s"], seed)
        case "exponential":
            return Exponential(seconds["floor_rtt_s"], seconds["mean_extra_rtt_s"], seed)
        case "geographic":
            return Geographic(seed)
        case _:
            raise ValueError(f"unknown latency model {model!r}: constant, uniform, exponential or geographic")
