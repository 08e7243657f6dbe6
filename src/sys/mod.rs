//! The kernel, behind safe functions. The only room with unsafe code; sees nothing of the crate.

pub mod background;
pub mod bell;
mod clone;
pub mod directory;
pub mod fault;
mod look;
pub mod memory;
pub mod process;
pub mod procfs;
pub mod random;
pub mod signals;
pub mod socket;
pub mod spawn;
pub mod users;

/// The system's reason alone: "No such file or directory", without Rust's "(os error 2)".
pub fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}
