//! The logs as a whole: programs that write into FIFOs, the log thread, files on disk, and what is read from them.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::*;
use crate::clock::BootTime;
use crate::guardian::Link;
use crate::sys::directory::Directory;

pub const ID: ProgramId = ProgramId(1);
pub const EVERYTHING: Settings = Settings {
    max_size: 1 << 20,
    max_files: 1000,
    pipe_size: 64 * 1024,
    on_full: OnFull::Drop,
    disk: LogDisk::All,
    ring_size: 64 * 1024,
};

pub fn open_path(path: &Path) -> io::Result<OwnedFd> {
    File::open(path).map(OwnedFd::from)
}

/// Logs in directories of their own.
pub struct House {
    pub temp: tempfile::TempDir,
    pub logs: Logs,
}

impl House {
    pub fn new(settings: Settings) -> House {
        House::furnish(House::ground(), settings)
    }

    /// One whose logs are on a small file system, where we may mount one.
    pub fn on_small_disk(settings: Settings) -> Option<(House, SmallDisk)> {
        let temp = House::ground();
        let disk = SmallDisk::mount(temp.path().join("log"))?;
        Some((House::furnish(temp, settings), disk))
    }

    pub fn ground() -> tempfile::TempDir {
        let temp = tempfile::tempdir().unwrap();
        for dir in ["log", "run"] {
            fs::create_dir(temp.path().join(dir)).unwrap();
        }
        temp
    }

    pub fn furnish(temp: tempfile::TempDir, settings: Settings) -> House {
        let logs = House::start(temp.path(), settings);
        logs.add(ID, None).unwrap();
        House { temp, logs }
    }

    pub fn start(path: &Path, settings: Settings) -> Logs {
        let dir = |name| Arc::new(Directory::at(&path.join(name)));
        Logs::start(
            dir("log"),
            dir("run"),
            settings,
            Arc::new(Link::none()),
            BTreeMap::new(),
        )
        .unwrap()
    }

