//! Following all programs' logs, or some of them: what they write from now on.
//!
//! Keeps a place a program and opens files only while they are read, one program's at a time: descriptors are scarce
//! where a thousand programs write. Called by the API.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use super::forward::Home;
use super::forward::merge::Merge;
use super::growth::{Growth, Register};
use super::listeners::{Listener, Since};
use super::medium::Places;
use super::notes::Notes;
use super::{Followed, Logs};
use crate::clock::BootTime;
use crate::program::ProgramId;
use crate::report;
use crate::sys::bell::Bell;

#[cfg(test)]
mod tests;

/// Entries that one program gives before others have their turn: files are opened anew for each turn.
const TURN: u32 = 64;

/// The new entries of all programs.
pub struct Tails {
    places: Places,
    notes: Arc<Notes>,
    register: Arc<Register>,
    listener: Arc<Listener>,
    wanted: Box<dyn Fn(ProgramId) -> bool + Send>,
    followed: BTreeMap<ProgramId, Tail>,
    /// Those that may have something to give, in the order of their turns.
    ready: VecDeque<ProgramId>,
    /// Entries that the first of them gave in this turn.
    given: u32,
    /// That something cannot be read has been said.
    said: bool,
}

/// One program.
struct Tail {
    merge: Merge,
    ready: bool,
    /// The time of its next entry, if that had to wait.
    held: Option<BootTime>,
}

impl Tail {
    fn new(merge: Merge) -> Tail {
        Tail {
            merge,
            ready: false,
            held: None,
        }
    }
}

impl Tails {
    /// Follows those programs that are `wanted` from now on, and no others; those followed already go on where they are.
    /// `wanted` is kept, and asked of programs that are added later.
    pub fn choose(&mut self, wanted: impl Fn(ProgramId) -> bool + Send + 'static) {
        self.wanted = Box::new(wanted);
        self.followed.retain(|id, _| (self.wanted)(*id));
        // What was told of others is told again.
        self.hear(self.listener.forget(), false);
        for (id, growth) in self.register.list() {
            if (self.wanted)(id) && !self.followed.contains_key(&id) {
                let tail = Tail::new(Merge::from_end(self.home(id, growth)));
                self.followed.insert(id, tail);
            }
        }
    }

    /// The next entry of any program, each in its turn, entries of one program in order of time. `hold` is asked of a
    /// program and the time of its next entry (0 for an earlier boot), and says whether that has to wait. `None`: there is
    /// nothing now that need not wait; the bell rings when there is more. What cannot be read is reported.
    pub fn next(
        &mut self,
        hold: impl Fn(ProgramId, BootTime) -> bool,
    ) -> Option<(ProgramId, Followed)> {
        self.listen();
        for _ in 0..self.ready.len() {
            let id = *self.ready.front()?;
            let found = match self.followed.get_mut(&id) {
                Some(tail) => tail.next(|at| hold(id, at)),
                None => Ok(Next::Nothing),
            };
            match found {
                Ok(Next::This(next)) => {
                    self.said = false;
                    self.given += 1;
                    if self.given == TURN {
                        self.end_turn(id, true);
                    }
                    return Some((id, next));
                }
                Ok(Next::Held) => self.end_turn(id, true),
                Ok(Next::Nothing) => self.end_turn(id, false),
                Err(error) => {
                    self.say(id, &error);
                    self.end_turn(id, false);
                }
            }
        }
        None
    }

    /// The next entry of one program, if it was written until then.
    pub fn next_of(&mut self, id: ProgramId, until: BootTime) -> Option<Followed> {
        self.listen();
        let tail = self.followed.get_mut(&id)?;
        tail.held = None;
        match tail.next(|at| at > until) {
            Ok(Next::This(next)) => return Some(next),
            Ok(Next::Held) => self.make_ready(id),
            Ok(Next::Nothing) => {}
            Err(error) => self.say(id, &error),
        }
        if let Some(tail) = self.followed.get_mut(&id) {
            tail.merge.close();
        }
        None
    }

    /// Takes the first program's turn from it. `more`: it gets another one.
    fn end_turn(&mut self, id: ProgramId, more: bool) {
        self.given = 0;
        self.ready.pop_front();
        let Some(tail) = self.followed.get_mut(&id) else {
            return;
        };
        tail.merge.close();
        if more {
            self.ready.push_back(id);
        } else {
            tail.ready = false;
            tail.held = None;
            if tail.merge.is_removed() {
                self.followed.remove(&id);
            }
        }
    }

    /// Finds out which programs have grown.
    fn listen(&mut self) {
        let grown = self.listener.grown(|id| {
            self.followed.contains_key(&id)
                || (self.wanted)(id)
                // Deleted: need not be remembered.
                || self.register.get(id).is_none()
        });
        self.hear(grown, true);
    }

    /// Makes ready what has grown. `add`: programs that are not followed yet are new.
    fn hear(&mut self, grown: Since, add: bool) {
        match grown {
            Since::These(ids) => {
                for id in ids {
                    let growth = match add && !self.followed.contains_key(&id) {
                        true => self.register.get(id),
                        false => None,
                    };
                    self.hear_of(id, growth);
                }
            }
            Since::All => {
                for id in self.followed.keys().copied().collect::<Vec<_>>() {
                    self.make_ready(id);
                }
                for (id, growth) in self.register.list() {
                    self.hear_of(id, Some(growth).filter(|_| add));
                }
            }
        }
    }

    fn hear_of(&mut self, id: ProgramId, new: Option<Arc<Growth>>) {
        if let Some(growth) = new
            && !self.followed.contains_key(&id)
            && (self.wanted)(id)
        {
            let tail = Tail::new(Merge::from_begin(self.home(id, growth)));
            self.followed.insert(id, tail);
        }
        self.make_ready(id);
    }

    fn make_ready(&mut self, id: ProgramId) {
        if let Some(tail) = self.followed.get_mut(&id)
            && !tail.ready
        {
            tail.ready = true;
            self.ready.push_back(id);
        }
    }

    fn home(&self, id: ProgramId, growth: Arc<Growth>) -> Home {
        Home {
            id,
            places: self.places.clone(),
            notes: self.notes.clone(),
            growth,
        }
    }

    fn say(&mut self, id: ProgramId, error: &io::Error) {
        if !self.said {
            self.said = true;
            report::warn(format_args!(
                "new log lines of {id} cannot be read: {error}"
            ));
        }
    }
}

enum Next {
    This(Followed),
    Held,
    Nothing,
}

impl Tail {
    fn next(&mut self, hold: impl Fn(BootTime) -> bool) -> io::Result<Next> {
        let at = match self.held {
            Some(at) => at,
            None => match self.merge.next_at()? {
                Some(at) => at,
                None => return Ok(Next::Nothing),
            },
        };
        if hold(at) {
            self.held = Some(at);
            return Ok(Next::Held);
        }
        self.held = None;
        Ok(match self.merge.next(&[])? {
            Some(next) => Next::This(next),
            None => Next::Nothing,
        })
    }
}

impl Logs {
    /// What all programs write from now on. A program that is added later is followed from its begin.
    pub fn tails(&self, bell: Arc<Bell>) -> Tails {
        let listener = Listener::to_all(bell);
        self.register.listen(&listener);
        Tails {
            places: self.places.clone(),
            notes: self.notes.clone(),
            register: self.register.clone(),
            listener,
            wanted: Box::new(|_| false),
            followed: BTreeMap::new(),
            ready: VecDeque::new(),
            given: 0,
            said: false,
        }
    }
}
