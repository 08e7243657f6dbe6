use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::support::need_root;

/// The shells that scripts meet on small machines, those that are here.
fn shells() -> Vec<Vec<&'static str>> {
    let mut shells = vec![vec!["sh"]];
    for shell in [vec!["dash"], vec!["busybox", "ash"]] {
        let found = Command::new(shell[0])
            .args(&shell[1..])
            .args(["-c", ":"])
            .output();
        match found {
            Ok(output) if output.status.success() => shells.push(shell),
            _ => eprintln!("skipped: there is no {}", shell.join(" ")),
        }
    }
    shells
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("scripts")
        .join(name)
}

/// A tree to install into.
struct Tree {
    dir: TempDir,
    shell: Vec<&'static str>,
}

impl Tree {
    fn new(shell: &[&'static str]) -> Tree {
        Tree {
            dir: tempfile::tempdir().expect("the temporary directory can be written"),
            shell: shell.to_vec(),
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path.trim_start_matches('/'))
    }

    fn has(&self, path: &str) -> bool {
        self.path(path).symlink_metadata().is_ok()
    }

    fn read(&self, path: &str) -> String {
        let path = self.path(path);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("it is below the tree")).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn link(&self, target: &str, path: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("it is below the tree")).unwrap();
        std::os::unix::fs::symlink(target, path).unwrap();
    }

    /// Runs the installer: whether it succeeded, and what it said.
    fn run(&self, args: &[&str]) -> (bool, String) {
        // A small file stands for the binary: it is copied, and asked for completions.
        self.write("stand-in", "#!/bin/sh\nexit 1\n");
        let output = Command::new(self.shell[0])
            .args(&self.shell[1..])
            .arg(script("install.sh"))
            .args(["--binary".as_ref(), self.path("stand-in").as_os_str()])
            .args(args)
            .env("DESTDIR", self.dir.path())
            .output()
            .expect("the shell is there");
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    }

    #[track_caller]
    fn install(&self, args: &[&str]) -> String {
        let (done, said) = self.run(args);
        assert!(done, "{:?} {args:?}:\n{said}", self.shell);
        said
    }
}

#[test]
fn the_installer_finds_the_init_that_a_tree_will_be_started_with() {
    for shell in shells() {
        let found = |make: &dyn Fn(&Tree)| {
            let tree = Tree::new(&shell);
            make(&tree);
            let said = tree.install(&[]);
            let init = said.lines().find_map(|line| line.strip_prefix("init: "));
            init.unwrap_or_else(|| panic!("{said}")).to_owned()
        };
        let binary = |text: &'static str| move |tree: &Tree| tree.write("/sbin/init", text);
        assert_eq!(
            found(&|tree| tree.link("/lib/systemd/systemd", "/sbin/init")),
            "systemd"
        );
        assert_eq!(found(&binary("... INIT_VERSION=sysvinit-3.06 ...")), "sysv");
        assert_eq!(
            found(&|tree| tree.link("/bin/busybox", "/sbin/init")),
            "busybox"
        );
        let linked_twice = |tree: &Tree| {
            tree.link("../sbin/start", "/sbin/init");
            tree.link("../bin/busybox", "/sbin/start");
        };
        assert_eq!(found(&linked_twice), "busybox");
        assert_eq!(
            found(&|tree| tree.link("runit-init", "/sbin/init")),
            "runit"
        );
        assert_eq!(
            found(&|tree| tree.link("openrc-init", "/sbin/init")),
            "openrc"
        );
        let open_wrt = |tree: &Tree| {
            tree.write("/sbin/init", "an init of its own");
            tree.write("/sbin/procd", "");
            tree.write("/etc/rc.common", "");
        };
        assert_eq!(found(&open_wrt), "procd");
        let alpine = |inittab: &'static str| {
            move |tree: &Tree| {
                tree.link("/bin/busybox", "/sbin/init");
                tree.write("/sbin/openrc-run", "");
                tree.write("/etc/inittab", inittab);
            }
        };
        assert_eq!(found(&alpine("::sysinit:/sbin/openrc sysinit\n")), "openrc");
        assert_eq!(
            found(&alpine("# /sbin/openrc\n::sysinit:/etc/init.d/rcS\n")),
            "busybox"
        );
        // What init reads is no init.
        let no_init = |tree: &Tree| tree.write("/etc/inittab", "::sysinit:/etc/init.d/rcS\n");
        assert_eq!(found(&no_init), "none");
    }
}

