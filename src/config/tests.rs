//! What is read, from where, and every mistake with its place.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use crate::api::Password;
use crate::logs::OnFull;
use crate::program::MaxRestarts;
use crate::sys::users::Accounts;

use super::keys::KEYS;
use super::kind::Raw;
use super::load::read;
use super::*;

const HASH: &str = "$2b$04$EGdrhbKUv8Oc9vGiXX0HQOxSg445d458Muh7DAHskb6QbtCvdxcie";

fn accounts() -> Result<Accounts, crate::sys::users::LookupError> {
    Ok(Accounts::from_text(
        "root:x:0:0::/root:\ntoor:x:0:0::/root:\nnobody:x:65534:65534::/:\nweb:x:33:33::/:\n",
        "root:x:0:\nadm:x:4:\n",
    ))
}

fn environment(root: bool, variables: &[(&str, &str)]) -> Environment {
    Environment {
        root,
        user_name: if root { "root" } else { "alice" }.to_owned(),
        variables: variables
            .iter()
            .map(|(name, value)| (OsString::from(name), OsString::from(value)))
            .collect(),
        pipe_max_size: 1 << 20,
        accounts,
    }
}

fn root() -> Environment {
    environment(true, &[])
}

/// Loads `toml` as a file; mistakes are shown with the file called `FILE`.
fn load_with(toml: &str, environment: &Environment) -> Result<(Config, Vec<String>), Vec<String>> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hxe.toml");
    std::fs::write(&path, toml).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    read(Some(&path), environment).map_err(|error| {
        error
            .lines()
            .iter()
            .map(|line| line.replace(path.to_str().unwrap(), "FILE"))
            .collect()
    })
}

fn load(toml: &str) -> Config {
    match load_with(toml, &root()) {
        Ok((config, _)) => config,
        Err(mistakes) => panic!("{toml}\n{mistakes:#?}"),
    }
}

fn defaults(environment: &Environment) -> Config {
    load_with("", environment).unwrap().0
}

/// Asserts that there is exactly this mistake; `expected` is the beginning of its line.
fn check(toml: &str, expected: &str) {
    check_all(toml, &root(), &[expected]);
}

fn check_all(toml: &str, environment: &Environment, expected: &[&str]) {
    let mistakes = load_with(toml, environment).expect_err(toml);
    let fits = mistakes.len() == expected.len()
        && mistakes
            .iter()
            .zip(expected)
            .all(|(mistake, expected)| mistake.starts_with(expected));
    assert!(fits, "{toml}\ngot {mistakes:#?}\nexpected {expected:#?}");
}

#[test]
fn every_key_has_its_default() {
    let config = defaults(&root());
    let listen: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["127.0.0.1:8080", "[::1]:8080"]);
    assert_eq!(config.limits.workers, 4);
    assert_eq!(config.limits.max_connections, 256);
    assert_eq!(config.limits.max_streams, 32);
    assert_eq!(config.limits.request_timeout, Duration::from_secs(10));
    assert_eq!(
        (config.limits.max_body, config.api.max_body),
        (65_536, 65_536)
    );
    assert_eq!(config.api.username, "admin");
    assert!(config.default_password());
    assert_eq!(config.api.token_lifetime, Duration::from_secs(86_400));
    assert_eq!(config.api.rate_limit, 100);
    assert_eq!(config.api.rate_limit_window, Duration::from_secs(60));
    assert!(config.api.hosts.is_empty() && config.api.cors_origins.is_empty());
    assert_eq!(config.socket_group, "");
    assert!(config.api.dashboard);
    assert_eq!(config.storage.state_dir, Path::new("/var/lib/hxe"));
    assert_eq!(config.storage.run_dir, Path::new("/run/hxe"));
    assert_eq!(config.storage.log_dir, Path::new("/var/log/hxe"));
    assert_eq!((config.logs.max_size, config.logs.max_files), (1 << 20, 5));
    assert_eq!(config.logs.pipe_size, 65_536);
    assert_eq!(config.logs.on_full, OnFull::Drop);
    assert_eq!(config.programs.user, "nobody");
    assert_eq!(config.programs.directory, "/");
    assert_eq!(config.programs.stop_timeout, Duration::from_secs(10));
    assert_eq!(config.programs.restart_delay, Duration::from_secs(1));
    assert_eq!(config.programs.max_restarts, MaxRestarts::AtMost(3));
    assert_eq!(config.include, "/etc/hxe/programs.d/*.toml");
}

