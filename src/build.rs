//! Packs the files of the dashboard, and the description of the API, for the binary to hold: run by cargo before the crate
//! is compiled.
//!
//! Every file right in `src/api/dashboard` is packed, whatever it is called, but for those that begin with a dot; those in
//! directories below are not. What is packed is the same on each machine. `api/assets.rs` takes it up. And asks the linker for
//! a smaller binary, where it can make one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Beside Cargo.toml, where cargo runs this.
const DASHBOARD: &str = "src/api/dashboard";
const OPENAPI: &str = "src/api/openapi.json";

/// By a file's ending, its Content-Type.
const TYPES: [(&str, &str); 9] = [
    ("css", "text/css; charset=utf-8"),
    ("html", "text/html; charset=utf-8"),
    ("ico", "image/x-icon"),
    ("js", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("png", "image/png"),
    ("svg", "image/svg+xml"),
    ("txt", "text/plain; charset=utf-8"),
    ("webmanifest", "application/manifest+json"),
];

/// What the linker is asked for where it knows that: functions that are the same once only, and a tenth of the space for
/// what the loader has to relocate.
const SMALLER: [&str; 2] = ["-Wl,--icf=all", "-Wl,-z,pack-relative-relocs"];

fn main() {
    for packed in [DASHBOARD, OPENAPI] {
        println!("cargo::rerun-if-changed={packed}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let mut assets = String::from("&[\n");
    for path in files(Path::new(DASHBOARD)) {
        assets += &pack(&path, &out);
        assets += ",\n";
    }
    assets += "]\n";
    write(&out.join("dashboard.rs"), assets.as_bytes());
    let asset = pack(Path::new(OPENAPI), &out);
    write(&out.join("openapi.rs"), asset.as_bytes());
    for flag in SMALLER {
        if env::var("PROFILE").is_ok_and(|profile| profile == "release") && is_taken(flag, &out) {
            println!("cargo::rustc-link-arg-bins={flag}");
        }
    }
}

/// Whether this machine's linker takes the flag and its loader what comes out: a program without anything is linked with it
/// and run. What is built for another machine does without.
fn is_taken(flag: &str, out: &Path) -> bool {
    if env::var_os("HOST") != env::var_os("TARGET") {
        return false;
    }
    let (source, trial) = (out.join("trial.rs"), out.join("trial"));
    write(&source, b"fn main() {}");
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let mut rustc = Command::new(env::var_os("RUSTC").expect("cargo sets it"));
    rustc.args(flags.split('\u{1f}').filter(|flag| !flag.is_empty()));
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        rustc.arg(format!("-Clinker={}", linker.display()));
    }
    rustc.arg(format!("-Clink-arg={flag}"));
    rustc.arg("-o").args([&trial, &source]);
    succeeds(&mut rustc) && succeeds(&mut Command::new(trial))
}

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// The files right in a directory, in order of name.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("the directory can be read").path())
        .filter(|path| path.is_file() && !name(path).starts_with('.'))
        .collect();
    files.sort();
    files
}

/// Packs a file into `out`: the `Asset` that it is, as Rust has it.
fn pack(path: &Path, out: &Path) -> String {
    let name = name(path);
    let plain = |sign: char| sign.is_ascii_alphanumeric() || "-_.".contains(sign);
    assert!(
        name.chars().all(plain),
        "{name}: a name in a URL has letters, digits and -_. only"
    );
    let ending = name.rsplit('.').next().expect("a split has a last part");
    let Some((_, content_type)) = TYPES.iter().find(|(known, _)| *known == ending) else {
        panic!("{name}: what Content-Type has it? Add its ending to src/build.rs");
    };
    let plain = fs::read(path).unwrap_or_else(|error| panic!("{name}: {error}"));
    let file = format!("{name}.gz");
    write(&out.join(&file), &gzip(&plain));
    let etag = format!("W/\"{:08x}-{:x}\"", crc32(&plain), plain.len());
    format!(
        "Asset {{ name: {name:?}, content_type: {content_type:?}, etag: {etag:?}, gzip: include_bytes!({file:?}) }}"
    )
}

fn name(path: &Path) -> &str {
    let name = path.file_name().and_then(|name| name.to_str());
    name.unwrap_or_else(|| panic!("{}: the name is not UTF-8", path.display()))
}

fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// The bytes as a gzip file without name and time. Source: RFC 1952.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    /// Magic, deflate, no flags, no time, smallest, of no system.
    const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 255];
    const SMALLEST: u8 = 10;
    let length = u32::try_from(bytes.len()).expect("no file is that large");
    let mut gzip = HEAD.to_vec();
    gzip.extend(miniz_oxide::deflate::compress_to_vec(bytes, SMALLEST));
    gzip.extend(crc32(bytes).to_le_bytes());
    gzip.extend(length.to_le_bytes());
    gzip
}

/// Source: RFC 1952, 8.
fn crc32(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            let carry = sum & 1;
            sum >>= 1;
            if carry == 1 {
                sum ^= 0xedb8_8320;
            }
        }
    }
    !sum
}
