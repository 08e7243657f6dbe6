//! Followers of programs that write: what they are given is what was written, each line once, or they are told how much
//! they missed.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::*;
use crate::logs::tests::{EVERYTHING, House, ID, noise, until};
use crate::logs::{Level, Settings};

/// A follower and its bell.
struct Ear {
    follower: Follower,
    bell: Arc<Bell>,
}

fn follow(house: &House, lines: usize, levels: &[Level]) -> Ear {
    let bell = Arc::new(Bell::new().unwrap());
    let query = Query {
        lines,
        levels: levels.to_vec(),
    };
    let follower = house.logs.follow(ID, &query, bell.clone()).unwrap();
    Ear { follower, bell }
}

impl Ear {
    /// All that is there now.
    fn heard(&mut self) -> Vec<Followed> {
        std::iter::from_fn(|| self.follower.next().unwrap()).collect()
    }

    /// What comes next, waited for.
    fn next(&mut self) -> Followed {
        loop {
            if let Some(next) = self.follower.next().unwrap() {
                return next;
            }
            let limit = Timespec::try_from(Duration::from_secs(10)).unwrap();
            let mut fds = [PollFd::new(&*self.bell, PollFlags::IN)];
            assert_eq!(poll(&mut fds, Some(&limit)).unwrap(), 1, "no bell rang");
            self.bell.hush();
        }
    }

    fn next_message(&mut self) -> String {
        message(&self.next()).to_owned()
    }

    /// Whether the bell has rung.
    fn is_rung(&self) -> bool {
        let mut fds = [PollFd::new(&*self.bell, PollFlags::IN)];
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(&mut fds, Some(&at_once)).unwrap() == 1
    }

    fn messages(&mut self) -> Vec<String> {
        self.heard()
            .iter()
            .map(message)
            .map(str::to_owned)
            .collect()
    }
}

fn stdout_of(house: &House) -> Vec<u8> {
    fs::read(house.path("stdout.log")).unwrap_or_default()
}

fn entry(followed: &Followed) -> &Entry {
    match followed {
        Followed::Entry(entry) => entry,
        missed @ Followed::Missed { .. } => panic!("{missed:?}"),
    }
}

fn message(followed: &Followed) -> &str {
    &entry(followed).message
}

/// The follower looks again and again while runs end, so that a look falls between what is written last and the line on
/// the end.
#[test]
fn what_a_run_wrote_last_comes_before_the_line_on_its_end() {
    const RUNS: usize = 1_000;
    let house = &House::new(EVERYTHING);
    let mut ear = follow(house, 0, &[]);
    std::thread::scope(|scope| {
        let (seen, is_seen) = std::sync::mpsc::channel();
        scope.spawn(move || {
            for run in 0..RUNS {
                house.run(|stdout, _| write!(stdout, "no end {run}").unwrap());
                house.logs.note(ID, Level::Info, &format!("ended {run}"));
                is_seen.recv().expect("it was heard");
            }
        });
        for run in 0..RUNS {
            for expected in [format!("no end {run}"), format!("ended {run}")] {
                let next = std::iter::repeat_with(|| ear.follower.next().unwrap());
                let next = next.flatten().next().unwrap();
                assert_eq!(message(&next), expected);
            }
            seen.send(()).unwrap();
        }
    });
}

#[test]
fn the_last_lines_come_first_and_then_each_new_one_at_once() {
    let house = House::new(EVERYTHING);
    house.run(|stdout, _| write!(stdout, "1\n2\n3\n").unwrap());
    let mut ear = follow(&house, 2, &[]);
    assert_eq!(ear.messages(), ["2", "3"]);
    // A program that is not running can be followed, and its next run too.
    for run in 0..2 {
        house.run(|stdout, stderr| {
            for n in 0..5 {
                writeln!(stdout, "out {run} {n}").unwrap();
                assert_eq!(ear.next_message(), format!("out {run} {n}"));
                writeln!(stderr, "err {run} {n}").unwrap();
                assert_eq!(ear.next_message(), format!("err {run} {n}"));
            }
        });
        house
            .logs
            .note(ID, Level::Info, "Program exited with code 0");
        assert_eq!(ear.next_message(), "Program exited with code 0");
    }
    assert!(ear.heard().is_empty() && !ear.follower.is_over());
}

