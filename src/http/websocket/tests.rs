//! Drives WebSockets over real sockets: with tungstenite as the client, and with one that makes its frames by hand.

use std::net::TcpStream;
use std::sync::Arc;

use tungstenite::Message;

use super::*;
use crate::http::stream::tests::*;

/// Serves what `run` does with each WebSocket.
fn serve(run: impl Fn(WebSocket) + Send + Sync + 'static) -> Running {
    let run = Arc::new(run);
    Running::start(move |request| {
        let run = Arc::clone(&run);
        match upgrade(&request.head, move |socket| run(socket)) {
            Ok(reply) => reply,
            Err(error) => text(426, &format!("{error:?}")),
        }
    })
}

/// Sends back what it gets, until it is told to end.
fn echo(mut socket: WebSocket) {
    let bell = bell();
    while let Ok(Woken::Ready) = socket.wait(&bell, None) {
        if socket.ended().is_some() {
            return socket.close(1001, "going away");
        }
        loop {
            match socket.receive() {
                Ok(Some(Incoming::Text(text))) => {
                    if socket.send(text).is_err() {
                        return;
                    }
                }
                Ok(Some(Incoming::Binary)) => return socket.close(1003, "only text"),
                Ok(None) => break,
                Err(Over) => return,
            }
        }
    }
}

type Their = tungstenite::WebSocket<TcpStream>;

fn join(running: &Running) -> Their {
    let stream = running.connect().stream;
    let url = format!("ws://{}/", running.address);
    tungstenite::client(url, stream).unwrap().0
}

#[test]
fn messages_come_back_in_order() {
    let running = serve(echo);
    let mut client = join(&running);
    for number in 0..100 {
        client.send(Message::text(number.to_string())).unwrap();
    }
    for number in 0..100 {
        assert_eq!(client.read().unwrap(), Message::text(number.to_string()));
    }
    client.close(None).unwrap();
    while client.read().is_ok() {}
    running.until_all_have_ended();
}
