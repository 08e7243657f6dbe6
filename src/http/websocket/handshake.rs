//! The handshake: from a request to a WebSocket, or why not.
//!
//! Pure: looks at a head and gives an answer. It agrees to no extension and to no subprotocol, whatever is offered.
//! Source: RFC 6455 4.2. Called by the service.

use tungstenite::handshake::derive_accept_key;

use super::WebSocket;
use crate::http::request::says;
use crate::http::{Body, Head, Method, Reply};

/// Why a request does not become a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotWebSocket {
    /// It does not ask for one: 426.
    NotAsked,
    /// Another version than 13: 426 with `Sec-WebSocket-Version: 13`.
    Version,
    /// What it asks with is malformed: 400.
    Malformed(&'static str),
}

/// The answer that makes a WebSocket of the connection, and hands it to `run`. Source: RFC 6455 4.2.
///
/// # Errors
/// Why it cannot.
pub fn upgrade(
    head: &Head,
    run: impl FnOnce(WebSocket) + Send + 'static,
) -> Result<Reply, NotWebSocket> {
    let asks = head.method == Method::Get && head.http_11 && says(head, "upgrade", "websocket");
    if !asks {
        return Err(NotWebSocket::NotAsked);
    }
    if !says(head, "connection", "upgrade") {
        // A proxy on the way that knows nothing of WebSockets takes it out.
        return Err(NotWebSocket::Malformed("Connection does not list Upgrade"));
    }
    if only(head, "sec-websocket-version") != Some("13") {
        return Err(NotWebSocket::Version);
    }
    let key = only(head, "sec-websocket-key")
        .filter(|key| is_key(key))
        .ok_or(NotWebSocket::Malformed(
            "Sec-WebSocket-Key is not the base64 of 16 bytes",
        ))?;
    Ok(Reply {
        status: 101,
        headers: vec![
            ("Upgrade", "websocket".to_owned()),
            ("Sec-WebSocket-Accept", derive_accept_key(key.as_bytes())),
        ],
        body: Body::WebSocket(Box::new(run)),
    })
}

/// The value of a header that is there once.
fn only<'a>(head: &'a Head, name: &str) -> Option<&'a str> {
    let mut values = head.headers.iter().filter(|(known, _)| known == name);
    let (_, value) = values.next()?;
    values.next().is_none().then_some(value.trim())
}

/// 16 bytes are 22 digits, and two signs that say that there are no more.
fn is_key(key: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    key.strip_suffix("==")
        .is_some_and(|digits| digits.len() == 22 && digits.bytes().all(is_digit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Peer;

    /// A good request, with the headers of these names replaced: each by all that are given of it, or by nothing.
    fn head(changes: &[(&str, &[&str])]) -> Head {
        let mut headers: Vec<(String, String)> = [
            ("upgrade", "websocket"),
            ("connection", "Upgrade"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        for (name, values) in changes {
            headers.retain(|(known, _)| known != name);
            headers.extend(
                values
                    .iter()
                    .map(|value| ((*name).to_owned(), (*value).to_owned())),
            );
        }
        Head {
            method: Method::Get,
            path: "/".to_owned(),
            query: None,
            headers,
            http_11: true,
            peer: Peer::Tcp(([127, 0, 0, 1], 4000).into()),
        }
    }

    fn refusal(head: &Head) -> Option<NotWebSocket> {
        upgrade(head, |_| {}).err()
    }

    #[test]
    fn the_answer_to_the_example_of_the_rfc_is_the_one_it_gives() {
        let reply = upgrade(&head(&[]), |_| {}).ok().unwrap();
        assert_eq!(reply.status, 101);
        let accept = (
            "Sec-WebSocket-Accept",
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned(),
        );
        assert!(reply.headers.contains(&accept));
        assert!(reply.headers.contains(&("Upgrade", "websocket".to_owned())));
    }

    #[test]
    fn upgrade_and_connection_are_lists_in_any_case_on_any_number_of_lines() {
        for changes in [
            &[("upgrade", &["h2c, WebSocket"][..])][..],
            &[("connection", &["keep-alive, UPGRADE"])],
            &[("connection", &["keep-alive", "upgrade"])],
            &[("upgrade", &["h2c", "websocket"])],
        ] {
            assert_eq!(refusal(&head(changes)), None, "{changes:?}");
        }
    }

    #[test]
    fn extensions_and_subprotocols_are_not_agreed_to() {
        let offers = head(&[
            ("sec-websocket-extensions", &["permessage-deflate"]),
            ("sec-websocket-protocol", &["chat"]),
        ]);
        let reply = upgrade(&offers, |_| {}).ok().unwrap();
        assert_eq!(reply.headers.len(), 2, "{:?}", reply.headers);
    }

    #[test]
    fn who_does_not_ask_gets_none() {
        let post = Head {
            method: Method::Post,
            ..head(&[])
        };
        let old = Head {
            http_11: false,
            ..head(&[])
        };
        for head in [
            post,
            old,
            head(&[("upgrade", &[])]),
            head(&[("upgrade", &["h2c"])]),
        ] {
            assert_eq!(refusal(&head), Some(NotWebSocket::NotAsked), "{head:?}");
        }
    }

    #[test]
    fn only_version_13_is_spoken() {
        for values in [&[][..], &["8"], &["13, 8"], &["13", "13"]] {
            let head = head(&[("sec-websocket-version", values)]);
            assert_eq!(refusal(&head), Some(NotWebSocket::Version), "{values:?}");
        }
    }

    #[test]
    fn a_key_is_the_base64_of_16_bytes_and_there_is_one() {
        let good = "dGhlIHNhbXBsZSBub25jZQ==";
        for values in [
            &[][..],
            &[""],
            &["dGhlIHNhbXBsZSBub25jZQ"],
            &["dGhlIHNhbXBsZSBub25jZQ="],
            &["dGhlIHNhbXBsZSBub25j===="],
            &["dGhlIHNhbXBsZSBub25jZQAA=="],
            &["dGhlIHNhbXBsZSBub25_ZQ=="],
            &["dGhlIHNhbXBsZSBub25\u{fffd}Q=="],
            &[good, good],
        ] {
            let refused = refusal(&head(&[("sec-websocket-key", values)]));
            assert!(
                matches!(refused, Some(NotWebSocket::Malformed(_))),
                "{values:?} gave {refused:?}"
            );
        }
        assert_eq!(refusal(&head(&[("sec-websocket-key", &[good])])), None);
    }

    #[test]
    fn a_connection_that_is_not_to_be_upgraded_is_named() {
        for values in [&[][..], &["keep-alive"]] {
            let refused = refusal(&head(&[("connection", values)]));
            assert!(
                matches!(refused, Some(NotWebSocket::Malformed(text)) if text.contains("Connection"))
            );
        }
    }
}
