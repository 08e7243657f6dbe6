//! What is in memory and what on disk, in each mode, over switches, restarts and ends.

use std::fs;
use std::io::Write;
use std::sync::Arc;

use crate::logs::follow::Followed;
use crate::logs::tests::{EVERYTHING, House, ID, until};
use crate::logs::{Follower, Query, Settings};
use crate::program::LogDisk;
use crate::sys::bell::Bell;

use LogDisk::{All, Errors, Memory};

fn settings(disk: LogDisk) -> Settings {
    Settings { disk, ..EVERYTHING }
}

/// Bytes of all files of the program below `dir`, without FIFOs.
fn bytes(house: &House, dir: &str) -> u64 {
    let path = house.temp.path().join(dir).join("program-1");
    let entries = fs::read_dir(path).into_iter().flatten();
    let metas = entries.map(|entry| entry.unwrap().metadata().unwrap());
    metas.filter(|meta| meta.is_file()).map(|m| m.len()).sum()
}

/// A run that writes these lines to stdout.
fn say(house: &House, numbers: std::ops::Range<u32>) {
    house.run(|stdout, _| {
        for number in numbers {
            writeln!(stdout, "line {number}").unwrap();
        }
    });
}

/// The run that wrote last ends without having been asked to.
fn crash(house: &House) {
    house.logs.end_run_unasked(ID);
}

/// The numbers of all lines that are there, oldest first.
fn lines(house: &House) -> Vec<u32> {
    let messages = house.messages(10_000).into_iter();
    messages
        .map(|line| line.strip_prefix("line ").unwrap().parse().unwrap())
        .collect()
}

fn restart(house: House, disk: LogDisk) -> House {
    let House { temp, logs } = house;
    drop(logs);
    House::furnish(temp, settings(disk))
}

#[test]
fn in_memory_a_bounded_ring_is_kept_and_nothing_is_on_disk() {
    let house = House::new(settings(Memory));
    say(&house, 0..100_000);
    crash(&house);
    assert!(!house.temp.path().join("log/program-1").exists());
    let kept = bytes(&house, "run");
    assert!(kept < 216 * 1024, "{kept}");
    let lines = lines(&house);
    // 64 KiB and more are there, which is more lines than can be asked for.
    assert!(lines.len() > 5_000);
    assert!(
        lines
            .iter()
            .rev()
            .copied()
            .eq((0..100_000).rev().take(lines.len()))
    );
}

#[test]
fn very_short_lines_with_a_time_each_take_no_more_memory() {
    let house = House::new(Settings {
        ring_size: 8192,
        ..settings(Memory)
    });
    let growth = house.logs.register.get(ID).unwrap();
    house.run(|stdout, _| {
        for written in 1..3000_u64 {
            stdout.write_all(b"\n").unwrap();
            until(|| growth.reach(crate::logs::Stream::Stdout).1.total() == written);
        }
    });
    let kept = bytes(&house, "run");
    assert!(kept < 3 * (4096 + 2048 + 100), "{kept}");
}

#[test]
fn an_end_that_was_not_asked_for_writes_the_last_of_both_streams_to_disk() {
    let house = House::new(settings(Errors));
    house.run(|stdout, stderr| {
        for number in 0..20_000 {
            writeln!(stdout, "line {number}").unwrap();
        }
        writeln!(stderr, "the end is near").unwrap();
    });
    assert_eq!(bytes(&house, "log"), 0);
    crash(&house);
    let (stdout, stderr) = (house.read("stdout.log"), house.read("stderr.log"));
    assert_eq!(stderr, b"the end is near\n");
    let size = stdout.len() + stderr.len();
    assert!((65_000..=65_536).contains(&size), "{size}");
    assert!(stdout.starts_with(b"line ") && stdout.ends_with(b"line 19999\n"));
    // All that is in memory besides is still read, each line once, in order also where many are of one moment.
    let numbers = |line: &String| line.strip_prefix("line ")?.parse::<u32>().ok();
    let in_order: Vec<u32> = house.messages(10_000).iter().filter_map(numbers).collect();
    assert!(in_order.is_sorted());
    let all = house.messages(10_000);
    assert!(all.len() > 6_000 && all.iter().filter(|line| *line == "the end is near").count() == 1);
    // An end after which nothing is new writes nothing.
    crash(&house);
    assert_eq!(house.read("stdout.log").len(), stdout.len());
}

