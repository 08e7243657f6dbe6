#!/bin/sh
# What the start-stop-daemons of Debian and of busybox make of the pid file of an hxe beside us, for who has scripts of their own.
# shellcheck source=scripts/test-inits/lib.sh
. "$(dirname "$0")/lib.sh"
need curl
configure
adapt sysv "$dir/hxe"
printf 'DAEMON_ARGS="--config %s"\n' "$dir/hxe.toml" >"$dir/default"

svc() {
    sh "$dir/hxe" "$1" >"$dir/console.log" 2>&1
}

for tool in /usr/sbin/start-stop-daemon /sbin/start-stop-daemon "busybox start-stop-daemon"; do
    part="start-stop-daemon, $tool"
    case $tool in
        busybox*)
            # Not every busybox has it.
            busybox start-stop-daemon --help >/dev/null 2>&1 || continue
            ;;
        *)
            # A merged /usr has it under both names.
            if [ ! -x "$tool" ] || [ "$tool" = /sbin/start-stop-daemon ] && [ -h /sbin ]; then
                continue
            fi
            ;;
    esac
    svc start
    # shellcheck disable=SC2086 # two words
    check "finds hxe by its pid file" $tool -K -q -s HUP -p "$pid_file" -x "$(readlink -f "$hxe")"
    # shellcheck disable=SC2086
    check "stops hxe" $tool -K -q -s TERM -p "$pid_file" -x "$(readlink -f "$hxe")"
    check "which ends" wait_for not test -e "$pid_file"
done
verdict
