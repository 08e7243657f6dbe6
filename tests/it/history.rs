use crate::support::{Daemon, Value, json, sh, sleeper, until};

fn history(daemon: &Daemon, query: &str) -> Value {
    daemon.get(&format!("/api/history{query}")).ok(200)
}

fn length(array: &Value) -> usize {
    array.as_array().expect("it is an array").len()
}

fn program<'v>(history: &'v Value, name: &str) -> &'v Value {
    let programs = history["programs"].as_array().unwrap();
    let found = programs.iter().find(|one| one["program_id"] == name);
    found.unwrap_or_else(|| panic!("{name} is not in {history}"))
}

#[test]
fn one_answer_has_all_programs_and_the_machine() {
    let daemon = Daemon::start();
    let runs = daemon.create(&sleeper("runs")).started();
    let idle = daemon.create(&sh("idle", ""));
    until(|| daemon.get(&runs.path("/metrics")).ok(200)["metrics"]["memory_bytes"] != 0);
    let all = history(&daemon, "");
    let samples = length(&all["times"]);
    assert!(samples > 0);
    let listed = all["programs"].as_array().unwrap().iter();
    let ids: Vec<_> = listed.map(|one| one["program_id"].clone()).collect();
    assert_eq!(ids, [json!(runs.id), json!(idle.id)]);
    let of_all = all["programs"].as_array().unwrap().iter();
    for series in of_all.chain([&all["system"]]) {
        for name in ["cpu_usage", "memory_bytes"] {
            assert_eq!(length(&series[name]), samples, "{series}");
        }
    }
    assert!(all["system"]["metrics"]["memory_bytes"].as_u64() > Some(0));
    assert!(all["system"]["memory_bytes"][0].as_u64() > Some(0));
    assert!(program(&all, &runs.id)["metrics"]["memory_bytes"].as_u64() > Some(0));
    assert_eq!(program(&all, &idle.id)["metrics"]["memory_bytes"], 0);
    assert_eq!(program(&all, &idle.id)["memory_bytes"][0], json!(null));
    let shown = daemon.get(&runs.path("/metrics")).ok(200);
    for (field, _) in shown["metrics"].as_object().unwrap() {
        assert!(!program(&all, &runs.id)["metrics"][field].is_null() || field == "last_restart");
    }
}

#[test]
fn what_came_since_is_given_alone() {
    let daemon = Daemon::start();
    let a = daemon.create(&sleeper("a")).started();
    let first = history(&daemon, "");
    let next = first["next"].as_u64().unwrap();
    let later = history(&daemon, &format!("?since={next}"));
    // None, or one where this came two seconds later.
    assert!(length(&later["times"]) <= 1, "{later}");
    until(|| {
        let later = history(&daemon, &format!("?since={next}"));
        let (times, old) = (&later["times"], &first["times"]);
        length(times) > 0 && times[0].as_f64() > old[0].as_f64()
    });
    let all = history(&daemon, "");
    assert!(length(&all["times"]) > 1);
    assert_eq!(all["times"][0], first["times"][0]);
    let times = all["times"].as_array().unwrap();
    assert!(times.is_sorted_by(|a, b| a.as_f64() < b.as_f64()), "{all}");
    // Of another boot, perhaps.
    let far = history(&daemon, "?since=9999999999999999");
    assert_eq!(far["times"][0], first["times"][0]);
    assert!(program(&far, &a.id)["cpu_usage"][0].is_number());
    daemon.get("/api/history?since=x").issue("since");
    daemon.get("/api/history?from=1").issue("from");
}