#[test]
fn a_file_sets_what_it_names() {
    let config = load(
        "api.workers = 2\n[logs]\nmax_size = 0x2000\npipe_size = '8 KiB'\non_full = \"block\"\n\
         [programs]\nmax_restarts = -1\nstop_timeout = \"1m 30s\"\nuser = \"33\"\ninclude = \"\"\n",
    );
    assert_eq!(config.limits.workers, 2);
    assert_eq!((config.logs.max_size, config.logs.pipe_size), (8192, 8192));
    assert_eq!(config.logs.on_full, OnFull::Block);
    assert_eq!(config.programs.max_restarts, MaxRestarts::Unlimited);
    assert_eq!(config.programs.stop_timeout, Duration::from_secs(90));
    assert_eq!(config.programs.user, "33");
    assert_eq!(config.include, "");
    assert!(config.source.is_some());
    assert_eq!(load("[api]\nlisten = '[::1]:80'\n").listen.len(), 1);
}

#[test]
fn an_ordinary_user_has_directories_of_its_own_and_runs_programs_as_itself() {
    let home = [("HOME", "/home/alice")];
    let config = defaults(&environment(false, &home));
    let storage = &config.storage;
    assert_eq!(storage.state_dir, Path::new("/home/alice/.local/state/hxe"));
    assert_eq!(
        storage.run_dir,
        Path::new("/home/alice/.local/state/hxe/run")
    );
    assert_eq!(
        storage.log_dir,
        Path::new("/home/alice/.local/state/hxe/log")
    );
    assert_eq!(config.programs.user, "alice");

    let xdg = [
        ("XDG_STATE_HOME", "/x/state"),
        ("XDG_RUNTIME_DIR", "/run/user/7"),
        ("HOME", "relative"),
    ];
    let storage = defaults(&environment(false, &xdg)).storage;
    assert_eq!(storage.state_dir, Path::new("/x/state/hxe"));
    assert_eq!(storage.run_dir, Path::new("/run/user/7/hxe"));

    let elsewhere = "[storage]\nstate_dir = '/data/./'\n[programs]\nuser = 'gone'";
    let (config, _) = load_with(elsewhere, &environment(false, &[])).unwrap();
    assert_eq!(config.storage.state_dir.as_os_str(), "/data");
    assert_eq!(config.storage.run_dir, Path::new("/data/run"));
    assert_eq!(config.programs.user, "alice");
}

#[test]
fn without_a_home_the_state_directory_must_be_named() {
    let nobody = environment(false, &[("XDG_STATE_HOME", "relative")]);
    check_all("", &nobody, &["[storage] state_dir: there is no default"]);
    assert_eq!(nobody.config_path(), None);
}

#[test]
fn the_usual_file_depends_on_who_asks() {
    let path = |root, variables: &[_]| environment(root, variables).config_path();
    let home = ("HOME", "/h");
    assert_eq!(path(true, &[home]), Some("/etc/hxe/hxe.toml".into()));
    assert_eq!(path(false, &[home]), Some("/h/.config/hxe/hxe.toml".into()));
    let xdg = ("XDG_CONFIG_HOME", "/x");
    assert_eq!(path(false, &[home, xdg]), Some("/x/hxe/hxe.toml".into()));
}

#[test]
fn the_usual_file_may_be_missing_and_a_named_one_must_be_there() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().to_str().unwrap();
    let environment = environment(false, &[("HOME", home)]);
    let (config, _) = read(None, &environment).unwrap();
    assert_eq!(config.source, None);

    let path = dir.path().join(".config/hxe/hxe.toml");
    let error = read(Some(&path), &environment).unwrap_err();
    assert!(error.lines()[0].ends_with("cannot be read: No such file or directory"));

    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "[api]\nworkers = 7\n").unwrap();
    let (config, _) = read(None, &environment).unwrap();
    assert_eq!((config.limits.workers, config.source), (7, Some(path)));
}

