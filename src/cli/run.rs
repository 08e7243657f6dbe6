//! `hxe run`: a command as a program, in the foreground with its output and its exit code, or in the background.
//!
//! In the foreground the program is gone with this command, also where that is killed: a second process of hxe, which no
//! signal of the terminal reaches, waits on a pipe for its end, and clears up where it has not done so itself.

use std::io::{self, PipeWriter, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use super::args::Args;
use super::connect::{client, server};
use super::define::{command_of, fill, object};
use super::failure::{Code, Failure};
use super::say;
use super::table::{Opt, Value as Kind, opt};
use super::text::clean;
use crate::client::{Client, Error, Program, Value};
use crate::clock::BootTime;
use crate::report;

#[rustfmt::skip]
pub const OPTIONS: &[Opt] = &[
    opt("background", Some('b'), Kind::No, "come back when it is started, and leave it there"),
    opt("name", Some('n'), Kind::One("NAME"), "its name; default: one is made up"),
    // Clears up after a command in the foreground that tells on standard input what there is.
    opt("sweep", None, Kind::No, ""),
];

/// How long a daemon that went away while a program runs is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
const TRY_EVERY: Duration = Duration::from_millis(200);
/// What tells the sweeper that nothing is left to be done.
const DONE: &str = ".";

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    if args.is_on("sweep") {
        return sweep(args);
    }
    if args.operands.is_empty() {
        let what = "COMMAND is missing\nTry 'hxe run --help'.";
        return Err(Failure::usage(what));
    }
    let client = client(args)?;
    match args.is_on("background") {
        true => background(args, &client),
        false => foreground(args, client),
    }
}

fn background(args: &Args, client: &Client) -> Result<ExitCode, Failure> {
    let program = create(args, client, &mut |_| Ok(()))?;
    let name = clean(program.name());
    match client.start(&program.id) {
        Ok(started) => {
            let pid = started
                .pid
                .map_or_else(|| "?".to_owned(), |pid| pid.to_string());
            say(&format!("{name}: started ({}, pid {pid})\n", program.id))
        }
        Err(error) => {
            // It was only made for this.
            let _ = client.delete(&program.id);
            Err(Failure::from(error).of(&name))
        }
    }
}

/// Creates the program; `tell` is told its name before it is there, where nobody else can have that.
fn create(
    args: &Args,
    client: &Client,
    tell: &mut dyn FnMut(&str) -> Result<(), Failure>,
) -> Result<Program, Failure> {
    let mut body = object();
    command_of(&args.operands, &mut body);
    fill(args, &mut body)?;
    if args.value("name").is_some() {
        return Ok(client.create_json(&body)?);
    }
    let command = args.operands[0].rsplit('/').next().unwrap_or_default();
    let command: String = command
        .chars()
        .filter(|c| !c.is_control())
        .take(40)
        .collect();
    loop {
        let unlike = BootTime::now().as_micros() ^ u64::from(std::process::id()) << 20;
        let name = format!("run-{command}-{:08x}", unlike & 0xffff_ffff);
        body["name"] = Value::from(name.as_str());
        tell(&name)?;
        match client.create_json(&body) {
            Err(Error::Conflict(_)) => {}
            other => return Ok(other?),
        }
    }
}

fn foreground(args: &Args, client: Client) -> Result<ExitCode, Failure> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT])
        .map_err(|error| Failure::general(format!("signals cannot be caught: {error}")))?;
    let (mut sweeper, mut pipe) = sweeper(args, &client)?;
    let mut tell = |what: &str| {
        let written = writeln!(pipe, "{what}");
        written.map_err(|error| Failure::general(format!("a pipe cannot be written: {error}")))
    };
    let program = create(args, &client, &mut tell)?;
    tell(&program.id)?;
    let client = Arc::new(client);
    let id: Arc<str> = program.id.as_str().into();
    let interrupts = Arc::new(AtomicUsize::new(0));
    {
        let (client, id, interrupts) = (
            Arc::clone(&client),
            Arc::clone(&id),
            Arc::clone(&interrupts),
        );
        spawn(move || {
            for _ in signals.forever() {
                // Who asks again wants it now.
                let again = interrupts.fetch_add(1, Ordering::SeqCst) > 0;
                let (its_client, its_id) = (Arc::clone(&client), Arc::clone(&id));
                if spawn(move || its_client.stop(&its_id, again)).is_err() {
                    let _ = client.stop(&id, again);
                }
            }
        })?;
    }
    let ended = follow(&client, &id, &interrupts);
    let code = ended.and_then(|()| exit_code(&client, &id));
    // It may be gone already, by somebody else's hand; where the daemon is away the sweeper goes on.
    let deleted = client.delete(&id);
    if !deleted.is_err_and(|error| may_go_on(&error)) {
        let _ = tell(DONE);
        drop(pipe);
        let _ = sweeper.wait();
    }
    code
}

/// Starts it and passes on what it writes, until it has ended.
fn follow(client: &Arc<Client>, id: &Arc<str>, interrupts: &AtomicUsize) -> Result<(), Failure> {
    // Read from before it starts: nothing of it is rotated away.
    let [out, err] = ["stdout", "stderr"].map(|stream| {
        let output = client.output(id, stream, Some(0))?;
        let (client, id) = (Arc::clone(client), Arc::clone(id));
        spawn(move || copy(&client, &id, stream, output))
    });
    let copies = [out?, err?];
    start(client, id)?;
    // One that came before there was something to stop.
    let interrupts = interrupts.load(Ordering::SeqCst);
    if interrupts > 0 {
        let _ = client.stop(id, interrupts > 1);
    }
    let mut result = Ok(());
    for copy in copies {
        let copied = match copy.join() {
            Ok(copied) => copied,
            Err(_) => Err(Failure::general("a bug: its output could not be read")),
        };
        result = result.and(copied);
    }
    result
}

