//! Which daemon a command speaks to, and as whom.
//!
//! A server that is named, by option or variable, is the one. Else it is the daemon of this machine, over its socket,
//! where who may use that needs no login; where it may not be used, over the address that the configuration has, with
//! credentials. A saved login goes to the server that it is from, and to no other.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::args::Args;
use super::daemon;
use super::failure::{Code, Failure};
use super::logins::{self, Login, Logins};
use super::table::{Opt, Value, opt};
use crate::client::{self, Client, Error};
use crate::clock;
use crate::config::{Config, Environment};

#[rustfmt::skip]
pub const OPTIONS: &[Opt] = &[
    opt("server", Some('s'), Value::One("URL"), "the daemon to speak to: http://HOST:PORT, or unix:PATH of a socket; default: HXE_SERVER_URL, or the one of this machine"),
    opt("token", None, Value::One("TOKEN"), "the token to send; others can see it in the list of processes, so HXE_TOKEN is better"),
    opt("config", Some('c'), Value::One("FILE"), "the configuration of this machine's daemon, which says where that is"),
];

/// Where a daemon that is configured in no way listens.
const DEFAULT_SERVER: &str = "http://127.0.0.1:8080";
const SYSTEM_RUN_DIR: &str = "/run/hxe";
const SOCKET: &str = "hxe.sock";

/// Where the daemon is.
pub struct Server {
    pub address: String,
    /// No login is needed there.
    pub local: bool,
    /// It was found, not named: what to say where it does not answer.
    looked_at: Vec<String>,
}

/// The client of a command, with its credentials.
///
/// # Errors
/// No daemon was found, credentials are refused, the configuration is wrong.
pub fn client(args: &Args) -> Result<Client, Failure> {
    client_within(args, None)
}

/// The same for a command that need not be answered for long: one that has a `--timeout`.
pub fn client_within(args: &Args, timeout: Option<Duration>) -> Result<Client, Failure> {
    let server = server(args)?;
    let mut client = Client::new(&server.address)?;
    if let Some(timeout) = timeout {
        client.set_timeout(timeout);
    }
    authenticate(args, &server, &client).map_err(|failure| server.explain(failure))?;
    Ok(client)
}

/// The value of `--timeout`.
pub fn timeout(args: &Args) -> Result<Option<Duration>, Failure> {
    let timeout = args.value("timeout").map(clock::parse_duration).transpose();
    timeout.map_err(|what| Failure::usage(format_args!("--timeout: {what}")))
}

/// Finds the daemon.
///
/// # Errors
/// There is none on this machine that can be found, or the configuration is wrong.
pub fn server(args: &Args) -> Result<Server, Failure> {
    if let Some(address) = named(args) {
        let local = address.starts_with(['/']) || address.starts_with("unix:");
        return Ok(Server {
            address,
            local,
            looked_at: Vec::new(),
        });
    }
    let places = places(args)?;
    let mut looked_at = Vec::new();
    let mut denied = None;
    for place in &places {
        let socket = place.run_dir.join(SOCKET);
        match client::listens(&socket) {
            Ok(()) => {
                return Ok(Server {
                    address: format!("unix:{}", socket.display()),
                    local: true,
                    looked_at,
                });
            }
            Err(error) => {
                if error.kind() == io::ErrorKind::PermissionDenied {
                    denied = Some(socket.clone());
                }
                looked_at.push(format!("{}: {}", socket.display(), reason(&error)));
            }
        }
        if let Some(mistake) = &place.mistake {
            looked_at.push(mistake.clone());
        }
    }
    let address = places
        .iter()
        .find_map(|place| place.listen.clone())
        .unwrap_or_else(|| DEFAULT_SERVER.to_owned());
    let server = Server {
        address,
        local: false,
        looked_at,
    };
    if has_credentials(args) || logins::is_saved(&server.address) {
        return Ok(server);
    }
    Err(match denied {
        Some(socket) => Failure::new(
            Code::Permission,
            format_args!(
                "{} may be used by root, by the user that the daemon runs as, and by [api] socket_group\n\
                 Become one of them, or log in with 'hxe login'.",
                socket.display()
            ),
        ),
        None => Failure::new(
            Code::Network,
            format_args!("there is no hxe daemon here{}", server.where_looked()),
        ),
    })
}

/// Where `hxe login` logs in to where no server is named.
///
/// # Errors
/// The configuration is wrong.
pub fn login_server(args: &Args) -> Result<String, Failure> {
    if let Some(address) = named(args) {
        return Ok(address);
    }
    let places = places(args)?;
    let listen = places.into_iter().find_map(|place| place.listen);
    Ok(listen.unwrap_or_else(|| DEFAULT_SERVER.to_owned()))
}

/// The server that is named: by the option, or by the variable where no configuration is named.
fn named(args: &Args) -> Option<String> {
    let variable = || match args.value("config") {
        None => variable("HXE_SERVER_URL"),
        Some(_) => None,
    };
    args.value("server").map(str::to_owned).or_else(variable)
}

