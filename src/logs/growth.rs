//! How far programs' logs have come: what the log thread publishes and followers look at.
//!
//! The log thread waits for nobody here: it writes without a lock, however often and by whom that is read. Never looks
//! at files. Written by `channel` and `notes`, read by `follow`, `tails` and `forward`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Stream;
use super::dirs::Inode;
use super::listeners::{Listener, Listeners};
use super::medium::Medium;
use crate::clock::BootTime;
use crate::program::{LogDisk, ProgramId};

/// Words that one thread at a time writes and any may read, all of them as they were at one moment: a sequence lock.
/// The writer never waits. Made of 32 bits, as some machines have no wider atomics.
struct Published<const N: usize> {
    /// Odd while it is written.
    version: AtomicU32,
    words: [AtomicU32; N],
}

impl<const N: usize> Published<N> {
    fn new() -> Published<N> {
        Published {
            version: AtomicU32::new(0),
            words: [const { AtomicU32::new(0) }; N],
        }
    }

    fn set(&self, words: [u32; N]) {
        let version = self.version.load(Ordering::Relaxed);
        self.version
            .store(version.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        for (place, word) in self.words.iter().zip(words) {
            place.store(word, Ordering::Relaxed);
        }
        self.version
            .store(version.wrapping_add(2), Ordering::Release);
    }

    /// The words, and a number that changes with them.
    fn get(&self) -> (u32, [u32; N]) {
        loop {
            let version = self.version.load(Ordering::Acquire);
            let words = self
                .words
                .each_ref()
                .map(|word| word.load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            if version.is_multiple_of(2) && version == self.version.load(Ordering::Relaxed) {
                return (version, words);
            }
            // The writer is at it for some ten instructions, but may have lost its processor.
            std::thread::yield_now();
        }
    }

    fn version(&self) -> u32 {
        self.version.load(Ordering::Acquire)
    }
}

const fn high(value: u64) -> u32 {
    (value >> 32) as u32
}

const fn low(value: u64) -> u32 {
    value as u32
}

fn joined(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// Words of a [`Reach`].
const REACH: usize = 16;

/// How far a stream's files reach, as far as times are written beside them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Rotations since the daemon started. The file that is current after so many is that generation.
    pub rotations: u32,
    /// A rotation is under way: numbers of files mean nothing just now.
    pub rotating: bool,
    /// The last byte ended a run, within a line.
    pub cut: bool,
    /// The current file; `None` while there is none.
    pub inode: Option<Inode>,
    /// Bytes in the current file.
    pub offset: u64,
    /// Bytes of the stream before the current file's begin, counted from where the stream ended when the daemon
    /// started: wraps below 0 for the file that was there then. Changes when somebody truncates the file.
    pub base: u64,
    /// Where the current file is.
    pub medium: Medium,
    pub moved: Option<Move>,
}

/// How a stream came from one medium to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// The first file of the present medium; those before it are in the other one.
    pub generation: u32,
    /// The first of those.
    pub first: u32,
    /// They are not as they were any more.
    pub gone: bool,
    /// Bytes of that file which were there before.
    pub skip: u64,
    /// Bytes of the stream before the move, as [`Reach::total`] counts them.
    pub at: u64,
    /// The same of the move before, if there was one: bytes before `first`.
    pub before: Option<u64>,
}

impl Reach {
    /// Takes note of the current file as it is found: ours, truncated or added to by somebody, or another one.
    pub fn find(&mut self, inode: Inode, size: u64) {
        if self.inode != Some(inode) || size < self.offset {
            self.base = self.total().wrapping_sub(size);
            self.inode = Some(inode);
            self.cut = false;
        } else if size > self.offset {
            self.cut = false;
        }
        self.offset = size;
    }

    /// The current file was rotated away.
    pub fn turn_over(&mut self) {
        self.rotations = self.rotations.wrapping_add(1);
        self.base = self.total();
        self.inode = None;
        self.offset = 0;
        self.cut = false;
    }

    /// What comes next goes to the other medium, into a file of `size` bytes.
    pub fn move_over(&mut self, size: u64) {
        let at = self.total();
        let first = self.moved.map_or(0, |moved| moved.generation);
        let before = self.moved.map(|moved| moved.at);
        self.turn_over();
        self.medium = self.medium.other();
        self.moved = Some(Move {
            generation: self.rotations,
            first,
            gone: false,
            skip: size,
            at,
            before,
        });
    }