#[test]
fn levels_are_filtered_among_the_old_and_the_new() {
    let house = House::new(EVERYTHING);
    house.run(|stdout, _| write!(stdout, "[WARN] 1\nplain\n[WARN] 2\nplain\n").unwrap());
    let mut ear = follow(&house, 1, &[Level::Warn]);
    house.run(|stdout, stderr| {
        write!(stdout, "plain\n[WARN] 3\n").unwrap();
        writeln!(stderr, "an error").unwrap();
    });
    house.logs.note(ID, Level::Warn, "a note");
    assert_eq!(ear.messages(), ["[WARN] 2", "[WARN] 3", "a note"]);
}

#[test]
fn a_line_that_was_begun_before_is_given_whole_once_it_is_finished() {
    let house = House::new(EVERYTHING);
    for lines in [0, 9] {
        house.run(|stdout, _| {
            write!(stdout, "begun ").unwrap();
            until(|| stdout_of(&house).ends_with(b"begun "));
            let mut ear = follow(&house, lines, &[Level::Info]);
            let old = ear.messages().len();
            assert!(old == 0 || lines == 9);
            writeln!(stdout, "and finished").unwrap();
            assert_eq!(ear.next_message(), "begun and finished");
            write!(stdout, "last words").unwrap();
            house.logs.end_run(ID);
            assert_eq!(ear.next_message(), "last words");
            assert!(ear.heard().is_empty());
        });
    }
}

#[test]
fn last_words_of_an_earlier_run_are_old_and_not_joined_to_the_next() {
    let house = House::new(EVERYTHING);
    house.run(|stdout, _| write!(stdout, "one\nlast words").unwrap());
    let mut new = follow(&house, 0, &[]);
    let mut all = follow(&house, 9, &[]);
    house.run(|stdout, _| writeln!(stdout, "two").unwrap());
    assert_eq!(new.messages(), ["two"]);
    assert_eq!(all.messages(), ["one", "last words", "two"]);
}

#[test]
fn that_a_run_has_ended_within_a_line_is_known_to_the_next_daemon() {
    let mut house = House::new(EVERYTHING);
    house.run(|stdout, _| write!(stdout, "one\nlast words").unwrap());
    let path = house.temp.path().to_owned();
    house.logs = House::start(&path, EVERYTHING);
    house.logs.add(ID, None).unwrap();
    let mut new = follow(&house, 0, &[]);
    let mut all = follow(&house, 9, &[]);
    house.run(|stdout, _| writeln!(stdout, "two").unwrap());
    assert_eq!(new.messages(), ["two"]);
    assert_eq!(all.messages(), ["one", "last words", "two"]);
}

#[test]
fn pieces_of_a_line_without_end_come_as_they_are_finished() {
    let house = House::new(EVERYTHING);
    house.run(|stdout, _| {
        write!(stdout, "{}", "x".repeat(40_000)).unwrap();
        until(|| stdout_of(&house).len() == 40_000);
        let mut ear = follow(&house, 9, &[]);
        let mut found = ear.messages();
        assert!(found.len() <= 2);
        write!(stdout, "{}\nend\n", "y".repeat(40_000)).unwrap();
        while found.last().is_none_or(|last| last != "end") {
            found.push(ear.next_message());
        }
        found.pop();
        let text = format!("{}{}", "x".repeat(40_000), "y".repeat(40_000));
        assert_eq!(found.concat(), text);
        assert_eq!(house.messages(99).concat(), format!("{text}end"));
    });
}

