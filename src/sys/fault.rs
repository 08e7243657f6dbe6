//! Places where a test lets this process die, as SIGKILL would have it: between any two steps that must not be torn apart.
//!
//! In a debug build only, and only where the environment names a file: the process dies at the place whose name is in it,
//! once. A release build has nothing of it.

/// Dies here, if a test wants it.
#[cfg(debug_assertions)]
pub fn point(name: &str) {
    let Some(path) = std::env::var_os("HXE_FAULT") else {
        return;
    };
    let is_here = std::fs::read_to_string(&path).is_ok_and(|wanted| wanted == name);
    if is_here && std::fs::remove_file(&path).is_ok() {
        let _ = super::process::kill(super::process::Pid::own(), libc::SIGKILL);
        loop {
            std::thread::park();
        }
    }
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
