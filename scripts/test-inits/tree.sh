# Trees for inits that run as process 1: made once, in $TREES, and copied for each use. Sourced after lib.sh.
# shellcheck shell=sh disable=SC2154 # lib.sh sets the variables

trees=${TREES:?the directory that scripts/test-inits.sh keeps trees in}

# Has Debian put packages in a tree: make_tree NAME PACKAGES...; fails, and says so, where that cannot be had.
make_tree() {
    need_root
    need curl unshare nsenter
    [ ! -d "$trees/$1" ] || return 0
    [ -n "${INSTALL:-}" ] || skip "needs a Debian tree: --install has debootstrap make one"
    need debootstrap
    if [ ! -d "$trees/base" ]; then
        debootstrap --variant=minbase bookworm "$trees/base.new" >"$trees/base.log" 2>&1 ||
            skip "debootstrap failed: $(tail -n 1 "$trees/base.log")"
        # Nothing is to be started while packages are installed.
        printf '#!/bin/sh\nexit 101\n' >"$trees/base.new/usr/sbin/policy-rc.d"
        chmod 755 "$trees/base.new/usr/sbin/policy-rc.d"
        mv "$trees/base.new" "$trees/base"
    fi
    name=$1
    shift
    rm -rf "$trees/$name.new"
    cp -a "$trees/base" "$trees/$name.new"
    cp /etc/resolv.conf "$trees/$name.new/etc/"
    DEBIAN_FRONTEND=noninteractive chroot "$trees/$name.new" \
        apt-get -qy --no-install-recommends install "$@" >"$trees/$name.log" 2>&1 ||
        skip "apt-get failed: $(tail -n 1 "$trees/$name.log")"
    mv "$trees/$name.new" "$trees/$name"
}

# A copy of the tree in $dir/root, in which nothing but hxe is started or stopped: it is on this machine's kernel, whose
# clock, swap and file systems the scripts of a distribution would take for their own.
take_tree() {
    cp -a "$trees/$1" "$dir/root"
    rm -f "$dir/root"/etc/rc?.d/[SK]* "$dir/root"/etc/runlevels/*/*
    find "$dir/root/etc/init.d" -maxdepth 1 -type f ! -name 'rc*' ! -name halt -delete 2>/dev/null
    if [ -e "$dir/root/etc/inittab" ]; then
        # No terminals, either.
        sed -i '/getty/d; /sulogin/d' "$dir/root/etc/inittab"
    fi
    # What is written to the console can be read here.
    rm -f "$dir/root/dev/console"
    : >"$dir/root/dev/console"
}
