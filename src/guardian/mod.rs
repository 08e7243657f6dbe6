//! The guardian: the process that init knows, and that starts the daemon again should it die.
//!
//! ```text
//! init -> hxe (guardian) -> hxe (daemon) -> programs
//! ```
//!
//! It holds what must outlive a daemon: the listening sockets, so that clients wait in them while there is none; a
//! descriptor of every FIFO, so that what is in it stays; and programs that lost their daemon, until the next one has asked
//! how they ended. It knows no program and decides nothing but when to start a daemon. One thread, one loop, some hundred
//! KiB. `process` is the guardian itself, `child` the daemon as it has it, `endings` what it does when that has ended,
//! `upgrade`, `outcome` and `handover` how it becomes another binary, `link` the daemon's end, `message` what goes between
//! them.

mod child;
mod endings;
mod handover;
mod link;
mod message;
mod notify;
mod outcome;
mod process;
mod upgrade;

pub use link::Link;
pub use message::Death;
pub use outcome::{Outcome, Progress};
pub use process::{CONNECTION, LISTENER, Options, run};