#[test]
fn what_is_no_text_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = |path: &Path| read(Some(path), &root()).unwrap_err().to_string();
    assert!(error(dir.path()).ends_with("is not a regular file"));
    assert!(error(Path::new("/dev/zero")).ends_with("is not a regular file"));
    let path = dir.path().join("hxe.toml");
    std::fs::write(&path, b"[api]\n# \xff\n").unwrap();
    assert!(error(&path).ends_with("line 2 is not valid UTF-8"));
    std::fs::write(&path, "#".repeat((64 << 10) + 1)).unwrap();
    assert!(error(&path).contains("is larger than 64KiB"));
}

#[test]
fn a_mistake_is_named_with_file_line_section_and_key() {
    for (toml, expected) in [
        (
            "[api]\nworkers = 0\n",
            "FILE:2: [api] workers: 0 is out of range: it must be a number from 1 to 64",
        ),
        ("[api]\nworkers = -1\n", "FILE:2: [api] workers: -1 is out"),
        (
            "[api]\nworkers = 99999999999999999999999999999999999999999999\n",
            "FILE:2: [api] workers: this number is out of range",
        ),
        (
            "[api]\n\nworkers = \"4\"\n",
            "FILE:3: [api] workers: text does not belong here: it must be a number",
        ),
        (
            "[api]\nworkers = 1.5\n",
            "FILE:2: [api] workers: a number with a fraction does not belong here",
        ),
        (
            "[api]\nworkers = true\n",
            "FILE:2: [api] workers: true or false does not",
        ),
        (
            "[api]\nworkers = { a = 1 }\n",
            "FILE:2: [api] workers: a table does not",
        ),
        (
            "[api.workers]\na = 1\n",
            "FILE:1: [api] workers: a table does not",
        ),
        (
            "[api]\nwokers = 4\n",
            "FILE:2: [api] wokers: there is no such key: did you mean workers?",
        ),
        (
            "[api]\nmax_size = 4\n",
            "FILE:2: [api] max_size: there is no such key here: it belongs to [logs]",
        ),
        (
            "[api]\n\"a\\nb c\" = 4\n",
            "FILE:2: [api] \"a\\nb c\": there is no such key: hxe.toml(5) lists them all",
        ),
        (
            "[log]\nmax_size = 4\n",
            "FILE:1: [log]: there is no such section: did you mean [logs]?",
        ),
        (
            "[frobnication]\n",
            "FILE:1: [frobnication]: there is no such section, only [api], [storage], [logs], [programs]",
        ),
        (
            "listen = 'x'\n",
            "FILE:1: listen: stands outside of its section: put it below [api]",
        ),
        ("api = 3\n", "FILE:1: [api]: must be a section"),
        ("[[api]]\nworkers = 3\n", "FILE:1: [api]: must be a section"),
        (
            "[logs]\nmax_size = \"1MB\"\n",
            "FILE:2: [logs] max_size: \"1MB\" is not a size: it must be a size from 4KiB to 1GiB",
        ),
        (
            "[logs]\nmax_size = 4095\n",
            "FILE:2: [logs] max_size: 4095B is out of range",
        ),
        (
            "[logs]\nmax_size = -1\n",
            "FILE:2: [logs] max_size: -1 is out of range",
        ),
        (
            "[logs]\npipe_size = \"2MiB\"\n",
            "FILE:2: [logs] pipe_size: 2MiB is more than fs.pipe-max-size of this machine: it must be at most 1MiB",
        ),
        (
            "[logs]\non_full = \"stop\"\n",
            "FILE:2: [logs] on_full: \"stop\" is not known: it must be \"drop\" or \"block\"",
        ),
        (
            "[programs]\nstop_timeout = 10\n",
            "FILE:2: [programs] stop_timeout: the unit is missing: it must be a duration from 0s to 24h",
        ),
        (
            "[programs]\nstop_timeout = \"25h\"\n",
            "FILE:2: [programs] stop_timeout: 25h is out of range",
        ),
        (
            "[programs]\nstop_timeout = \"-1s\"\n",
            "FILE:2: [programs] stop_timeout: \"-1s\" is not a duration",
        ),
        (
            "[programs]\nmax_restarts = -2\n",
            "FILE:2: [programs] max_restarts: -2 is out of range: it must be a number from -1 to 1000000",
        ),
        (
            "[programs]\ndirectory = \"srv\"\n",
            "FILE:2: [programs] directory: \"srv\" is not an absolute path",
        ),
        (
            "[programs]\nuser = \"root\"\n",
            "FILE:2: [programs] user: \"root\" is root",
        ),
        (
            "[programs]\nuser = \"0\"\n",
            "FILE:2: [programs] user: \"0\" is root",
        ),
        (
            "[programs]\nuser = \"toor\"\n",
            "FILE:2: [programs] user: \"toor\" is root",
        ),
        (
            "[programs]\nuser = \"gone\"\n",
            "FILE:2: [programs] user: there is no user \"gone\" in /etc/passwd",
        ),
        (
            "[programs]\nuser = \"7777\"\n",
            "FILE:2: [programs] user: user 7777 has no entry in /etc/passwd",
        ),
        (
            "[api]\nsocket_group = \"gone\"\n",
            "FILE:2: [api] socket_group: there is no group \"gone\" in /etc/group",
        ),
        (
            "[api]\nlisten = []\n",
            "FILE:2: [api] listen: at least one address is needed",
        ),
        (
            "[api]\nlisten = [1]\n",
            "FILE:2: [api] listen: a number does not belong here: it must be an address with a port or a list of them",
        ),
        (
            "[api]\nlisten = [\n  \"127.0.0.1:1\",\n  \"localhost\",\n]\n",
            "FILE:2: [api] listen: \"localhost\" is not an address with a port",
        ),
        (
            "[storage]\nrun_dir = \"/data\"\nlog_dir = \"/data/\"\n",
            "FILE:2: [storage] run_dir: is the same as another",
        ),
        (
            "[storage]\nlog_dir = \"/\"\n",
            "FILE:2: [storage] log_dir: \"/\" cannot be a directory of hxe's own",
        ),
        (
            "[api]\nusername = \"\"\n",
            "FILE:2: [api] username: it must have 1 to 128 characters",
        ),
        (
            "[api]\npassword = \"\"\n",
            "FILE:2: [api] password: it must not be empty",
        ),
        (
            "[api]\npassword_hash = \"$1$\"\n",
            "FILE:2: [api] password_hash: it is not a bcrypt hash",
        ),
    ] {
        check(toml, expected);
    }
}