#[test]
fn between_the_last_lines_and_the_new_ones_there_is_no_gap_while_a_program_floods() {
    let house = House::new(Settings {
        max_size: 20_000,
        ..EVERYTHING
    });
    const LINES: u32 = 60_000;
    house.run(|stdout, _| {
        std::thread::scope(|scope| {
            let writer = scope.spawn(move || {
                for n in 0..LINES {
                    writeln!(stdout, "{n}").unwrap();
                }
            });
            let mut followers = 0;
            while !writer.is_finished() || followers == 0 {
                let mut ear = follow(&house, followers % 3 * 700, &[]);
                // Some begin to read late.
                if followers % 2 == 0 {
                    ear.bell.hush();
                    until(|| ear.is_rung() || writer.is_finished());
                }
                let mut next: Option<u32> = None;
                for _ in 0..3_000 {
                    let number: u32 = ear.next_message().parse().unwrap();
                    assert!(next.is_none_or(|next| next == number), "{next:?} {number}");
                    next = Some(number + 1);
                    if next == Some(LINES) {
                        break;
                    }
                }
                followers += 1;
                if writer.is_finished() {
                    break;
                }
            }
        });
    });
}

/// Follows a flood of `size` bytes, or is overtaken by it again and again; what was given, newlines included, what was
/// missed, and how often.
fn flood(settings: Settings, size: usize, overtaken: bool) -> (u64, u64, usize) {
    let max_files = settings.max_files;
    let house = House::new(settings);
    let mut ear = follow(&house, 0, &[]);
    let growth = house.logs.register.get(ID).unwrap();
    let rotations = || growth.reach(Stream::Stdout).1.rotations;
    let (mut given, mut missed, mut gaps, mut last) = (0, 0, 0, 0);
    house.run(|stdout, _| {
        std::thread::scope(|scope| {
            let writer = scope.spawn(move || {
                let mut text = Vec::new();
                let (mut written, mut n) = (0, 0_u64);
                while written < size {
                    text.clear();
                    while text.len() < 60_000 {
                        n += 1;
                        writeln!(text, "{n} {}", "x".repeat(n as usize % 97)).unwrap();
                    }
                    stdout.write_all(&text).unwrap();
                    written += text.len();
                }
                writeln!(stdout, "end").unwrap();
            });
            for read in 1.. {
                match ear.next() {
                    Followed::Entry(entry) => {
                        given += entry.message.len() as u64 + 1;
                        if entry.message == "end" {
                            break;
                        }
                        let (number, rest) = entry.message.split_once(' ').unwrap();
                        let number: u64 = number.parse().unwrap();
                        assert_eq!(rest.len() as u64, number % 97);
                        assert!(number == last + 1 || number > last && gaps > 0);
                        last = number;
                    }
                    Followed::Missed { stream, bytes } => {
                        assert_eq!(stream, Stream::Stdout);
                        assert!(bytes > 0);
                        missed += bytes;
                        gaps += 1;
                    }
                }
                if overtaken && read % 5_000 == 0 {
                    let enough = rotations() + max_files + 3;
                    until(|| rotations() > enough || writer.is_finished());
                }
            }
        });
    });
    assert_eq!(growth.reach(Stream::Stdout).1.total(), given + missed);
    (given, missed, gaps)
}

#[test]
fn a_flood_is_followed_to_its_end_without_a_gap() {
    let (given, missed, _) = flood(EVERYTHING, 50_000_000, false);
    assert!(given > 50_000_000 && missed == 0);
}

#[test]
fn one_who_is_overtaken_is_told_exactly_how_much_is_gone() {
    for max_files in [0, 1, 3] {
        let settings = Settings {
            max_size: 100_000,
            max_files,
            ..EVERYTHING
        };
        let (given, missed, gaps) = flood(settings, 10_000_000, true);
        assert!(given + missed > 10_000_000);
        assert!(gaps > 0, "never overtaken with {max_files} files");
    }
}

