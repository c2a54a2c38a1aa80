r"""The files that the demo drops, and what must be in the warehouse when they are loaded.

Two rounds: a second upload of one key and a vendor's retry come only when the first files are loaded.
"""

import gzip
from typing import Final

BUCKET: Final = "landfall-demo"
PREFIX: Final = "landing/website/"
SOURCE: Final = "website"

_SIGNUPS = rb"""{"_p": "ann@example.com", "_t": 1700000000, "_n": "Signed Up", "plan": "pro"}
{"_p": "bob@example.com", "_t": 1700000060, "_n": "Signed Up", "plan": "free"}
{"_p": "ann@example.com", "_t": 1700000300, "_n": "Viewed Page", "url": "/pricing"}
{"_p": "ann@example.com", "_t": 1700000400, "company": "Acme", "seats": 25}
"""

_SIX_WRONG_OF_EIGHT = rb"""{"_p": "cy@example.com", "_t": 1700000500, "_n": "Signed Up", "plan": "free"}
{"_p": "cy@example.com", "_t": 1700000500123, "_n": "Viewed Page"}
{"_t": 1700000600, "_n": "Viewed Page"}
{"_p": "cy@example.com", "_t": 1700000700, "_n": "Purchased", "items": [1, 2]}
{"_p": "cy@example.com", "_t": 1700000800
{"_p": "", "_t": "tomorrow", "_n": 7}
{"_p": "cy@example.com", "_t": 1700000900}
{"_p": "cy@example.com", "_t": 1700001000, "_n": "Purchased", "amount": 19.90}
"""

_COMPRESSED = rb"""{"_p": "dora@example.com", "_t": 1700001100, "_n": "Signed Up", "plan": "pro"}
{"_p": "dora@example.com", "_t": 1700001200, "_n": "Purchased", "amount": 120.00}
{"_p": "dora@example.com", "_t": 1700001200, "country": "PT"}
"""

# As Kissmetrics exports: bytes beyond ASCII as octal escapes, here of UTF-8 and windows-1252. Not JSON until repaired.
_OCTAL = rb"""{"_p": "emil@example.com", "_t": 1700001300, "_n": "Searched", "words": "caf\303\251 m\303\274nchen"}
{"_p": "emil@example.com", "_t": 1700001400, "_n": "Searched", "words": "Landfall\231"}
"""

_ALIASES = rb"""{"_p": "visitor-17", "_t": 1699999000, "_n": "Viewed Page", "url": "/"}
{"_p": "visitor-17", "_p2": "bob@example.com", "_t": 1700000061}
{"_p": "ann@example.com", "_p2": "4711", "_t": 1700001500, "_n": "Logged In"}
"""

_ORDERS = rb"""{"_p": "ann@example.com", "_t": 1700002000, "_n": "Purchased", "amount": 49.00}
{"_p": "bob@example.com", "_t": 1700002100, "_n": "Purchased", "amount": 9.00}
"""
_ORDERS_AGAIN = rb"""{"_p": "ann@example.com", "_t": 1700002000, "_n": "Purchased", "amount": 49.00}
{"_p": "dora@example.com", "_t": 1700002200, "_n": "Purchased", "amount": 75.50}
{"_p": "cy@example.com", "_t": 1700002300, "_n": "Purchased", "amount": 5.25}
"""

FIRST_ROUND: Final = {
    "1.json": _SIGNUPS,
    "2.json": _SIX_WRONG_OF_EIGHT,
    "9.json.gz": gzip.compress(_COMPRESSED, mtime=0),
    "10.json": _OCTAL,
    "aliases.json": _ALIASES,
    "orders.json": _ORDERS,
    "readme.txt": b"Not an event file: no rule takes it, and the run says so.\n",
}
SECOND_ROUND: Final = {
    "orders.json": _ORDERS_AGAIN,  # one purchase is in both versions: a fact counts once
    "1 (retry).json": _SIGNUPS,
}

# (file, state): how often. Then what the views must say.
EXPECTED_FIRST: Final = {(name, "loaded"): 1 for name in FIRST_ROUND if name != "readme.txt"}
EXPECTED_FILES: Final = EXPECTED_FIRST | {("orders.json", "loaded"): 2, ("1 (retry).json", "duplicate"): 1}
EXPECTED_COUNTS: Final = {
    "events": 15, "people": 5, "records": 16, "sets": 2, "aliases": 2, "failed lines": 6, "repaired lines": 2,
}  # fmt: skip
EXPECTED_CODES: Final = {  # of the one file with failed lines: no two have the same
    "event_not_text": 1, "nested_value": 1, "no_command": 1, "not_json": 1, "person_blank": 1, "person_missing": 1,
    "time_in_milliseconds": 1, "time_not_epoch_seconds": 1,
}  # fmt: skip