    /// Runs `program` with its stdout and stderr, as a process would.
    pub fn run(&self, program: impl FnOnce(&mut File, &mut File)) {
        let [stdout, stderr] = self.logs.begin_run(ID, 0).unwrap();
        program(&mut stdout.into(), &mut stderr.into());
        self.logs.end_run(ID);
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join("log/program-1").join(name)
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    pub fn fifo(&self, stream: Stream) -> PathBuf {
        self.temp.path().join("run/program-1").join(stream.as_str())
    }

    /// All that was written to stdout, from the oldest file to the current one.
    pub fn all_of_stdout(&self) -> Vec<Vec<u8>> {
        let mut files = vec![self.read("stdout.log")];
        let mut number = 1;
        while let Ok(bytes) = fs::read(self.path(&format!("stdout.log.{number}"))) {
            files.push(bytes);
            number += 1;
        }
        files.reverse();
        files
    }

    pub fn last(&self, lines: usize, levels: &[Level]) -> Vec<Entry> {
        let query = Query {
            lines,
            levels: levels.to_vec(),
        };
        let last = self.logs.last(ID, &query).unwrap();
        last.collect::<io::Result<_>>().unwrap()
    }

    pub fn messages(&self, lines: usize) -> Vec<String> {
        let entries = self.last(lines, &[]).into_iter();
        entries.map(|entry| entry.message).collect()
    }
}

/// Longest wait for anything that should happen, on a machine that is busy with other things.
const LONG: Duration = Duration::from_secs(30);

pub fn until(what: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !what() {
        assert!(Instant::now() < deadline, "waited too long");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Bytes that look random, with newlines among them.
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

#[test]
fn fifty_megabytes_of_binary_come_through_rotation_byte_for_byte() {
    let house = House::new(EVERYTHING);
    let bytes = noise(50_000_000);
    house.run(|stdout, _| {
        for piece in bytes.chunks(70_001) {
            stdout.write_all(piece).unwrap();
        }
    });
    let files = house.all_of_stdout();
    assert!(files.len() > 45);
    for file in &files[..files.len() - 1] {
        assert!(file.len() <= 1 << 20 && file.ends_with(b"\n"));
    }
    assert!(files.concat() == bytes);
}

#[test]
fn rotated_files_end_with_whole_lines_and_are_nearly_full() {
    let house = House::new(Settings {
        max_size: 100_000,
        ..EVERYTHING
    });
    house.run(|stdout, _| {
        for n in 0..20_000 {
            writeln!(stdout, "line {n} {}", "x".repeat(n % 90)).unwrap();
        }
    });
    let files = house.all_of_stdout();
    for file in &files[..files.len() - 1] {
        // A line that has begun when the file is full ends there.
        let longest_line = 101;
        assert!((99_000..100_000 + longest_line).contains(&file.len()) && file.ends_with(b"\n"));
    }
    let text = String::from_utf8(files.concat()).unwrap();
    assert_eq!(text.lines().count(), 20_000);
    let last = house.messages(10_000);
    let expected: Vec<_> = text.lines().skip(10_000).collect();
    assert_eq!(last, expected);
}

#[test]
fn a_line_without_end_is_cut_and_nothing_of_it_is_lost() {
    let house = House::new(Settings {
        max_size: 100_000,
        ..EVERYTHING
    });
    let bytes = vec![b'x'; 1_000_000];
    house.run(|stdout, _| stdout.write_all(&bytes).unwrap());
    let files = house.all_of_stdout();
    assert!(files.len() > 8 && files.iter().all(|file| file.len() <= 120_000));
    assert!(files.concat() == bytes);
    assert_eq!(house.messages(10_000).concat().len(), bytes.len());
}

#[test]
fn only_as_many_rotated_files_are_kept_as_wanted_and_fewer_when_that_changes() {
    let settings = Settings {
        max_size: 10_000,
        max_files: 3,
        ..EVERYTHING
    };
    let house = House::new(settings.clone());
    let text = "0123456789abcde\n".repeat(10_000);
    house.run(|stdout, _| stdout.write_all(text.as_bytes()).unwrap());
    assert_eq!(house.all_of_stdout().len(), 4);
    house.logs.set(Settings {
        max_files: 1,
        ..settings
    });
    house.logs.end_run(ID);
    assert_eq!(house.all_of_stdout().len(), 2);
    let indexes = fs::read_dir(house.path("")).unwrap().filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().ends_with(".idx")
    });
    assert_eq!(indexes.count(), 2);
}

#[test]
fn streams_are_merged_in_order_of_time() {
    let house = House::new(EVERYTHING);
    house.logs.note(ID, Level::Info, "begin");
    house.run(|stdout, stderr| {
        for n in 0..20 {
            let (to, name): (&mut File, _) = match n % 2 {
                0 => (stdout, "stdout.log"),
                _ => (stderr, "stderr.log"),
            };
            writeln!(to, "{n}").unwrap();
            until(|| {
                fs::read(house.path(name))
                    .is_ok_and(|text| text.ends_with(format!("{n}\n").as_bytes()))
            });
            // Times are kept in tenths of a millisecond, and one record a millisecond.
            let then = BootTime::now();
            until(|| BootTime::now().since(then) > Duration::from_millis(5));
        }
    });
    house.logs.note(ID, Level::Warn, "end");
    let entries = house.last(100, &[]);
    let messages: Vec<_> = entries.iter().map(|entry| entry.message.as_str()).collect();
    let numbers: Vec<_> = (0..20).map(|n| n.to_string()).collect();
    assert_eq!(messages[0], "begin");
    assert_eq!(messages[1..21], numbers);
    assert_eq!(messages[21], "end");
    assert!(entries.is_sorted_by_key(|entry| entry.timestamp));
    assert_eq!(entries[1].stream, Stream::Stdout);
    assert_eq!(entries[2].stream, Stream::Stderr);
    let age = Timestamp::now().as_micros() - entries[20].timestamp.as_micros();
    assert!((0..60_000_000).contains(&age), "{age}");
}

#[test]
fn levels_are_filtered_before_lines_are_counted() {
    let house = House::new(EVERYTHING);
    house.run(|stdout, stderr| {
        for n in 0..1000 {
            writeln!(stdout, "[WARN] {n}").unwrap();
            writeln!(stdout, "plain {n}").unwrap();
        }
        writeln!(stderr, "bad").unwrap();
    });
    let warnings = house.last(2, &[Level::Warn]);
    let messages: Vec<_> = warnings.iter().map(|e| e.message.as_str()).collect();
    assert_eq!(messages, ["[WARN] 998", "[WARN] 999"]);
    assert_eq!(house.last(9, &[Level::Error])[0].message, "bad");
    assert_eq!(house.last(5000, &[Level::Warn, Level::Error]).len(), 1001);
    assert!(house.last(5, &[Level::Debug]).is_empty());
    assert!(house.last(0, &[]).is_empty());
}

#[test]
fn last_words_without_a_newline_are_a_line_and_not_joined_to_the_next_run() {
    let house = House::new(EVERYTHING);
    for run in 0..3 {
        house.run(|stdout, _| {
            write!(stdout, "first {run}\nlast words {run}").unwrap();
        });
    }
    assert_eq!(
        house.messages(99),
        [
            "first 0",
            "last words 0",
            "first 1",
            "last words 1",
            "first 2",
            "last words 2"
        ]
    );
    assert_eq!(
        house.read("stdout.log").len(),
        3 * "first 0\nlast words 0".len()
    );
}

#[test]
fn a_line_that_is_not_finished_is_not_shown_while_its_run_goes_on() {
    let house = House::new(EVERYTHING);
    house.run(|stdout, _| {
        write!(stdout, "one\ntw").unwrap();
        until(|| fs::read(house.path("stdout.log")).is_ok_and(|text| text.len() == 6));
        assert_eq!(house.messages(9), ["one"]);
        writeln!(stdout, "o").unwrap();
    });
    assert_eq!(house.messages(9), ["one", "two"]);
}

#[test]
fn runs_that_write_nothing_cost_no_byte_on_disk() {
    let house = House::new(EVERYTHING);
    house.run(|stdout, stderr| {
        writeln!(stdout, "x").unwrap();
        write!(stderr, "no end").unwrap();
    });
    let size = || -> u64 {
        fs::read_dir(house.path(""))
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum()
    };
    let before = size();
    for _ in 0..10 {
        house.run(|_, _| {});
    }
    assert_eq!(size(), before);
}

#[test]
fn bytes_that_waited_while_no_daemon_ran_are_saved_by_the_next() {
    let mut house = House::new(EVERYTHING);
    let [stdout, _stderr] = house.logs.begin_run(ID, 0).unwrap();
    let mut stdout = File::from(stdout);
    writeln!(stdout, "before").unwrap();
    let settings = EVERYTHING;
    // The old thread is gone before the new one begins.
    let path = house.temp.path().to_owned();
    house.logs.end_run(ID);
    let fresh = || House::start(&path, settings.clone());
    drop(std::mem::replace(&mut house.logs, fresh()));
    writeln!(stdout, "meanwhile").unwrap();
    house.logs.add(ID, None).unwrap();
    writeln!(stdout, "after").unwrap();
    house.logs.end_run(ID);
    assert_eq!(house.messages(9), ["before", "meanwhile", "after"]);
}

#[test]
fn a_file_that_a_user_truncates_goes_on_at_its_end() {
    let house = House::new(EVERYTHING);
    house.run(|stdout, _| {
        writeln!(stdout, "gone").unwrap();
        until(|| fs::read(house.path("stdout.log")).is_ok_and(|text| text == b"gone\n"));
        File::create(house.path("stdout.log")).unwrap();
        writeln!(stdout, "kept").unwrap();
    });
    house.run(|stdout, _| writeln!(stdout, "kept, too").unwrap());
    assert_eq!(house.read("stdout.log"), b"kept\nkept, too\n");
    assert_eq!(house.messages(9), ["kept", "kept, too"]);
}

#[test]
fn a_file_that_a_user_moves_away_is_made_anew() {
    let house = House::new(EVERYTHING);
    house.run(|stdout, _| writeln!(stdout, "one").unwrap());
    fs::rename(house.path("stdout.log"), house.path("moved")).unwrap();
    house.run(|stdout, _| writeln!(stdout, "two").unwrap());
    fs::remove_file(house.path("stdout.log")).unwrap();
    house.run(|stdout, _| writeln!(stdout, "three").unwrap());
    fs::remove_dir_all(house.path("")).unwrap();
    house.run(|stdout, _| writeln!(stdout, "four").unwrap());
    assert_eq!(house.messages(9), ["four"]);
}

#[test]
fn planted_links_are_replaced_and_never_followed() {
    let house = House::new(EVERYTHING);
    let victim = house.temp.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    symlink(&victim, house.path("stdout.log")).unwrap();
    fs::remove_file(house.fifo(Stream::Stdout)).unwrap();
    symlink(&victim, house.fifo(Stream::Stdout)).unwrap();
    house.run(|stdout, _| writeln!(stdout, "x").unwrap());
    assert_eq!(fs::read(&victim).unwrap(), b"precious");
    assert_eq!(house.read("stdout.log"), b"x\n");
    assert!(
        house
            .fifo(Stream::Stdout)
            .symlink_metadata()
            .unwrap()
            .file_type()
            .is_fifo()
    );
}

#[test]
fn files_have_the_modes_of_the_contract() {
    let house = House::new(EVERYTHING);
    house.run(|stdout, _| writeln!(stdout, "x").unwrap());
    let mode = |path: PathBuf| path.symlink_metadata().unwrap().mode() & 0o7777;
    assert_eq!(mode(house.path("stdout.log")), 0o640);
    assert_eq!(mode(house.path("")), 0o750);
    assert_eq!(mode(house.temp.path().join("run/program-1")), 0o711);
    assert_eq!(mode(house.fifo(Stream::Stderr)), 0o620);
}

#[test]
fn removal_leaves_nothing_and_a_reader_keeps_what_it_has() {
    let house = House::new(EVERYTHING);
    house.run(|stdout, _| writeln!(stdout, "x").unwrap());
    let query = Query {
        lines: 9,
        levels: Vec::new(),
    };
    let mut last = house.logs.last(ID, &query).unwrap();
    house.logs.remove(ID).unwrap();
    house.logs.remove(ID).unwrap();
    assert!(!house.path("").exists() && !house.fifo(Stream::Stdout).exists());
    assert_eq!(last.next().unwrap().unwrap().message, "x");
    assert!(house.messages(9).is_empty());
}

#[test]
fn without_or_with_a_damaged_index_all_lines_are_there() {
    let house = House::new(EVERYTHING);
    house.run(|stdout, _| write!(stdout, "one\ntwo\nthree\n").unwrap());
    let index = fs::read_dir(house.path(""))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|e| e == "idx"))
        .unwrap();
    for content in [&noise(5000)[..], &[0; 9000], b"x"] {
        fs::write(&index, content).unwrap();
        assert_eq!(house.messages(9), ["one", "two", "three"]);
        house.run(|stdout, _| write!(stdout, "more").unwrap());
        assert_eq!(house.messages(1), ["more"]);
        File::options()
            .write(true)
            .open(house.path("stdout.log"))
            .unwrap()
            .set_len(14)
            .unwrap();
    }
    fs::remove_file(index).unwrap();
    assert_eq!(house.messages(9), ["one", "two", "three"]);
}

