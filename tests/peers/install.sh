#!/usr/bin/env bash
# Makes what the tests' peers need and Debian does not have, below tests/peers (all of it git-ignored):
#   node_modules/        FHIR router and validators, dcmjs        (package-lock.json)
#   .ohif/               the OHIF viewer's built pages            (its own archive, pinned by digest)
#   .venvs/pydicom-seg   a DICOM SEG reader that needs old numpy  (requirements-pydicom-seg.txt)
#   .venvs/dcmqi         a DICOM SEG reader in C++                (requirements-dcmqi.txt)
# Safe to repeat: what is there already and unchanged is left alone. Debian's part: apt-packages.txt.
# uv is taken from the environment variable UV, from the path, or put into a small environment of its own.
set -euo pipefail
cd "$(dirname "$0")"

OHIF_VERSION=3.13.2
OHIF_SHA512=WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA==

# done_for STAMP INPUT...: was this step finished with these very inputs?
digest() { cat "$@" | sha256sum | cut -c1-64; }
done_for() { [ -f "$1" ] && [ "$(cat "$1")" = "$(digest "${@:2}")" ]; }

mkdir -p .venvs
if done_for node_modules/.installed package-lock.json; then
  echo "node packages: already there"
else
  echo "node packages: npm ci"
  npm ci --no-fund --no-audit --loglevel=error
  digest package-lock.json > node_modules/.installed
fi

if [ "$(cat .ohif/version 2>/dev/null)" = "$OHIF_VERSION" ]; then
  echo "OHIF viewer: already there"
else
  echo "OHIF viewer: unpacking @ohif/app $OHIF_VERSION"
  # The archive holds the built pages; installing it as a package would add a thousand build tools.
  rm -rf .ohif
  mkdir .ohif
  archive=.ohif/$(npm pack --silent --loglevel=error --pack-destination .ohif "@ohif/app@$OHIF_VERSION")
  if [ "$(openssl dgst -sha512 -binary "$archive" | base64 -w0)" != "$OHIF_SHA512" ]; then
    echo "the archive of @ohif/app $OHIF_VERSION is not the one that was pinned" >&2
    exit 1
  fi
  tar -xzf "$archive" -C .ohif --strip-components=1 --exclude='*.map' package/dist
  rm "$archive"
  echo "$OHIF_VERSION" > .ohif/version
fi

uv=${UV:-$(command -v uv || true)}
for reader in pydicom-seg dcmqi; do
  if done_for ".venvs/$reader/.installed" "requirements-$reader.txt"; then
    echo "$reader: already there"
    continue
  fi
  echo "$reader: making .venvs/$reader"
  if [ -z "$uv" ]; then
    python3 -m venv .venvs/uv
    .venvs/uv/bin/python -m pip install --quiet uv
    uv=.venvs/uv/bin/uv
  fi
  rm -rf ".venvs/$reader"
  "$uv" venv --quiet --python 3.11 ".venvs/$reader"
  "$uv" pip install --quiet --python ".venvs/$reader/bin/python" -r "requirements-$reader.txt"
  digest "requirements-$reader.txt" > ".venvs/$reader/.installed"
done
