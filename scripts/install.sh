#!/bin/sh
# Installs hxe as a service of this machine, or of the tree below DESTDIR; or removes what it has installed.
#
#     scripts/install.sh [--init INIT] [--prefix DIR] [--binary FILE]
#     scripts/install.sh --uninstall [--prefix DIR]
#
#   --init     auto (default), sysv, busybox, openrc, procd, runit, s6, systemd, or none
#   --prefix   where binary, manual pages and completions go: /usr/local, or /usr where init is busybox or procd
#   --binary   the program to install: target/release/hxe, unless told otherwise
#
# Nothing that exists is changed, but for what an earlier run has installed and nobody has touched since; what that is
# stands in PREFIX/share/hxe/installed, with a checksum each. A new hxe.toml gets a random password.
# Nothing is started or stopped. --uninstall keeps the configuration, the programs' definitions, and their logs.
set -eu

usage="usage: install.sh [--init auto|sysv|busybox|openrc|procd|runit|s6|systemd|none] [--prefix DIR] [--binary FILE] | --uninstall [--prefix DIR]"
source=$(cd "$(dirname "$0")/.." && pwd)
root=${DESTDIR:-}
root=${root%/}
init=auto
prefix=
binary=$source/target/release/hxe
uninstall=

say() {
    printf '%s\n' "$*"
}

fail() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 1
}

wrong() {
    printf 'install.sh: %s\n%s\n' "$*" "$usage" >&2
    exit 2
}

while [ $# -gt 0 ]; do
    case $1 in
        --init=* | --prefix=* | --binary=*)
            option=${1%%=*}
            value=${1#*=}
            shift
            set -- "$option" "$value" "$@"
            continue
            ;;
        --init | --prefix | --binary)
            [ $# -ge 2 ] || wrong "$1 needs a value"
            case $1 in
                --init) init=$2 ;;
                --prefix) prefix=${2%/} ;;
                --binary) binary=$2 ;;
            esac
            shift
            ;;
        --uninstall) uninstall=yes ;;
        -h | --help)
            say "$usage"
            exit 0
            ;;
        *) wrong "what is $1?" ;;
    esac
    shift
done
case $init in
    auto | sysv | busybox | openrc | procd | runit | s6 | systemd | none) ;;
    *) wrong "there is no init $init" ;;
esac
case $prefix in
    '' | /*) ;;
    *) wrong "--prefix is an absolute path, not $prefix" ;;
esac
case $prefix in
    *[!A-Za-z0-9/._+-]*) wrong "--prefix may have letters, digits and / . _ + - only, as it becomes part of scripts" ;;
esac
case $root in
    '' | /*) ;;
    *) wrong "DESTDIR is an absolute path, not $root" ;;
esac

# Which init a file is, by what it says of itself; links are followed within the tree.
kind_of() {
    file=$1
    hops=0
    while [ -h "$root$file" ] && [ "$hops" -lt 10 ]; do
        target=$(readlink "$root$file")
        case $target in
            /*) file=$target ;;
            *) file=${file%/*}/$target ;;
        esac
        hops=$((hops + 1))
    done
    case ${file##*/} in
        systemd | busybox | openrc-init | runit | runit-init | procd) say "${file##*/}" ;;
        s6-svscan | s6-linux-init*) say s6 ;;
        *)
            if [ -x "$root/sbin/procd" ] && [ -e "$root/etc/rc.common" ]; then
                say procd
            elif grep -q s6-linux-init "$root$file" 2>/dev/null; then
                say s6
            elif grep -q runit "$root$file" 2>/dev/null; then
                say runit
            # sysvinit tells its version to the scripts that it runs, in this variable.
            elif grep -q INIT_VERSION= "$root$file" 2>/dev/null; then
                say sysvinit
            elif grep -q BusyBox "$root$file" 2>/dev/null; then
                say busybox
            fi
            ;;
    esac
}

