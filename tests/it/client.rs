//! The Rust client against the real daemon.

use std::time::Duration;

use hxe::client::{Client, Definition, Error, ListFilter, LogFilter};

use crate::support::{Daemon, PATIENCE, Setup};

fn client(daemon: &Daemon) -> Client {
    let client = Client::new(&format!("http://{}", daemon.address)).expect("that is an address");
    client.set_token(Some(daemon.token().to_owned()));
    client
}

/// Runs until it is stopped, and says a line at once.
fn talker(name: &str) -> Definition {
    Definition {
        args: "-c 'echo hello; exec sleep 1000'".to_owned(),
        ..Definition::new(name, "/bin/sh")
    }
}

#[test]
fn a_program_is_led_through_its_life() {
    let daemon = Daemon::start();
    let client = client(&daemon);
    let created = client.create(&talker("web server/1")).unwrap();
    assert_eq!(created.name(), "web server/1");
    assert_eq!((created.status.as_str(), created.pid), ("stopped", None));
    assert_eq!(
        created.definition.restart_policy.as_deref(),
        Some("on-failure")
    );

    let started = client.start("web server/1").unwrap();
    assert_eq!(
        (started.status.as_str(), started.id),
        ("running", created.id.clone())
    );
    let again = client.start(&created.id).unwrap_err();
    assert!(
        matches!(&again, Error::InvalidState(refusal) if refusal.status == 400),
        "{again:?}"
    );
    let found = client.get("web server/1").unwrap();
    assert_eq!(found.pid, started.pid);

    let restarted = client.restart(&created.id).unwrap();
    assert_ne!(restarted.pid, started.pid);
    let metrics = client.metrics(&created.id).unwrap();
    assert_eq!(
        (metrics.program_id, metrics.restart_count),
        (created.id.clone(), 0)
    );

    assert_eq!(client.enable(&created.id).unwrap().json["enabled"], true);
    assert_eq!(client.disable(&created.id).unwrap().json["enabled"], false);

    let signalled = client.signal(&created.id, "CONT").unwrap();
    assert_eq!(signalled.pid, restarted.pid);
    let unknown = client.signal(&created.id, "NONSENSE").unwrap_err();
    let field = unknown
        .refusal()
        .and_then(|refusal| refusal.field.as_deref());
    assert_eq!(field, Some("signal"), "{unknown}");

    let stopped = client.stop(&created.id, false).unwrap();
    assert_eq!(
        (stopped.status.as_str(), stopped.exit_code),
        ("stopped", Some(143))
    );
    assert!(stopped.left_behind.is_empty());
    client.start(&created.id).unwrap();
    assert_eq!(client.stop(&created.id, true).unwrap().exit_code, Some(137));

    let mut changed = client.get(&created.id).unwrap().definition;
    changed.description = "changed".to_owned();
    changed.environment.insert("A".to_owned(), "b".to_owned());
    changed.success_exit_codes = Some(vec![0, 3]);
    changed.max_restarts = Some(-1);
    changed.log_disk = Some("memory".to_owned());
    let updated = client.update(&created.id, &changed).unwrap();
    assert_eq!(updated.definition, changed);

    assert!(
        client
            .delete(&created.id)
            .unwrap()
            .message
            .contains("deleted")
    );
    assert!(matches!(client.get(&created.id), Err(Error::NotFound(_))));
}