#[test]
fn a_file_that_is_no_toml_says_where() {
    for (toml, expected) in [
        (
            "[api\nworkers = 1\n",
            "FILE:1: [api: is not valid TOML: unclosed table",
        ),
        (
            "[api]\nworkers = 1\nworkers = 2\n",
            "FILE:3: [api] workers: is set twice: remove one of the two",
        ),
        (
            "[api]\nworkers = 1\n[logs]\n[api] # again\nmax_body = 1024\n",
            "FILE:4: [api]: this section is there already",
        ),
        (
            "[logs]\n\nmax_size = 1MiB\n",
            "FILE:3: [logs] max_size: text must be in quotes",
        ),
        (
            "[programs]\nuser = nobody\n",
            "FILE:2: [programs] user: text must be in quotes",
        ),
        (
            "[api]\nworkers\n",
            "FILE:2: [api] workers: is not valid TOML: key with no value",
        ),
        (
            "[api]\nlisten = [\"127.0.0.1:1\",\nworkers = 4\n[logs]\nx = 1\n",
            "FILE:3: [api] workers: is not valid TOML: unexpected `=` in array",
        ),
        (
            "[api]\nusername = \"a\nworkers = 1\n",
            "FILE:2: [api] username: is not valid TOML: invalid basic string",
        ),
        ("= 3\n", "FILE:1: syntax: is not valid TOML"),
        ("é = 3\n", "FILE:1: syntax: is not valid TOML"),
        ("[", "FILE:1: [: is not valid TOML"),
    ] {
        let mistakes = load_with(toml, &root()).expect_err(toml);
        assert!(
            mistakes.len() == 1 && mistakes[0].starts_with(expected),
            "{toml}\n{mistakes:#?}\n{expected}"
        );
    }
}

