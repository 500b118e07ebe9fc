#!/bin/sh
# Lock files name packages and hashes, never a place to download from.
set -eu
cd "$(dirname "$0")/.."
if grep -nE 'https?://|^ *(--index-url|--extra-index-url|--find-links)' -- *.lock tests/node/package-lock.json; then
    echo 'A lock file names a download address (above). Write it anew with: make lock' >&2
    exit 1
fi
