//! A place in a stream's files, and how to find its file again, and the one after it, whatever rotation did meanwhile.
//!
//! A file is known by its generation and its inode: the file of generation `g` has number `rotations - g`, unless the
//! stream came to another medium since. What is found counts if no rotation came in between. Never reads what is in files. Called by `forward`.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use crate::logs::dirs::Inode;
use crate::logs::files::{self, Opened};
use crate::logs::growth::Reach;
use crate::logs::medium::{Medium, RING_FILES};
use crate::logs::{Stream, forward::Home};

/// How often a search is begun anew because of a rotation in between, before the next one is waited for.
const TRIES: u32 = 1000;

/// A place in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub generation: u32,
    /// `None`: there was no file when the place was taken.
    pub inode: Option<Inode>,
    /// As in [`Reach`].
    pub base: u64,
    /// Bytes of the file that are done with.
    pub given: u64,
}

impl Place {
    /// The end of what there is.
    pub fn of(reach: &Reach) -> Place {
        Place {
            generation: reach.rotations,
            inode: reach.inode,
            base: reach.base,
            given: reach.offset,
        }
    }

    /// Whether it is in the current file.
    pub fn is_in_current(&self, reach: &Reach) -> bool {
        self.inode.is_some() && self.inode == reach.inode && self.generation == reach.rotations
    }

    /// Bytes of the stream before it, counted as [`Reach::total`] is.
    fn position(&self) -> u64 {
        self.base.wrapping_add(self.given)
    }

    /// How many bytes are between this place and a later position; 0 if that is not later.
    pub fn missed(&self, position: u64) -> u64 {
        let bytes = position.wrapping_sub(self.position());
        // Further back than half of all numbers is no distance: a file that was put in place held bytes before.
        if bytes > u64::MAX / 2 { 0 } else { bytes }
    }
}

/// What a search came to.
pub enum Found<T> {
    This(T),
    Nothing,
    /// Rotation is under way; it tells when it is done.
    Later,
}

/// Where reading goes on behind a file.
pub struct Next {
    pub place: Place,
    /// The file, if it is not the current one.
    pub opened: Option<Opened>,
    /// Bytes that are gone in between.
    pub missed: u64,
}

/// Opens the file of a place. Nothing: it is gone.
pub fn open(home: &Home, stream: Stream, place: &Place) -> io::Result<Found<Opened>> {
    search(home, stream, |files, reach| {
        let ago = reach.rotations.wrapping_sub(place.generation);
        // Numbers are off by one where a rotation was broken off, or somebody removed a file.
        for ago in [Some(ago), ago.checked_add(1), ago.checked_sub(1)] {
            if let Some(ago) = ago
                && let Some(opened) = files.open(reach, ago)?
                && Some(opened.inode) == place.inode
            {
                return Ok(Some(opened));
            }
        }
        Ok(None)
    })
}

/// Finds the oldest file there is behind that of a place, whose file is done with or gone.
pub fn next(home: &Home, stream: Stream, place: &Place) -> io::Result<Found<Next>> {
    search(home, stream, |files, reach| {
        let (number, inode, base) = oldest(files, reach, place)?;
        let generation = reach.rotations.wrapping_sub(number);
        let next = Place {
            generation,
            inode,
            base,
            given: skipped(reach, generation, base),
        };
        if inode.is_none() || number == 0 && place.is_in_current(reach) {
            return Ok(None);
        }
        let opened = match number {
            0 => None,
            _ => match files.open(reach, number)? {
                Some(opened) if Some(opened.inode) == inode => Some(opened),
                // Removed just now.
                _ => return Ok(None),
            },
        };
        Ok(Some(Next {
            place: next,
            opened,
            missed: place.missed(next.position()),
        }))
    })
}

/// Number and inode of the oldest file behind that of `place`, and how many bytes of the stream are before it.
fn oldest(files: &Files, reach: &Reach, place: &Place) -> io::Result<(u32, Option<Inode>, u64)> {
    let behind = reach.rotations.wrapping_sub(place.generation);
    let is_ours = |number: u32, inode: Inode| {
        // An inode that is elsewhere was used again.
        Some(inode) == place.inode && number.abs_diff(behind) <= 1
    };
    if behind > 1
        && let Some((ours, _)) = files.look(reach, behind)?
        && is_ours(behind, ours)
        && let Some((next, _)) = files.look(reach, behind - 1)?
    {
        let moved = reach.moved_to(place.generation.wrapping_add(1));
        let base = place
            .position()
            .wrapping_sub(moved.map_or(0, |moved| moved.skip));
        return Ok((behind - 1, Some(next), base));
    }
    let mut oldest = (0, reach.inode, reach.base);
    let mut missing = 0;
    for number in 1..=behind {
        match files.look(reach, number)? {
            Some((inode, _)) if is_ours(number, inode) => break,
            Some((inode, size)) => {
                let before = reach.rotations.wrapping_sub(number).wrapping_add(1);
                let end = match reach.moved_to(before) {
                    Some(moved) => moved.at,
                    None => oldest.2,
                };
                oldest = (number, Some(inode), end.wrapping_sub(size));
                missing = 0;
            }
            // One number can be free.
            None if missing == 1 => break,
            None => missing += 1,
        }
    }
    Ok(oldest)
}