#[test]
fn all_mistakes_are_shown_in_order_of_lines() {
    check_all(
        "[logs]\nmax_size = 1\nmax_files = 5k\n[api]\nworkers = 0\nfoo = 1\nworkers = 0\n[programs]\nuser = \"root\"\n",
        &environment(true, &[("HXE_LOGS_ON_FULL", "x"), ("HXE_API_FOO", "1")]),
        &[
            "FILE:2: [logs] max_size",
            "FILE:3: [logs] max_files: text must be in quotes",
            "FILE:5: [api] workers: 0 is out",
            "FILE:6: [api] foo",
            "FILE:7: [api] workers: is set twice",
            "FILE:9: [programs] user: \"root\" is root",
            "HXE_API_FOO: there is no such setting",
            "HXE_LOGS_ON_FULL: \"x\" is not known",
        ],
    );
}

#[test]
fn with_the_default_password_only_loopback_is_listened_on() {
    for listen in [
        "0.0.0.0:80",
        "[::]:80",
        "10.0.0.1:0",
        "[::ffff:10.0.0.1]:80",
    ] {
        let toml = format!("[api]\nlisten = [\"127.0.0.1:80\", \"{listen}\"]\n");
        check(
            &toml,
            &format!("FILE:2: [api] listen: {listen} can be reached"),
        );
        load(&format!("{toml}password = \"s\"\n"));
        load(&format!("{toml}password_hash = \"{HASH}\"\n"));
        check(
            &format!("[api]\npassword = 'password'\nlisten = '{listen}'\n"),
            &format!("FILE:3: [api] listen: {listen} can be reached"),
        );
    }
    load("[api]\nlisten = [\"127.9.9.9:80\", \"[::ffff:127.0.0.1]:80\"]\n");
    check_all(
        "",
        &environment(true, &[("HXE_API_LISTEN", "0.0.0.0:80")]),
        &[
            "HXE_API_LISTEN: 0.0.0.0:80 can be reached from other machines, which is refused with the default password: set",
        ],
    );
    check_all(
        "[api]\nlisten = '0.0.0.0:80'\nxyzzy = 1\n",
        &root(),
        &["FILE:2: [api] listen: 0.0.0.0:80", "FILE:3: [api] xyzzy: "],
    );
    // Who tried to set one is told only of that.
    check(
        "[api]\nlisten = '0.0.0.0:80'\npasword = 'secret'\n",
        "FILE:3: [api] pasword: there is no such key: did you mean password?",
    );
}

#[test]
fn a_password_is_given_once() {
    let both = format!("[api]\npassword = 'a'\npassword_hash = '{HASH}'\n");
    check(&both, "FILE:3: [api] password_hash: cannot be set together");
    check_all(
        "",
        &environment(
            true,
            &[("HXE_API_PASSWORD", "a"), ("HXE_API_PASSWORD_HASH", HASH)],
        ),
        &["HXE_API_PASSWORD_HASH: cannot be set together"],
    );
    let variable = environment(true, &[("HXE_API_PASSWORD", "a")]);
    let (config, _) = load_with(&format!("[api]\npassword_hash = '{HASH}'\n"), &variable).unwrap();
    assert!(config.api.password == Password::Plain("a".to_owned()));
    let variable = environment(true, &[("HXE_API_PASSWORD_HASH", HASH)]);
    let (config, _) = load_with("[api]\npassword = 'a'\n", &variable).unwrap();
    assert!(config.api.password == Password::Bcrypt(HASH.to_owned()));
}

