//! Followers of many programs: each entry once, in order, and no more descriptors than one program needs.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::Write;

use super::*;
use crate::logs::tests::{EVERYTHING, House, ID, until};
use crate::logs::{Level, Settings, Stream};

const OTHER: ProgramId = ProgramId(2);
const NEVER: fn(ProgramId, BootTime) -> bool = |_, _| false;

fn tails(house: &House) -> (Tails, Arc<Bell>) {
    let bell = Arc::new(Bell::new().unwrap());
    (house.logs.tails(bell.clone()), bell)
}

fn shown((id, followed): (ProgramId, Followed)) -> String {
    match followed {
        Followed::Entry(entry) => format!("{} {}", id.0, entry.message),
        Followed::Missed { bytes, .. } => format!("{} missed {bytes}", id.0),
    }
}

/// All that is there now.
fn heard(tails: &mut Tails) -> Vec<String> {
    std::iter::from_fn(|| tails.next(NEVER))
        .map(shown)
        .collect()
}

/// Lets a program write to stdout, until that can be read.
fn write(house: &House, id: ProgramId, text: &str) {
    let [stdout, _stderr] = house.logs.begin_run(id, 0).unwrap();
    File::from(stdout).write_all(text.as_bytes()).unwrap();
    house.logs.end_run(id);
}

#[test]
fn nothing_is_followed_until_it_is_chosen_and_then_from_its_end() {
    let house = House::new(EVERYTHING);
    house.logs.add(OTHER, None).unwrap();
    write(&house, ID, "before\n");
    let (mut tails, _bell) = tails(&house);
    write(&house, ID, "not chosen\n");
    assert!(heard(&mut tails).is_empty());
    tails.choose(|id| id == ID);
    write(&house, OTHER, "not wanted\n");
    write(&house, ID, "new\n");
    assert_eq!(heard(&mut tails), ["1 new"]);
    tails.choose(|_| true);
    write(&house, OTHER, "now wanted\n");
    write(&house, ID, "newer\n");
    assert_eq!(heard(&mut tails), ["1 newer", "2 now wanted"]);
    tails.choose(|id| id == OTHER);
    write(&house, ID, "not any more\n");
    assert!(heard(&mut tails).is_empty());
}

#[test]
fn those_that_are_chosen_again_go_on_where_they_are() {
    let house = House::new(EVERYTHING);
    let (mut tails, _bell) = tails(&house);
    tails.choose(|_| true);
    write(&house, ID, "one\ntwo\n");
    assert_eq!(shown(tails.next(NEVER).unwrap()), "1 one");
    tails.choose(|id| id == ID);
    assert_eq!(heard(&mut tails), ["1 two"]);
    // Grown, but not looked at before it is chosen again.
    write(&house, ID, "three\n");
    tails.choose(|id| id == ID);
    assert_eq!(heard(&mut tails), ["1 three"]);
}

#[test]
fn a_line_that_was_begun_before_is_given_whole_and_what_an_earlier_run_left_is_not() {
    let house = House::new(EVERYTHING);
    house.run(|stdout, _| {
        let is = |expected: &[u8]| {
            until(|| fs::read(house.path("stdout.log")).is_ok_and(|text| text == expected));
        };
        write!(stdout, "last words").unwrap();
        is(b"last words");
        house.logs.end_run(ID);
        let (mut first, _bell) = tails(&house);
        first.choose(|_| true);
        write!(stdout, "begun ").unwrap();
        is(b"last wordsbegun ");
        let (mut second, _bell) = tails(&house);
        second.choose(|_| true);
        writeln!(stdout, "and finished").unwrap();
        house.logs.end_run(ID);
        assert_eq!(heard(&mut first), ["1 begun and finished"]);
        assert_eq!(heard(&mut second), ["1 begun and finished"]);
    });
}

#[test]
fn a_program_that_is_added_later_is_followed_from_its_begin() {
    let house = House::new(EVERYTHING);
    let (mut tails, bell) = tails(&house);
    tails.choose(|id| id != ProgramId(3));
    bell.hush();
    for id in [OTHER, ProgramId(3)] {
        house.logs.add(id, None).unwrap();
        house.logs.note(id, Level::Info, "begins");
        write(&house, id, "one\n");
    }
    write(&house, OTHER, "two\n");
    assert_eq!(heard(&mut tails), ["2 begins", "2 one", "2 two"]);
}

#[test]
fn a_deleted_program_is_followed_no_more_and_forgotten() {
    let house = House::new(EVERYTHING);
    house.logs.add(OTHER, None).unwrap();
    let (mut tails, _bell) = tails(&house);
    tails.choose(|_| true);
    house.logs.remove(OTHER).unwrap();
    write(&house, ID, "one\n");
    assert_eq!(heard(&mut tails), ["1 one"]);
    assert_eq!(tails.followed.len(), 1);
}

