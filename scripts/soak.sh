#!/bin/sh
# Keeps a daemon of its own busy for minutes or hours, and looks whether it has grown.
#
#     scripts/soak.sh [--minutes N | --hours N] [--seed N] [HXE]      5 minutes and target/release/hxe, unless told otherwise
#
# Requests of every kind, good and bad, restarts, crashes, programs created and deleted, streams opened and dropped, rotations,
# reloads, logins that fail, all at once. Ten times it stops all that, and reads what daemon and guardian use then. The table
# has a row for each of these, and the bounds for the last one. Exits with 1 if one is exceeded, or if anything else was not
# as it should be. Needs Python 3.9 and nothing else; scripts/bench/soak.py says what is done, and why the bounds are what
# they are.
set -eu
cd "$(dirname "$0")/.."
exec python3 scripts/bench/soak.py "$@"
