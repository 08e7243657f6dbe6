//! What the tests share: the real daemon in a directory of its own, a raw HTTP client, programs, waiting.

mod build;
mod client;
pub mod command;
mod daemon;
mod disk;
mod follower;
mod openapi;
mod process;
mod program;
mod running;
mod schema;
mod setup;
mod websocket;

use std::time::{Duration, Instant};

pub use build::{NEW, OLD, another_build, replace, server, upgrade, upgraded};
pub use client::{Connection, Reply};
pub use daemon::{Daemon, both_ways};
pub use disk::Disk;
pub use follower::Follower;
pub use process::{
    cgroup_dir, cgroup_of, cgroups_of_runs, children, comes_to_rest, is_alive, is_root, kill,
    processes_using, processes_with, status_field,
};
pub use program::{Definition, Program, sh, sleeper, stubborn};
pub use serde_json::{Value, json};
pub use setup::Setup;
pub use websocket::{Got, WebSocket, kinds};

/// Longest wait for anything that should happen.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for a condition.
#[track_caller]
pub fn until(condition: impl FnMut() -> bool) {
    assert!(
        became(PATIENCE, condition),
        "it did not happen within {PATIENCE:?}"
    );
}

/// Waits for something to be there.
#[track_caller]
pub fn until_some<T>(mut get: impl FnMut() -> Option<T>) -> T {
    let mut found = None;
    until(|| {
        found = get();
        found.is_some()
    });
    found.expect("until returns only once it is there")
}

/// Whether a condition comes true in time.
fn became(patience: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// The same in one order: what two streams bring within a few milliseconds is merged in any.
pub fn sorted<T: ToString>(items: impl IntoIterator<Item = T>) -> Vec<String> {
    let mut items: Vec<_> = items.into_iter().map(|item| item.to_string()).collect();
    items.sort();
    items
}

/// Says why a test is not run here. Returns whether it can be.
pub fn need_root() -> bool {
    if !is_root() {
        eprintln!("skipped: needs root");
    }
    is_root()
}