#[test]
fn a_reader_sees_every_line_once_while_rotation_goes_on() {
    let house = House::new(Settings {
        max_size: 20_000,
        max_files: 50,
        ..EVERYTHING
    });
    house.run(|stdout, _| {
        std::thread::scope(|scope| {
            let writer = scope.spawn(move || {
                for n in 0..60_000 {
                    writeln!(stdout, "{n}").unwrap();
                }
            });
            while !writer.is_finished() {
                let numbers: Vec<u32> = house
                    .messages(5000)
                    .iter()
                    .map(|m| m.parse().unwrap())
                    .collect();
                assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]));
            }
        });
    });
    assert_eq!(house.messages(1), ["59999"]);
}

#[test]
fn a_process_that_writes_for_ever_does_not_hold_up_the_end_of_a_run() {
    let house = House::new(Settings {
        max_size: 1 << 20,
        max_files: 0,
        ..EVERYTHING
    });
    let [stdout, _stderr] = house.logs.begin_run(ID, 0).unwrap();
    let mut child = Command::new("yes").stdout(stdout).spawn().unwrap();
    until(|| fs::metadata(house.path("stdout.log")).is_ok_and(|meta| meta.len() > 0));
    let begun = Instant::now();
    for _ in 0..3 {
        house.logs.end_run(ID);
    }
    let took = begun.elapsed();
    let still_writes = child.try_wait().unwrap().is_none();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(still_writes);
    assert!(took < LONG, "{took:?}");
}

