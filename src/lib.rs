//! hxe, the Host eXecution Engine: a process supervisor for small Linux machines.
//!
//! The map of the house, in reading order. Each room sees only the rooms to its right:
//!
//! ```text
//! main -> cli -> daemon -> config -> api -> {http, supervise} -> {logs, store, metrics} -> guardian -> program
//! ```
//!
//! `client`, the Rust client, stands beside `daemon`: it sees none of them, and `cli` sees it. `sys`, `clock` and `report`
//! see nothing of the crate and may be used everywhere. `build` runs before all of them, in cargo, and packs the files of the
//! dashboard for `api`. Invariants, checked by `tests/tidy.rs` where reading the source can
//! show them:
//!
//! - `supervise/machine.rs` is pure: no I/O, no clock, no channel.
//! - `supervise` never names `api` or `http`; `store` never names `supervise`; `http` never names `program`.
//! - Only `sys` contains unsafe code.
//! - Each external crate has one home, named beside it in `Cargo.toml`.
//! - Only a program's watcher spawns, signals and reaps that program's process.
//! - A read is answered from a published snapshot; it never waits for a watcher.

pub mod api;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod daemon;
#[doc(hidden)]
pub mod example;
pub mod guardian;
pub mod http;
pub mod logs;
pub mod metrics;
pub mod program;
pub mod report;
pub mod store;
pub mod supervise;
pub mod sys;

pub use cli::main;