# Which service scripts an init of this kind wants.
scripts_for() {
    case $1 in
        systemd | procd | s6) say "$1" ;;
        runit | runit-init) say runit ;;
        openrc-init) say openrc ;;
        # Whichever runs as process 1, it leaves services to OpenRC where that is set up; that it is there is not enough.
        busybox | sysvinit)
            if [ -x "$root/sbin/openrc-run" ] &&
                grep -q '^[^#]*openrc' "$root/etc/inittab" "$root/etc/init.d/rc" "$root/etc/init.d/rcS" 2>/dev/null; then
                say openrc
            elif [ "$1" = busybox ]; then
                say busybox
            else
                say sysv
            fi
            ;;
    esac
}

# Prints which init the machine, or the tree, has. What runs says more than what is there; but in a tree, a chroot or a
# container without an init of its own, it is not what the tree will be started with.
detect() {
    if [ -z "$root" ] && [ -e /proc/1/comm ]; then
        own=$(stat -L -c %d:%i / 2>/dev/null || true)
        first=$(stat -L -c %d:%i /proc/1/root/ 2>/dev/null || true)
        if [ -n "$first" ] && [ "$own" = "$first" ]; then
            name=$(cat /proc/1/comm)
            file=$(readlink /proc/1/exe || true)
            case $name in
                systemd | procd | runit | openrc-init | s6-svscan) scripts_for "$(kind_of "/$name")" ;;
                runsvdir) say runit ;;
                init | linuxrc) scripts_for "$(kind_of "${file:-/sbin/init}")" ;;
                *)
                    say "process 1 is $name, which is no init: nothing will start hxe at boot (--init chooses)" >&2
                    say none
                    ;;
            esac
            return
        fi
    fi
    for file in /sbin/init /init /etc/init /bin/init /usr/sbin/init; do
        if [ -e "$root$file" ] || [ -h "$root$file" ]; then
            scripts_for "$(kind_of "$file")"
            return
        fi
    done
    say "there is no init in ${root:-/}: nothing will start hxe at boot (--init chooses)" >&2
    say none
}

# A checksum of a file, or of a link's target; whichever tool is there.
sum() {
    if [ -h "$1" ]; then
        say "link:$(readlink "$1")"
        return
    fi
    for tool in cksum sha256sum md5sum; do
        if command -v "$tool" >/dev/null; then
            value=$($tool <"$1") || return 1
            say "$tool:$value" | tr ' \t' '::'
            return
        fi
    done
    fail "there is no cksum, sha256sum or md5sum here"
}

# Whether a file is as an earlier run has left it.
is_untouched() {
    [ -f "$list" ] && grep -qxF "$1 $(sum "$root$1")" "$list"
}

# Notes that a file is ours.
note() {
    line="$1 $(sum "$root$1")"
    if [ -f "$list" ]; then
        awk -v path="$1" '$1 != path' "$list" >"$list.new"
    else
        : >"$list.new"
    fi
    say "$line" >>"$list.new"
    mv -f "$list.new" "$list"
}

# Whether a place is free, or has what an earlier run put there; says so if it has something else.
may_write() {
    if [ ! -e "$root$1" ] && [ ! -h "$root$1" ]; then
        return 0
    fi
    if is_untouched "$1"; then
        return 0
    fi
    say "kept $1, which is not as this script left it"
    return 1
}

# Installs a file: its source, its place, its mode. All at once, so that what runs is never half a file.
put() {
    may_write "$2" || return 0
    mkdir -p "$root${2%/*}"
    cp "$1" "$root$2.new"
    chmod "$3" "$root$2.new"
    mv -f "$root$2.new" "$root$2"
    note "$2"
    say "installed $2"
}

# Installs a script of ours, with the binary where it is installed.
put_script() {
    sed "s#/usr/bin/hxe#$prefix/bin/hxe#g" "$source/scripts/init/$1" >"$work/script"
    put "$work/script" "$2" "$3"
}

# Makes a link, which is what enables a service.
link() {
    may_write "$2" || return 0
    mkdir -p "$root${2%/*}"
    ln -sf "$1" "$root$2"
    note "$2"
    say "installed $2 -> $1"
}

