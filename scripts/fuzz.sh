#!/bin/sh
# Runs the property tests again and again, each time with other random input.
#
#     scripts/fuzz.sh [MINUTES [DIRECTORY...]]      10 minutes and all of src, unless told otherwise
#
# Takes every #[test] in a proptest! block below the directories, so that a new one needs no registration here; what clients
# send is read in src/http and src/api. The first failure ends it: proptest shows the smallest input that it found, and
# the seed is printed with the command that repeats it. CASES (1000) is the number of inputs a test and round.
set -eu
cd "$(dirname "$0")/.."

minutes=${1:-10}
case $minutes in
    '' | *[!0-9]*)
        echo "fuzz.sh: MINUTES is a whole number, not '$minutes'" >&2
        exit 2
        ;;
esac
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- src
cases=${CASES:-1000}

names=$(find "$@" -name '*.rs' -exec awk '
    FNR == 1 { inside = 0 }
    /^ *proptest! *\{/ { match($0, /^ */); end = substr($0, 1, RLENGTH) "}"; inside = 1 }
    inside && $0 == end { inside = 0 }
    inside && /#\[test\]/ { due = 1 }
    inside && due && match($0, /fn [a-z0-9_]+/) { print substr($0, RSTART + 3, RLENGTH - 3); due = 0 }
' {} +)
if [ -z "$names" ]; then
    echo "fuzz.sh: no property tests below $*" >&2
    exit 2
fi
# shellcheck disable=SC2086 # one name a word
set -- $names
cargo test --quiet --lib --no-run
echo "$# property tests, $cases cases a round"

end=$(($(date +%s) + minutes * 60))
round=0
while [ "$(date +%s)" -lt "$end" ]; do
    round=$((round + 1))
    seed=$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')
    if ! output=$(PROPTEST_RNG_SEED=$seed PROPTEST_CASES=$cases cargo test --quiet --lib -- "$@" 2>&1); then
        printf '%s\n' "$output"
        echo "round $round failed; again with:"
        echo "PROPTEST_RNG_SEED=$seed PROPTEST_CASES=$cases cargo test --lib -- $*"
        exit 1
    fi
    echo "round $round passed, seed $seed"
done