#[test]
fn an_init_that_nobody_knows_is_not_guessed() {
    let tree = Tree::new(&["sh"]);
    tree.write("/sbin/init", "a strange one");
    let (done, said) = tree.run(&[]);
    assert!(!done && said.contains("choose by --init"), "{said}");
    assert!(!tree.has("/usr/local/bin/hxe") && !tree.has("/etc/hxe"));
}

#[test]
fn each_init_gets_its_script_with_the_binary_where_it_is() {
    for shell in shells() {
        for (init, place) in [
            ("sysv", "/etc/init.d/hxe"),
            ("busybox", "/etc/init.d/S50hxe"),
            ("openrc", "/etc/init.d/hxe"),
            ("procd", "/etc/init.d/hxe"),
            ("runit", "/etc/sv/hxe/run"),
            ("s6", "/etc/s6/sv/hxe/run"),
            ("systemd", "/etc/systemd/system/hxe.service"),
        ] {
            let tree = Tree::new(&shell);
            tree.install(&["--init", init, "--prefix=/opt/hxe"]);
            let script = tree.read(place);
            assert!(script.contains("/opt/hxe/bin/hxe"), "{init}: {script}");
            assert!(!script.contains("/usr/bin/hxe"), "{init}: {script}");
            assert!(tree.has("/opt/hxe/bin/hxe") && tree.has("/opt/hxe/share/man/man1/hxe.1"));
            let said = tree.install(&["--uninstall", "--prefix", "/opt/hxe"]);
            assert!(said.contains("kept the configuration"), "{said}");
            assert!(!tree.has(place) && !tree.has("/opt/hxe/bin/hxe"), "{said}");
            assert!(tree.has("/etc/hxe/hxe.toml"));
        }
    }
}

