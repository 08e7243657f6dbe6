//! Tests of the store on real files: what is kept, what is refused, damage, a full disk.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use redb::StorageBackend;
use redb::backends::FileBackend;
use tempfile::TempDir;

use super::*;
use crate::clock::{BootTime, Timestamp};
use crate::program::{Definition, Program};

/// What a state_dir holds.
const FILES: [&str; 1] = ["hxe.redb"];

fn dir() -> TempDir {
    tempfile::tempdir().expect("the temporary directory can be written")
}

fn open(dir: &TempDir) -> Store {
    Store::open(dir.path()).expect("an intact store opens")
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

fn add(store: &Store, name: &str) -> Program {
    store
        .create(Definition::new(name, "/bin/true"), at(1))
        .expect("there is room")
}

fn names(store: &Store) -> Vec<String> {
    let programs = store.programs().expect("the store can be read");
    programs.into_iter().map(|p| p.definition.name).collect()
}

fn files(dir: &TempDir) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Writes a record past the store's own shapes.
fn put_raw(store: &Store, id: u32, bytes: &[u8]) {
    store
        .write(|transaction| {
            transaction.open_table(PROGRAMS)?.insert(id, bytes)?;
            Ok(())
        })
        .unwrap();
}

#[test]
fn all_is_there_after_a_restart() {
    let dir = dir();
    let store = open(&dir);
    let first = add(&store, "a");
    let second = add(&store, "b");
    let second = store
        .update(second.id, Definition::new("c", "/bin/false"), at(2))
        .unwrap();
    assert_eq!((second.created_at, second.updated_at), (at(1), at(2)));
    drop(store);
    assert_eq!(open(&dir).programs().unwrap(), [first, second]);
    assert_eq!(files(&dir), FILES);
}

#[test]
fn the_file_is_for_its_owner_only() {
    let dir = dir();
    drop(open(&dir));
    let mode = fs::metadata(dir.path().join("hxe.redb"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o600);
}

#[test]
fn an_id_is_never_used_again() {
    let dir = dir();
    let store = open(&dir);
    add(&store, "a");
    let last = add(&store, "b");
    store.delete(last.id).unwrap();
    drop(store);
    let store = open(&dir);
    assert_eq!(add(&store, "b").id, ProgramId(3));
}

#[test]
fn a_lost_counter_does_not_bring_an_id_back() {
    let dir = dir();
    let store = open(&dir);
    add(&store, "a");
    add(&store, "b");
    store
        .write(|transaction| {
            transaction.open_table(META)?.retain(|_, _| false)?;
            Ok(())
        })
        .unwrap();
    assert_eq!(add(&store, "c").id, ProgramId(3));
}

#[test]
fn the_last_id_of_all_is_an_error_and_no_panic() {
    let dir = dir();
    let store = open(&dir);
    put_raw(&store, u32::MAX, b"{}");
    let refused = store.create(Definition::new("a", "b"), at(1));
    assert!(matches!(refused, Err(Error::Database(_))));
}

#[test]
fn a_name_is_taken_once() {
    let dir = dir();
    let store = open(&dir);
    let a = add(&store, "a");
    let b = add(&store, "b");
    for refused in [
        store.create(Definition::new("a", "x"), at(2)),
        store.update(b.id, Definition::new("a", "x"), at(2)),
    ] {
        assert!(matches!(refused, Err(Error::NameTaken { name, .. }) if name == "a"));
    }
    store
        .update(a.id, Definition::new("a", "x"), at(2))
        .expect("its own name is free for it");
    assert_eq!(names(&store), ["a", "b"]);
    assert_eq!(add(&store, "c").id, ProgramId(3), "a refusal takes no id");
}

#[test]
fn what_is_not_there_is_not_found() {
    let dir = dir();
    let store = open(&dir);
    let a = add(&store, "a");
    store.delete(a.id).unwrap();
    assert!(matches!(store.delete(a.id), Err(Error::NotFound { id }) if id == a.id));
    let refused = store.update(a.id, Definition::new("b", "x"), at(2));
    assert!(matches!(refused, Err(Error::NotFound { id }) if id == a.id));
}

#[test]
fn a_record_of_another_version_is_passed_over_and_kept() {
    let dir = dir();
    let store = open(&dir);
    let strange = br#"{"v":9,"name":"future"}"#;
    put_raw(&store, 5, strange);
    put_raw(&store, 6, b"\xff\0");
    add(&store, "a");
    assert_eq!(names(&store), ["a"]);
    for id in [ProgramId(5), ProgramId(6)] {
        assert!(matches!(store.delete(id), Err(Error::NotFound { .. })));
    }
    let refused = store.create(Definition::new("future", "x"), at(1));
    assert!(matches!(refused, Err(Error::NameTaken { .. })));
    drop(store);
    let kept = open(&dir)
        .read(|transaction| {
            let table = transaction.open_table(PROGRAMS)?;
            Ok(table.get(5)?.map(|value| value.value().to_vec()))
        })
        .unwrap();
    assert_eq!(kept.as_deref(), Some(strange.as_slice()));
}

#[test]
fn the_secret_stays_until_the_credentials_change() {
    let dir = dir();
    let store = open(&dir);
    assert_eq!(store.known_token_secret(b"admin:password").unwrap(), None);
    let secret = store.token_secret(b"admin:password").unwrap();
    let known = store.known_token_secret(b"admin:password").unwrap();
    assert_eq!(known, Some(secret));
    store.revoke(token("t", 60)).unwrap();
    drop(store);

    let store = open(&dir);
    assert_eq!(store.token_secret(b"admin:password").unwrap(), secret);
    assert_eq!(store.revoked().unwrap().len(), 1);
    let renewed = store.token_secret(b"admin:other").unwrap();
    assert_ne!(renewed, secret);
    assert!(store.revoked().unwrap().is_empty());
    assert_ne!(store.token_secret(b"admin:password").unwrap(), secret);
}

#[test]
fn other_credentials_end_the_secret_and_its_tokens_for_good() {
    let dir = dir();
    let store = open(&dir);
    store.end_other_tokens(b"admin:password").unwrap();
    let secret = store.token_secret(b"admin:password").unwrap();
    store.revoke(token("t", 60)).unwrap();
    store.end_other_tokens(b"admin:password").unwrap();
    let known = store.known_token_secret(b"admin:password").unwrap();
    assert_eq!(known, Some(secret));
    assert_eq!(store.revoked().unwrap().len(), 1);

    store.end_other_tokens(b"admin:other").unwrap();
    assert_eq!(store.known_token_secret(b"admin:password").unwrap(), None);
    assert!(store.revoked().unwrap().is_empty());
}

#[test]
fn the_password_is_not_in_the_file() {
    let dir = dir();
    let store = open(&dir);
    store.token_secret(b"admin:s3cr3t-pa55word").unwrap();
    drop(store);
    let bytes = fs::read(dir.path().join("hxe.redb")).unwrap();
    assert!(!bytes.windows(15).any(|part| part == b"s3cr3t-pa55word"));
}

/// A token of this boot that is good for so many seconds.
fn token(jti: &str, seconds: u64) -> Revoked {
    let span = std::time::Duration::from_secs(seconds);
    Revoked {
        jti: jti.to_owned(),
        exp: (Timestamp::now() + span).as_secs(),
        boot_id: crate::clock::boot_id().to_owned(),
        boot_end: BootTime::now() + span,
    }
}

#[test]
fn a_logout_is_kept_for_as_long_as_its_token_would_be_good() {
    let dir = dir();
    let store = open(&dir);
    let long = token("long", 3600);
    store.revoke(token("over", 0)).unwrap();
    store.revoke(long.clone()).unwrap();
    store.revoke(long.clone()).unwrap();
    drop(store);
    assert_eq!(open(&dir).revoked().unwrap(), [long]);
}

#[test]
fn a_store_in_use_is_not_damaged() {
    let dir = dir();
    let store = open(&dir);
    add(&store, "a");
    assert!(matches!(Store::open(dir.path()), Err(Error::Locked)));
    assert_eq!(names(&store), ["a"]);
    assert_eq!(files(&dir), FILES);
}

#[track_caller]
fn check_refused(make: impl FnOnce(&Path)) {
    let dir = dir();
    make(&dir.path().join("hxe.redb"));
    let refused = Store::open(dir.path());
    assert!(matches!(refused, Err(Error::Refused { .. })));
    assert_eq!(files(&dir), ["hxe.redb"]);
}

#[test]
fn what_is_no_file_of_ours_is_refused_and_left_alone() {
    let elsewhere = dir();
    drop(open(&elsewhere));
    let target = elsewhere.path().join("hxe.redb");
    check_refused(|path| symlink(&target, path).unwrap());
    check_refused(|path| symlink("nowhere", path).unwrap());
    check_refused(|path| fs::create_dir(path).unwrap());
    check_refused(|path| {
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, path, mode).unwrap();
    });
    add(&open(&elsewhere), "still there");
}

#[test]
fn a_link_in_place_of_the_new_file_is_not_followed() {
    let (dir, elsewhere) = (dir(), dir());
    let target = elsewhere.path().join("target");
    fs::write(&target, "precious").unwrap();
    symlink(&target, dir.path().join("hxe.redb.new")).unwrap();
    add(&open(&dir), "a");
    assert_eq!(fs::read(&target).unwrap(), b"precious");
    assert_eq!(files(&dir), FILES);
}

#[test]
fn an_unfinished_new_file_is_begun_again() {
    let dir = dir();
    fs::write(dir.path().join("hxe.redb.new"), "half").unwrap();
    add(&open(&dir), "a");
    assert_eq!(files(&dir), FILES);
}

#[test]
fn a_missing_directory_is_an_error_of_the_disk() {
    let dir = dir();
    let missing = dir.path().join("missing");
    assert!(matches!(Store::open(&missing), Err(Error::Disk(_))));
}

/// A small generator of numbers that look random, the same in each run. Source: Marsaglia, xorshift32.
struct Numbers(u32);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 as usize % end
    }
}