impl Server {
    fn where_looked(&self) -> String {
        let mut text = String::new();
        for place in &self.looked_at {
            text += &format!("\nLooked at {place}.");
        }
        text + "\nIs it running? 'hxe daemon' starts one; --server says where else it is."
    }

    /// Adds where else was looked, where nobody answered.
    fn explain(&self, failure: Failure) -> Failure {
        match failure.code {
            Code::Network if !self.looked_at.is_empty() => {
                let first = failure.message.lines().next().unwrap_or_default();
                Failure::new(Code::Network, first.to_owned() + &self.where_looked())
            }
            _ => failure,
        }
    }
}

/// Who a command says it is.
pub enum Credentials {
    /// A token, and from where it is.
    Token(&'static str, String),
    Password(String, String),
    /// The kernel says who it is.
    Socket,
    Saved(Login),
    None,
}

impl Credentials {
    /// Gives them to a client.
    ///
    /// # Errors
    /// As for a login.
    pub fn apply(&self, client: &Client) -> Result<(), Error> {
        match self {
            Credentials::Token(_, token) => client.set_token(Some(token.clone())),
            Credentials::Password(username, password) => {
                client.login(username, password)?;
            }
            Credentials::Saved(login) => client.set_token(Some(login.token.clone())),
            Credentials::Socket | Credentials::None => {}
        }
        Ok(())
    }
}

/// What there is for this server: of an option or variable, else a saved login.
///
/// # Errors
/// The saved logins cannot be read.
pub fn credentials(args: &Args, server: &Server) -> Result<Credentials, Failure> {
    if let Some(token) = args.value("token") {
        return Ok(Credentials::Token("--token", token.to_owned()));
    }
    if let Some(token) = variable("HXE_TOKEN") {
        return Ok(Credentials::Token("HXE_TOKEN", token));
    }
    if let (Some(username), Some(password)) = (variable("HXE_USERNAME"), variable("HXE_PASSWORD")) {
        return Ok(Credentials::Password(username, password));
    }
    if server.local {
        return Ok(Credentials::Socket);
    }
    let saved = Logins::open()?.and_then(|logins| logins.find(&server.address));
    Ok(saved.map_or(Credentials::None, Credentials::Saved))
}

fn authenticate(args: &Args, server: &Server, client: &Client) -> Result<(), Failure> {
    let credentials = credentials(args, server)?;
    credentials.apply(client)?;
    if let Credentials::Saved(login) = &credentials
        && login.is_ageing()
    {
        match client.refresh() {
            Ok(token) => {
                if let Some(mut logins) = Logins::open()? {
                    logins.save(&server.address, &token)?;
                }
            }
            // So will be what is asked next, which says so.
            Err(Error::Unauthorized(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn has_credentials(args: &Args) -> bool {
    let pair = || variable("HXE_USERNAME").is_some() && variable("HXE_PASSWORD").is_some();
    args.value("token").is_some() || variable("HXE_TOKEN").is_some() || pair()
}

/// A variable that is set and not empty.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Where a daemon of this machine would be.
struct Place {
    run_dir: PathBuf,
    /// As an address for a client.
    listen: Option<String>,
    /// What keeps its configuration from being understood.
    mistake: Option<String>,
}

/// The places to look at: that of our own daemon, then that of the system's.
fn places(args: &Args) -> Result<Vec<Place>, Failure> {
    let own = Environment::of_process();
    let named = daemon::path(args, "config")?;
    if let Some(path) = named {
        let config = Config::peek(Some(&path), &own).map_err(|error| daemon::wrong(&error))?;
        return Ok(vec![Place::of(config)]);
    }
    let mut places = vec![place(&own)];
    if !own.root {
        places.push(place(&Environment { root: true, ..own }));
    }
    Ok(places)
}

fn place(environment: &Environment) -> Place {
    match Config::peek(None, environment) {
        Ok(config) => Place::of(config),
        Err(error) => Place {
            run_dir: usual_run_dir(environment.root),
            listen: None,
            mistake: error.lines().into_iter().next(),
        },
    }
}

/// Where the socket most likely is, where the configuration cannot be read.
fn usual_run_dir(root: bool) -> PathBuf {
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    match own.filter(|path| !root && path.is_absolute()) {
        Some(path) => path.join("hxe"),
        None => PathBuf::from(SYSTEM_RUN_DIR),
    }
}

impl Place {
    fn of(config: Config) -> Place {
        let listen = config.listen.iter().find(|address| address.port() != 0);
        Place {
            run_dir: config.storage.run_dir,
            listen: listen.map(|address| {
                let mut address = *address;
                if address.ip().is_unspecified() {
                    address.set_ip(match address {
                        std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                        std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
                    });
                }
                format!("http://{address}")
            }),
            mistake: None,
        }
    }
}

fn reason(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such socket",
        io::ErrorKind::ConnectionRefused => "nobody listens there",
        io::ErrorKind::PermissionDenied => "not permitted",
        _ => "it cannot be connected to",
    }
}