#[test]
fn one_who_never_reads_holds_no_file_back_and_is_told_in_the_end() {
    let house = House::new(Settings {
        max_size: 10_000,
        max_files: 1,
        ..EVERYTHING
    });
    let mut ear = follow(&house, 0, &[]);
    house.run(|stdout, _| {
        for n in 0..10_000 {
            writeln!(stdout, "{n}").unwrap();
        }
    });
    let written: u64 = (0..10_000).map(|n| n.to_string().len() as u64 + 1).sum();
    let heard = ear.heard();
    let (mut given, mut missed) = (0, 0);
    for followed in &heard {
        match followed {
            Followed::Entry(entry) => given += entry.message.len() as u64 + 1,
            Followed::Missed { bytes, .. } => missed += bytes,
        }
    }
    assert_eq!(message(&heard[heard.len() - 1]), "9999");
    assert_eq!(given + missed, written);
    // The file that it had open, then one gap.
    let gaps = heard
        .iter()
        .filter(|followed| matches!(followed, Followed::Missed { .. }));
    assert_eq!(gaps.count(), 1);
}

#[test]
fn a_deleted_programs_last_words_are_given_and_then_it_is_over() {
    let house = House::new(EVERYTHING);
    house.run(|stdout, _| writeln!(stdout, "old").unwrap());
    house.logs.note(ID, Level::Info, "begin");
    let mut ear = follow(&house, 0, &[]);
    let mut all = follow(&house, 9, &[]);
    house.run(|stdout, _| write!(stdout, "whole\nlast words").unwrap());
    house.logs.note(ID, Level::Info, "exited");
    house.logs.remove(ID).unwrap();
    assert_eq!(ear.next_message(), "whole");
    assert!(ear.follower.is_over());
    assert_eq!(ear.messages(), ["last words", "exited"]);
    assert_eq!(
        all.messages(),
        ["old", "begin", "whole", "last words", "exited"]
    );
    assert!(ear.is_rung());
    // One who comes too late finds nothing and is told so.
    let mut late = follow(&house, 9, &[]);
    assert!(late.heard().is_empty() && late.follower.is_over());
}

#[test]
fn a_file_that_a_user_truncates_is_followed_from_its_begin() {
    let house = House::new(EVERYTHING);
    let mut ear = follow(&house, 0, &[]);
    house.run(|stdout, _| {
        writeln!(stdout, "before, and longer than what comes").unwrap();
        ear.next();
        File::create(house.path("stdout.log")).unwrap();
        writeln!(stdout, "after").unwrap();
        assert_eq!(ear.next_message(), "after");
        writeln!(stdout, "and on").unwrap();
        assert_eq!(ear.next_message(), "and on");
    });
    assert!(ear.heard().is_empty());
}

#[test]
fn a_file_that_a_user_moves_away_or_removes_is_read_to_its_end_and_then_the_new_one() {
    let house = House::new(EVERYTHING);
    let mut ear = follow(&house, 0, &[]);
    house.run(|stdout, _| writeln!(stdout, "one").unwrap());
    assert_eq!(ear.messages(), ["one"]);
    house.run(|stdout, _| writeln!(stdout, "two").unwrap());
    fs::rename(house.path("stdout.log"), house.path("moved")).unwrap();
    house.run(|stdout, _| writeln!(stdout, "three").unwrap());
    assert_eq!(ear.messages(), ["two", "three"]);
    fs::remove_file(house.path("stdout.log")).unwrap();
    house.run(|stdout, _| writeln!(stdout, "four").unwrap());
    assert_eq!(ear.messages(), ["four"]);
    fs::remove_dir_all(house.path("")).unwrap();
    house.run(|stdout, _| writeln!(stdout, "five").unwrap());
    assert_eq!(ear.messages(), ["five"]);
}