#[test]
fn what_was_written_to_disk_has_its_times_and_is_read_after_a_reboot() {
    let house = House::new(settings(Errors));
    house.run(|stdout, _| write!(stdout, "first\nhalf a line").unwrap());
    let before = house.last(10, &[]);
    crash(&house);
    say(&house, 0..3);
    crash(&house);
    let House { temp, logs } = house;
    drop(logs);
    fs::remove_dir_all(temp.path().join("run")).unwrap();
    let house = House::furnish(temp, settings(Errors));
    let after = house.last(10, &[]);
    assert_eq!(after[..2], before[..2]);
    assert_eq!(
        house.messages(10),
        ["first", "half a line", "line 0", "line 1", "line 2"]
    );
}

#[test]
fn what_a_daemon_was_killed_over_is_written_once() {
    let house = House::new(settings(Errors));
    say(&house, 0..10);
    crash(&house);
    say(&house, 10..20);
    crash(&house);
    let kept = house.temp.path().join("run/program-1/stdout.kept");
    let done = fs::read_to_string(&kept).unwrap();
    let inode = done.lines().nth(1).unwrap().split(' ').next().unwrap();
    let log = std::os::unix::fs::MetadataExt::ino(&fs::metadata(house.path("stdout.log")).unwrap());
    let text = house.read("stdout.log");
    let first = text.len() - 80;
    let House { mut temp, mut logs } = house;
    for written in [first, first + 33, text.len()] {
        drop(logs);
        // As it was on the way, with so much on disk.
        let pending = format!("{log} {first}\n{inode} {first} {}", text.len());
        let text_kept = format!("{pending}\n{inode} 0 {first}\n");
        let sum = format!("{:016x}", crate::logs::index::fnv(text_kept.as_bytes()));
        fs::write(&kept, format!("{sum}\n{text_kept}")).unwrap();
        let path = temp.path().join("log/program-1/stdout.log");
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_len(written as u64).unwrap();
        let house = House::furnish(temp, settings(Errors));
        assert_eq!(house.read("stdout.log"), text);
        assert_eq!(fs::read_to_string(&kept).unwrap(), done);
        assert_eq!(lines(&house), Vec::from_iter(0..20));
        House { temp, logs } = house;
    }
}

/// All that a follower gives now, as numbers.
fn followed(follower: &mut Follower, into: &mut Vec<u32>, last: u32) {
    until_mut(|| {
        while let Some(next) = follower.next().unwrap() {
            let Followed::Entry(entry) = next else {
                panic!("{next:?} after {into:?}");
            };
            into.push(
                entry
                    .message
                    .strip_prefix("line ")
                    .unwrap()
                    .parse()
                    .unwrap(),
            );
        }
        into.last() == Some(&last)
    });
}

fn until_mut(mut what: impl FnMut() -> bool) {
    let cell = std::cell::RefCell::new(&mut what);
    until(|| (cell.borrow_mut())());
}

