"""A user's membership on disk: credentials, and on the CA's machine what goes with them."""

from __future__ import annotations

from mesh.home.admission import Admission
from mesh.home.authority import CERTIFICATE_LIFETIME, Member
from mesh.home.cakey import CaLocked, Custodian, NoCaKey
from mesh.home.credentials import Credentials
from mesh.home.custody import Custody
from mesh.home.home import Home, default_home

__all__ = [
    "CERTIFICATE_LIFETIME",
    "Admission",
    "CaLocked",
    "Credentials",
    "Custodian",
    "Custody",
    "Home",
    "Member",
    "NoCaKey",
    "default_home",
]
