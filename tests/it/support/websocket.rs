//! A raw WebSocket client: sends whatever frames it is told, and reads those of the daemon strictly. Source: RFC 6455.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Connection, Daemon, Reply, schema};

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// The key of the RFC's example, and what it says is the answer to it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// What came.
#[derive(Clone, Debug, PartialEq)]
pub enum Got {
    Message(Value),
    Pong(Vec<u8>),
    Closed(u16, String),
    /// The connection ended without a close frame.
    Gone,
}

/// An open WebSocket.
pub struct WebSocket {
    connection: Connection,
}

impl WebSocket {
    /// The request of a good client, and the answer to it. `headers` are whole lines.
    #[track_caller]
    pub fn ask(daemon: &Daemon, headers: &str) -> (Connection, Reply) {
        let mut connection = daemon.sent(format!(
            "GET /api/ws HTTP/1.1\r\nHost: localhost:{}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n",
            daemon.address.port()
        ));
        let reply = connection.head_reply();
        (connection, reply)
    }

    /// Opens one, and says nothing yet.
    #[track_caller]
    pub fn open(daemon: &Daemon) -> WebSocket {
        let (connection, reply) = WebSocket::ask(daemon, "");
        let reply = reply.expect(101);
        assert_eq!(reply.header("sec-websocket-accept"), Some(ACCEPT));
        assert_eq!(reply.header("upgrade"), Some("websocket"));
        assert_eq!(reply.header("connection"), Some("Upgrade"));
        WebSocket { connection }
    }

    /// Opens one and logs in: all events come.
    #[track_caller]
    pub fn logged_in(daemon: &Daemon) -> WebSocket {
        let mut socket = WebSocket::open(daemon);
        socket.auth(daemon.token());
        socket
    }

    /// Opens one, logs in, and subscribes.
    #[track_caller]
    pub fn subscribed(daemon: &Daemon, events: Value, programs: Value) -> WebSocket {
        let mut socket = WebSocket::open(daemon);
        socket.auth(daemon.token());
        socket.subscribe(events, programs);
        socket
    }

    /// Logs in; gives `expires_at`.
    #[track_caller]
    pub fn auth(&mut self, token: &str) -> String {
        self.say(&json!({"type": "auth", "token": token}));
        let answer = self.message();
        assert_eq!(answer["type"], "auth.ok", "{answer}");
        let end = answer["expires_at"].as_str();
        end.expect("a token has an end").to_owned()
    }

    /// Subscribes, and waits until that holds: gives what came before.
    #[track_caller]
    pub fn subscribe(&mut self, events: Value, programs: Value) -> Vec<Value> {
        self.say(&json!({"type": "subscribe", "events": events, "programs": programs}));
        self.reached()
    }

    /// Sends a ping, and gives all messages before the pong.
    #[track_caller]
    pub fn reached(&mut self) -> Vec<Value> {
        self.frame(PING, true, b"reached?");
        let mut before = Vec::new();
        loop {
            match self.get() {
                Got::Message(message) => before.push(message),
                Got::Pong(payload) => {
                    assert_eq!(payload, b"reached?");
                    return before;
                }
                other => panic!("{other:?} instead of a pong"),
            }
        }
    }

    /// Waits for so long for what is read from now on.
    pub fn patience(&mut self, patience: Duration) {
        self.connection.patience(patience);
    }

    pub fn say(&mut self, message: &Value) {
        self.text(&message.to_string());
    }

    pub fn text(&mut self, text: &str) {
        self.frame(TEXT, true, text.as_bytes());
    }

    pub fn binary(&mut self, bytes: &[u8]) {
        self.frame(BINARY, true, bytes);
    }

    pub fn close(&mut self, code: u16) {
        self.frame(CLOSE, true, &code.to_be_bytes());
    }

