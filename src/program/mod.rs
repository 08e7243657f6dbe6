//! The domain: what a program is. Parsed once, always valid afterwards; no I/O, no serde.
//!
//! Wire shapes are `api`'s, stored shapes are `store`'s; both convert to and from [`Definition`].

pub mod args;
mod declaration;
mod definition;
mod id;
mod signal;

pub use declaration::{Declaration, Declarations, Unreadable};
pub use definition::{Defaults, Definition, Invalid, LogDisk, MaxRestarts, RestartPolicy, hash};
pub use id::ProgramId;
pub use signal::Signal;

use std::sync::Arc;

use crate::clock::Timestamp;

/// A program that hxe knows: its definition, valid, with its id and dates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    pub id: ProgramId,
    pub definition: Definition,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// The file that declares it; `None`: it was created through the API.
    pub declared: Option<Arc<str>>,
}

impl Program {
    /// What tells it from other declared programs where its definition is lost; `None`: it was created through the API.
    pub fn declared_as(&self) -> Option<u64> {
        let name = self.definition.name.as_str();
        self.declared.is_some().then(|| definition::hash([name]))
    }
}
