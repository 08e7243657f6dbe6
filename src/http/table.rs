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
}

#[derive(Default)]
pub struct Table {
    places: Vec<Place>,
    free: Vec<u32>,
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
        let place = connection.key().place;
        self.places[place as usize].waiting = Some(connection);
    }

    /// Gives a waiting connection; `None` if it is in other hands, or gone.
    pub fn take(&mut self, key: Key) -> Option<Box<Connection>> {
        self.places
            .get_mut(key.place as usize)
            .filter(|place| place.generation == key.generation)?
            .waiting
            .take()
    }

    /// Gives all that wait and meet the condition.
    pub fn take_all(
        &mut self,
        condition: impl Fn(&Connection) -> bool,
    ) -> impl Iterator<Item = Box<Connection>> {
        self.places
            .iter_mut()
            .filter_map(move |place| place.waiting.take_if(|connection| condition(connection)))
    }

    /// Gives the one whose client has kept it waiting for longest.
    pub fn take_oldest(&mut self) -> Option<Box<Connection>> {
        let owes_since = |place: &Place| Some(place.waiting.as_ref()?.owes_since());
        let oldest = self
            .places
            .iter_mut()
            .filter(|place| place.waiting.is_some())
            .min_by_key(|place| owes_since(place))?;
        oldest.waiting.take()
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