#[test]
fn a_new_configuration_has_a_password_of_its_own_that_others_cannot_read() {
    let tree = Tree::new(&["sh"]);
    let said = tree.install(&["--init=none"]);
    assert!(
        said.contains("the password is in /etc/hxe/hxe.toml"),
        "{said}"
    );
    let mode = |path| fs::metadata(tree.path(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("/etc/hxe/hxe.toml"), 0o600);
    let text = tree.read("/etc/hxe/hxe.toml");
    let line = text.lines().find(|line| line.starts_with("password = "));
    let password = line.expect("there is a password").to_owned();
    assert!(password.len() > 30, "{password}");
    let checked = Command::new(env!("CARGO_BIN_EXE_hxe"))
        .args(["daemon", "--check", "--config"])
        .arg(tree.path("/etc/hxe/hxe.toml"))
        .env_clear()
        .output()
        .unwrap();
    assert!(checked.status.success(), "{checked:?}");
    // Again, as for another version: the password stays.
    tree.install(&["--init=none"]);
    assert_eq!(tree.read("/etc/hxe/hxe.toml"), text);
    let other = Tree::new(&["sh"]);
    other.install(&["--init=none"]);
    assert!(!other.read("/etc/hxe/hxe.toml").contains(&password));
}

#[test]
fn what_is_there_already_or_was_changed_is_neither_replaced_nor_removed() {
    for shell in shells() {
        let tree = Tree::new(&shell);
        tree.write("/etc/init.d/hxe", "somebody else's");
        let said = tree.install(&["--init=sysv"]);
        assert!(said.contains("kept /etc/init.d/hxe"), "{said}");
        let page = "/usr/local/share/man/man1/hxe.1";
        tree.write(page, "changed by hand");
        let said = tree.install(&["--init=sysv"]);
        assert!(said.contains(&format!("kept {page}")), "{said}");
        let said = tree.install(&["--uninstall"]);
        assert!(said.contains(&format!("kept {page}")), "{said}");
        assert_eq!(tree.read("/etc/init.d/hxe"), "somebody else's");
        assert_eq!(tree.read(page), "changed by hand");
        assert!(!tree.has("/usr/local/bin/hxe"));
    }
}

#[test]
fn a_newer_binary_takes_the_place_of_the_one_that_was_installed() {
    let tree = Tree::new(&["sh"]);
    tree.install(&["--init=none"]);
    let newer = tree.path("newer");
    fs::write(&newer, "newer").unwrap();
    tree.install(&["--init=none", "--binary", newer.to_str().unwrap()]);
    assert_eq!(tree.read("/usr/local/bin/hxe"), "newer");
}

#[test]
fn wrong_usage_of_the_installer_is_named() {
    let tree = Tree::new(&["sh"]);
    for (args, reason) in [
        (&["--init=upstart"][..], "there is no init upstart"),
        (&["--prefix", "opt"], "--prefix is an absolute path"),
        (&["--prefix"], "--prefix needs a value"),
        (&["--prefix=/a b"], "letters, digits"),
        (&["--now"], "what is --now?"),
        (&["--uninstall"], "nothing of this script is installed"),
    ] {
        let (done, said) = tree.run(args);
        assert!(!done && said.contains(reason), "{args:?}: {said}");
    }
    assert!(!tree.has("/etc/hxe"));
}

#[test]
fn scripts_are_understood_by_the_shells_that_they_meet() {
    let mut scripts = vec![script("install.sh"), script("test-inits.sh")];
    for name in [
        "sysv",
        "openrc",
        "procd",
        "runit/run",
        "runit/control/t",
        "s6/run",
    ] {
        scripts.push(script("init").join(name));
    }
    for shell in shells() {
        for script in &scripts {
            let read = Command::new(shell[0])
                .args(&shell[1..])
                .arg("-n")
                .arg(script)
                .output()
                .unwrap();
            assert!(
                read.status.success(),
                "{shell:?} {}: {read:?}",
                script.display()
            );
        }
    }
}

/// OpenRC itself is run by scripts/test-inits.sh, where it can be had.
#[test]
fn the_status_of_a_killed_hxe_lets_openrc_start_it_again() {
    for shell in shells() {
        let tree = Tree::new(&shell);
        let marked = tree.path("started");
        let pid_file = tree.path("hxe.pid");
        let openrc = format!(
            "einfo() {{ echo \"$*\"; }}; eerror() {{ echo \"$*\"; }}
             service_started() {{ [ -e {0} ]; }}; mark_service_stopped() {{ rm {0}; }}
             . '{1}'; pidfile={2}; status",
            marked.display(),
            script("init/openrc").display(),
            pid_file.display()
        );
        let status = || {
            let ran = Command::new(shell[0])
                .args(&shell[1..])
                .args(["-c", &openrc])
                .output()
                .unwrap();
            (
                ran.status.code(),
                String::from_utf8_lossy(&ran.stdout).into_owned(),
            )
        };
        let (code, said) = status();
        assert_eq!(
            (code, &said[..]),
            (Some(3), "status: stopped\n"),
            "{shell:?}"
        );
        // Ours is no hxe that this file could name, which is what a killed one leaves.
        fs::write(&pid_file, std::process::id().to_string()).unwrap();
        fs::write(&marked, "").unwrap();
        // Again, as who asks twice is told the same.
        for _ in 0..2 {
            let (code, said) = status();
            assert_eq!(code, Some(32), "{shell:?}: {said}");
            assert!(said.starts_with("status: crashed"), "{said}");
            assert!(!marked.exists(), "{shell:?}");
        }
    }
}

/// Runs a part of scripts/test-inits.sh as far as the test command has time for it. It says itself what it skips.
#[track_caller]
fn lives_under(part: &str) {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // Where services name it without a blank in its path, wherever it was built.
    let installed = tempfile::tempdir().unwrap();
    fs::set_permissions(installed.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let hxe = installed.path().join("hxe");
    fs::copy(env!("CARGO_BIN_EXE_hxe"), &hxe).unwrap();
    let output = Command::new("sh")
        .arg(script("test-inits").join(format!("{part}.sh")))
        .args([hxe.as_os_str(), dir.path().as_os_str()])
        .arg("quick")
        .output()
        .expect("there is a shell");
    let said = String::from_utf8_lossy(&output.stdout);
    eprintln!("{said}");
    let faults = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{part}:\n{said}{faults}");
}

#[test]
fn the_script_for_sysv_and_busybox_starts_restarts_and_stops() {
    if need_root() {
        lives_under("initscript");
    }
}

#[test]
fn a_line_of_inittab_respawns_hxe_unless_it_is_to_be_stopped() {
    if need_root() {
        lives_under("inittab");
    }
}

#[test]
fn start_stop_daemon_knows_hxe_by_its_pid_file() {
    if need_root() {
        lives_under("start-stop-daemon");
    }
}

#[test]
fn hxe_lives_under_runit() {
    if need_root() {
        lives_under("runit");
    }
}

#[test]
fn hxe_lives_under_s6() {
    if need_root() {
        lives_under("s6");
    }
}
