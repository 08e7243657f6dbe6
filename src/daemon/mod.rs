//! The daemon: wiring only. Opens in order, starts, waits for signals, stops in reverse.

mod beginning;
mod dirs;
mod listeners;
mod local;
mod pid_file;
mod reload;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::api::Api;
use crate::config::{self, Config, Storage};
use crate::guardian::{CONNECTION, LISTENER, Link};
use crate::http::{self, Listener, Server};
use crate::logs::Logs;
use crate::report;
use crate::store::{self, Store};
use crate::supervise::signals::{self, Children, Request, Requests};
use crate::supervise::{self, Supervisor};
use crate::sys;
use crate::sys::fault;
use crate::sys::memory;
use crate::sys::process;
use beginning::Beginning;
use local::LocalSocket;
use pid_file::PidFile;
use reload::Reloader;

/// How the daemon ends that leaves for another one: no good end, so that a guardian that was not asked brings it back.
const LEFT_FOR_ANOTHER: u8 = 70;
/// How it ends where the configuration has a mistake.
const MISCONFIGURED: u8 = 2;

/// How the daemon is started.
#[derive(Debug)]
pub struct Options {
    /// The file named by `--config`.
    pub config_path: Option<PathBuf>,
    /// Written once the daemon listens, removed when it ends.
    pub pid_file: Option<PathBuf>,
    /// Gets one byte once the daemon listens.
    pub ready: Option<OwnedFd>,
    /// Let go of standard error once the daemon listens.
    pub in_background: bool,
    /// The soft limit of open files that programs get, where it is not that of this process.
    pub open_files: Option<u64>,
    /// The socket whose other end is the guardian's.
    pub link: Option<OwnedFd>,
}

/// Why the daemon did not start. Once it runs, nothing ends it but a signal.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    Directory(#[from] dirs::DirError),
    #[error("the database in {} cannot be opened: {}", dir.display(), causes(source))]
    Store { dir: PathBuf, source: store::Error },
    #[error("cannot listen on {address}: {}{}", sys::reason(source), hint(source))]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("cannot listen on {}: {}", path.display(), sys::reason(source))]
    Local { path: PathBuf, source: io::Error },
    #[error("none of the addresses in listen exists on this machine")]
    NoAddress,
    #[error("{what}: {}", sys::reason(source))]
    System {
        what: &'static str,
        source: io::Error,
    },
    #[error("the pid file {} cannot be written: {}", path.display(), sys::reason(source))]
    PidFile { path: PathBuf, source: io::Error },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            ": another program has this port; choose another with listen in [api]"
        }
        io::ErrorKind::PermissionDenied => ": ports below 1024 need root",
        _ => "",
    }
}

/// An error and what caused it, joined: "the disk cannot be written: Permission denied".
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let _ = write!(text, ": {cause}");
        next = cause.source();
    }
    text
}

/// What is wrong with the files that declare programs, one mistake a line; none is said of a daemon's own programs.
pub fn check(config: &Config) -> Vec<String> {
    supervise::check(config.declared(), &supervision(config))
}

/// Runs the daemon until a signal ends it.
pub fn run(options: Options) -> ExitCode {
    match Daemon::start(options) {
        Ok(daemon) => daemon.serve(),
        Err(StartError::Config(error)) => {
            for line in error.lines() {
                report::error(format_args!("{line}"));
            }
            ExitCode::from(MISCONFIGURED)
        }
        Err(error) => {
            report::error(format_args!("{error}"));
            ExitCode::FAILURE
        }
    }
}

/// What runs.
struct Daemon {
    pid_file: Option<PidFile>,
    requests: Arc<Requests>,
    reloader: Arc<Reloader>,
    /// Held as long as the daemon runs: a second one on the same directories is refused.
    _directories: dirs::Directories,
}

