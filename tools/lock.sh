#!/bin/sh
# Resolves the pinned versions anew: hashed locks for every platform, without any host name.
set -eu
cd "$(dirname "$0")/.."
compile() {
    .venv/bin/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --python-version 3.11 "$@"
}
compile pyproject.toml -o requirements.lock
compile pyproject.toml --group dev -c requirements.lock -o requirements-dev.lock
echo 'dtlpy==1.126.5' | compile - -o requirements-sdk.lock
echo 'uv==0.13.8' | compile - -o requirements-uv.lock
(cd tests/node && ../../.venv/bin/python ../../tools/npm.py install --package-lock-only --ignore-scripts --silent)
.venv/bin/python tools/strip_lock.py tests/node/package-lock.json
