//! What all streams of all programs share while their bytes are moved. Called by `channel`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::logs::medium::{Medium, Places};
use crate::logs::moving::Scratch;
use crate::logs::notes::Notes;
use crate::logs::{BeforeRotation, Settings};

/// What all channels share.
pub struct Context {
    pub places: Places,
    pub settings: Settings,
    pub notes: Arc<Notes>,
    pub scratch: Scratch,
    pub before_rotation: Arc<OnceLock<BeforeRotation>>,
    /// That pipes are smaller than wished has been said.
    pub said_small_pipe: bool,
    /// That an index cannot be written has been said.
    pub said_index: bool,
    /// Bytes written to disk, log files and what is beside them.
    pub written: Arc<AtomicUsize>,
}

impl Context {
    pub fn new(
        places: Places,
        notes: Arc<Notes>,
        settings: Settings,
        before_rotation: Arc<OnceLock<BeforeRotation>>,
    ) -> Context {
        Context {
            before_rotation,
            places,
            settings,
            notes,
            scratch: Scratch::default(),
            said_small_pipe: false,
            said_index: false,
            written: Arc::default(),
        }
    }

    /// Counts bytes that were written to a medium.
    pub(super) fn count(&self, medium: Medium, bytes: usize) {
        if medium == Medium::Disk {
            self.written.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}
