use std::os::unix::net::UnixDatagram;

use rustix::process::Signal;

use crate::support::{PATIENCE, Setup, kill, upgraded};

/// A daemon's setup, and the socket of its service manager.
fn managed() -> (Setup, UnixDatagram) {
    let setup = Setup::new();
    let path = setup.path("notify");
    let manager = UnixDatagram::bind(&path).expect("the directory is new");
    let path = path.to_str().expect("temporary paths are UTF-8").to_owned();
    (setup.variable("NOTIFY_SOCKET", &path), manager)
}

#[track_caller]
fn told(manager: &UnixDatagram) -> String {
    let mut message = [0; 1024];
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = manager.recv(&mut message).expect("something is said");
    String::from_utf8_lossy(&message[..length]).into_owned()
}

#[test]
fn it_hears_when_the_daemon_is_ready_reloads_and_stops() {
    let (setup, manager) = managed();
    let mut daemon = setup.start();
    assert_eq!(told(&manager), "READY=1");
    daemon.signal(Signal::HUP);
    let reloading = told(&manager);
    assert!(
        reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="),
        "{reloading}"
    );
    assert_eq!(told(&manager), "READY=1");
    assert_eq!(daemon.stop(), Some(0));
    assert_eq!(told(&manager), "STOPPING=1");
}

#[test]
fn it_hears_of_an_upgrade_and_of_a_daemon_that_comes_back() {
    let (setup, manager) = managed();
    let mut daemon = setup.start();
    assert_eq!(told(&manager), "READY=1");
    assert_eq!(upgraded(&daemon)["state"], "done");
    let reloading = told(&manager);
    assert!(
        reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="),
        "{reloading}"
    );
    assert_eq!(told(&manager), "READY=1");
    // By the guardian that has become another binary since.
    kill(daemon.server_pid(), Signal::KILL);
    assert_eq!(told(&manager), "READY=1");
    // One that is given up is no reason to say anything.
    let config = daemon.setup.path("hxe.toml");
    std::fs::write(config, "mistake").unwrap();
    assert_eq!(upgraded(&daemon)["state"], "given_up");
    assert_eq!(daemon.stop(), Some(0));
    assert_eq!(told(&manager), "STOPPING=1");
}

#[test]
fn one_that_does_not_listen_holds_up_nothing() {
    let (setup, manager) = managed();
    let filler = UnixDatagram::unbound().unwrap();
    filler.connect(setup.path("notify")).unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send(b"X=1").is_ok() {}
    assert_eq!(setup.start().stop(), Some(0));
    drop(manager);
}