#[test]
fn rotated_files_that_a_user_removes_are_missed_and_no_line_comes_twice() {
    // The oldest is held open, so that it can be read.
    for removed in 1..4 {
        let house = House::new(Settings {
            max_size: 1_000,
            ..EVERYTHING
        });
        let mut ear = follow(&house, 0, &[]);
        let lines =
            |from: u32, to: u32| (from..to).map(|n| format!("{n:09}\n")).collect::<String>();
        house.run(|stdout, _| write!(stdout, "{}", lines(0, 500)).unwrap());
        assert_eq!(ear.next_message(), lines(0, 1).trim_end());
        fs::remove_file(house.path(&format!("stdout.log.{removed}"))).unwrap();
        // Rotation goes on above the number that is free now.
        house.run(|stdout, _| write!(stdout, "{}", lines(500, 800)).unwrap());
        let (mut given, mut missed, mut next) = (10, 0, 1);
        for followed in ear.heard() {
            match followed {
                Followed::Entry(entry) => {
                    let number: u32 = entry.message.parse().unwrap();
                    assert!(number == next || number > next && missed > 0);
                    next = number + 1;
                    given += 10;
                }
                Followed::Missed { bytes, .. } => missed += bytes,
            }
        }
        assert_eq!((next, given + missed), (800, 8_000));
        assert!((1..2_000).contains(&missed), "{missed}");
    }
}

#[test]
fn lines_that_a_user_adds_to_a_file_are_followed_too() {
    let house = House::new(EVERYTHING);
    let mut ear = follow(&house, 0, &[]);
    house.run(|stdout, _| writeln!(stdout, "one").unwrap());
    let mut file = File::options()
        .append(true)
        .open(house.path("stdout.log"))
        .unwrap();
    writeln!(file, "by hand").unwrap();
    house.run(|stdout, _| writeln!(stdout, "two").unwrap());
    assert_eq!(ear.messages(), ["one", "by hand", "two"]);
}

#[test]
fn without_or_with_a_damaged_index_all_lines_are_followed() {
    let house = House::new(EVERYTHING);
    let mut ear = follow(&house, 0, &[]);
    house.run(|stdout, _| writeln!(stdout, "first").unwrap());
    let index = fs::read_dir(house.path(""))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|e| e == "idx"))
        .unwrap();
    assert_eq!(ear.messages(), ["first"]);
    for content in [&noise(5000)[..], &[0; 9000], b"x", b""] {
        fs::write(&index, content).unwrap();
        house.run(|stdout, _| write!(stdout, "one\ntwo\nthree\n").unwrap());
        assert_eq!(ear.messages(), ["one", "two", "three"]);
    }
    fs::remove_file(index).unwrap();
    house.run(|stdout, _| writeln!(stdout, "last").unwrap());
    assert_eq!(ear.messages(), ["last"]);
}

#[test]
fn a_rotated_file_that_has_lost_its_index_comes_before_what_was_noted_later() {
    let house = House::new(Settings {
        max_size: 20_000,
        ..EVERYTHING
    });
    let mut ear = follow(&house, 0, &[]);
    house.run(|stdout, _| {
        for n in 0..300 {
            writeln!(stdout, "{n:099}").unwrap();
        }
    });
    let rotated = house.path("stdout.log.1");
    let inode = fs::metadata(&rotated).unwrap().ino();
    fs::remove_file(house.path(&format!("stdout.{inode}.idx"))).unwrap();
    // Clearly before what is noted now.
    let before = SystemTime::now() - Duration::from_secs(1);
    let file = File::options().write(true).open(&rotated).unwrap();
    file.set_modified(before).unwrap();
    house.logs.note(ID, Level::Info, "noted later");
    let messages = ear.messages();
    assert_eq!(messages.len(), 301);
    assert_eq!(messages[300], "noted later");
}

