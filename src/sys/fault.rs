//! Places where a test lets this process die, as SIGKILL would have it, or hang: between any two steps that must not be
//! torn apart; and what a test hides from it.
//!
//! In a debug build only, and only where the environment names a file: the process dies at the place whose name is in it,
//! or hangs there if `hang ` is before the name; once. A release build has nothing of it.

use std::time::Duration;

/// Dies or hangs here, if a test wants it.
#[cfg(debug_assertions)]
pub fn point(name: &str) {
    let Some(path) = std::env::var_os("HXE_FAULT") else {
        return;
    };
    let Ok(wanted) = std::fs::read_to_string(&path) else {
        return;
    };
    let hangs = wanted.strip_prefix("hang ");
    if hangs.unwrap_or(&wanted) != name || std::fs::remove_file(&path).is_err() {
        return;
    }
    if hangs.is_none() {
        let _ = super::process::kill(super::process::Pid::own(), libc::SIGKILL);
    }
    loop {
        std::thread::park();
    }
}

/// Whether a test hides something that this machine has, so that the daemon does as on one without.
#[cfg(debug_assertions)]
pub fn hides(what: &str) -> bool {
    std::env::var_os("HXE_HIDE").is_some_and(|hidden| hidden == what)
}

/// No.
#[cfg(not(debug_assertions))]
pub fn hides(_what: &str) -> bool {
    false
}

/// Nothing.
#[cfg(not(debug_assertions))]
pub fn point(_name: &str) {}

/// The same, unless nothing is done there.
pub fn point_unless(is_idle: bool, name: &str) {
    if !is_idle {
        point(name);
    }
}

/// How long to wait for what may hang at this place. Where a test has it hang there, as many seconds as that says; else
/// longer than usual, as debug builds are slow and test machines busy.
#[cfg(debug_assertions)]
pub fn patience(usual: Duration, place: &str) -> Duration {
    let wanted = std::env::var_os("HXE_FAULT").and_then(|path| std::fs::read_to_string(path).ok());
    let hangs = wanted.is_some_and(|fault| fault.starts_with("hang ") && fault.ends_with(place));
    let seconds = std::env::var("HXE_PATIENCE").ok();
    match seconds.and_then(|seconds| seconds.parse().ok()) {
        Some(seconds) if hangs => Duration::from_secs(seconds),
        _ => 4 * usual,
    }
}

/// As usual.
#[cfg(not(debug_assertions))]
pub fn patience(usual: Duration, _place: &str) -> Duration {
    usual
}
