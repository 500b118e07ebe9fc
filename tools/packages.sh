#!/bin/sh
# Installs the Debian packages of packages.txt where we are root; elsewhere names what is missing.
# In CI a missing package is a failure.
set -eu
cd "$(dirname "$0")/.."
missing=
while read -r package _; do
    case "$package" in '' | '#'*) continue ;; esac
    dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done <packages.txt
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    # shellcheck disable=SC2086
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing && exit 0
fi
echo "Not installed:$missing. Tests that need them will be reported as not run." >&2
[ -z "${CI:-}" ] || exit 1
