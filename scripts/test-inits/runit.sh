#!/bin/sh
# hxe under runsvdir: the service directory as it is installed, for an hxe beside us.
# shellcheck source=scripts/test-inits/lib.sh
. "$(dirname "$0")/lib.sh"
need curl runsvdir runsv sv
configure
mkdir -p "$dir/service/control" "$dir/scan"
adapt runit/run "$dir/service/run"
adapt runit/control/t "$dir/service/control/t"
ln -s "$dir/service" "$dir/scan/hxe"

svc() {
    case $1 in
        reload) set -- hup ;;
        upgrade) set -- 2 ;;
    esac
    SVDIR=$dir/scan sv -w 60 "$1" hxe >"$dir/sv.log" 2>&1 && { [ "$1" != status ] || grep -q '^run:' "$dir/sv.log"; }
}

setsid runsvdir -P "$dir/scan" >"$dir/console.log" 2>&1 </dev/null &
started=$!
life
svc stop
# runsv goes with its directory.
SVDIR=$dir/scan sv -w 60 exit hxe >/dev/null 2>&1
verdict