#[test]
fn no_message_shows_a_password() {
    for value in [
        "7777777",
        "[\"7777777\"]",
        "7777777s",
        "\"$2b$04$7777777\"",
        "77.77777",
        "\"\"\"\n7777777\n",
        "'7777777",
    ] {
        for key in ["password", "password_hash"] {
            let toml = format!("[api]\n{key} = {value}\n");
            let mistakes = match load_with(&toml, &root()) {
                Ok(_) => continue,
                Err(mistakes) => mistakes.join("\n"),
            };
            assert!(!mistakes.contains("777"), "{mistakes}");
        }
    }
}

#[test]
fn variables_come_over_the_file() {
    let variables = [
        ("HXE_API_LISTEN", "127.0.0.1:1, [::1]:2"),
        ("HXE_API_HOSTS", "[\"a.example\", \"b.example\"]"),
        ("HXE_API_CORS_ORIGINS", ""),
        ("HXE_API_WORKERS", " 9 "),
        ("HXE_API_DASHBOARD", " false "),
        ("HXE_LOGS_MAX_SIZE", "64 KiB"),
        ("HXE_PROGRAMS_STOP_TIMEOUT", "3s"),
        ("HXE_PROGRAMS_INCLUDE", ""),
        ("HXE_PROGRAM_ID", "program-1"),
        ("HXE_TOKEN", "x"),
        ("HXE_APIARY", "x"),
    ];
    let toml = "[api]\nworkers = 2\ncors_origins = '*'\nhosts = 'c.example'\n";
    let (config, _) = load_with(toml, &environment(true, &variables)).unwrap();
    let listen: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["127.0.0.1:1", "[::1]:2"]);
    assert_eq!(config.api.hosts, ["a.example", "b.example"]);
    assert!(config.api.cors_origins.is_empty());
    assert_eq!(config.limits.workers, 9);
    assert!(!config.api.dashboard);
    assert_eq!(config.logs.max_size, 65_536);
    assert_eq!(config.programs.stop_timeout, Duration::from_secs(3));
    assert_eq!(config.include, "");
    let one = environment(true, &[("HXE_API_LISTEN", "[::1]:80")]);
    assert_eq!(defaults(&one).listen.len(), 1);
}

#[test]
fn mistakes_in_variables_are_named_by_the_variable() {
    for (name, value, expected) in [
        (
            "HXE_LOGS_MAX_SIZE",
            "1",
            "HXE_LOGS_MAX_SIZE: 1B is out of range",
        ),
        (
            "HXE_API_WORKERS",
            "four",
            "HXE_API_WORKERS: \"four\" is not a number: it must be",
        ),
        (
            "HXE_API_WORKERS",
            "",
            "HXE_API_WORKERS: \"\" is not a number",
        ),
        (
            "HXE_API_PASSWORD",
            "",
            "HXE_API_PASSWORD: it must not be empty",
        ),
        (
            "HXE_API_DASHBOARD",
            "no",
            "HXE_API_DASHBOARD: \"no\": it must be true or false",
        ),
        ("HXE_API_LISTEN", "", "HXE_API_LISTEN: at least one address"),
        (
            "HXE_API_LISTEN",
            "[::1]",
            "HXE_API_LISTEN: \"[::1]\" is not an address",
        ),
        (
            "HXE_API_LISTEN",
            "[1, 2]",
            "HXE_API_LISTEN: a number does not",
        ),
        (
            "HXE_API_WORKRES",
            "1",
            "HXE_API_WORKRES: there is no such setting: did you mean HXE_API_WORKERS?",
        ),
        (
            "HXE_STORAGE_",
            "1",
            "HXE_STORAGE_: there is no such setting",
        ),
    ] {
        check_all("", &environment(true, &[(name, value)]), &[expected]);
    }
    let mut raw = root();
    raw.variables
        .push(("HXE_API_USERNAME".into(), OsString::from_vec(vec![0xff])));
    check_all("", &raw, &["HXE_API_USERNAME: is not valid UTF-8"]);
}

#[test]
fn a_machine_without_nobody_is_warned_and_served() {
    let mut bare = root();
    bare.accounts = || Ok(Accounts::from_text("root:x:0:0:::\n", ""));
    let (_, warnings) = load_with("", &bare).unwrap();
    assert!(warnings[0].contains("no user \"nobody\""), "{warnings:?}");
}