#[test]
fn lists_are_filtered() {
    let daemon = Daemon::start();
    let client = client(&daemon);
    for name in ["a", "b", "c"] {
        client.create(&talker(name)).unwrap();
    }
    client.enable("b").unwrap();
    client.start("c").unwrap();
    let names = |filter: ListFilter| -> Vec<String> {
        let programs = client.list(&filter).unwrap();
        programs
            .iter()
            .map(|program| program.name().to_owned())
            .collect()
    };
    assert_eq!(names(ListFilter::default()), ["a", "b", "c"]);
    let enabled = Some(true);
    assert_eq!(
        names(ListFilter {
            enabled,
            ..Default::default()
        }),
        ["b"]
    );
    let status = Some("running");
    assert_eq!(
        names(ListFilter {
            status,
            ..Default::default()
        }),
        ["c"]
    );
    let limit = Some(1);
    assert_eq!(
        names(ListFilter {
            limit,
            offset: 1,
            ..Default::default()
        }),
        ["b"]
    );
    let refused = client.list(&ListFilter {
        status: Some("asleep&limit=0"),
        ..Default::default()
    });
    assert!(
        matches!(&refused, Err(Error::Refused(refusal)) if refusal.field.as_deref() == Some("status")),
        "{refused:?}"
    );
    let metrics = client.system_metrics().unwrap();
    assert_eq!((metrics.total, metrics.running, metrics.stopped), (3, 1, 2));
    assert!(metrics.memory_bytes > 0);
}

#[test]
fn refusals_name_the_field() {
    let daemon = Daemon::start();
    let client = client(&daemon);
    let refused = client
        .create(&Definition::new("", "/bin/true"))
        .unwrap_err();
    let Error::Refused(refusal) = &refused else {
        panic!("{refused:?}");
    };
    assert_eq!(
        (refusal.status, refusal.code.as_str()),
        (400, "validation_error")
    );
    assert_eq!(refusal.field.as_deref(), Some("name"));
    assert!(refused.to_string().contains("name: "), "{refused}");
    client.create(&talker("a")).unwrap();
    assert!(matches!(
        client.create(&talker("a")),
        Err(Error::Conflict(_))
    ));
}

#[test]
fn a_declared_program_comes_with_a_reload_and_changes_only_by_its_file() {
    let setup = Setup::new();
    let include = format!("{:?}", setup.declared("*.toml"));
    let setup = setup.key("programs", "include", include);
    let daemon = setup.start();
    let client = client(&daemon);
    let file = setup.declare("a.toml", "name = \"a\"\ncommand = \"/bin/true\"\n");
    let reloaded = client.reload().unwrap();
    assert_eq!(reloaded["added"][0]["name"], "a", "{reloaded}");
    let program = client.get("a").unwrap();
    assert_eq!(program.declared.as_deref(), file.to_str());
    assert!(matches!(client.delete("a"), Err(Error::Conflict(_))));

    setup.declare("a.toml", "name = 3\n");
    let error = client.reload().unwrap_err();
    let refusal = error.refusal().unwrap();
    assert_eq!(refusal.status, 400);
    let issue = refusal.issue.as_deref().unwrap();
    assert!(issue.contains("a.toml:2"), "{issue}");
    client.get("a").unwrap();
}

#[test]
fn a_token_is_had_used_and_ended() {
    let daemon = Daemon::start();
    let client = Client::new(&format!("http://{}", daemon.address)).unwrap();
    let all = ListFilter::default();
    assert!(matches!(client.list(&all), Err(Error::Unauthorized(_))));
    assert!(matches!(
        client.login("admin", "wrong"),
        Err(Error::Unauthorized(_))
    ));
    let first = client.login("admin", daemon.setup.password()).unwrap();
    assert!(!format!("{first:?}").contains(&first.token));
    client.list(&all).unwrap();
    let second = client.refresh().unwrap();
    assert_ne!(first.token, second.token);
    client.logout().unwrap();
    assert_eq!(client.token(), None);
    client.set_token(Some(second.token));
    assert!(matches!(client.list(&all), Err(Error::Unauthorized(_))));
    client.set_token(Some(first.token));
    client.list(&all).unwrap();
    client.set_token(Some("a\r\nX: y".to_owned()));
    assert!(matches!(client.list(&all), Err(Error::Invalid { .. })));
}

