#!/bin/sh
# busybox init as process 1: hxe started by rcS and stopped at shutdown, then respawned by init from a line of inittab.
# shellcheck source=scripts/test-inits/lib.sh
. "$(dirname "$0")/lib.sh"
need_root
need busybox curl unshare nsenter
busybox --list | grep -qx init || skip "this busybox has no init"

# A small system: busybox, hxe, and the libraries of both.
make_root() {
    root=$dir/root
    mkdir -p "$root/bin" "$root/sbin" "$root/etc/init.d" "$root/proc" "$root/run" "$root/dev" "$root/tmp" "$root/var/log"
    cp "$(command -v busybox)" "$root/bin/busybox"
    for applet in $(busybox --list); do
        [ "$applet" = busybox ] || ln -s /bin/busybox "$root/bin/$applet"
    done
    ln -s /bin/busybox "$root/sbin/init"
    # Those that are linked dynamically: name => path (address), or path (address).
    for library in $(ldd "$(command -v busybox)" "$hxe" 2>/dev/null | grep -o '/[^ :]* (0x' | sed 's/ .*//' | sort -u); do
        mkdir -p "$root${library%/*}"
        cp -L "$library" "$root$library"
    done
    for device in "null c 1 3" "urandom c 1 9" "console c 5 1"; do
        # shellcheck disable=SC2086 # several words
        mknod -m 666 "$root/dev/"$device || skip "devices cannot be made here"
    done
    printf 'root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$root/etc/passwd"
    printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
    # As Buildroot has them.
    # shellcheck disable=SC2016 # for the scripts
    for pair in "rcS start" "rcK stop"; do
        printf '#!/bin/sh\nfor i in /etc/init.d/S??*; do [ ! -x "$i" ] || "$i" %s; done\n' "${pair#* }" >"$root/etc/init.d/${pair% *}"
    done
    chmod 755 "$root/etc/init.d/rcS" "$root/etc/init.d/rcK"
    printf '%s\n' ::sysinit:/etc/init.d/rcS ::shutdown:/etc/init.d/rcK >"$root/etc/inittab"
}

svc() {
    inside "$script" "$1" >>"$dir/console.log" 2>&1
}

make_root
install_in "$root" busybox || exit 1

part="busybox, rcS"
respawns=no
script=/etc/init.d/S50hxe
boot "$root" /sbin/init || flunk "boot: $(cat "$dir/console.log")"
life
# As poweroff asks init.
inside sh -c 'kill -USR2 1'
check "programs are stopped at shutdown" wait_for grep -q 'hxe: stopped' "$dir/console.log"
kill -KILL "$started"
wait "$started" 2>/dev/null

part="busybox, inittab"
respawns=yes
token=
script=/etc/init.d/hxe
mv "$root/etc/init.d/S50hxe" "$root/etc/init.d/hxe"
rm -rf "$root/var/lib/hxe" "$root/var/log/hxe"
printf '%s\n' ::sysinit:/etc/init.d/rcS >"$root/etc/inittab"
grep '^:' "$source/scripts/init/inittab" >>"$root/etc/inittab"
: >"$dir/console.log"
boot "$root" /sbin/init || flunk "boot: $(cat "$dir/console.log")"
life
verdict