#[test]
fn a_small_pipe_limit_lowers_the_default() {
    let mut small = root();
    small.pipe_max_size = 8192;
    assert_eq!(defaults(&small).logs.pipe_size, 8192);
}

#[test]
fn a_file_that_others_can_read_or_write_is_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hxe.toml");
    let warnings = |toml: &str, mode: u32| {
        std::fs::write(&path, toml).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        read(Some(&path), &root()).unwrap().1.len()
    };
    assert_eq!(warnings("[api]\npassword = 'x'\n", 0o600), 0);
    assert_eq!(warnings("[api]\npassword = 'x'\n", 0o644), 1);
    assert_eq!(warnings("[api]\nworkers = 1\n", 0o644), 0);
    assert_eq!(warnings("[api]\npassword = 'x'\n", 0o666), 2);
}

#[test]
fn a_reload_keeps_what_needs_a_restart_and_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hxe.toml");
    let write = |toml: &str| {
        std::fs::write(&path, toml).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    write("[api]\nlisten = '0.0.0.0:80'\npassword = 'x'\n");
    let (running, _) = read(Some(&path), &root()).unwrap();

    write("[api]\nlisten = '127.0.0.1:80'\nworkers = 9\nrate_limit = 5\npassword = 'x'\n");
    let (config, changed) = running.reload(Some(&path), &root()).unwrap();
    assert_eq!(changed, ["[api] listen", "[api] workers"]);
    assert_eq!((config.limits.workers, config.api.rate_limit), (4, 5));
    assert_eq!(config.listen, running.listen);

    // It still listens on all addresses, whatever the file says by now.
    write("[api]\nlisten = '127.0.0.1:80'\n");
    let error = running.reload(Some(&path), &root()).unwrap_err();
    assert!(error.to_string().starts_with("[api] password: 0.0.0.0:80"));

    write("[storage]\nstate_dir = '/a'\nrun_dir = '/b'\nlog_dir = '/c'\n");
    let (other, _) = read(Some(&path), &root()).unwrap();
    assert_eq!(
        defaults(&root()).restart_keys_changed(&other),
        [
            "[storage] state_dir",
            "[storage] run_dir",
            "[storage] log_dir"
        ]
    );
}

/// The files that describe the keys to people.
const CONF: &str = include_str!("../../conf/hxe.toml");
const MAN: &str = include_str!("../../man/hxe.toml.5");

#[test]
fn the_example_file_has_every_key_with_its_default() {
    let mut section = "";
    let mut found = Vec::new();
    for (index, line) in CONF.lines().enumerate() {
        let above = index
            .checked_sub(1)
            .and_then(|above| CONF.lines().nth(above));
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some((name, value)) = line
            .strip_prefix('#')
            .filter(|line| !line.starts_with(' '))
            .and_then(|line| line.split_once(" = "))
        {
            let key = &KEYS[keys::index(section, name)];
            if !key.default.is_empty() {
                assert_eq!(value, key.default, "{key}");
            }
            assert!(above.is_some_and(|line| line.starts_with("# ")), "{key}");
            found.push(key.to_string());
        }
    }
    let table: Vec<String> = KEYS.iter().map(ToString::to_string).collect();
    assert_eq!(found, table);
}

#[test]
fn a_text_that_was_kept_is_what_the_file_was_and_a_mistake_by_now_is_a_key_left_out() {
    let text =
        "[api]\nusername = \"operator\"\nsocket_group = \"no-such-group\"\n[logs]\nmax_files = 7\n";
    let path = Path::new("/etc/hxe/hxe.toml");
    let (config, mistakes) = Config::of_text(Some(path), text, &root());
    assert_eq!(config.api.username, "operator");
    assert_eq!((config.api.socket_group, config.logs.max_files), (None, 7));
    assert_eq!(mistakes.len(), 1);
    assert!(
        mistakes[0].starts_with("/etc/hxe/hxe.toml:3: [api] socket_group"),
        "{mistakes:?}"
    );
}

