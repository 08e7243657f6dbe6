#!/bin/sh
# The script for SysV init and busybox where a line of inittab calls "hxe run", and again whenever that ends: a loop does so
# here, for an hxe beside us.
# shellcheck source=scripts/test-inits/lib.sh
. "$(dirname "$0")/lib.sh"
need curl
configure
adapt sysv "$dir/hxe"
printf 'DAEMON_ARGS="--config %s"\n' "$dir/hxe.toml" >"$dir/default"

svc() {
    sh "$dir/hxe" "$1" >"$dir/console.log" 2>&1
}

echo "::respawn:/etc/init.d/hxe run" >"$dir/inittab"
setsid sh -c "while :; do sh '$dir/hxe' run; sleep 0.2; done" >"$dir/init.log" 2>&1 </dev/null &
started=$!
life
# What waits at the FIFO now is a child of the loop, in its group.
svc stop
kill -KILL "-$started"
wait "$started" 2>/dev/null
started=
verdict