/// Damages the file in one of the ways that disks and people do.
fn damage(bytes: &mut Vec<u8>, numbers: &mut Numbers) {
    match numbers.below(4) {
        0 => bytes.truncate(numbers.below(bytes.len())),
        1 => {
            let page = numbers.below(bytes.len() / 4096 + 1) * 4096;
            let end = bytes.len().min(page + 4096);
            bytes[page.min(end)..end].fill(0);
        }
        2 => {
            // Most of what matters most is in the first bytes.
            let at = numbers.below(512.min(bytes.len()));
            bytes[at] ^= 1 << numbers.below(8);
        }
        _ => {
            for _ in 0..=numbers.below(64) {
                let at = numbers.below(bytes.len());
                bytes[at] = numbers.below(256) as u8;
            }
        }
    }
}

#[test]
fn a_damaged_file_never_keeps_the_store_from_opening() {
    // In memory where there is such a place, as it waits for the disk a thousand times.
    let dir = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| dir());
    let store = open(&dir);
    for number in 0..40 {
        add(&store, &format!("{number:_>100}"));
    }
    let all = names(&store);
    let path = dir.path().join("hxe.redb");
    let running = fs::read(&path).unwrap();
    drop(store);
    let closed = fs::read(&path).unwrap();

    let mut numbers = Numbers(2_463_534_242);
    let mut moved = 0;
    for round in 0..200 {
        let mut bytes = if round % 2 == 0 {
            running.clone()
        } else {
            closed.clone()
        };
        damage(&mut bytes, &mut numbers);
        fs::write(&path, &bytes).unwrap();

        let store = Store::open(dir.path()).unwrap_or_else(|e| panic!("round {round}: {e:?}"));
        // What is left is what was there, or nothing; never something else.
        let left = names(&store);
        assert!(all.starts_with(&left), "round {round}: {left:?}");
        add(&store, "new");
        drop(store);
        assert_eq!(names(&open(&dir)).last().unwrap(), "new", "round {round}");

        for name in files(&dir)
            .iter()
            .filter(|name| !FILES.contains(&name.as_str()))
        {
            assert!(
                name.starts_with("hxe.redb.corrupt-"),
                "round {round}: {name}"
            );
            assert_eq!(fs::read(dir.path().join(name)).unwrap().len(), bytes.len());
            fs::remove_file(dir.path().join(name)).unwrap();
            moved += 1;
        }
    }
    assert!(moved > 50, "only {moved} files were found damaged");
}

