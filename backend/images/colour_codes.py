"""Colours that a file tells by numbers (PNG's cICP and cHRM, AVIF's nclx), made an ICC profile.

So all that is not sRGB goes one way. The codes are those of ITU-T H.273. What is brighter than white, in
HDR, is toned down as ITU-R BT.2390 does it.
"""

import struct
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Point: TypeAlias = tuple[float, float]  # x and y of CIE 1931
Points: TypeAlias = tuple[Point, Point, Point, Point]  # of red, green, blue and white

_D65: Final = (0.3127, 0.3290)
SRGB: Final[Points] = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65)
_PRIMARIES: Final[dict[int, Points]] = {
    1: SRGB,
    5: ((0.640, 0.330), (0.290, 0.600), (0.150, 0.060), _D65),  # PAL
    6: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65),  # NTSC
    7: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),  # BT.2020
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),  # of cinemas
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),  # Display P3
}
_LIKE_SRGB: Final = (1, 6, 13, 14, 15)  # those of television are shown so, by browsers as well
_NEAR: Final = 0.002  # of x and y: nobody sees less

_WHITE_NITS: Final = 203.0  # of HDR, as BT.2408 has it
_HDR_NITS: Final = 1000.0  # what most of it is made for
_D50: Final = (0.9642, 1.0, 0.8249)
_BRADFORD: Final = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_LEVELS: Final[Floats] = np.arange(256) / 255


def profile_of(primaries: int, transfer: int) -> bytes | None:
    """None: it is sRGB, or as good as that, or not known."""
    points, light = _PRIMARIES.get(primaries), _TRANSFERS.get(transfer)
    if points is None or light is None or (points is SRGB and transfer in _LIKE_SRGB):
        return None
    return _profile(points, light(_LEVELS))


def profile_of_points(points: Points, gamma: float | None) -> bytes | None:
    """The same, for light to the power of `gamma`; None: as in sRGB. Points without sense are as none."""
    if np.allclose(points, SRGB, atol=_NEAR):
        return None
    light = _srgb(_LEVELS) if gamma is None else _LEVELS ** (1 / gamma)
    return _profile(points, light)


# -- from levels to light, 1 is white ---------------------------------------------------------------------


def _srgb(levels: Floats) -> Floats:
    light: Floats = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    return light


def _hlg(levels: Floats) -> Floats:
    scene = np.where(
        levels <= 0.5, levels**2 / 3, (np.exp((levels - 0.55991073) / 0.17883277) + 0.28466892) / 12
    )
    return _toned(_pq_of(_HDR_NITS * scene**1.2))


def _toned(pq: Floats) -> Floats:
    """Levels of PQ, of which those above white come to lie below it: dark and middle tones stay."""
    brightest, white = _pq_of(np.array([_HDR_NITS, _WHITE_NITS]))
    level = (pq / brightest).clip(0, 1)
    most = white / brightest
    knee = 1.5 * most - 0.5
    t = ((level - knee) / (1 - knee)).clip(0, 1)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee
    spline += (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * most
    return _nits_of(np.where(level < knee, level, spline) * brightest) / _WHITE_NITS


_TRANSFERS: Final[dict[int, Callable[[Floats], Floats]]] = {
    **dict.fromkeys(_LIKE_SRGB, _srgb),
    4: lambda levels: levels**2.2,
    5: lambda levels: levels**2.8,
    8: lambda levels: levels,
    16: _toned,
    18: _hlg,
}

_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32


def _pq_of(nits: Floats) -> Floats:
    power = (nits / 10_000) ** _M1
    level: Floats = ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2
    return level


def _nits_of(pq: Floats) -> Floats:
    root = pq ** (1 / _M2)
    nits: Floats = 10_000 * ((root - _C1).clip(0) / (_C2 - _C3 * root)) ** (1 / _M1)
    return nits


# -- the profile ------------------------------------------------------------------------------------------


def _profile(points: Points, light: Floats) -> bytes | None:
    """Version 2, with three colorants and one curve, which says it for each level of 8 bits."""
    colorants = _colorants(points)
    if colorants is None:
        return None
    curve = b"curv" + bytes(4) + struct.pack(">I", len(light))
    curve += (light.clip(0, 1) * 65535).round().astype(">u2").tobytes()
    tags = {b"desc": b"desc" + bytes(4) + struct.pack(">I", 1) + bytes(80), b"wtpt": _xyz(_D50)}
    tags |= {name: _xyz(colorants[:, at]) for at, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    table, body, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + _fixed(_D50)
    return head.ljust(128, b"\0") + table + body


def _colorants(points: Points) -> Floats | None:
    """What each primary is in XYZ, adapted to D50; None: these can't be the points of a picture."""
    if any(not (0 <= x <= 1 and 0 < y <= 1) for x, y in points):
        return None
    xyz = np.array([(x / y, 1.0, (1 - x - y) / y) for x, y in points]).T
    primaries, white = xyz[:, :3], xyz[:, 3]
    if abs(np.linalg.det(primaries)) < 1e-3:
        return None
    scaled = primaries * np.linalg.solve(primaries, white)
    cones = np.diag((_BRADFORD @ _D50) / (_BRADFORD @ white))
    adapted: Floats = np.linalg.inv(_BRADFORD) @ cones @ _BRADFORD @ scaled
    return adapted if np.abs(adapted).max() < 10 else None


def _xyz(values: Sequence[float] | Floats) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(values)


def _fixed(values: Sequence[float] | Floats) -> bytes:
    return b"".join(struct.pack(">i", round(float(value) * 65536)) for value in values)