remove_all() {
    [ -f "$list" ] || fail "there is no $list: nothing of this script is installed below ${root:-/} with --prefix $prefix"
    if [ -z "$root" ] && pid=$(cat /run/hxe.pid 2>/dev/null) && grep -q daemon "/proc/$pid/cmdline" 2>/dev/null; then
        fail "hxe runs (process $pid): stop it first"
    fi
    # Those of update-rc.d are not in the list.
    for path in "$root"/etc/rc?.d/[SK][0-9][0-9]hxe; do
        if [ -h "$path" ] && [ "$(readlink "$path")" = ../init.d/hxe ]; then
            rm -f "$path"
            say "removed ${path#"$root"}"
        fi
    done
    while read -r path checksum; do
        if [ ! -e "$root$path" ] && [ ! -h "$root$path" ]; then
            continue
        fi
        if [ "$(sum "$root$path")" = "$checksum" ]; then
            rm -f "$root$path"
            say "removed $path"
        else
            say "kept $path, which is not as this script left it"
        fi
    done <"$list"
    rm -f "$list"
    if [ ! -e "$root/etc/init.d/hxe" ] && [ -x "$root/usr/sbin/update-rc.d" ]; then
        update_links remove || say "update-rc.d hxe remove failed here: run it on the machine"
    fi
    for dir in "$prefix/share/hxe" /etc/sv/hxe/control /etc/sv/hxe /etc/s6/sv/hxe; do
        rmdir "$root$dir" 2>/dev/null || true
    done
    say "kept the configuration in /etc/hxe, the programs in /var/lib/hxe and their logs in /var/log/hxe"
}

# The configuration, if there is none, with a password that nobody knows.
configure() {
    if [ -e "$root/etc/hxe/hxe.toml" ]; then
        say "kept /etc/hxe/hxe.toml, and the password there"
        return
    fi
    # 24 of 62 characters: 142 bits.
    password=$(LC_ALL=C tr -dc 'A-Za-z0-9' </dev/urandom 2>/dev/null | head -c 24)
    [ "${#password}" -eq 24 ] || fail "/dev/urandom gives no random bytes"
    mkdir -p "$root/etc/hxe"
    (umask 077 && sed "s/^#password = .*/password = \"$password\"/" "$source/conf/hxe.toml" >"$root/etc/hxe/hxe.toml.new")
    grep -q "^password = \"$password\"" "$root/etc/hxe/hxe.toml.new" || fail "conf/hxe.toml has no line for the password"
    mv -f "$root/etc/hxe/hxe.toml.new" "$root/etc/hxe/hxe.toml"
    say "installed /etc/hxe/hxe.toml"
    say "The user is admin; the password is in /etc/hxe/hxe.toml, which only root can read."
}

# Completions, as the binary itself writes them: not from one that is for another machine, or too old to know them.
install_completions() {
    for shell in bash zsh fish; do
        if ! "$binary" completions "$shell" >"$work/completions" 2>/dev/null; then
            say "skipped completions for $shell: $binary does not give them here"
            continue
        fi
        case $shell in
            bash) put "$work/completions" "$prefix/share/bash-completion/completions/hxe" 644 ;;
            zsh) put "$work/completions" "$prefix/share/zsh/site-functions/_hxe" 644 ;;
            fish) put "$work/completions" "$prefix/share/fish/vendor_completions.d/hxe.fish" 644 ;;
        esac
    done
}

# Links a script of SysV to runlevels. Debian's boot goes by a list that its own tool makes from the links.
link_levels() {
    if [ -x "$root/usr/sbin/update-rc.d" ]; then
        if update_links defaults; then
            say "linked by update-rc.d hxe defaults"
        else
            say "update-rc.d failed here: run \"update-rc.d hxe defaults\" on the machine, or hxe does not start at boot"
        fi
        return
    fi
    if [ ! -d "$root/etc/rc2.d" ]; then
        say "There is no /etc/rc2.d here: have your boot scripts call /etc/init.d/hxe start, and stop at shutdown."
        return
    fi
    for level in 2 3 4 5; do
        [ ! -d "$root/etc/rc$level.d" ] || link ../init.d/hxe "/etc/rc$level.d/S50hxe"
    done
    # Early: programs get their time to stop.
    for level in 0 1 6; do
        [ ! -d "$root/etc/rc$level.d" ] || link ../init.d/hxe "/etc/rc$level.d/K01hxe"
    done
}

update_links() {
    if [ -n "$root" ]; then
        chroot "$root" update-rc.d hxe "$1" >/dev/null 2>&1
    else
        update-rc.d hxe "$1" >/dev/null
    fi
}

