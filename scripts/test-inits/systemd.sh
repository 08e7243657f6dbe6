#!/bin/sh
# systemd as process 1 of a Debian tree, in systemd-nspawn.
# shellcheck source=scripts/test-inits/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/test-inits/tree.sh
. "$(dirname "$0")/tree.sh"
need systemd-nspawn systemd-analyze
make_tree systemd systemd-sysv dbus
take_tree systemd
# systemd-nspawn makes its own.
rm "$dir/root/dev/console"

# From within: its own root and processes. What systemctl says is in $dir/svc.log.
svc() {
    case $1 in
        upgrade) set -- kill --kill-who=main -s USR2 ;;
        status) set -- is-active ;;
    esac
    inside systemctl "$@" hxe >"$dir/svc.log" 2>&1
}

install_in "$dir/root" systemd || exit 1
# shellcheck disable=SC2016 # eval does what is quoted
# It exits with 0 whatever it finds.
check "systemd-analyze verify finds nothing" eval \
    '[ -z "$(chroot "$dir/root" systemd-analyze --man=no verify hxe.service 2>&1)" ]'
# shellcheck disable=SC2016 # the inner shell's
setsid unshare -m sh -c 'mount -t tmpfs run /run && exec systemd-nspawn -q --register=no --keep-unit -D "$1" -b' sh \
    "$dir/root" >"$dir/console.log" 2>&1 </dev/null &
started=$!
tree=/
in_nspawn() {
    for status in /proc/[0-9]*/status; do
        if grep -q "^PPid:[[:space:]]*$started\$" "$status" 2>/dev/null; then
            first=${status#/proc/}
            first=${first%/status}
            [ "$(readlink "/proc/$first/exe")" != "$(readlink "/proc/$started/exe")" ] &&
                [ -e "/proc/$first/root/run/systemd/system" ] && return 0
        fi
    done
    return 1
}
wait_for in_nspawn || flunk "boot: $(cat "$dir/console.log")"
proc=/proc/$first/root/proc
pid_file=/proc/$first/root/run/hxe.pid
life
inside systemctl poweroff >/dev/null 2>&1
verdict