/// A file on a disk that can be full, and the bytes that were written to it.
#[derive(Debug)]
struct Disk {
    file: FileBackend,
    full: Arc<AtomicBool>,
    written: Arc<AtomicUsize>,
}

impl Disk {
    fn room(&self) -> io::Result<()> {
        if self.full.load(Ordering::Relaxed) {
            return Err(rustix::io::Errno::NOSPC.into());
        }
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.room()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.room()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.room()?;
        // The header is less than a page, and alone on it.
        self.written
            .fetch_add(data.len().next_multiple_of(4096), Ordering::Relaxed);
        self.file.write(offset, data)
    }
}

/// A store with one program, "a", whose disk is full once the switch is set.
fn on_a_disk_that_can_be_full(dir: &TempDir) -> (Store, Arc<AtomicBool>) {
    let (store, full, _) = on_a_disk(dir);
    (store, full)
}

/// The same, with the number of bytes that were written.
fn on_a_disk(dir: &TempDir) -> (Store, Arc<AtomicBool>, Arc<AtomicUsize>) {
    let store = open(dir);
    add(&store, "a");
    drop(store.open.lock().unwrap().take());
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(dir.path().join("hxe.redb"))
        .unwrap();
    let kept = file.try_clone().unwrap();
    let full = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicUsize::new(0));
    let disk = Disk {
        file: FileBackend::new(file).unwrap(),
        full: full.clone(),
        written: written.clone(),
    };
    let database = redb::Builder::new().create_with_backend(disk).unwrap();
    *store.open.lock().unwrap() = Some(file::Open::of(database, kept).unwrap());
    (store, full, written)
}

