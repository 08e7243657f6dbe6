#!/bin/sh
# Kills, starves and upgrades a daemon of its own at random, and counts what was lost by it.
#
#     scripts/chaos.sh [--hxe BIN] [--seconds N] [--seed N] [--keep]
#
# --hxe      the binary under test (target/debug/hxe)
# --seconds  how long (60); memory and disk that it takes do not grow with it
# --seed     repeats the choices of an earlier run, which printed it; not the moments, which are the machine's
# --keep     leaves its directory behind, with the logs, the database and what the daemon said
#
# At its end it says how many programs, lines and changes were lost or doubled, and exits with 1 unless all are 0. Needs
# Python 3.9 and nothing else. Disks are filled only where it may mount: as root, in a mount namespace of its own.
set -eu
exec python3 "$(dirname "$0")/chaos/run.py" "$@"