    /// Where the file is that was current so many rotations ago, and its number there; `None`: nowhere any more.
    pub fn place(&self, ago: u32) -> Option<(Medium, u32)> {
        let Some(moved) = self.moved else {
            return Some((self.medium, ago));
        };
        let here = self.rotations.wrapping_sub(moved.generation);
        if ago <= here {
            return Some((self.medium, ago));
        }
        let before = moved.generation.wrapping_sub(moved.first);
        let number = ago - here - 1;
        (!moved.gone && number < before).then_some((self.medium.other(), number))
    }

    /// The move that brought the stream to the file of this generation, if one did.
    pub fn moved_to(&self, generation: u32) -> Option<Move> {
        self.moved.filter(|moved| moved.generation == generation)
    }

    /// Bytes of the stream before the file of this generation, if a move brought the stream there.
    pub fn moved_at(&self, generation: u32) -> Option<u64> {
        let moved = self.moved?;
        match generation {
            _ if generation == moved.generation => Some(moved.at),
            _ if generation == moved.first => moved.before,
            _ => None,
        }
    }

    /// Whether the stream has moved twice since the file behind that of this generation: it may have come back to it, and
    /// where it ended before is not known any more.
    pub fn is_long_ago(&self, generation: u32) -> bool {
        let first = self.moved.map_or(0, |moved| moved.first);
        let since = first.wrapping_sub(generation.wrapping_add(1));
        self.moved.is_some_and(|moved| moved.before.is_some())
            && (1..=u32::MAX / 2).contains(&since)
    }

    /// Bytes of the stream since the daemon started.
    pub fn total(&self) -> u64 {
        self.base.wrapping_add(self.offset)
    }

    fn to_words(self) -> [u32; REACH] {
        let inode = self.inode.map_or(0, Inode::number);
        let moved = self.moved.unwrap_or(Move {
            generation: 0,
            first: 0,
            gone: false,
            skip: 0,
            at: 0,
            before: None,
        });
        let flags = u32::from(self.rotating)
            | u32::from(self.cut) << 1
            | u32::from(self.inode.is_some()) << 2
            | u32::from(self.medium == Medium::Memory) << 3
            | u32::from(self.moved.is_some()) << 4
            | u32::from(moved.gone) << 5
            | u32::from(moved.before.is_some()) << 6;
        let mut words = [0; REACH];
        words[0] = flags;
        words[1] = self.rotations;
        words[2] = moved.generation;
        words[3] = moved.first;
        let before = moved.before.unwrap_or(0);
        let wide = [inode, self.offset, self.base, moved.skip, moved.at, before];
        for (place, value) in words[4..].chunks_exact_mut(2).zip(wide) {
            place.copy_from_slice(&[high(value), low(value)]);
        }
        words
    }

    fn from_words(words: [u32; REACH]) -> Reach {
        let [flags, rotations, generation, first, ..] = words;
        let wide = |n: usize| joined(words[4 + 2 * n], words[5 + 2 * n]);
        let is = |bit: u32| flags >> bit & 1 != 0;
        Reach {
            rotations,
            rotating: is(0),
            cut: is(1),
            inode: is(2).then(|| Inode::new(wide(0))),
            offset: wide(1),
            base: wide(2),
            medium: match is(3) {
                true => Medium::Memory,
                false => Medium::Disk,
            },
            moved: is(4).then(|| Move {
                generation,
                first,
                gone: is(5),
                skip: wide(3),
                at: wide(4),
                before: is(6).then(|| wide(5)),
            }),
        }
    }
}

/// How far hxe's own lines have come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// When the last one was written: its place.
    pub last: BootTime,
    /// Bytes that were written since the daemon started.
    pub bytes: u64,
}

const DISKS: [LogDisk; 3] = [LogDisk::All, LogDisk::Errors, LogDisk::Memory];