#[test]
fn a_change_writes_six_pages_and_the_file_stays_small() {
    let dir = dir();
    let (store, _, written) = on_a_disk(&dir);
    let cost = |change: &dyn Fn()| {
        let before = written.load(Ordering::Relaxed);
        change();
        written.load(Ordering::Relaxed) - before
    };
    for number in 0..30 {
        let name = format!("program with a long name {number}");
        let cost = cost(&|| drop(add(&store, &name)));
        // One more where a page is split.
        assert!(cost <= 7 * 4096, "{cost} bytes for program {number}");
    }
    let size = || fs::metadata(dir.path().join("hxe.redb")).unwrap().len();
    let before = size();
    for number in 0..200 {
        let definition = Definition::new(format!("name {number}"), "/bin/true");
        let update = || drop(store.update(ProgramId(15), definition.clone(), at(number)));
        let cost = cost(&update);
        assert!(cost <= 6 * 4096, "{cost} bytes for change {number}");
    }
    assert_eq!(size(), before);
    let cost = cost(&|| store.delete(ProgramId(15)).unwrap());
    assert!(cost <= 6 * 4096, "{cost} bytes for a deletion");
}

#[test]
fn a_counter_that_an_earlier_hxe_wrote_holds() {
    let dir = dir();
    let store = open(&dir);
    store
        .write(|transaction| {
            let mut meta = transaction.open_table(META)?;
            meta.insert(programs::NEXT_ID, 9_u32.to_le_bytes().as_slice())?;
            Ok(())
        })
        .unwrap();
    assert_eq!(add(&store, "a").id, ProgramId(9));
    let last = add(&store, "b");
    assert_eq!(last.id, ProgramId(10));
    store.forget(&[ProgramId(9), last.id]).unwrap();
    assert_eq!(add(&store, "c").id, ProgramId(11));
}