#[test]
fn logs_are_read_and_followed() {
    let daemon = Daemon::start();
    let client = client(&daemon);
    client.create(&talker("a")).unwrap();
    let everything = LogFilter::default();
    let mut followed = client.follow("a", &everything).unwrap();
    client.start("a").unwrap();
    let line = followed.find(|entry| entry.as_ref().unwrap().stream == "stdout");
    let line = line.unwrap().unwrap();
    assert_eq!(
        (line.message.as_str(), line.level.as_str()),
        ("hello", "info")
    );
    assert!(line.timestamp.ends_with('Z'));
    // Nothing more is said, which is no end.
    while followed
        .next_within(Duration::from_millis(1))
        .unwrap()
        .is_some()
    {}
    assert!(!followed.is_over());

    let read = |filter: &LogFilter| -> Vec<String> {
        let entries = client.logs("a", filter).unwrap();
        entries.map(|entry| entry.unwrap().message).collect()
    };
    assert!(read(&everything).contains(&"hello".to_owned()));
    let lines = Some(0);
    assert_eq!(
        read(&LogFilter {
            lines,
            ..everything
        }),
        [""; 0]
    );
    let levels = &["warn", "debug"][..];
    assert_eq!(
        read(&LogFilter {
            levels,
            ..everything
        }),
        [""; 0]
    );
    let unknown = client.logs(
        "a",
        &LogFilter {
            levels: &["loud"],
            ..everything
        },
    );
    assert!(
        matches!(unknown, Err(Error::Refused(refusal)) if refusal.field.as_deref() == Some("level"))
    );
}

#[test]
fn events_are_heard_as_they_happen() {
    let daemon = Daemon::start();
    let client = client(&daemon);
    client.create(&talker("a")).unwrap();
    let mut events = client.events(&["program.*"], &["a"]).unwrap();
    client.start("a").unwrap();
    let event = events.next().unwrap().unwrap();
    assert_eq!(
        (event.kind.as_str(), event.program_id.as_str()),
        ("program.started", "program-1")
    );
    assert_eq!(event.data["name"], "a");
    assert_eq!(events.next_within(Duration::from_millis(1)).unwrap(), None);
    events.subscribe(&[], &[]).unwrap();
    client.stop("a", false).unwrap();
    let stopped = events.find(|event| event.as_ref().unwrap().kind == "program.stopped");
    assert_eq!(stopped.unwrap().unwrap().data["exit_code"], 143);
    client.logout().unwrap();
    let end = loop {
        match events.next() {
            Some(Ok(_)) => {}
            other => break other,
        }
    };
    assert!(
        matches!(end, Some(Err(Error::Closed { code: 4401, .. }))),
        "{end:?}"
    );
    assert!(events.is_over());
    assert!(events.next().is_none());
}

#[test]
fn events_need_a_token() {
    let daemon = Daemon::start();
    let client = Client::new(&format!("http://{}", daemon.address)).unwrap();
    let refused = client.events(&[], &[]).err();
    assert!(
        matches!(refused, Some(Error::Closed { code: 4401, .. })),
        "{refused:?}"
    );
}

#[test]
fn one_connection_serves_one_thread_and_many_serve_many() {
    let daemon = Daemon::start();
    let mut client = client(&daemon);
    client.set_timeout(PATIENCE);
    let client = &client;
    std::thread::scope(|scope| {
        for number in 0..8 {
            scope.spawn(move || {
                let name = format!("p{number}");
                client.create(&talker(&name)).unwrap();
                client.start(&name).unwrap();
                assert_eq!(client.get(&name).unwrap().status, "running");
            });
        }
    });
    assert_eq!(client.list(&ListFilter::default()).unwrap().len(), 8);
}

#[test]
fn who_cannot_be_reached_is_named() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    for place in [address.as_str(), "/nonexistent/hxe.sock"] {
        let error = Client::new(place).unwrap().system_metrics().unwrap_err();
        assert!(matches!(error, Error::CannotConnect { .. }), "{error:?}");
        assert!(error.to_string().contains(place), "{error}");
    }
}
