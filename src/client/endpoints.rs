//! The methods of the client, one an endpoint. A program is named by its id or its name.

use serde_json::{Value, json};

use super::connection::Head;
use super::wire::text;
use super::{
    Client, Definition, Entries, Error, Events, Exit, History, LONG_PATIENCE, LogFilter, Metrics,
    Outcome, Output, PATIENCE, Program, Request, SystemMetrics, Token, events,
};

/// Which programs are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListFilter<'a> {
    /// `running`, `stopped` or `error`
    pub status: Option<&'a str>,
    pub enabled: Option<bool>,
    /// At most so many; `None`: all.
    pub limit: Option<u32>,
    /// Behind so many.
    pub offset: u32,
}

impl Client {
    /// `POST /auth/login`: gets a token, and sends it from now on.
    ///
    /// ```standalone_crate
    /// # let daemon = hxe::example::daemon()?;
    /// # let address = &daemon.address;
    /// use hxe::client::{Client, Error};
    ///
    /// let client = Client::new(address)?; // "http://localhost:8080"
    /// assert!(matches!(client.login("admin", "wrong"), Err(Error::Unauthorized(_))));
    /// let token = client.login("admin", "password")?;
    /// println!("good until {}", token.expires_at);
    /// println!("{} programs run", client.system_metrics()?.running);
    /// client.logout()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Unauthorized`]: wrong credentials.
    pub fn login(&self, username: &str, password: &str) -> Result<Token, Error> {
        let body = json!({"username": username, "password": password});
        let token = read_token(&self.post("/auth/login", Some(&body))?)?;
        self.set_token(Some(token.token.clone()));
        Ok(token)
    }

    /// `POST /auth/refresh`: gets a further token, and sends that from now on. The old one stays good.
    ///
    /// # Errors
    /// [`Error::Unauthorized`]: the token is no longer good, or there is none.
    pub fn refresh(&self) -> Result<Token, Error> {
        let token = read_token(&self.post("/auth/refresh", None)?)?;
        self.set_token(Some(token.token.clone()));
        Ok(token)
    }

    /// `POST /auth/logout`: ends the token.
    ///
    /// # Errors
    /// [`Error::Unauthorized`]: it was no longer good, or there is none.
    pub fn logout(&self) -> Result<(), Error> {
        self.post("/auth/logout", None)?;
        self.set_token(None);
        Ok(())
    }