impl Daemon {
    fn start(options: Options) -> Result<Daemon, StartError> {
        fault::point(concat!("hxe/", env!("CARGO_PKG_VERSION"), " starts"));
        let system = |what| move |source| StartError::System { what, source };
        let Options {
            config_path,
            pid_file,
            ready,
            in_background,
            open_files: soft,
            link,
        } = options;
        let (link, left) = match link {
            None => (Link::none(), Vec::new()),
            // First of all: a daemon without its guardian would be one too many.
            Some(socket) => {
                Link::connect(socket).map_err(system("the guardian cannot be asked"))?
            }
        };
        let link = Arc::new(link);
        let (connections, left): (Vec<_>, Vec<_>) = left
            .into_iter()
            .partition(|(name, _)| name.starts_with(CONNECTION));
        let mut left: BTreeMap<String, OwnedFd> = left.into_iter().collect();
        memory::use_one_heap();
        let Beginning {
            mut config,
            mistakes,
            is_later,
        } = beginning::read(config_path.as_deref(), &mut left)?;
        process::ignore_file_size_signal();
        // First of all threads' business: each inherits what is set here.
        let caught = signals::catch().map_err(system("signals cannot be caught"))?;
        sys::signals::unblock_all();
        // Programs get nothing that the caller left open.
        sys::background::keep_inherited();
        let (mut open_files, raised) = process::raise_open_files();
        open_files.current = soft.or(open_files.current);
        if let Err(error) = raised {
            report::warn(format_args!(
                "the limit of open files cannot be raised: {error}"
            ));
        }
        if let Err(error) = process::become_subreaper() {
            report::warn(format_args!(
                "orphans of programs cannot be taken over: {error}"
            ));
        }

        let directories = dirs::open(&config.storage, is_later)?;
        let listeners = listeners::open(&config.listen, &mut left, &link)?;
        let addresses: Vec<SocketAddr> = listeners
            .iter()
            .filter_map(|listener| listener.local_addr().ok())
            .collect();
        let (local, local_listener) = LocalSocket::open(
            Arc::clone(&directories.run),
            &config.storage.run_dir,
            config.api.socket_group,
            &mut left,
            &link,
        )
        .map_err(|source| StartError::Local {
            path: config.storage.run_dir.join("hxe.sock"),
            source,
        })?;
        for name in left.extract_if(.., |name, _| name.starts_with(LISTENER)) {
            link.forget(&name.0);
        }
        let store = Arc::new(open_store(&directories, &config.storage)?);
        let children = Arc::new(Children::default());
        let requests = signals::start(caught, Arc::clone(&children))
            .map_err(system("a thread cannot be started"))?;
        let (ours, asked) = (Arc::clone(&children), Arc::clone(&requests));
        link.listen(
            move |number| asked.signal(number),
            move |pid| ours.contains(pid.number()),
        )
        .map_err(system("a thread cannot be started"))?;
        let asked = Arc::clone(&requests);
        let renew = move || asked.ask(Request::Renew);
        directories.run.on_another(renew);
        let logs = Logs::start(
            Arc::clone(&directories.log),
            Arc::clone(&directories.run),
            config.logs.clone(),
            Arc::clone(&link),
            left,
        )
        .map_err(system("the log thread cannot be started"))?;
        let logs = Arc::new(logs);
        let in_store = |source| StartError::Store {
            dir: config.storage.state_dir.clone(),
            source,
        };
        let supervisor = Supervisor::open(
            Arc::clone(&store),
            Arc::clone(&logs),
            Arc::clone(&children),
            Arc::clone(&link),
            Arc::clone(&directories.run),
            open_files,
            supervision(&config),
        )
        .map_err(in_store)?;
        let pending = supervisor.declare(config.declared(), &supervision(&config), false);
        let pending = pending.unwrap_or_default();
        link.settle(|pid| children.contains(pid.number()));
        let api = Api::new(
            config.api.clone(),
            Arc::clone(&supervisor),
            Arc::clone(&logs),
            store,
            directories.kept_in(&config.storage).to_owned(),
            Arc::clone(&link),
        )
        .map_err(in_store)?;
        let api = Arc::new(api);
        api.set_mistakes(mistakes);
        let listeners = listeners.into_iter().map(Listener::Tcp);
        let listeners = listeners.chain([Listener::Unix(local_listener)]).collect();
        let server = Server::start(listeners, config.limits, Arc::clone(&api))
            .map_err(system("the API cannot be started"))?;
        server.take_over(connections.into_iter().map(|(_, socket)| socket).collect());
        let local_path = local.path.clone();
        let default_password = config.default_password();
        // It holds that far: another daemon may begin with it.
        beginning::keep(&mut config, !is_later, &link);
        let reloader = Arc::new(Reloader {
            config: Mutex::new(config),
            config_path,
            supervisor,
            logs,
            api,
            server,
            local: Mutex::new(local),
            link,
        });
        let (supervisor, link) = (&reloader.supervisor, &reloader.link);
        let reload = Arc::clone(&reloader);
        reloader
            .api
            .reload_by(Arc::new(move |by| reload.reload(by)));
        let pid_file = match pid_file {
            None => None,
            Some(path) => match PidFile::write(&path, link.main_pid()) {
                Ok(file) => Some(file),
                Err(source) => return Err(StartError::PidFile { path, source }),
            },
        };

        if default_password {
            report::warn(format_args!(
                "hxe has its default password, so it serves this machine only: set password or password_hash in \
                 [api] of hxe.toml"
            ));
        }
        listeners::announce(&addresses, &local_path);
        sys::fault::point("answering");
        link.ready();
        fault::point(concat!("hxe/", env!("CARGO_PKG_VERSION"), " serves"));
        link.notify("READY=1");
        if in_background && let Err(error) = sys::background::quieten() {
            report::warn(format_args!("standard error cannot be let go: {error}"));
        }
        if let Some(ready) = ready
            && let Err(error) = sys::background::announce(ready)
        {
            report::warn(format_args!("standard error cannot be let go: {error}"));
        }
        supervisor.autostart(|| !requests.is_end(), &pending);
        reloader.finish_start(pending);
        // What many starts took is more than what the API does, which may have been left alone for long by now.
        reloader.server.await_calm();
        Ok(Daemon {
            pid_file,
            requests,
            reloader,
            _directories: directories,
        })
    }