#[test]
fn each_line_can_be_read_while_its_run_goes_on() {
    let house = House::new(EVERYTHING);
    house.run(|stdout, _| {
        for n in 0..20 {
            writeln!(stdout, "{n}").unwrap();
            until(|| house.messages(1) == [n.to_string()]);
        }
    });
}

/// A small file system on `path`, where we may mount one.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: PathBuf) -> Option<SmallDisk> {
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k,mode=755", "tmpfs"])
            .arg(&path)
            .output();
        let mounted = mount.is_ok_and(|output| output.status.success());
        if !mounted {
            println!("skipped: no file system can be mounted here");
        }
        mounted.then_some(SmallDisk(path))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn with_a_full_disk_output_is_dropped_counted_and_said() {
    let Some((house, _disk)) = House::on_small_disk(EVERYTHING) else {
        return;
    };
    let line = format!("{}\n", "x".repeat(99));
    house.run(|stdout, _| {
        for _ in 0..5000 {
            stdout.write_all(line.as_bytes()).unwrap();
        }
    });
    let kept = house.read("stdout.log").len();
    assert!(kept > 100_000 && kept < 256 * 1024);
    let said = house.last(1, &[Level::Warn]);
    let text = format!("dropped {} bytes of stdout: ", 500_000 - kept);
    assert!(said[0].message.starts_with(&text), "{:?} {text}", said[0]);
    File::create(house.path("stdout.log")).unwrap();
    house.run(|stdout, _| writeln!(stdout, "again").unwrap());
    assert_eq!(house.read("stdout.log"), b"again\n");
}

