#!/bin/sh
# The script for SysV init and busybox, run by hand by the shells that it meets there, for an hxe beside us.
# shellcheck source=scripts/test-inits/lib.sh
. "$(dirname "$0")/lib.sh"
need curl
respawns=no
configure
adapt sysv "$dir/hxe"
printf 'DAEMON_ARGS="--config %s"\n' "$dir/hxe.toml" >"$dir/default"

svc() {
    # shellcheck disable=SC2086 # two words
    $shell "$dir/hxe" "$1" >"$dir/console.log" 2>&1
}

# Exits with the code that is asked for: gives CODE COMMAND...
gives() {
    code=$1
    shift
    "$@" >"$dir/console.log" 2>&1
    [ "$?" -eq "$code" ]
}

for shell in dash "busybox ash"; do
    part="initscript, $shell"
    if ! command -v "${shell%% *}" >/dev/null; then
        say "skipped $part: it is not there"
        continue
    fi
    check "status when stopped is 3" gives 3 svc status
    check "stop when stopped" svc stop
    check "reload when stopped is refused" gives 1 svc reload
    check "try-restart when stopped does nothing" eval 'svc try-restart && gives 3 svc status'
    check "wrong usage is 2" gives 2 svc bake
    svc start
    life
    svc start
    check "start when it runs" svc start
    wait_for runs_clock
    clock=$(program_pid clock)
    check "try-restart" svc try-restart
    check "try-restart keeps programs" wait_for is_kept
    svc stop

    # A process of somebody else's has the number that is in the pid file.
    sleep 1000 &
    other=$!
    echo "$other" >"$pid_file"
    check "status with a stale pid file is 1" gives 1 svc status
    check "stop with a stale pid file" svc stop
    check "restart with a stale pid file" svc restart
    check "who has that number is left alone" kill -0 "$other"
    svc stop
    echo "no number" >"$pid_file"
    check "status with a pid file of nonsense is 1" gives 1 svc status
    kill "$other"
    wait "$other" 2>/dev/null
    rm -f "$pid_file"

    mv "$dir/hxe.toml" "$dir/hxe.toml.good"
    echo "[api" >"$dir/hxe.toml"
    check "start with a bad configuration fails" gives 1 svc start
    check "and says why" grep -q 'hxe.toml:1' "$dir/console.log"
    check "status then is 3" gives 3 svc status
    mv "$dir/hxe.toml.good" "$dir/hxe.toml"
done

verdict
