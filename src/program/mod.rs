//! The domain: what a program is. Parsed once, always valid afterwards; no I/O, no serde.
//!
//! Wire shapes are `api`'s, stored shapes are `store`'s; both convert to and from [`Definition`].

pub mod args;
mod definition;
mod id;
mod signal;

pub use definition::{Defaults, Definition, Invalid, MaxRestarts, RestartPolicy};
pub use id::ProgramId;
pub use signal::Signal;

use crate::clock::Timestamp;

/// A program that hxe knows: its definition, valid, with its id and dates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    pub id: ProgramId,
    pub definition: Definition,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}