/// One program's logs, and who follows them.
pub struct Growth {
    id: ProgramId,
    stdout: Published<REACH>,
    stderr: Published<REACH>,
    notes: Published<4>,
    /// Of stdout and stderr: the file that somebody reads who must miss nothing, as its generation + 1; 0: nobody does.
    readers: [AtomicU32; 2],
    /// Of stdout and stderr: a run has begun or ended, and what was written before is not all in the files.
    unfinished: [AtomicBool; 2],
    /// Of stdout and stderr: what is in the files ends as lines do.
    whole: [AtomicBool; 2],
    /// Of stdout and stderr: bytes that were dropped. Begins anew where it does not fit.
    dropped: [AtomicUsize; 2],
    /// What was written is to be looked at before it is rotated away.
    ask: AtomicBool,
    removed: AtomicBool,
    /// What of it goes to disk, by its definition: 0 where that does not say, else a place in [`DISKS`], from 1.
    disk: AtomicU32,
    own: Listeners,
    all: Arc<Listeners>,
}

impl Growth {
    fn new(id: ProgramId, all: Arc<Listeners>) -> Growth {
        let growth = Growth {
            id,
            stdout: Published::new(),
            stderr: Published::new(),
            notes: Published::new(),
            readers: Default::default(),
            unfinished: Default::default(),
            whole: Default::default(),
            dropped: Default::default(),
            // An earlier daemon may have left something to be looked at.
            ask: AtomicBool::new(true),
            removed: AtomicBool::new(false),
            disk: AtomicU32::new(0),
            own: Listeners::default(),
            all,
        };
        // Lines that an earlier daemon wrote in this boot are older than all that is counted.
        growth.set_notes(Noted {
            last: BootTime::now(),
            bytes: 0,
        });
        growth
    }

    fn stream(&self, stream: Stream) -> &Published<REACH> {
        match stream {
            Stream::Stderr => &self.stderr,
            // Notes have no files that rotate.
            Stream::Stdout | Stream::Hxe => &self.stdout,
        }
    }

    /// How far a stream has come, and a number that changes with that.
    pub fn reach(&self, stream: Stream) -> (u32, Reach) {
        let (version, words) = self.stream(stream).get();
        (version, Reach::from_words(words))
    }

    /// Publishes how far a stream has come. Only the log thread may.
    pub fn publish(&self, stream: Stream, reach: Reach) {
        self.stream(stream).set(reach.to_words());
    }

    /// Has the log thread keep the file of this generation, and what comes behind it: it lets the program wait instead.
    /// Where several read a stream this holds for the last one to say so; `None`: for nobody any more.
    pub fn hold(&self, stream: Stream, generation: Option<u32>) {
        let value = generation.map_or(0, |generation| generation.wrapping_add(1));
        self.reader(stream).store(value, Ordering::Release);
    }

    /// Whether the next rotation could take away what somebody still reads, where so many rotated files are kept.
    pub fn is_held(&self, stream: Stream, rotations: u32, kept: u32) -> bool {
        match self.reader(stream).load(Ordering::Acquire) {
            0 => false,
            // Where none is kept, there is nothing that could be.
            reader => kept > 0 && rotations.wrapping_sub(reader.wrapping_sub(1)) >= kept,
        }
    }

    /// Whether somebody reads the stream who must miss nothing.
    pub fn is_read(&self, stream: Stream) -> bool {
        self.reader(stream).load(Ordering::Acquire) != 0
    }

    /// Notes whether there is something in the pipe that belongs to a run that has ended. Who listens is told by the caller.
    pub fn set_unfinished(&self, stream: Stream, is_unfinished: bool) {
        let flag = &self.unfinished[usize::from(stream == Stream::Stderr)];
        flag.store(is_unfinished, Ordering::Release);
    }

    /// Whether not all that a run wrote which has ended is in the files.
    pub fn is_unfinished(&self, stream: Stream) -> bool {
        self.unfinished[usize::from(stream == Stream::Stderr)].load(Ordering::Acquire)
    }

    /// Has the next rotation ask first.
    pub fn ask_before_rotation(&self) {
        self.ask.store(true, Ordering::Release);
    }

    /// Whether this rotation is to ask first; no other one is then.
    pub fn is_to_ask(&self) -> bool {
        self.ask.load(Ordering::Relaxed) && self.ask.swap(false, Ordering::Acquire)
    }

    /// Notes whether it is known that what is in the files ends with the end of a line, or of a run. No longer known before
    /// something leaves the pipe.
    pub fn set_whole(&self, stream: Stream, is_whole: bool) {
        self.whole[usize::from(stream == Stream::Stderr)].store(is_whole, Ordering::Release);
    }

    /// Whether it is known that what is in the files ends so.
    pub fn is_whole(&self, stream: Stream) -> bool {
        self.whole[usize::from(stream == Stream::Stderr)].load(Ordering::Acquire)
    }