    /// Waits for signals until one ends the daemon.
    fn serve(mut self) -> ExitCode {
        let reloader = Arc::clone(&self.reloader);
        let (supervisor, link) = (&reloader.supervisor, &reloader.link);
        let end = loop {
            match self.requests.next() {
                Request::Renew => reloader.renew(),
                Request::Reload => reloader.ask(),
                Request::Upgrade if link.guardian().is_none() => report::warn(format_args!(
                    "without its guardian hxe cannot be upgraded in place: send QUIT, and start it again"
                )),
                end => break end,
            }
        };
        match end {
            Request::Terminate => {
                report::info(format_args!("stopping all programs"));
                link.notify("STOPPING=1");
                supervisor.stop_all();
                reloader.server.shutdown(http::End::Shutdown);
            }
            Request::Upgrade => {
                report::info(format_args!("leaving; all programs run on"));
                link.notify(&reloading());
                leave(&reloader, http::End::Handover);
                return ExitCode::from(LEFT_FOR_ANOTHER);
            }
            Request::Leave | Request::Reload | Request::Renew => {
                report::info(format_args!("leaving; all programs run on"));
                link.notify("STOPPING=1");
                leave(&reloader, http::End::Shutdown);
            }
        }
        reloader.remove_local();
        if let Some(file) = self.pid_file.take()
            && let Err(error) = file.remove()
        {
            report::warn(format_args!("the pid file cannot be removed: {error}"));
        }
        report::info(format_args!("stopped"));
        ExitCode::SUCCESS
    }
}

/// Answers what was asked and leaves the programs running. Clients that have not asked yet wait for the daemon that comes
/// next, if one is to come at once.
fn leave(daemon: &Reloader, why: http::End) {
    fault::point(concat!("hxe/", env!("CARGO_PKG_VERSION"), " leaves"));
    let mut number = 0;
    daemon.server.drain(why, &mut |socket| {
        if why == http::End::Handover {
            number += 1;
            let name = format!("{CONNECTION}{number}");
            daemon.link.keep(&name, socket.as_fd());
        }
    });
    // Who waits for more than a moment is told to ask again.
    daemon.supervisor.leave();
    daemon.server.shutdown(why);
}

/// What a service manager is told before a while without answers. Source: sd_notify(3).
fn reloading() -> String {
    format!(
        "RELOADING=1\nMONOTONIC_USEC={}",
        process::monotonic_micros()
    )
}

fn supervision(config: &Config) -> supervise::Settings {
    supervise::Settings {
        defaults: config.programs.clone(),
        any_user: !config.default_password(),
    }
}

/// Opens the store; a lock on it is waited for, as a child of an ended daemon can hold it until it execs.
fn open_store(directories: &dirs::Directories, storage: &Storage) -> Result<Store, StartError> {
    let end = Instant::now() + Duration::from_secs(3);
    loop {
        match Store::open_or_borrow(directories.state_dir(storage), &storage.run_dir) {
            Err(store::Error::Locked) if Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(source) => {
                return Err(StartError::Store {
                    dir: storage.state_dir.clone(),
                    source,
                });
            }
            Ok(store) => return Ok(store),
        }
    }
}