#[test]
fn a_follower_misses_nothing_when_the_mode_is_changed_and_nothing_that_is_there_is_lost() {
    let house = House::new(settings(All));
    say(&house, 0..100);
    let query = Query {
        lines: 10_000,
        levels: Vec::new(),
    };
    let bell = Arc::new(Bell::new().unwrap());
    let mut follower = house.logs.follow(ID, &query, bell).unwrap();
    let mut seen = Vec::new();
    let mut next = 100;
    for disk in [Memory, All, Errors, Memory, All, All, Errors] {
        house.logs.set_disk(ID, Some(disk));
        // In the middle of a line, and with some of the old mode not read yet.
        house.run(|stdout, _| {
            write!(stdout, "line ").unwrap();
            house.logs.set_disk(ID, Some(disk));
            writeln!(stdout, "{next}").unwrap();
            for number in next + 1..next + 100 {
                writeln!(stdout, "line {number}").unwrap();
            }
        });
        next += 100;
        if disk != Memory {
            crash(&house);
        }
        followed(&mut follower, &mut seen, next - 1);
        assert_eq!(lines(&house), Vec::from_iter(0..next));
    }
    assert_eq!(seen, Vec::from_iter(0..next));
    // And all of it is on disk with the last one.
    house.logs.set_disk(ID, None);
    until(|| {
        house
            .read("stdout.log")
            .ends_with(format!("line {}\n", next - 1).as_bytes())
    });
    say(&house, next..next + 1);
    let text = String::from_utf8(house.read("stdout.log")).unwrap();
    let on_disk = text
        .lines()
        .map(|line| line["line ".len()..].parse::<u32>().unwrap());
    assert!(on_disk.eq(0..next + 1));
    let run = house.temp.path().join("run/program-1");
    assert!(!run.join("stdout.log").exists() && !run.join("stdout.kept").exists());
}

#[test]
fn a_follower_that_comes_changes_too_late_is_told_what_it_missed_and_given_nothing_twice() {
    let query = Query {
        lines: 10_000,
        levels: Vec::new(),
    };
    for late in 1..6 {
        let house = House::new(settings(All));
        say(&house, 0..100);
        let bell = Arc::new(Bell::new().unwrap());
        let mut follower = house.logs.follow(ID, &query, bell).unwrap();
        let (mut given, mut missed) = (0, 0);
        for change in 0..30 {
            house.logs.set_disk(ID, Some([Memory, All][change % 2]));
            let next = 100 * (change as u32 + 1);
            say(&house, next..next + 100);
            if change % late != 0 {
                continue;
            }
            let last = format!("line {}", next + 99);
            let mut at_end = false;
            until_mut(|| {
                while let Some(next) = follower.next().unwrap() {
                    match next {
                        Followed::Missed { bytes, .. } => missed += bytes,
                        Followed::Entry(entry) => {
                            let number = entry.message["line ".len()..].parse::<u64>().unwrap();
                            assert!(number >= given, "{number} after {given}");
                            let between = (given..number).map(|of| format!("line {of}\n").len());
                            assert_eq!(between.sum::<usize>() as u64, missed, "before {number}");
                            (given, missed) = (number + 1, 0);
                            at_end = entry.message == last;
                        }
                    }
                }
                at_end
            });
            assert_eq!(given, u64::from(next) + 100);
        }
    }
}

#[test]
fn what_is_older_than_what_was_kept_is_there_once_after_a_change_to_all() {
    let house = House::new(settings(Errors));
    say(&house, 0..7_000);
    crash(&house);
    let all = lines(&house);
    house.logs.set_disk(ID, Some(All));
    let first = format!("line {}\n", all[0]);
    until(|| String::from_utf8_lossy(&house.read("stdout.log")).contains(&first));
    // Also as long as the ring is still there.
    let mut after = lines(&house);
    after.sort_unstable();
    assert!(after == all, "{} instead of {}", after.len(), all.len());
}

#[test]
fn damaged_notes_on_what_is_on_disk_stop_nobody_from_reading() {
    let house = House::new(settings(Errors));
    say(&house, 0..10);
    crash(&house);
    let path = house.temp.path().join("run/program-1/stdout.kept");
    fs::write(&path, [b'x'; 4096]).unwrap();
    assert_eq!(house.messages(1), ["line 9"]);
    say(&house, 10..20);
    crash(&house);
    assert_eq!(lines(&house), Vec::from_iter(0..20));
}

#[test]
fn a_daemon_that_starts_with_another_mode_takes_up_what_is_there() {
    let mut house = House::new(settings(Memory));
    let mut next = 0;
    for disk in [Memory, Errors, All, Memory, All, Errors, Errors] {
        house = restart(house, disk);
        assert_eq!(lines(&house), Vec::from_iter(0..next));
        say(&house, next..next + 50);
        next += 50;
        if next % 100 == 0 {
            crash(&house);
        }
        assert_eq!(lines(&house), Vec::from_iter(0..next));
    }
}