    /// Whether all that left the pipe is in the files, and ends so.
    pub fn is_settled(&self, stream: Stream) -> bool {
        self.is_whole(stream) && !self.is_unfinished(stream)
    }

    /// Counts bytes that the files did not take.
    pub fn count_dropped(&self, stream: Stream, bytes: usize) {
        self.dropped[usize::from(stream == Stream::Stderr)].fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes that the files did not take since the daemon started.
    pub fn dropped(&self, stream: Stream) -> usize {
        self.dropped[usize::from(stream == Stream::Stderr)].load(Ordering::Relaxed)
    }

    /// What of it goes to disk; `None`: as for all programs.
    pub fn disk(&self) -> Option<LogDisk> {
        let number = self.disk.load(Ordering::Acquire) as usize;
        DISKS.get(number.checked_sub(1)?).copied()
    }

    /// Says what of it goes to disk. The log thread sees it when it is told, or has something to write.
    pub fn set_disk(&self, disk: Option<LogDisk>) {
        let place = disk.and_then(|disk| DISKS.iter().position(|other| *other == disk));
        let number = place.map_or(0, |place| place as u32 + 1);
        self.disk.store(number, Ordering::Release);
    }

    fn reader(&self, stream: Stream) -> &AtomicU32 {
        &self.readers[usize::from(stream == Stream::Stderr)]
    }

    /// How far hxe's own lines have come, and a number that changes with that.
    pub fn notes(&self) -> (u32, Noted) {
        let (version, [last_high, last_low, bytes_high, bytes_low]) = self.notes.get();
        let noted = Noted {
            last: BootTime::from_micros(joined(last_high, last_low)),
            bytes: joined(bytes_high, bytes_low),
        };
        (version, noted)
    }

    /// The number alone.
    pub fn notes_version(&self) -> u32 {
        self.notes.version()
    }

    /// Counts a line of `bytes` bytes that was written at `at`. Only for who holds the lock of the notes.
    pub fn noted(&self, at: BootTime, bytes: u64) {
        let (_, noted) = self.notes();
        self.set_notes(Noted {
            last: at.max(noted.last),
            bytes: noted.bytes.wrapping_add(bytes),
        });
    }

    fn set_notes(&self, noted: Noted) {
        let last = noted.last.as_micros();
        self.notes
            .set([high(last), low(last), high(noted.bytes), low(noted.bytes)]);
    }

    /// Whether the program was deleted.
    pub fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    /// Has `listener` told from now on. What is looked at afterwards, and comes after that, is told.
    pub fn listen(&self, listener: &Arc<Listener>) {
        self.own.add(listener);
    }

    /// Tells all who listen that there is more to see. To be called once it is there.
    pub fn tell(&self) {
        // Either we see who began to listen, or they see what was published before.
        fence(Ordering::SeqCst);
        self.own.tell(self.id);
        self.all.tell(self.id);
    }
}

/// All programs' logs, and who follows all of them.
#[derive(Default)]
pub struct Register {
    programs: Mutex<BTreeMap<ProgramId, Arc<Growth>>>,
    all: Arc<Listeners>,
}

impl Register {
    fn programs(&self) -> MutexGuard<'_, BTreeMap<ProgramId, Arc<Growth>>> {
        self.programs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A program's, made if there is none.
    pub fn enter(&self, id: ProgramId) -> Arc<Growth> {
        self.programs()
            .entry(id)
            .or_insert_with(|| Arc::new(Growth::new(id, self.all.clone())))
            .clone()
    }

    pub fn get(&self, id: ProgramId) -> Option<Arc<Growth>> {
        self.programs().get(&id).cloned()
    }

    /// All programs', in order of id.
    pub fn list(&self) -> Vec<(ProgramId, Arc<Growth>)> {
        let programs = self.programs();
        programs
            .iter()
            .map(|(id, growth)| (*id, growth.clone()))
            .collect()
    }

    /// Forgets a program that was deleted, and tells its followers.
    pub fn remove(&self, id: ProgramId) {
        let removed = self.programs().remove(&id);
        if let Some(growth) = removed {
            growth.removed.store(true, Ordering::Release);
            growth.tell();
        }
    }

