//! Answers every request with as many bytes as the argument says; prints its port.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::{env, io, thread};

use tiny_http::{Response, Server};

fn main() -> io::Result<()> {
    let bytes = env::args().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    // What is accepted inherits it. Without it an answer waits 44 ms for the acknowledgement of its head.
    let stream = TcpStream::from(OwnedFd::from(listener));
    stream.set_nodelay(true)?;
    let listener = TcpListener::from(OwnedFd::from(stream));
    println!("{}", listener.local_addr()?.port());
    io::stdout().flush()?;
    let server = Arc::new(Server::from_listener(listener, None).map_err(io::Error::other)?);
    let answer: Arc<[u8]> = vec![b'x'; bytes].into();
    // One, four and eight on two CPUs were no faster, and their slowest answers slower.
    let threads: Vec<_> = (0..thread::available_parallelism()?.get())
        .map(|_| {
            let (server, answer) = (Arc::clone(&server), Arc::clone(&answer));
            thread::spawn(move || {
                for request in server.incoming_requests() {
                    // A client that is gone is nobody's loss here.
                    let _ = request.respond(Response::from_data(&answer[..]));
                }
            })
        })
        .collect();
    for thread in threads {
        let _ = thread.join();
    }
    Ok(())
}