    /// Sends one frame, masked as clients must.
    pub fn frame(&mut self, opcode: u8, is_last: bool, payload: &[u8]) {
        const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
        let mut frame = vec![opcode | if is_last { 0x80 } else { 0 }];
        match payload.len() {
            length @ 0..126 => frame.push(0x80 | length as u8),
            length => {
                let length = u16::try_from(length).expect("no test sends more");
                frame.push(0x80 | 126);
                frame.extend(length.to_be_bytes());
            }
        }
        frame.extend(MASK);
        frame.extend(
            payload
                .iter()
                .zip(MASK.iter().cycle())
                .map(|(byte, mask)| byte ^ mask),
        );
        self.connection.send(frame);
    }

    /// What comes next.
    #[track_caller]
    pub fn get(&mut self) -> Got {
        let mut head = [0; 2];
        if self.connection.read(&mut head).is_err() {
            return Got::Gone;
        }
        assert_eq!(
            head[0] & 0xf0,
            0x80,
            "the daemon sends whole messages, and no extensions"
        );
        assert_eq!(head[1] & 0x80, 0, "a server does not mask");
        let length = match head[1] {
            126 => u64::from(u16::from_be_bytes(self.bytes())),
            127 => u64::from_be_bytes(self.bytes()),
            short => u64::from(short),
        };
        let mut payload = vec![0; usize::try_from(length).expect("it fits")];
        self.connection
            .read(&mut payload)
            .expect("a frame is whole");
        match head[0] & 0x0f {
            TEXT => {
                let message = serde_json::from_slice(&payload).expect("messages are JSON");
                schema::check("DaemonMessage", &message);
                Got::Message(message)
            }
            PONG => Got::Pong(payload),
            CLOSE => {
                let (code, reason) = payload.split_at(2);
                let reason = String::from_utf8(reason.to_vec()).expect("a reason is UTF-8");
                assert!(reason.len() <= 123);
                Got::Closed(u16::from_be_bytes([code[0], code[1]]), reason)
            }
            opcode => panic!("a frame of kind {opcode}"),
        }
    }

    /// The next message.
    #[track_caller]
    pub fn message(&mut self) -> Value {
        match self.get() {
            Got::Message(message) => message,
            other => panic!("{other:?} instead of a message"),
        }
    }

    /// The next message of this type; gives it with all before it.
    #[track_caller]
    pub fn until(&mut self, kind: &str) -> (Vec<Value>, Value) {
        let mut before = Vec::new();
        loop {
            let message = self.message();
            if message["type"] == kind {
                return (before, message);
            }
            before.push(message);
        }
    }

    /// What is wrong with what was sent, by the field that the daemon names.
    #[track_caller]
    pub fn issue(&mut self, field: &str) -> String {
        let message = self.message();
        assert_eq!(message["type"], "error", "{message}");
        assert_eq!(message["error"], "validation_error", "{message}");
        assert_eq!(message["details"]["field"], field, "{message}");
        let issue = message["details"]["issue"].as_str();
        issue.expect("an issue is a sentence").to_owned()
    }

    /// Waits for the close frame with this code, whatever comes before: gives its reason. Agrees, and the daemon then ends
    /// the connection.
    #[track_caller]
    pub fn is_closed_with(&mut self, code: u16) -> String {
        loop {
            match self.get() {
                Got::Message(_) | Got::Pong(_) => {}
                Got::Closed(given, reason) => {
                    assert_eq!(given, code, "{reason}");
                    self.close(given);
                    assert!(
                        self.connection.is_closed(),
                        "the daemon closes the connection"
                    );
                    return reason;
                }
                Got::Gone => panic!("gone without a word instead of {code}"),
            }
        }
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.connection.read(&mut bytes).expect("a frame is whole");
        bytes
    }
}

/// The types of these messages.
pub fn kinds(messages: &[Value]) -> Vec<&str> {
    messages
        .iter()
        .map(|message| message["type"].as_str().expect("a type is text"))
        .collect()
}