    /// Has `listener` told of all programs from now on.
    pub fn listen(&self, listener: &Arc<Listener>) {
        self.all.add(listener);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_read_while_it_is_written_is_of_one_moment() {
        let published = Published::<8>::new();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for n in 0..200_000 {
                    published.set([n; 8]);
                }
            });
            while !writer.is_finished() {
                let (_, words) = published.get();
                assert!(words.iter().all(|word| *word == words[0]), "{words:?}");
            }
        });
        assert_eq!(published.get().1, [199_999; 8]);
    }

    #[test]
    fn bytes_are_counted_from_where_the_file_ended_that_was_there() {
        let mut reach = Reach::default();
        reach.find(Inode::new(1), 100);
        assert_eq!(reach.total(), 0);
        reach.offset = 150;
        reach.turn_over();
        reach.find(Inode::new(2), 0);
        reach.offset = 20;
        assert_eq!((reach.total(), reach.base, reach.rotations), (70, 50, 1));
    }

    #[test]
    fn a_truncated_file_has_another_base_and_one_that_was_added_to_has_not() {
        let mut reach = Reach::default();
        reach.find(Inode::new(1), 0);
        reach.offset = 50;
        reach.find(Inode::new(1), 60);
        assert_eq!((reach.base, reach.total()), (0, 60));
        reach.find(Inode::new(1), 0);
        assert_eq!((reach.base, reach.total()), (60, 60));
    }

    #[test]
    fn a_file_is_found_where_it_was_written() {
        let mut reach = Reach::default();
        let turn = |reach: &mut Reach| {
            reach.offset += 10;
            reach.turn_over();
        };
        turn(&mut reach);
        reach.offset = 5;
        reach.move_over(0);
        turn(&mut reach);
        let places = |reach: &Reach| [0, 1, 2, 3, 4].map(|ago| reach.place(ago));
        let (here, there) = (Medium::Memory, Medium::Disk);
        let found = [(here, 0), (here, 1), (there, 0), (there, 1)];
        assert_eq!(places(&reach)[..4], found.map(Some));
        assert_eq!(places(&reach)[4], None);
        reach.move_over(100);
        let found = [(there, 0), (here, 0), (here, 1)];
        assert_eq!(places(&reach)[..3], found.map(Some));
        assert_eq!(places(&reach)[3..], [None, None]);
        assert_eq!(reach.moved_to(4).unwrap().skip, 100);
        // The bytes that were there before are none of the stream.
        reach.find(Inode::new(9), 100);
        assert_eq!((reach.total(), reach.moved.unwrap().at), (25, 25));
        assert_eq!(
            [3, 2, 4].map(|of| reach.moved_at(of)),
            [None, Some(15), Some(25)]
        );
        assert_eq!(
            [0, 1, 3].map(|of| reach.is_long_ago(of)),
            [true, false, false]
        );
        reach.moved.as_mut().unwrap().gone = true;
        assert_eq!(places(&reach)[1..], [None; 4]);
    }

    #[test]
    fn a_reader_holds_what_the_next_rotation_would_take() {
        let growth = Register::default().enter(ProgramId(1));
        let held = |rotations, kept| growth.is_held(Stream::Stdout, rotations, kept);
        assert!(!held(9, 5));
        growth.hold(Stream::Stdout, Some(3));
        assert!(!held(7, 5) && held(8, 5) && held(9, 5));
        assert!(!growth.is_held(Stream::Stderr, 9, 5));
        // Where none is kept there is nothing to hold.
        assert!(!held(9, 0));
        // One from before the daemon started: numbers count from there.
        growth.hold(Stream::Stdout, Some(2_u32.wrapping_neg()));
        assert!(!held(2, 5) && held(3, 5));
        growth.hold(Stream::Stdout, None);
        assert!(!held(9, 5));
    }

    proptest! {
        #[test]
        fn a_reach_is_published_as_it_is(
            rotations: u32, rotating: bool, cut: bool, inode: Option<u64>, offset: u64, base: u64, memory: bool,
            moved: Option<(u32, u32, bool, u64, u64, Option<u64>)>
        ) {
            let medium = if memory { Medium::Memory } else { Medium::Disk };
            let moved = moved.map(|(generation, first, gone, skip, at, before)| {
                Move { generation, first, gone, skip, at, before }
            });
            let inode = inode.map(Inode::new);
            let reach = Reach { rotations, rotating, cut, inode, offset, base, medium, moved };
            prop_assert_eq!(Reach::from_words(reach.to_words()), reach);
        }
    }
}
