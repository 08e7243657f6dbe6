//! `hxe login`, `logout`, `auth status` and `auth refresh`.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use super::args::Args;
use super::connect::{Credentials, credentials, login_server, server, variable};
use super::failure::{Code, Failure};
use super::logins::Logins;
use super::output::Output;
use super::table::{Opt, Value, opt};
use super::{prompt, say};
use crate::client::{Client, Error, Token};

#[rustfmt::skip]
pub const LOGIN: &[Opt] = &[
    opt("username", Some('u'), Value::One("NAME"), "the user; default: HXE_USERNAME, or admin"),
];

/// Who logs in where nobody is named.
const ADMIN: &str = "admin";

/// `hxe login`: with a password from HXE_PASSWORD, the terminal or standard input, or with a token.
pub fn login(args: &Args) -> Result<ExitCode, Failure> {
    let server = login_server(args)?;
    let client = Client::new(&server)?;
    let mut logins = open()?;
    let token = match args.value("token") {
        Some(token) => {
            client.set_token(Some(token.to_owned()));
            // Whether it is good.
            client.system_metrics()?;
            Token {
                token: token.to_owned(),
                expires_at: "-".to_owned(),
            }
        }
        None => {
            let username = args.value("username").map(str::to_owned);
            let username = username
                .or_else(|| variable("HXE_USERNAME"))
                .unwrap_or_else(|| ADMIN.to_owned());
            let password = match variable("HXE_PASSWORD") {
                Some(password) => password,
                None => ask(&username, &server)?,
            };
            client.login(&username, &password)?
        }
    };
    logins.save(&server, &token)?;
    let until = until(&token.expires_at);
    say(&format!("Logged in to {server}{until}\n"))
}

fn until(expires: &str) -> String {
    match expires {
        "" | "-" => String::new(),
        expires => format!(" until {expires}"),
    }
}

fn ask(username: &str, server: &str) -> Result<String, Failure> {
    let password = match io::stdin().is_terminal() {
        true => prompt::password(&format!("Password of {username} at {server}: ")),
        false => prompt::line(),
    };
    match password {
        Ok(Some(password)) if !password.is_empty() => Ok(password),
        Ok(_) => Err(Failure::new(Code::Authentication, "no password was given")),
        Err(error) => Err(Failure::general(format_args!(
            "the password cannot be read: {error}"
        ))),
    }
}

fn open() -> Result<Logins, Failure> {
    Logins::open()?.ok_or_else(|| {
        let what = "there is no place to save a login: set HOME, or use HXE_TOKEN";
        Failure::general(what)
    })
}

/// `hxe logout`: ends the token and forgets it.
pub fn logout(args: &Args) -> Result<ExitCode, Failure> {
    let server = login_server(args)?;
    let client = Client::new(&server)?;
    let given = args.value("token").map(str::to_owned);
    let given = given.or_else(|| variable("HXE_TOKEN"));
    let is_saved = given.is_none();
    let mut logins = Logins::open()?;
    let saved = || logins.as_ref()?.find(&server).map(|login| login.token);
    let Some(token) = given.or_else(saved) else {
        return say(&format!("Not logged in to {server}\n"));
    };
    client.set_token(Some(token));
    let ended = match client.logout() {
        // It was over already.
        Err(Error::Unauthorized(_)) if is_saved => Ok(()),
        other => other,
    };
    // Also where the server cannot be told: nobody shall find it here.
    if is_saved && let Some(logins) = &mut logins {
        logins.forget(&server)?;
    }
    ended?;
    say(&format!("Logged out of {server}\n"))
}

/// `hxe auth status`: whom commands speak to, and as whom; 3 where that is not good.
pub fn status(args: &Args) -> Result<ExitCode, Failure> {
    let output = Output::of(args)?;
    let server = server(args)?;
    let client = Client::new(&server.address)?;
    let credentials = credentials(args, &server)?;
    let (how, expires) = match &credentials {
        Credentials::Token(from, _) => (*from, ""),
        Credentials::Password(..) => ("HXE_USERNAME and HXE_PASSWORD", ""),
        Credentials::Socket => ("none needed", ""),
        Credentials::Saved(login) => ("saved", login.expires.as_str()),
        Credentials::None => ("none", ""),
    };
    let checked = credentials
        .apply(&client)
        .and_then(|()| client.system_metrics().map(drop));
    let valid = match &checked {
        Ok(()) => true,
        Err(Error::Unauthorized(_)) => false,
        Err(_) => return Err(checked.err().map_or(Failure::general(""), Failure::from)),
    };
    let fields = [
        ("server", server.address.clone()),
        ("login", how.to_owned()),
        (
            "expires_at",
            if expires.is_empty() { "-" } else { expires }.to_owned(),
        ),
        ("valid", valid.to_string()),
    ];
    let quoted = |text: &str| crate::client::Value::from(text).to_string();
    let json = format!(
        "{{\"server\":{},\"login\":{},\"expires_at\":{},\"valid\":{valid}}}",
        quoted(&server.address),
        quoted(how),
        if expires.is_empty() {
            "null".to_owned()
        } else {
            quoted(expires)
        },
    );
    output.fields(&fields, &json)?;
    match checked {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error.into()),
    }
}

/// `hxe auth refresh`: a new token in place of a saved one; where the token was given, the new one is printed.
pub fn refresh(args: &Args) -> Result<ExitCode, Failure> {
    let given = args.value("token").is_some() || variable("HXE_TOKEN").is_some();
    let address = login_server(args)?;
    let client = Client::new(&address)?;
    if given {
        let token = args.value("token").map(str::to_owned);
        client.set_token(token.or_else(|| variable("HXE_TOKEN")));
        return say(&(client.refresh()?.token + "\n"));
    }
    let mut logins = open()?;
    let Some(login) = logins.find(&address) else {
        let what = format!("not logged in to {address}\nLog in with 'hxe login'.");
        return Err(Failure::new(Code::Authentication, what));
    };
    client.set_token(Some(login.token));
    let token = client.refresh()?;
    logins.save(&address, &token)?;
    say(&format!(
        "Logged in to {address}{}\n",
        until(&token.expires_at)
    ))
}