#[test]
fn the_example_file_changes_nothing_with_and_without_its_signs() {
    let mut plain = load(CONF);
    let uncommented: String = CONF
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if !key.starts_with(' ') && !key.starts_with("password_hash") => {
                key.to_owned() + "\n"
            }
            _ => line.to_owned() + "\n",
        })
        .collect();
    let mut set = load(&uncommented);
    for config in [&mut plain, &mut set] {
        config.source = None;
        config.text.clear();
    }
    assert_eq!(plain, set);
    assert_eq!(
        plain,
        Config {
            source: None,
            ..defaults(&root())
        }
    );
}

#[test]
fn the_man_page_has_every_key_with_its_range_and_default() {
    let page = MAN
        .replace("\\-", "-")
        .replace("\\&", "")
        .replace("\\(dq", "\"");
    let mut last = 0;
    for section in keys::sections() {
        assert!(
            page.contains(&format!(".Ss \"[{section}]\"\n")),
            "[{section}]"
        );
    }
    for key in KEYS {
        let head = format!("\n.It Ic {}\n", key.name);
        let at = page[last..]
            .find(&head)
            .unwrap_or_else(|| panic!("{key} is missing"));
        last += at + head.len();
        let entry = page[last..].split("\n.It ").next().unwrap_or_default();
        let words: Vec<String> = match &key.kind {
            kind::Kind::Integer { range, .. } => {
                vec![range.start().to_string(), range.end().to_string()]
            }
            kind::Kind::Size { range, .. } => {
                vec![size::format(*range.start()), size::format(*range.end())]
            }
            kind::Kind::Duration { range, .. } => [range.start(), range.end()]
                .map(|span| crate::clock::format_duration(*span))
                .to_vec(),
            kind::Kind::Text { .. } | kind::Kind::List { .. } | kind::Kind::Flag { .. } => {
                Vec::new()
            }
        };
        let default = key.default.trim_matches('"').to_owned();
        for word in words.iter().chain([&default]) {
            assert!(entry.contains(word.as_str()), "{key} lacks {word}: {entry}");
        }
    }
}

/// Random lines of what a configuration consists of, and worse.
fn lines() -> impl Strategy<Value = String> {
    let names: Vec<String> = KEYS.iter().map(|key| key.name.to_owned()).collect();
    let value = prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        any::<String>().prop_map(|text| format!("{text:?}")),
        "[0-9a-zA-Z:.,\\[\\]\"'{}= #-]{0,20}",
        Just("[\"127.0.0.1:80\", \"[::1]:80\"]".to_owned()),
        "\"[0-9]{1,4} ?(B|KiB|MiB|s|m|h|ms)\"",
    ];
    let line = prop_oneof![
        (proptest::sample::select(names), value)
            .prop_map(|(name, value)| format!("{name} = {value}")),
        "\\[(api|storage|logs|programs|x)\\]",
        any::<String>(),
        Just("'''".to_owned()),
    ];
    proptest::collection::vec(line, 0..12).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #[test]
    fn no_file_panics(toml in lines(), text in any::<String>()) {
        for toml in [&toml, &text] {
            for (line, label, what) in document::parse(toml).mistakes {
                prop_assert!(line >= 1 && !label.is_empty() && !what.is_empty());
                prop_assert!(line <= toml.matches('\n').count() + 1);
            }
        }
    }

    #[test]
    fn no_value_panics(text in any::<String>(), number in any::<i128>()) {
        for key in KEYS {
            for raw in [Raw::Word(text.clone()), Raw::Text(text.clone()), Raw::Integer(number), Raw::List(vec![Raw::Text(text.clone())])] {
                if let Err(what) = key.kind.set(&mut Config::unset(), &raw) {
                    prop_assert!(!what.contains(char::is_control));
                }
            }
        }
    }

    #[test]
    fn any_duration_in_range_is_taken(seconds in 0..=86_400_u64) {
        let text = crate::clock::format_duration(Duration::from_secs(seconds));
        let mut config = Config::unset();
        let key = &KEYS[keys::index("programs", "stop_timeout")];
        prop_assert_eq!(key.kind.set(&mut config, &Raw::Text(text)), Ok(()));
        prop_assert_eq!(config.programs.stop_timeout, Duration::from_secs(seconds));
    }
}