#[test]
fn with_a_full_disk_and_block_output_waits_and_nothing_is_lost() {
    let settings = Settings {
        on_full: OnFull::Block,
        ..EVERYTHING
    };
    let Some((house, disk)) = House::on_small_disk(settings) else {
        return;
    };
    let filler = disk.0.join("filler");
    fs::write(&filler, vec![0; 200 * 1024]).unwrap();
    let [stdout, _stderr] = house.logs.begin_run(ID, 0).unwrap();
    let mut stdout = File::from(stdout);
    let bytes = noise(100_000);
    stdout.write_all(&bytes).unwrap();
    // Returns though nothing can be moved.
    house.logs.end_run(ID);
    fs::remove_file(&filler).unwrap();
    until(|| house.read("stdout.log").len() == bytes.len());
    assert!(house.read("stdout.log") == bytes);
}

#[test]
fn a_kill_at_any_moment_loses_and_doubles_nothing() {
    // The log thread runs in a child, which is this test binary again, and is killed again and again.
    if let Some(path) = std::env::var_os("HXE_TEST_PUMP") {
        let settings = Settings {
            max_size: 200_000,
            ..EVERYTHING
        };
        let logs = House::start(Path::new(&path), settings);
        logs.add(ID, None).unwrap();
        // Until it is killed, or the test that started it is gone.
        io::stdin().read_to_end(&mut Vec::new()).unwrap();
        return;
    }
    let house = House::new(Settings {
        max_size: 200_000,
        ..EVERYTHING
    });
    let [stdout, _stderr] = house.logs.begin_run(ID, 0).unwrap();
    let path = house.temp.path().to_owned();
    let House { temp, logs } = house;
    drop(logs);
    let writer = std::thread::spawn(move || {
        let mut stdout = File::from(stdout);
        for n in 0..400_000 {
            writeln!(stdout, "{n}").unwrap();
        }
        stdout
    });
    let mut kills = 0;
    while !writer.is_finished() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "logs::tests::a_kill_at_any_moment_loses_and_doubles_nothing",
            ])
            .env("HXE_TEST_PUMP", &path)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let before = size_of(&path.join("log"));
        until(|| {
            writer.is_finished() || size_of(&path.join("log")) > before + 50_000 + kills * 1_000
        });
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }
    let mut stdout = writer.join().unwrap();
    let logs = House::start(&path, EVERYTHING);
    logs.add(ID, None).unwrap();
    stdout.flush().unwrap();
    logs.end_run(ID);
    let house = House { temp, logs };
    let text = String::from_utf8(house.all_of_stdout().concat()).unwrap();
    let expected: String = (0..400_000).map(|n| format!("{n}\n")).collect();
    assert!(text == expected, "after {kills} kills");
    assert!(kills > 1, "{kills}");
}

/// Bytes of all log files below `path`, those included that were rotated just now.
fn size_of(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path.join("program-1")) else {
        return 0;
    };
    entries
        .filter_map(|entry| entry.ok()?.metadata().ok())
        .map(|meta| meta.len())
        .sum()
}

#[test]
fn notes_alone_are_a_log() {
    let house = House::new(EVERYTHING);
    house
        .logs
        .note(ID, Level::Info, "Program started successfully");
    let entries = house.last(9, &[]);
    assert_eq!(entries.len(), 1);
    assert_eq!(
        (entries[0].stream, entries[0].level),
        (Stream::Hxe, Level::Info)
    );
    let mut text = String::new();
    File::open(house.temp.path().join("run/program-1/hxe.log"))
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert!(text.ends_with(" info Program started successfully\n"));
}
