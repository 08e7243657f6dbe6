//! Drives the real `hxe` from outside: one test binary, one file a capability, each test with a daemon of its own.

/// Login, refresh, logout, and who gets in.
mod auth;
/// The Rust client, method by method.
mod client;
/// Wall clocks that are wrong, and jump.
mod clocks;
/// Commands that list, show and control programs; exit codes, formats, completions.
mod commands;
/// hxe.toml, `--check`, the environment, the command line.
mod config;
/// Which web pages may ask.
mod cors;
/// The web page: who gets its files, with which headers, and where there is none.
mod dashboard;
/// Programs that files declare.
mod declared;
/// `hxe create` and `hxe update`.
mod define;
/// Disks that are full, read-only or gone, and log files that somebody else touches.
mod disk;
/// What a program finds when it starts: user, directory, variables, descriptors.
mod environment;
/// How the last runs ended.
mod exits;
/// Logs as they are written.
mod follow;
/// Run records that say what is not so, and databases that know nothing of what runs.
mod forged;
/// What was used before, for plots.
mod history;
/// Attacks, and what good clients notice of them.
mod hostile;
/// Under which names the daemon answers.
mod hosts;
/// The wire: paths, methods, lengths, connections, versions.
mod http;
/// From a supervisord.conf to files that declare programs.
mod import;
/// Servers that are no hxe daemon, and what the client makes of them.
mod impostors;
/// The installer, and the scripts for inits.
mod install;
/// What becomes of hxe.toml while one daemon follows another.
mod kept_configuration;
/// Start, stop and restart by request, and how ends are shown.
mod lifecycle;
/// How often a client may ask.
mod limits;
/// The Unix socket, and who may use it.
mod local;
/// What of programs' output goes to disk.
mod log_disk;
/// `hxe login` and its like: who a command says it is, and to whom.
mod logins;
/// What programs write, and how it is read.
mod logs;
/// CPU, memory, counts.
mod metrics;
/// The description of the API for machines. Every other test holds answers against it, too.
mod openapi;
/// The daemon as the first process of a container.
mod pid_1;
/// Definitions: create, read, list, replace, delete.
mod programs;
/// What Prometheus scrapes.
mod prometheus;
/// The commands that the README shows, and what it says they print.
mod readme;
/// The session with curl that the API reference ends with.
mod reference;
/// Reading the configuration again.
mod reload;
/// Automatic restarts: policy, backoff, their end.
mod restarts;
/// `hxe run`.
mod run;
/// The defaults that keep others out.
mod safety;
/// Too few processes, threads, descriptors.
mod scarcity;
/// What a service manager is told.
mod service_manager;
/// Followers and WebSockets that do not read.
mod slow_clients;
/// Autostart, many programs, the end of the daemon.
mod start_and_end;
/// What outlives a restart of the daemon.
mod state;
/// What a stop reaches, and how fast.
mod stopping;
mod stops;
/// The daemon, its client, and waiting.
mod support;
/// What the daemon's own death leaves as it was.
mod survival;
/// Changing to another binary, and leaving the programs to another daemon.
mod upgrade;
/// Upgrades that fail, and what happens during one.
mod upgrade_refused;
/// What is refused in a body or a query.
mod validation;
/// `hxe logs`, `hxe events` and `hxe metrics`.
mod watching;
/// Opening a WebSocket, logging in there, and how it ends.
mod websocket;
/// What is told over a WebSocket, and in which order.
mod websocket_events;