    /// `GET /program`: in order of id.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn list(&self, filter: &ListFilter) -> Result<Vec<Program>, Error> {
        let limit = filter.limit.unwrap_or(u32::MAX);
        let mut path = format!("/program?limit={limit}&offset={}", filter.offset);
        if let Some(status) = filter.status {
            path += &format!("&status={}", encode(status));
        }
        if let Some(enabled) = filter.enabled {
            path += &format!("&enabled={enabled}");
        }
        match self.get_json(&path)? {
            Value::Array(programs) => programs.into_iter().map(read_program).collect(),
            _ => Err(Error::Protocol("the list of programs is no list")),
        }
    }

    /// `GET /program/{id}`.
    ///
    /// # Errors
    /// [`Error::NotFound`]: there is no such program.
    pub fn get(&self, program: &str) -> Result<Program, Error> {
        self.get_json(&path(program, "")).and_then(read_program)
    }

    /// `POST /program`: stopped, until it is started.
    ///
    /// # Errors
    /// [`Error::Conflict`]: the name is taken. [`Error::Refused`] names the field that is wrong.
    pub fn create(&self, definition: &Definition) -> Result<Program, Error> {
        self.create_json(&definition.to_json())
    }

    /// The same with a body as it is to be sent.
    ///
    /// # Errors
    /// As for [`create`](Client::create).
    pub fn create_json(&self, body: &Value) -> Result<Program, Error> {
        self.post("/program", Some(body)).and_then(read_program)
    }

    /// `PUT /program/{id}`: replaces the whole definition.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Conflict`]: the name is taken, or the program is declared in a file.
    pub fn update(&self, program: &str, definition: &Definition) -> Result<Program, Error> {
        self.update_json(program, &definition.to_json())
    }

    /// The same with a body as it is to be sent, such as [`Program::json`] with some fields changed.
    ///
    /// # Errors
    /// As for [`update`](Client::update).
    pub fn update_json(&self, program: &str, body: &Value) -> Result<Program, Error> {
        let path = path(program, "");
        self.change("PUT", &path, Some(body)).and_then(read_program)
    }

    /// `DELETE /program/{id}`: stops it first.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`]: it is declared in a file.
    pub fn delete(&self, program: &str) -> Result<Outcome, Error> {
        let json = self.change("DELETE", &path(program, ""), None)?;
        read_outcome(json)
    }

    /// `POST /program/{id}/start`.
    ///
    /// # Errors
    /// [`Error::InvalidState`]: it runs. [`Error::Refused`] with the code `start_failed` and the reason.
    pub fn start(&self, program: &str) -> Result<Outcome, Error> {
        self.command(program, "/start")
    }

    /// `POST /program/{id}/stop`: comes back when it has ended. `force` kills at once.
    ///
    /// # Errors
    /// [`Error::InvalidState`]: it does not run.
    pub fn stop(&self, program: &str, force: bool) -> Result<Outcome, Error> {
        let force = if force { "?force=true" } else { "" };
        self.command(program, &format!("/stop{force}"))
    }

    /// `POST /program/{id}/restart`: starts one that is stopped, too.
    ///
    /// # Errors
    /// [`Error::Refused`] with the code `start_failed` and the reason.
    pub fn restart(&self, program: &str) -> Result<Outcome, Error> {
        self.command(program, "/restart")
    }

    /// `POST /program/{id}/enable`: starts with the daemon from now on.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn enable(&self, program: &str) -> Result<Outcome, Error> {
        self.command(program, "/enable")
    }

    /// `POST /program/{id}/disable`.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn disable(&self, program: &str) -> Result<Outcome, Error> {
        self.command(program, "/disable")
    }

    /// `POST /program/{id}/signal`: sends a signal (`HUP`, or a number) to the program's own process.
    ///
    /// # Errors
    /// [`Error::InvalidState`]: it does not run. [`Error::Refused`]: there is no such signal.
    pub fn signal(&self, program: &str, signal: &str) -> Result<Outcome, Error> {
        let body = json!({"signal": signal});
        let json = self.post(&path(program, "/signal"), Some(&body))?;
        read_outcome(json)
    }

    /// `GET /program/{id}/logs`: the last entries, oldest first.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Refused`]: an unknown level, more than 10,000 lines.
    pub fn logs(&self, program: &str, filter: &LogFilter) -> Result<Entries, Error> {
        self.entries(program, filter, false)
    }

    /// The same with `follow=true`: then each new entry as it is written. Dropped, it ends.
    ///
    /// ```standalone_crate
    /// # let daemon = hxe::example::daemon()?;
    /// # let client = hxe::client::Client::local(&daemon.socket);
    /// use hxe::client::{Definition, LogFilter};
    ///
    /// client.create(&Definition { args: "done".to_owned(), ..Definition::new("job", "echo") })?;
    /// let entries = client.follow("job", &LogFilter { levels: &["info"], ..Default::default() })?;
    /// client.start("job")?;
    /// for entry in entries {
    ///     let entry = entry?;
    ///     if entry.stream == "stdout" {
    ///         assert_eq!(entry.message, "done");
    ///         break;
    ///     }
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As for [`logs`](Client::logs).
    pub fn follow(&self, program: &str, filter: &LogFilter) -> Result<Entries, Error> {
        self.entries(program, filter, true)
    }

    /// `GET /program/{id}/output`: what it writes to `stdout` or `stderr`, byte for byte, until its run is over: all of it
    /// behind the first `from` bytes, or from now on where that is `None`. Who does not read makes the program wait.
    ///
    /// # Errors
    /// [`Error::NotFound`]. [`Error::InvalidState`]: so much was written that the daemon does not know where `from` is.
    pub fn output(&self, program: &str, stream: &str, from: Option<u64>) -> Result<Output, Error> {
        let from = from.map_or_else(|| "end".to_owned(), |bytes| bytes.to_string());
        let path = path(
            program,
            &format!("/output?stream={}&from={from}", encode(stream)),
        );
        let (_, connection) = self.answer(&Request {
            method: "GET",
            base: "/api",
            path: &path,
            body: None,
            headers: "",
            patience: PATIENCE,
        })?;
        Ok(Output::new(connection))
    }

    /// `GET /program/{id}/metrics`.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn metrics(&self, program: &str) -> Result<Metrics, Error> {
        let json = self.get_json(&path(program, "/metrics"))?;
        match json["metrics"].is_object() {
            true => Ok(Metrics::read(json)),
            false => Err(Error::Protocol("the metrics are missing")),
        }
    }

    /// `GET /metrics`: of the machine, and how many programs there are.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn system_metrics(&self) -> Result<SystemMetrics, Error> {
        let json = self.get_json("/metrics")?;
        match json["system"].is_object() {
            true => Ok(SystemMetrics::read(json)),
            false => Err(Error::Protocol("the metrics are missing")),
        }
    }

    /// `GET /program/{id}/exits`: how its last ten runs ended, newest first.
    ///
    /// ```standalone_crate
    /// # let daemon = hxe::example::daemon()?;
    /// # let client = hxe::client::Client::local(&daemon.socket);
    /// use hxe::client::Definition;
    ///
    /// client.create(&Definition { args: "1000".to_owned(), ..Definition::new("job", "sleep") })?;
    /// client.start("job")?;
    /// client.stop("job", false)?;
    /// let exits = client.exits("job")?;
    /// assert_eq!(exits[0].reason, "stop");
    /// assert_eq!(exits[0].via.as_deref(), Some("hxe"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn exits(&self, program: &str) -> Result<Vec<Exit>, Error> {
        let mut json = self.get_json(&path(program, "/exits"))?;
        match json["exits"].take() {
            Value::Array(exits) => Ok(exits.into_iter().map(Exit::read).collect()),
            _ => Err(Error::Protocol("the list of exits is no list")),
        }
    }

    /// `GET /history`: what the machine and all programs use, and the samples that were taken after the answer that had `next`;
    /// all, where that is `None`.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn history(&self, since: Option<u64>) -> Result<History, Error> {
        self.read_history(&since.unwrap_or(0).to_string())
    }

    /// The same without samples.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn all_metrics(&self) -> Result<History, Error> {
        self.read_history("now")
    }

    fn read_history(&self, since: &str) -> Result<History, Error> {
        let json = self.get_json(&format!("/history?since={since}"))?;
        match json["system"].is_object() {
            true => Ok(History::read(json)),
            false => Err(Error::Protocol("the metrics are missing")),
        }
    }

    /// `GET /metrics`, outside of `/api`: of all programs and the daemon, in the text format of Prometheus.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn prometheus(&self) -> Result<Output, Error> {
        let (_, connection) = self.answer(&Request {
            method: "GET",
            base: "",
            path: "/metrics",
            body: None,
            headers: "",
            patience: PATIENCE,
        })?;
        Ok(Output::bounded(connection))
    }

    /// `POST /reload`: reads the configuration and the declared programs again. The answer says what was done to which.
    ///
    /// # Errors
    /// [`Error::Refused`] names file and line of a mistake. Nothing was changed then.
    pub fn reload(&self) -> Result<Value, Error> {
        self.change("POST", "/reload", None)
    }

    /// `GET /daemon`: which hxe serves, as which process, and how its last upgrade went.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn daemon(&self) -> Result<Value, Error> {
        self.get_json("/daemon")
    }

    /// `GET /ws`: events of these kinds (`program.*`, `program.error`, `log.new`) of these programs (ids or names); none:
    /// all. Once it is there nothing is missed.
    ///
    /// ```standalone_crate
    /// # let daemon = hxe::example::daemon()?;
    /// # let client = hxe::client::Client::local(&daemon.socket);
    /// use hxe::client::Definition;
    ///
    /// client.create(&Definition { args: "1000".to_owned(), ..Definition::new("job", "sleep") })?;
    /// let mut events = client.events(&["program.*"], &["job"])?;
    /// client.start("job")?;
    /// let event = events.next().expect("it is open")?;
    /// assert_eq!(event.kind, "program.started");
    /// assert_eq!(event.data["name"], "job");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Closed`] with code 4401: the token is not good.
    pub fn events(&self, kinds: &[&str], programs: &[&str]) -> Result<Events, Error> {
        let key = events::key();
        let headers = format!(
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
        );
        let (head, connection) = self.answer(&Request {
            method: "GET",
            base: "/api",
            path: "/ws",
            body: None,
            headers: &headers,
            patience: PATIENCE,
        })?;
        if !is_switched(&head, &key) {
            return Err(Error::Protocol("no WebSocket was opened"));
        }
        let token = self.token();
        Events::begin(connection, token.as_deref(), kinds, programs)
            .map_err(|error| super::timed(error, self.timeout.unwrap_or(PATIENCE)))
    }

    fn entries(&self, program: &str, filter: &LogFilter, follow: bool) -> Result<Entries, Error> {
        let mut path = path(program, &format!("/logs?follow={follow}"));
        if let Some(lines) = filter.lines {
            path += &format!("&lines={lines}");
        }
        if !filter.levels.is_empty() {
            path += &format!("&level={}", encode(&filter.levels.join(",")));
        }
        let request = Request {
            method: "GET",
            base: "/api",
            path: &path,
            body: None,
            headers: "Accept: application/x-ndjson\r\n",
            patience: PATIENCE,
        };
        let (_, connection) = self.answer(&request)?;
        let patience = (!follow).then(|| self.patience(&request));
        Ok(Entries::new(connection, patience))
    }

    fn get_json(&self, path: &str) -> Result<Value, Error> {
        self.json(&Request {
            method: "GET",
            base: "/api",
            path,
            body: None,
            headers: "",
            patience: PATIENCE,
        })
    }

    fn post(&self, path: &str, body: Option<&Value>) -> Result<Value, Error> {
        self.json(&Request {
            method: "POST",
            base: "/api",
            path,
            body,
            headers: "",
            patience: PATIENCE,
        })
    }

    /// A request that may be answered only when a program has ended.
    fn change(
        &self,
        method: &'static str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Error> {
        self.json(&Request {
            method,
            base: "/api",
            path,
            body,
            headers: "",
            patience: LONG_PATIENCE,
        })
    }

    fn command(&self, program: &str, below: &str) -> Result<Outcome, Error> {
        let json = self.change("POST", &path(program, below), None)?;
        read_outcome(json)
    }
}

fn read_program(json: Value) -> Result<Program, Error> {
    match text(&json["id"]).is_empty() {
        true => Err(Error::Protocol("the program has no id")),
        false => Ok(Program::read(json)),
    }
}

fn read_outcome(json: Value) -> Result<Outcome, Error> {
    match text(&json["message"]).is_empty() {
        true => Err(Error::Protocol("it does not say what was done")),
        false => Ok(Outcome::read(json)),
    }
}

fn read_token(json: &Value) -> Result<Token, Error> {
    match text(&json["token"]).is_empty() {
        true => Err(Error::Protocol("the token is missing")),
        false => Ok(Token::read(json)),
    }
}

fn is_switched(head: &Head, key: &str) -> bool {
    head.status == 101 && events::accepts(head.header("sec-websocket-accept"), key)
}

fn path(program: &str, below: &str) -> String {
    format!("/program/{}{below}", encode(program))
}

/// Percent-encodes what does not stand for itself. Source: RFC 3986 2.3.
fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'-' | b'.' | b'_' | b'~' => encoded.push(byte.into()),
            _ if byte.is_ascii_alphanumeric() => encoded.push(byte.into()),
            _ => encoded += &format!("%{byte:02X}"),
        }
    }
    encoded
}