#[test]
fn after_a_full_disk_the_store_works_again() {
    let dir = dir();
    let (store, full) = on_a_disk_that_can_be_full(&dir);
    full.store(true, Ordering::Relaxed);
    let refused = store.create(Definition::new("b", "x"), at(1));
    assert!(
        matches!(&refused, Err(Error::Disk(cause)) if cause.kind() == io::ErrorKind::StorageFull),
        "{refused:?}"
    );
    // The store opens the file itself now, past the disk that is full.
    assert_eq!(names(&store), ["a"]);
    assert_eq!(add(&store, "c").id, ProgramId(2));
    assert_eq!(files(&dir), FILES);
}

#[test]
fn a_panic_inside_the_database_is_an_error_and_the_store_works_again() {
    let dir = dir();
    let store = open(&dir);
    add(&store, "a");
    let broken: Result<(), Error> = store.write(|_| panic!("as damaged pages make redb do"));
    assert!(matches!(broken, Err(Error::Database(_))));
    add(&store, "b");
    assert_eq!(names(&store), ["a", "b"]);
}

#[test]
fn a_file_that_lost_its_name_takes_no_changes() {
    let dir = dir();
    let store = open(&dir);
    add(&store, "a");
    let path = dir.path().join("hxe.redb");
    let away = dir.path().join("away");
    fs::rename(&path, &away).unwrap();
    for _ in 0..2 {
        let refused = store.create(Definition::new("b", "x"), at(1));
        assert!(matches!(refused, Err(Error::Disk(_))), "{refused:?}");
    }
    assert_eq!(files(&dir), ["away"], "no other database takes its place");
    fs::rename(&away, &path).unwrap();
    add(&store, "b");
    assert_eq!(names(&store), ["a", "b"]);
}

#[test]
fn a_file_that_was_removed_is_written_anew_with_all_that_was_in_it() {
    let dir = dir();
    let state = dir.path().join("state");
    fs::create_dir(&state).unwrap();
    let store = Store::open(&state).unwrap();
    add(&store, "a");
    fs::remove_dir_all(&state).unwrap();
    add(&store, "b");
    fs::remove_file(state.join("hxe.redb")).unwrap();
    store.delete(ProgramId(1)).unwrap();
    drop(store);
    let store = Store::open(&state).unwrap();
    assert_eq!(names(&store), ["b"]);
    assert_eq!(add(&store, "c").id, ProgramId(3));
}

#[test]
fn a_file_that_was_removed_waits_until_it_can_be_written_anew() {
    let dir = dir();
    let state = dir.path().join("state");
    fs::create_dir(&state).unwrap();
    let store = Store::open(&state).unwrap();
    add(&store, "a");
    fs::remove_dir_all(&state).unwrap();
    fs::write(&state, "in its way").unwrap();
    for _ in 0..2 {
        let refused = store.create(Definition::new("b", "x"), at(1));
        assert!(matches!(refused, Err(Error::Disk(_))), "{refused:?}");
    }
    fs::remove_file(&state).unwrap();
    add(&store, "b");
    assert_eq!(names(&store), ["a", "b"]);
}

#[test]
fn ids_that_are_known_to_be_used_are_not_given() {
    let dir = dir();
    let store = open(&dir);
    store.keep_off(ProgramId(6));
    store.keep_off(ProgramId(5));
    assert_eq!(add(&store, "a").id, ProgramId(7));
    assert_eq!(add(&store, "b").id, ProgramId(8));
}

#[test]
fn many_threads_may_change_it_at_once() {
    let dir = dir();
    let store = open(&dir);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for number in 0..5 {
                    add(store, &format!("{thread}-{number}"));
                }
            });
        }
    });
    let ids: Vec<u32> = store.programs().unwrap().iter().map(|p| p.id.0).collect();
    assert_eq!(ids, (1..=20).collect::<Vec<u32>>());
}