fn spawn<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, Failure> {
    let spawned = thread::Builder::new().spawn(work);
    spawned.map_err(|error| Failure::general(format!("a thread cannot be started: {error}")))
}

/// Starts it, once: where the answer does not come, as the daemon is replaced, it is looked whether it was started.
fn start(client: &Client, id: &str) -> Result<(), Error> {
    let until = Instant::now() + PATIENCE;
    loop {
        match client.start(id) {
            Ok(_) => return Ok(()),
            Err(error) if may_go_on(&error) && Instant::now() < until => {
                thread::sleep(TRY_EVERY);
                if again(client, |client| client.get(id))?.start_time.is_some() {
                    return Ok(());
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whether what was asked for may be done although this was answered, or nothing.
fn may_go_on(error: &Error) -> bool {
    match error {
        Error::CannotConnect { .. } | Error::Lost(_) => true,
        Error::Refused(refusal) => refusal.status == 503,
        _ => false,
    }
}

/// Passes on one stream, also over a change of daemons.
fn copy(
    client: &Client,
    id: &str,
    stream: &str,
    mut output: crate::client::Output,
) -> Result<(), Failure> {
    let mut copied = 0_u64;
    let mut piece = Vec::new();
    loop {
        let more = output.read(&mut piece);
        if !piece.is_empty() {
            copied += piece.len() as u64;
            if let Err(error) = write(stream, &piece) {
                // As a program that writes to a closed pipe.
                let _ = client.stop(id, false);
                return match error.kind() {
                    io::ErrorKind::BrokenPipe => Ok(()),
                    _ => Err(Failure::general(format!(
                        "cannot write to {stream}: {error}"
                    ))),
                };
            }
            piece.clear();
        }
        match more {
            Ok(true) => {}
            // Over, or the daemon is.
            Ok(false) => match again(client, |client| client.get(id))?.pid {
                None => return Ok(()),
                Some(_) => output = go_on(client, id, stream, copied)?,
            },
            Err(Error::Lost(_)) => output = go_on(client, id, stream, copied)?,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reads on behind what was read, with the daemon that is there now; where it cannot know where that is, from now on.
fn go_on(
    client: &Client,
    id: &str,
    stream: &str,
    copied: u64,
) -> Result<crate::client::Output, Failure> {
    match again(client, |client| client.output(id, stream, Some(copied))) {
        Err(Error::InvalidState(_)) => {
            report::warn(format_args!(
                "some of what it wrote to {stream} is missing here"
            ));
            Ok(again(client, |client| client.output(id, stream, None))?)
        }
        other => Ok(other?),
    }
}

fn write(stream: &str, piece: &[u8]) -> io::Result<()> {
    match stream {
        "stderr" => io::stderr().lock().write_all(piece),
        _ => {
            let mut out = io::stdout().lock();
            out.write_all(piece)?;
            out.flush()
        }
    }
}

/// Asks until somebody answers.
fn again<T>(client: &Client, ask: impl Fn(&Client) -> Result<T, Error>) -> Result<T, Error> {
    let until = Instant::now() + PATIENCE;
    loop {
        match ask(client) {
            Err(error) if may_go_on(&error) && Instant::now() < until => {
                thread::sleep(TRY_EVERY);
            }
            other => return other,
        }
    }
}

fn exit_code(client: &Client, id: &str) -> Result<ExitCode, Failure> {
    // A stop that was asked for may not be over where its streams are closed.
    let program = again(client, |client| client.get(id))?;
    match program.exit_code.map(u8::try_from) {
        Some(Ok(code)) => Ok(ExitCode::from(code)),
        _ => Err(Failure::general("how it ended is not known")),
    }
}

/// Starts the process that clears up; what is written to it is what there is to clear up.
fn sweeper(args: &Args, client: &Client) -> Result<(Child, PipeWriter), Failure> {
    let failed = |error: io::Error| {
        Failure::general(format!(
            "the process that clears up cannot be started: {error}"
        ))
    };
    let (reader, writer) = io::pipe().map_err(failed)?;
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.args(["run", "--sweep", "--server", &server(args)?.address]);
    if let Some(token) = client.token() {
        command.env("HXE_TOKEN", token);
    }
    let child = command
        .stdin(reader)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        // What the terminal sends goes to groups.
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    Ok((child, writer))
}

/// Waits until who has started us is gone, and clears up after it if it has not done so.
fn sweep(args: &Args) -> Result<ExitCode, Failure> {
    let mut told = String::new();
    io::stdin()
        .lock()
        .read_to_string(&mut told)
        .map_err(|error| Failure::general(format!("standard input cannot be read: {error}")))?;
    let Some(last) = told.lines().last().filter(|last| *last != DONE) else {
        return Ok(ExitCode::SUCCESS);
    };
    let client = client(args)?;
    match again(&client, |client| client.delete(last)) {
        Ok(_) | Err(Error::NotFound(_)) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            report::error(format_args!("{error}"));
            Err(Failure::new(Code::General, ""))
        }
    }
}
