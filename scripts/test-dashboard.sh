#!/bin/sh
# Has a real browser use the dashboard: Debian's Chromium, led by Playwright, on a phone's screen and on a desk's, in light
# and dark. It logs in, creates a program, sees its log, kills it, loses the daemon and gets it back; axe-core looks at every
# view.
#
# Usage: scripts/test-dashboard.sh [--screenshots DIR | --only TEST] [HXE]
#   --screenshots DIR  takes pictures of all views instead, for a person to look at
#   --only TEST        runs the tests that have this in their name, such as "walk"
#   HXE                the binary, target/debug/hxe if it is not said
# Takes Chromium from Debian where it may (root and apt-get), and two packages of npm into target; says so and ends with 0
# where they cannot be had. All listens on 127.0.0.1 only, and ends with the script.
set -eu
cd "$(dirname "$0")/.."
pictures='' only=''
if [ "${1:-}" = --screenshots ]; then
    pictures=${2:?--screenshots takes a directory}
    shift 2
elif [ "${1:-}" = --only ]; then
    only=${2:?--only takes a part of a name}
    shift 2
fi
HXE=${1:-target/debug/hxe}
[ -x "$HXE" ] || { echo "there is no $HXE: cargo build makes it" >&2; exit 1; }

skip() {
    echo "skipped: $*"
    exit 0
}

has() {
    command -v "$1" >/dev/null 2>&1
}

if ! has node || ! has npm; then
    skip "node and npm are needed"
fi
if ! has chromium && [ "$(id -u)" = 0 ] && has apt-get; then
    apt-get -q update >&2 || true
    DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends chromium >&2 || true
fi
has chromium || skip "chromium is not here and cannot be had"

# Neither needs another package.
packages="playwright-core@1.65.1 axe-core@4.14.1"
modules=${CARGO_TARGET_DIR:-target}/test-dashboard
mkdir -p "$modules"
if [ "$(cat "$modules/packages" 2>/dev/null)" != "$packages" ]; then
    # shellcheck disable=SC2086 # several words
    npm install --silent --no-audit --no-fund --no-package-lock --prefix "$modules" $packages ||
        skip "the packages of npm cannot be had"
    echo "$packages" >"$modules/packages"
fi

MODULES=$(cd "$modules" && pwd)
HXE=$(cd "$(dirname "$HXE")" && pwd)/$(basename "$HXE")
# For all that is made by the way. Programs run as nobody, who must come to what is in it.
TMPDIR=$(mktemp -d)
chmod 755 "$TMPDIR"
export HXE MODULES TMPDIR
trap 'rm -rf "$TMPDIR" 2>/dev/null || { sleep 1; rm -rf "$TMPDIR"; }' EXIT
trap 'exit 1' HUP INT TERM
if [ -n "$pictures" ]; then
    mkdir -p "$pictures"
    node scripts/test-dashboard/pictures.mjs "$pictures"
else
    node scripts/test-dashboard/test.mjs "$only"
fi
