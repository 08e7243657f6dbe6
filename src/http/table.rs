//! The table of connections: who has a place, who waits, and until when.
//!
//! Owns the connections that wait, and only those; a place stays taken while its connection is in other hands. Makes no
//! system call and reads no clock. Called by `wire.rs`, under its lock.

use super::connection::Connection;
use crate::clock::BootTime;

/// Names a place and the connection that has it now: a later one in the same place has another key, so that a late event
/// for the first never meets the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    place: u32,
    /// Never 0: keys below 2^32 are for what is no connection.
    generation: u32,
}

impl Key {
    pub fn to_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.place)
    }

    /// `None` for what is no connection's key.
    pub fn from_u64(raw: u64) -> Option<Key> {
        let generation = (raw >> 32) as u32;
        let place = (raw & u64::from(u32::MAX)) as u32;
        (generation != 0).then_some(Key { place, generation })
    }
}

struct Place {
    generation: u32,
    waiting: Option<Box<Connection>>,
    /// Bytes that the waiting connection holds.
    held: usize,
}

impl Place {
    fn take(&mut self, held: &mut usize) -> Option<Box<Connection>> {
        *held -= std::mem::take(&mut self.held);
        self.waiting.take()
    }
}

#[derive(Default)]
pub struct Table {
    places: Vec<Place>,
    free: Vec<u32>,
    /// The sum of what waiting connections hold.
    held: usize,
}

impl Table {
    /// Connections that have a place.
    pub fn open(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Takes a place.
    pub fn claim(&mut self) -> Key {
        match self.free.pop() {
            Some(place) => Key {
                place,
                generation: self.places[place as usize].generation,
            },
            None => {
                self.places.push(Place {
                    generation: 1,
                    waiting: None,
                    held: 0,
                });
                Key {
                    // Descriptors end long before 2^32.
                    place: (self.places.len() - 1) as u32,
                    generation: 1,
                }
            }
        }
    }

    /// Gives a place back, once its connection is closed.
    pub fn release(&mut self, key: Key) {
        let place = &mut self.places[key.place as usize];
        place.generation = place.generation.checked_add(1).unwrap_or(1);
        self.free.push(key.place);
    }

    /// Takes a connection that is to wait.
    pub fn put(&mut self, connection: Box<Connection>) {
        let place = &mut self.places[connection.key().place as usize];
        place.held = connection.held_bytes();
        self.held += place.held;
        place.waiting = Some(connection);
    }

    /// Gives a waiting connection; `None` if it is in other hands, or gone.
    pub fn take(&mut self, key: Key) -> Option<Box<Connection>> {
        self.places
            .get_mut(key.place as usize)
            .filter(|place| place.generation == key.generation)?
            .take(&mut self.held)
    }

    /// Whether one that waits meets the condition.
    pub fn any(&self, condition: impl Fn(&Connection) -> bool) -> bool {
        self.places
            .iter()
            .any(|place| place.waiting.as_deref().is_some_and(&condition))
    }

    /// Gives all that wait and meet the condition.
    pub fn take_all(
        &mut self,
        condition: impl Fn(&Connection) -> bool,
    ) -> impl Iterator<Item = Box<Connection>> {
        let held = &mut self.held;
        self.places
            .iter_mut()
            .filter(move |place| place.waiting.as_deref().is_some_and(&condition))
            .filter_map(|place| place.take(held))
    }

    /// The one whose client has kept it waiting for longest; of those that were accepted after `new`, and have brought
    /// nothing yet, only if there are no others.
    pub fn oldest(&self, new: BootTime) -> Option<&Connection> {
        self.places
            .iter()
            .filter_map(|place| place.waiting.as_deref())
            .min_by_key(|connection| (connection.is_newer_than(new), connection.owes_since()))
    }

    /// While those that wait hold more than `bytes` together, the largest of them not counted: gives one that holds about
    /// its share or more, the one whose time is over first.
    pub fn take_surplus(&mut self, bytes: usize) -> Option<Box<Connection>> {
        if self.held <= bytes {
            return None;
        }
        let largest = self.places.iter().map(|place| place.held).max()?;
        if self.held - largest <= bytes {
            return None;
        }
        let share = self.held / self.open() / 2;
        let deadline = |place: &Place| Some(place.waiting.as_ref()?.deadline());
        let first = self
            .places
            .iter_mut()
            .filter(|place| place.waiting.is_some() && place.held >= share)
            .min_by_key(|place| deadline(place))?;
        first.take(&mut self.held)
    }

    /// The nearest deadline of all that wait.
    pub fn deadline(&self) -> Option<BootTime> {
        self.places
            .iter()
            .filter_map(|place| place.waiting.as_ref())
            .map(|connection| connection.deadline())
            .min()
    }
}
