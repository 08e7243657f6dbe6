#!/bin/sh
# sysvinit as process 1 of a Debian tree: hxe started and stopped by its links in /etc/rc?.d.
# shellcheck source=scripts/test-inits/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/test-inits/tree.sh
. "$(dirname "$0")/tree.sh"
make_tree sysvinit sysvinit-core sysv-rc insserv systemd-sysv-
take_tree sysvinit
respawns=no

svc() {
    inside /etc/init.d/hxe "$1" >"$dir/svc.log" 2>&1
}

install_in "$dir/root" sysv || exit 1
# By the list that update-rc.d has made.
check "has links for the runlevels" test -h "$dir/root/etc/rc2.d/S01hxe"
boot "$dir/root" /sbin/init || flunk "boot: $(cat "$dir/console.log")"
life
inside sh -c 'init 0'
check "programs are stopped at shutdown" wait_for grep -q 'hxe: stopped' "$dir/root/dev/console"
verdict