#[test]
fn what_is_held_waits_and_what_others_wrote_does_not() {
    let house = House::new(EVERYTHING);
    house.logs.add(OTHER, None).unwrap();
    let (mut tails, _bell) = tails(&house);
    tails.choose(|_| true);
    let begin = BootTime::now();
    write(&house, ID, "one\ntwo\n");
    write(&house, OTHER, "other\n");
    let asked = Cell::new(None);
    let hold = |id, at| {
        asked.set(Some(at).filter(|_| id == ID).or(asked.get()));
        id == ID
    };
    assert_eq!(shown(tails.next(hold).unwrap()), "2 other");
    assert!(tails.next(hold).is_none());
    let at = asked.get().unwrap();
    // Times are kept in tenths of a millisecond.
    assert!(at.as_micros() + 100 >= begin.as_micros() && at <= BootTime::now());
    assert!(
        tails
            .next_of(ID, begin - std::time::Duration::from_secs(1))
            .is_none()
    );
    let next = tails.next_of(ID, BootTime::now()).unwrap();
    assert_eq!(shown((ID, next)), "1 one");
    assert_eq!(heard(&mut tails), ["1 two"]);
    assert!(tails.next_of(ID, BootTime::now()).is_none());
    assert!(tails.next_of(ProgramId(9), BootTime::now()).is_none());
}

#[test]
fn each_program_has_its_turn_and_one_has_files_open() {
    let house = House::new(EVERYTHING);
    for n in 2..=40 {
        house.logs.add(ProgramId(n), None).unwrap();
    }
    let (mut tails, _bell) = tails(&house);
    tails.choose(|_| true);
    let text: String = (0..200).map(|n| format!("{n}\n")).collect();
    for n in 1..=40 {
        write(&house, ProgramId(n), &text);
    }
    let open = |tails: &Tails| {
        let open = |tail: &&Tail| tail.merge.is_open();
        tails.followed.values().filter(open).count()
    };
    let mut next = [0; 41];
    let mut turns = Vec::new();
    while let Some((id, followed)) = tails.next(NEVER) {
        assert!(open(&tails) <= 1);
        let message = shown((id, followed));
        assert_eq!(message, format!("{} {}", id.0, next[id.0 as usize]));
        next[id.0 as usize] += 1;
        if turns.last() != Some(&id.0) {
            turns.push(id.0);
        }
    }
    assert_eq!(open(&tails), 0);
    assert!(next[1..].iter().all(|next| *next == 200));
    assert_eq!(
        turns[..80],
        [(1..=40).collect::<Vec<_>>(), (1..=40).collect()].concat()
    );
}

#[test]
fn one_who_was_overtaken_while_the_files_were_closed_is_told_exactly_how_much_is_gone() {
    for max_files in [0, 1, 3] {
        let house = House::new(Settings {
            max_size: 10_000,
            max_files,
            ..EVERYTHING
        });
        let (mut tails, _bell) = tails(&house);
        tails.choose(|_| true);
        write(&house, ID, "begin\n");
        assert_eq!(heard(&mut tails), ["1 begin"]);
        let text: String = (0..20_000).map(|n| format!("{n}\n")).collect();
        write(&house, ID, &text);
        let (mut given, mut missed) = (0, 0);
        let mut last = String::new();
        while let Some((_, followed)) = tails.next(NEVER) {
            match followed {
                Followed::Entry(entry) => {
                    given += entry.message.len() as u64 + 1;
                    last = entry.message;
                }
                Followed::Missed { stream, bytes } => {
                    assert_eq!((stream, given), (Stream::Stdout, 0));
                    missed += bytes;
                }
            }
        }
        assert!(missed > 0 && given > 5_000);
        assert_eq!(
            (given + missed, last.as_str()),
            (text.len() as u64, "19999")
        );
    }
}

#[test]
fn each_line_of_many_programs_comes_once_while_they_write() {
    const PROGRAMS: u32 = 8;
    const LINES: u32 = 5_000;
    let house = House::new(Settings {
        max_size: 20_000,
        ..EVERYTHING
    });
    let (mut tails, bell) = tails(&house);
    tails.choose(|_| true);
    for n in 2..=PROGRAMS {
        house.logs.add(ProgramId(n), None).unwrap();
    }
    std::thread::scope(|scope| {
        for n in 1..=PROGRAMS {
            let logs = &house.logs;
            scope.spawn(move || {
                let [stdout, _stderr] = logs.begin_run(ProgramId(n), 0).unwrap();
                let mut stdout = File::from(stdout);
                for line in 0..LINES {
                    writeln!(stdout, "{line}").unwrap();
                }
                logs.end_run(ProgramId(n));
            });
        }
        let mut next = vec![0; PROGRAMS as usize + 1];
        while next[1..].iter().any(|next| *next < LINES) {
            let limit = rustix::event::Timespec {
                tv_sec: 10,
                tv_nsec: 0,
            };
            let mut fds = [rustix::event::PollFd::new(
                &*bell,
                rustix::event::PollFlags::IN,
            )];
            assert_eq!(rustix::event::poll(&mut fds, Some(&limit)).unwrap(), 1);
            bell.hush();
            while let Some((id, followed)) = tails.next(NEVER) {
                let expected = format!("{} {}", id.0, next[id.0 as usize]);
                assert_eq!(shown((id, followed)), expected);
                next[id.0 as usize] += 1;
            }
        }
    });
}

#[test]
fn one_can_be_read_by_another_thread() {
    fn sent<T: Send + 'static>() {}
    sent::<Tails>();
}