#[test]
fn notes_that_were_overwritten_before_they_were_read_are_counted() {
    let house = House::new(EVERYTHING);
    house.logs.note(ID, Level::Info, "old");
    let mut ear = follow(&house, 0, &[]);
    house.logs.note(ID, Level::Info, "seen");
    assert_eq!(ear.messages(), ["seen"]);
    let growth = house.logs.register.get(ID).unwrap();
    let before = growth.notes().1.bytes;
    for n in 0..2_000 {
        house
            .logs
            .note(ID, Level::Info, &format!("{n} {}", "x".repeat(100)));
    }
    let written = growth.notes().1.bytes - before;
    let heard = ear.heard();
    let Followed::Missed { stream, bytes } = heard[0] else {
        panic!("{:?}", heard[0]);
    };
    assert_eq!(stream, Stream::Hxe);
    assert!(message(&heard[heard.len() - 1]).starts_with("1999 "));
    let kept: u64 = house
        .logs
        .notes
        .read(ID)
        .unwrap()
        .iter()
        .map(|note| note.bytes)
        .sum();
    assert_eq!(bytes + kept, written);
    assert_eq!(heard.len() - 1, house.logs.notes.read(ID).unwrap().len());
}

#[test]
fn lines_of_all_streams_come_in_order_of_time() {
    let house = House::new(EVERYTHING);
    let mut ear = follow(&house, 0, &[]);
    house.run(|stdout, stderr| {
        for n in 0..20 {
            let (file, name) = match n % 2 {
                0 => (&mut *stdout, "stdout.log"),
                _ => (&mut *stderr, "stderr.log"),
            };
            writeln!(file, "{n}").unwrap();
            until(|| {
                fs::read(house.path(name))
                    .is_ok_and(|text| text.ends_with(format!("{n}\n").as_bytes()))
            });
            let then = crate::clock::BootTime::now();
            until(|| crate::clock::BootTime::now().since(then) > Duration::from_millis(5));
        }
    });
    house.logs.note(ID, Level::Info, "end");
    let expected = house.last(99, &[]);
    let heard: Vec<_> = ear.heard().iter().map(entry).cloned().collect();
    assert_eq!(heard.len(), 21);
    assert_eq!(heard, expected);
}

#[test]
fn a_follower_can_be_read_by_another_thread() {
    fn sent<T: Send + 'static>() {}
    sent::<Follower>();
}

/// What a program and its followers do, in this order.
#[derive(Clone, Debug)]
enum Act {
    Write {
        stderr: bool,
        text: Vec<u8>,
    },
    Run,
    Note,
    Follow(usize),
    /// Follows it as one of all programs, from now on.
    Tail,
    Read(usize),
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        6 => "[a-z ]{0,40}\n",
        2 => "[a-zä€😀]{0,20}\r\n",
        1 => "\\[(WARN|ERROR|DEBUG)\\] [a-z]{0,9}\n",
        2 => "[a-zä]{0,30}",
        1 => Just("\n".to_owned()),
        1 => Just("\r".to_owned()),
        2 => (0_usize..40_000, any::<bool>()).prop_map(|(length, wide)| {
            (if wide { "ä€😀" } else { "x" }).repeat(length / if wide { 9 } else { 1 })
        }),
    ];
    let bytes = prop::collection::vec(any::<u8>(), 0..300);
    prop_oneof![
        5 => prop::collection::vec(part, 1..6).prop_map(|parts| parts.concat().into_bytes()),
        1 => bytes,
    ]
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        8 => (any::<bool>(), text()).prop_map(|(stderr, text)| Act::Write { stderr, text }),
        2 => Just(Act::Run),
        1 => Just(Act::Note),
        1 => prop_oneof![Just(0), 0_usize..20, Just(10_000)].prop_map(Act::Follow),
        1 => Just(Act::Tail),
        3 => (0_usize..50).prop_map(Act::Read),
    ];
    prop::collection::vec(act, 1..30)
}

