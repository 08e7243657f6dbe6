#!/bin/sh
# Boots small machines in QEMU, whose busybox init starts hxe by its own init script, and shows there what a board needs.
#
#     scripts/guest-test.sh [armv7|x86_64|aarch64|all]
#
# armv7 has 26 MB of memory, x86-64 44, aarch64 35. Each boots twice: hxe started by rcS, in cgroups; then respawned by a line of
# inittab, without cgroups. The wall clock goes to 2039, on armv7 from 1970. scripts/guest/life.sh has what is checked: one line
# each, PASS or FAIL. Needs no KVM and no root.
#
# Kernels, busybox and QEMU are packages of Debian, unpacked below target/cross; scripts/cross.sh builds hxe. Exits with 0 if
# nothing fails, also where something cannot be had, which it says; 1 with the guest's console if something fails.
set -eu
cd "$(dirname "$0")/.."
# shellcheck source=scripts/cross/debian.sh
. scripts/cross/debian.sh

# A guest's file system: DIR MODE.
make_tree() {
    rm -rf "$1"
    mkdir -p "$1/bin" "$1/sbin" "$1/dev" "$1/proc" "$1/sys/fs" "$1/etc/init.d" "$1/run" "$1/var/log" "$1/programs"
    mkdir -m 1777 "$1/tmp"
    cp "$busybox/bin/busybox" "$1/bin/busybox"
    ln -s busybox "$1/bin/sh"
    ln -s /bin/busybox "$1/sbin/init"
    ln -s /sbin/init "$1/init"
    cp scripts/guest/rcS scripts/guest/rcK "$1/etc/init.d/"
    cp scripts/guest/life.sh "$1/life.sh"
    cp scripts/guest/clock scripts/guest/flood "$1/programs/"
    cp "$set_clock" "$1/bin/set_clock"
    printf 'root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$1/etc/passwd"
    printf 'root:x:0:\nnogroup:x:65534:\n' >"$1/etc/group"
    echo ::sysinit:/etc/init.d/rcS >"$1/etc/inittab"
    case $2 in
        rcS) echo ::shutdown:/etc/init.d/rcK >>"$1/etc/inittab" ;;
        inittab) grep '^:' scripts/init/inittab >>"$1/etc/inittab" ;;
    esac
    printf '%s\n' "::once:/bin/sh /life.sh" "::shutdown:/bin/sh /life.sh ended" >>"$1/etc/inittab"
    DESTDIR=$1 scripts/install.sh --init busybox --binary "$hxe" >/dev/null
    [ "$2" = rcS ] || mv "$1/etc/init.d/S50hxe" "$1/etc/init.d/hxe"
    sed -i 's/^#rate_limit = .*/rate_limit = 0/; s/^#max_size = .*/max_size = "256KiB"/' "$1/etc/hxe/hxe.toml"
}

# The kernel that a package depends on: ARCH PACKAGE.
kernel() {
    lists "$1"
    version=$(apt_for "$1" apt-cache depends "$2" 2>/dev/null | sed -n 's/.*Depends: \(linux-image-[0-9][^ ]*\)$/\1/p' | head -n 1)
    [ -n "$version" ] || cannot "$2 for $1 is not there"
    unpack "$1" "$version" "$cache/kernel-$1"
    kernel=$(echo "$cache/kernel-$1"/boot/vmlinuz-*)
}

# What a machine needs: TARGET ARCH KERNEL QEMU.
board() {
    need "$4"
    unpack "$own" busybox-static "$cache/busybox-$own"
    pack=$cache/busybox-$own/bin/busybox
    busybox=$cache/busybox-$2
    unpack "$2" busybox-static "$busybox"
    kernel "$2" "$3"
    hxe=$(scripts/cross.sh "$1")
    hxe=${hxe% *}
    set_clock=$cache/set_clock-$2
    with_tools "$cache/linker-$1/cc" -isystem "$(echo "$cache/musl-$2"/usr/include/*-linux-musl*)" scripts/guest/set_clock.c -o "$set_clock"
}

# Boots a guest, and says what it showed: MODE MACHINE COMMAND...
boot() {
    name=$2-$1
    tree=$cache/guests/$name
    make_tree "$tree" "$1"
    (cd "$tree" && find . | "$pack" cpio -o -H newc -R 0:0 2>/dev/null | gzip) >"$tree.cpio.gz"
    shift 2
    began=$(date +%s)
    with_tools timeout -k 10 900 "$@" -accel tcg -nographic -no-reboot -nic none -kernel "$kernel" -initrd "$tree.cpio.gz" \
        </dev/null >"$tree.log" 2>&1 || true
    took=$(($(date +%s) - began))
    tr -d '\r' <"$tree.log" | sed -n "s/^\(PASS\|FAIL\) /\1 $name: /p; s/^memory: /     &/p"
    if grep -q '^FAIL' "$tree.log" || ! grep -q '^DONE' "$tree.log" || ! grep -q 'Power down' "$tree.log"; then
        echo "FAIL $name, after $took s; its console:"
        cat "$tree.log"
        failed=yes
    else
        echo "PASS $name: ends by itself, after $took s"
    fi
}

# Both boots of a machine.
guest() {
    case $1 in
        armv7)
            # As without a clock that goes on while the board has no power.
            board armv7-unknown-linux-musleabihf armhf linux-image-armmp qemu-system-arm
            set -- "$1" qemu-system-arm -M virt -cpu cortex-a7 -m 64 -rtc base=1970-01-01 -append "console=ttyAMA0 mem=44M panic=-1 quiet"
            ;;
        x86_64)
            board x86_64-unknown-linux-musl amd64 linux-image-cloud-amd64 qemu-system-x86
            # Without random numbers of the processor's: most boards have none either.
            set -- "$1" qemu-system-x86_64 -cpu max,-rdrand,-rdseed -m 80 -append "console=ttyS0 panic=-1 quiet"
            ;;
        aarch64)
            board aarch64-unknown-linux-musl arm64 linux-image-arm64 qemu-system-arm
            set -- "$1" qemu-system-aarch64 -M virt -cpu cortex-a53 -m 64 -append "console=ttyAMA0 panic=-1 quiet"
            ;;
    esac
    boot rcS "$@"
    boot inittab "$@"
}

machines=${1:-all}
case $machines in
    all) machines="armv7 x86_64 aarch64" ;;
    armv7 | x86_64 | aarch64) ;;
    *)
        say "usage: guest-test.sh [armv7|x86_64|aarch64|all]"
        exit 2
        ;;
esac
code=0
for machine in $machines; do
    set +e
    (
        set -e
        failed=
        guest "$machine"
        [ -z "$failed" ]
    )
    case $? in
        0) ;;
        3) echo "skipped $machine: it cannot be had here" ;;
        *) code=1 ;;
    esac
    set -e
done
exit $code