/// The place that has so many bytes before it, counted from the begin of the stream; `None`: its end.
///
/// # Errors
/// `InvalidInput`: that cannot be told, as rotation, which keeps so many files, may have removed some already.
pub fn behind(
    home: &Home,
    stream: Stream,
    bytes: Option<u64>,
    kept: usize,
) -> io::Result<Found<Place>> {
    search(home, stream, |files, reach| {
        let Some(mut bytes) = bytes else {
            return Ok(Some(Place::of(reach)));
        };
        let mut rotated = Vec::new();
        for number in 1.. {
            match files.look(reach, number)? {
                Some(file) => rotated.push(file),
                None => break,
            }
        }
        let kept = match reach.medium {
            Medium::Disk => kept,
            Medium::Memory => RING_FILES as usize,
        };
        if bytes > 0 && (rotated.len() >= kept || reach.moved.is_some()) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let sizes = rotated.iter().map(|(_, size)| *size);
        let mut base = sizes.fold(reach.base, u64::wrapping_sub);
        for (at, (inode, size)) in rotated.iter().enumerate().rev() {
            if bytes < *size {
                // As many as there are numbers.
                let number = at as u32 + 1;
                return Ok(Some(Place {
                    generation: reach.rotations.wrapping_sub(number),
                    inode: Some(*inode),
                    base,
                    given: bytes,
                }));
            }
            bytes -= size;
            base = base.wrapping_add(*size);
        }
        Ok(Some(Place {
            given: bytes.min(reach.offset),
            ..Place::of(reach)
        }))
    })
}

/// Where one stream's files are.
struct Files<'a> {
    home: &'a Home,
    stream: Stream,
}

impl Files<'_> {
    /// Opens the file that was current so many rotations ago; none if it is not there.
    fn open(&self, reach: &Reach, ago: u32) -> io::Result<Option<Opened>> {
        let Some((medium, number)) = reach.place(ago) else {
            return Ok(None);
        };
        match self.home.places.find(medium, self.home.id)? {
            Some(dir) => files::open_rotated(dir.as_fd(), self.stream, number),
            None => Ok(None),
        }
    }

    /// Which file was current so many rotations ago, and its size; none if it is not there.
    fn look(&self, reach: &Reach, ago: u32) -> io::Result<Option<(Inode, u64)>> {
        let Some((medium, number)) = reach.place(ago) else {
            return Ok(None);
        };
        match self.home.places.find(medium, self.home.id)? {
            Some(dir) => files::look(dir.as_fd(), self.stream, number),
            None => Ok(None),
        }
    }
}

/// Looks for something until no rotation came in between.
fn search<T>(
    home: &Home,
    stream: Stream,
    look: impl Fn(&Files, &Reach) -> io::Result<Option<T>>,
) -> io::Result<Found<T>> {
    let files = Files { home, stream };
    for _ in 0..TRIES {
        let (_, reach) = home.growth.reach(stream);
        if reach.rotating {
            break;
        }
        let found = look(&files, &reach);
        let (_, now) = home.growth.reach(stream);
        if !now.rotating && (now.rotations, now.moved) == (reach.rotations, reach.moved) {
            return Ok(match found? {
                Some(found) => Found::This(found),
                None => Found::Nothing,
            });
        }
    }
    Ok(Found::Later)
}

/// The index of a place's file; none if it has none, or not yet.
pub fn index_of(home: &Home, stream: Stream, place: &Place) -> io::Result<Option<File>> {
    let (_, reach) = home.growth.reach(stream);
    let at = reach.place(reach.rotations.wrapping_sub(place.generation));
    let (Some((medium, _)), Some(inode)) = (at, place.inode) else {
        return Ok(None);
    };
    let dir = home.places.find(medium, home.id)?;
    Ok(dir.and_then(|dir| files::open_index_of(dir.as_fd(), stream, inode)))
}

/// Bytes of a file that are none of the stream, or were in the other medium before: all up to where a move came to it.
fn skipped(reach: &Reach, generation: u32, base: u64) -> u64 {
    match reach.moved_to(generation) {
        Some(moved) => moved.skip,
        None => reach
            .moved_at(generation)
            .map(|at| at.wrapping_sub(base))
            // Truncated by somebody since: all of it is new.
            .filter(|bytes| *bytes <= u64::MAX / 2)
            .unwrap_or(0),
    }
}

/// Where the file of a place ends, if the stream went on in another medium behind it.
pub fn end(reach: &Reach, place: &Place) -> Option<u64> {
    let at = reach.moved_at(place.generation.wrapping_add(1))?;
    Some(at.wrapping_sub(place.base))
}