/// Those of a stream, without the times of pieces, which are given before their line is finished.
fn of(stream: Stream, entries: &[Entry]) -> Vec<Entry> {
    let own = entries.iter().filter(|entry| entry.stream == stream);
    own.cloned()
        .map(|mut entry| {
            if entry.message.len() > 16_000 {
                entry.timestamp = crate::clock::Timestamp::default();
            }
            entry
        })
        .collect()
}

/// One who follows, and what he was given.
struct Heard {
    next: Box<dyn FnMut() -> Option<Followed>>,
    /// The first line that was written when he had begun.
    first: String,
    /// He asked for all lines that were there.
    all: bool,
    entries: Vec<Entry>,
}

impl Heard {
    fn read(&mut self, most: usize) {
        let next = std::iter::from_fn(&mut self.next).take(most);
        self.entries
            .extend(next.map(|followed| entry(&followed).clone()));
    }
}

/// One who follows all programs and has to wait now and then.
fn tail(house: &House) -> Box<dyn FnMut() -> Option<Followed>> {
    let mut tails = house.logs.tails(Arc::new(Bell::new().unwrap()));
    tails.choose(|_| true);
    let mut turn = 0;
    Box::new(move || {
        loop {
            turn += 1;
            let hold = turn % 3 == 0;
            match tails.next(|_, _| hold) {
                Some((_, next)) => return Some(next),
                None if hold => {}
                None => return None,
            }
        }
    })
}

proptest! {
    // A quarter of the usual number: each case starts a log thread.
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases / 4,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whenever_a_follower_begins_and_reads_it_is_given_what_a_reader_sees_in_the_end(
        acts in acts(), max_size in prop_oneof![2_000_u64..10_000, 10_000_u64..100_000, Just(1 << 20)]
    ) {
        let house = House::new(Settings { max_size, ..EVERYTHING });
        let mut heard: Vec<Heard> = Vec::new();
        let [mut stdout, mut stderr] = house.logs.begin_run(ID, 0).unwrap().map(File::from);
        for act in acts {
            match act {
                Act::Write { stderr: true, text } => stderr.write_all(&text).unwrap(),
                Act::Write { stderr: false, text } => stdout.write_all(&text).unwrap(),
                Act::Run => {
                    house.logs.end_run(ID);
                    [stdout, stderr] = house.logs.begin_run(ID, 0).unwrap().map(File::from);
                }
                Act::Note => house.logs.note(ID, Level::Info, "a note"),
                Act::Follow(_) | Act::Tail => {
                    let next: Box<dyn FnMut() -> Option<Followed>> = match act {
                        Act::Follow(lines) => {
                            let mut ear = follow(&house, lines, &[]);
                            Box::new(move || ear.follower.next().unwrap())
                        }
                        _ => tail(&house),
                    };
                    // What is written after this, the follower has to be given.
                    let first = format!("first {}", heard.len());
                    write!(stdout, "\n{first}\n").unwrap();
                    let all = matches!(act, Act::Follow(10_000));
                    heard.push(Heard { next, first, all, entries: Vec::new() });
                }
                Act::Read(most) => heard.iter_mut().for_each(|heard| heard.read(most)),
            }
        }
        house.logs.end_run(ID);
        let all = house.last(10_000, &[]);
        for heard in &mut heard {
            heard.read(usize::MAX);
            let is_first = |entry: &Entry| entry.message == heard.first;
            prop_assert_eq!(heard.entries.iter().filter(|entry| is_first(entry)).count(), 1);
            for stream in [Stream::Stdout, Stream::Stderr, Stream::Hxe] {
                let (all, entries) = (of(stream, &all), of(stream, &heard.entries));
                let before = all.len().saturating_sub(entries.len());
                prop_assert!(before == 0 || !heard.all);
                prop_assert_eq!(&entries[..], &all[before..]);
            }
        }
    }
}