serve() {
    case $init in
        sysv)
            put_script sysv /etc/init.d/hxe 755
            link_levels
            say "To start it now: /etc/init.d/hxe start"
            ;;
        busybox)
            put_script sysv /etc/init.d/S50hxe 755
            # Where rcS starts S??* by a loop, rcK stops them, as in Buildroot.
            if ! grep -q 'init.d/S' "$root/etc/init.d/rcS" 2>/dev/null; then
                say "This machine's /etc/init.d/rcS does not start /etc/init.d/S??*: add this line to it:"
                say "    /etc/init.d/S50hxe start"
            fi
            if ! grep -q '^[^#]*shutdown.*\(rcK\|hxe\)' "$root/etc/inittab" 2>/dev/null; then
                say "Add this line to /etc/inittab, so that programs get their time to stop:"
                say "    ::shutdown:/etc/init.d/S50hxe stop"
            fi
            say "To have init respawn even the guardian, see scripts/init/inittab."
            say "To start it now: /etc/init.d/S50hxe start"
            ;;
        openrc)
            put_script openrc /etc/init.d/hxe 755
            link /etc/init.d/hxe /etc/runlevels/default/hxe
            say "To start it now: rc-service hxe start"
            ;;
        procd)
            put_script procd /etc/init.d/hxe 755
            link ../init.d/hxe /etc/rc.d/S95hxe
            link ../init.d/hxe /etc/rc.d/K05hxe
            say "To start it now: /etc/init.d/hxe start"
            ;;
        runit)
            put_script runit/run /etc/sv/hxe/run 755
            put_script runit/control/t /etc/sv/hxe/control/t 755
            # runsvdir keeps its state in memory where the distribution's own services do so.
            if [ -d "$root/run/runit" ] || [ -d "$root/etc/runit/runsvdir" ]; then
                link /run/runit/supervise.hxe /etc/sv/hxe/supervise
            fi
            for dir in /etc/runit/runsvdir/default /etc/service /service /var/service; do
                if [ -d "$root$dir" ]; then
                    link /etc/sv/hxe "$dir/hxe"
                    say "runsvdir starts it within five seconds."
                    return
                fi
            done
            say "To start it, now and at boot: ln -s /etc/sv/hxe DIR, where DIR is the directory that runsvdir looks at"
            ;;
        s6)
            put_script s6/run /etc/s6/sv/hxe/run 755
            say "To start it, now and at boot: ln -s /etc/s6/sv/hxe DIR && s6-svscanctl -a DIR, where DIR is what s6-svscan looks at"
            ;;
        systemd)
            put_script systemd.service /etc/systemd/system/hxe.service 644
            link ../hxe.service /etc/systemd/system/multi-user.target.wants/hxe.service
            if [ -z "$root" ] && [ -d /run/systemd/system ]; then
                systemctl daemon-reload || say "systemctl daemon-reload failed: systemd does not know the service yet"
            fi
            say "To start it now: systemctl start hxe"
            ;;
        none)
            say "To run it: $prefix/bin/hxe daemon"
            ;;
    esac
}

if [ -n "$uninstall" ]; then
    if [ -z "$prefix" ]; then
        prefix=/usr/local
        [ -f "$root$prefix/share/hxe/installed" ] || prefix=/usr
    fi
    list=$root$prefix/share/hxe/installed
    remove_all
    exit 0
fi

[ -f "$binary" ] || fail "there is no $binary: build it with cargo build --release, or name one by --binary"
if [ "$init" = auto ]; then
    init=$(detect)
    [ -n "$init" ] || fail "this machine's init is none that is known here: choose by --init, none if nothing shall start hxe at boot"
    say "init: $init"
fi
if [ -z "$prefix" ]; then
    case $init in
        busybox | procd) prefix=/usr ;;
        *) prefix=/usr/local ;;
    esac
fi
list=$root$prefix/share/hxe/installed
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
umask 022
mkdir -p "$root$prefix/share/hxe"

put "$binary" "$prefix/bin/hxe" 755
for page in "$source"/man/*.[1-8]; do
    put "$page" "$prefix/share/man/man${page##*.}/${page##*/}" 644
done
install_completions
configure
serve
