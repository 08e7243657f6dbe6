use super::{Held, besiege, descriptors};
use crate::support::{Setup, until};

#[test]
fn all_of_64_descriptors_are_used_up_and_given_back() {
    let daemon = Setup::new().open_files(64).start();
    daemon.token();
    let server = daemon.server_pid();
    let idle = descriptors(server);
    besiege(
        &daemon,
        || Held::open(&daemon, 200, "GET / HTTP/1.1\r\n"),
        |held| {
            held.tend(b"");
            assert!(descriptors(server) <= 64);
        },
    );
    // The program that is left holds some.
    daemon.delete("/api/program/good").ok(200);
    until(|| descriptors(server) <= idle);
}
