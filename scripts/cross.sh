#!/bin/sh
# Builds hxe for a board: one static binary that needs no library, as small as it gets.
#
#     scripts/cross.sh [--check] TARGET...
#
#   TARGET    x86_64-unknown-linux-musl, armv7-unknown-linux-musleabihf or aarch64-unknown-linux-musl
#   --check   only type-checks, for any target of Linux that the compiler knows, such as armv5te-unknown-linux-musleabi
#
# The compiler, the source of its standard library, linkers and musl are packages of Debian, which are unpacked below
# target/cross: nothing is installed, and root is not needed. Builds are there as well. A mistake in hxe that panics ends the
# daemon, and its guardian starts another; CARGO_PROFILE_RELEASE_PANIC=unwind has it go on, for a sixth more of size.
#
# Prints the path of each binary and its size in bytes. Exits with 0 if all are built, 1 if one fails, 2 if it is called wrongly,
# and 3 if something that is needed cannot be had, which it names.
set -eu
cd "$(dirname "$0")/.."
# shellcheck source=scripts/cross/debian.sh
. scripts/cross/debian.sh

usage() {
    say "usage: cross.sh [--check] x86_64-unknown-linux-musl|armv7-unknown-linux-musleabihf|aarch64-unknown-linux-musl..."
    exit 2
}

# Makes what cargo calls to link: GCC with musl instead of its own libc. ARCH COMPILER.
linker() {
    unpack "$1" musl-dev "$cache/musl-$1"
    libraries=$(echo "$cache/musl-$1"/usr/lib/*-linux-musl*)
    headers=$(echo "$cache/musl-$1"/usr/include/*-linux-musl*)
    dir=$cache/linker-$target
    mkdir -p "$dir"
    cat >"$dir/specs" <<END
*link_libgcc:
-L .%s

*libgcc:
libgcc.a%s libgcc_eh.a%s

*startfile:
crt1.o%s crti.o%s crtbegin.o%s

*endfile:
crtend.o%s crtn.o%s

*link:
-nostdlib -static --eh-frame-hdr
END
    cat >"$dir/cc" <<END
#!/bin/sh
exec $2 "\$@" -no-pie -B"$libraries/" -L"$libraries" -specs "$dir/specs"
END
    chmod 755 "$dir/cc"
    # The standard library asks for libunwind where libc is musl; GCC has the same functions.
    cp "$(with_tools "$2" -print-file-name=libgcc_eh.a)" "$dir/libunwind.a"
    # That of ARM has tables of another kind.
    if [ "$1" != armhf ]; then
        with_tools "$2" -O2 -fno-pic -isystem "$headers" -c scripts/cross/find_object.c -o "$dir/find_object.o"
        with_tools "${2%gcc}ar" r "$dir/libunwind.a" "$dir/find_object.o" 2>/dev/null
    fi
}

# Calls cargo with a standard library built from its source, and with this linker.
cargo_for() {
    variable=CARGO_TARGET_$(echo "$target" | tr 'a-z-' 'A-Z_')_LINKER
    with_tools env CARGO_TARGET_DIR="$cache/build" RUSTC="$tools/usr/bin/rustc" RUSTC_BOOTSTRAP=1 "$variable=$cache/linker-$target/cc" \
        "$tools/usr/bin/cargo" "$@" --locked --target "$target" -Zbuild-std=std,panic_abort,panic_unwind
}

# Fetches crates, so that what fails afterwards is a mistake in the code.
fetch_crates() {
    need rustc-web cargo-web rust-web-src
    cargo_for fetch -q || cannot "crates cannot be fetched"
}

# Builds for a target: ARCH COMPILER.
build() {
    fetch_crates
    linker "$@"
    # Not position-independent: no relocations, which would be written to, and so not be shared between processes.
    separator=$(printf '\037')
    CARGO_ENCODED_RUSTFLAGS="-Clink-self-contained=no${separator}-Crelocation-model=static${separator}-Lnative=$dir"
    export CARGO_ENCODED_RUSTFLAGS
    export CARGO_PROFILE_RELEASE_PANIC="${CARGO_PROFILE_RELEASE_PANIC:-abort}"
    cargo_for build --release --bin hxe -Zbuild-std-features=panic-unwind,optimize_for_size
    binary=$cache/build/$target/release/hxe
    printf '%s %s\n' "$binary" "$(wc -c <"$binary")"
}

# Does what is asked for one target.
work() {
    if [ -n "$check" ]; then
        fetch_crates
        cargo_for check --bin hxe
        return
    fi
    case $target in
        x86_64-*) build amd64 gcc ;;
        armv7-*)
            need gcc-arm-linux-gnueabihf
            build armhf arm-linux-gnueabihf-gcc
            ;;
        aarch64-*)
            need gcc-aarch64-linux-gnu
            build arm64 aarch64-linux-gnu-gcc
            ;;
    esac
}

check=
if [ "${1:-}" = --check ]; then
    check=yes
    shift
fi
[ $# -gt 0 ] || usage
for target; do
    case $check$target in
        *[!a-z0-9_-]*) usage ;;
        yes* | x86_64-unknown-linux-musl | armv7-unknown-linux-musleabihf | aarch64-unknown-linux-musl) ;;
        *) usage ;;
    esac
done
command -v cc >/dev/null || cannot "there is no cc, which cargo needs to link what runs while it builds"
[ "$(uname -m)" = x86_64 ] || cannot "Debian has this compiler for x86-64 only, and this machine is $(uname -m)"

worst=0
for target; do
    # One that cannot be had does not keep the others from being built. "set -e" holds only where nothing asks for the outcome.
    set +e
    (
        set -e
        work
    )
    code=$?
    set -e
    case $code in
        0) ;;
        3) [ "$worst" -ne 0 ] || worst=3 ;;
        *) worst=1 ;;
    esac
done
exit "$worst"
