//! The waiting room in front of real gunicorn: never more requests at the workers than there are workers, however many
//! clients come, leave or wait.

use crate::support::backlog::Backlog;
use crate::support::gunicorn::{Kind, Plan};
use crate::support::journal::most_at_once;
use crate::support::storm::unserved;
use crate::support::tool::h2load;
use crate::support::worker::Transport;
use crate::support::{Ask, Client, Gateway, Gunicorn, Storm, look_until};

const WORKERS: u32 = 4;

/// A gunicorn whose workers accept as soon as they are there: they have loaded the app already.
fn sync(workers: u32, transport: Transport) -> Plan {
    Plan::new(Kind::Sync, workers, transport).argument("--preload")
}

/// A gate for four workers with room for every client of a storm, on two threads.
fn gate(gunicorn: &Gunicorn) -> Gateway {
    Gateway::start(&format!(
        "upstreams:\n  app: {{ endpoints: [\"{}\"], workers: {WORKERS}, waiting_room: {{ limit: 1000 }} }}\n\
         sites:\n  - routes: [{{ path: /, proxy: app }}]\nruntime: {{ threads: 2 }}\n",
        gunicorn.endpoint()
    ))
}

/// Nothing is left of a storm.
fn check_calm(gateway: &Gateway, upstreams: &[&str]) {
    for upstream in upstreams {
        gateway.wait_metric(&format!("hostler_in_flight{{upstream=\"{upstream}\"}}"), 0.0);
        gateway.wait_metric(&format!("hostler_waiting{{upstream=\"{upstream}\"}}"), 0.0);
    }
    for place in ["memory", "disk"] {
        gateway.wait_metric(&format!("hostler_spool_bytes{{where=\"{place}\"}}"), 0.0);
    }
}

/// A connection stands in the kernel's queue for the moment that a free worker takes to accept it, and no longer: there
/// is always a free worker for it.
fn check_backlog(looks: &[u32]) {
    let longest = looks.iter().copied().max().unwrap_or(0);
    assert!(longest <= WORKERS, "{longest} connections in the kernel's queue: {looks:?}");
    let busy = looks.iter().filter(|length| **length > 0).count();
    assert!(busy * 2 < looks.len(), "connections stand in the kernel's queue: {looks:?}");
}

/// Every one of `clients` asks once for `ms` of work.
fn check_flood(plan: Plan, clients: usize, ms: u32) {
    let gunicorn = plan.start();
    let gateway = gate(&gunicorn);
    let backlog = Backlog::watch(gunicorn.address());
    let outcomes = Storm::of(gateway.address(), clients, |client, turn| {
        (turn == 0).then(|| Ask::get(format!("client-{client}"), ms))
    });
    check_calm(&gateway, &["app"]);
    check_backlog(&backlog.seen());
    assert_eq!((outcomes.len(), unserved(&outcomes)), (clients, Vec::new()));
    let runs = gunicorn.journal().runs();
    assert_eq!(runs.len(), clients, "each ran once");
    assert!(most_at_once(&runs) <= WORKERS as usize);
}

#[test]
fn two_hundred_clients_leave_the_backlog_of_four_sync_workers_empty_over_tcp() {
    check_flood(sync(WORKERS, Transport::Tcp), 200, 100);
}

#[test]
fn two_hundred_clients_leave_the_backlog_of_four_sync_workers_empty_over_unix() {
    check_flood(sync(WORKERS, Transport::Unix), 200, 100);
}

#[test]
fn two_hundred_clients_leave_the_backlog_of_two_processes_with_two_threads_empty() {
    check_flood(Plan::new(Kind::Gthread { threads: 2 }, 2, Transport::Tcp).argument("--preload"), 200, 100);
}

#[test]
fn a_worker_that_works_on_after_its_response_is_given_nothing_before_it_is_done() {
    let plan = sync(WORKERS, Transport::Tcp).variable("SHOP_FINISH_MS", "200");
    check_flood(plan, 60, 20);
}

#[test]
fn the_app_has_no_more_at_once_than_the_gate_allows_though_it_could() {
    // Twice the processes: what keeps the app at four is the gate alone, and a request too many would show in the app.
    let gunicorn = sync(2 * WORKERS, Transport::Unix).variable("SHOP_FINISH_MS", "30").start();
    let gateway = gate(&gunicorn);
    let outcomes = Storm::of(gateway.address(), 40, |client, turn| {
        let id = format!("{client}-{turn}");
        (turn < 5).then(|| if turn % 2 == 0 { Ask::get(id, 20) } else { Ask::post(id, 20, 100_000) })
    });
    check_calm(&gateway, &["app"]);
    assert_eq!((outcomes.len(), unserved(&outcomes)), (200, Vec::new()));
    let runs = gunicorn.journal().runs();
    assert_eq!((runs.len(), most_at_once(&runs)), (200, WORKERS as usize));
}

#[test]
fn the_gate_holds_for_streams_of_http2_as_for_connections() {
    let gunicorn = sync(2 * WORKERS, Transport::Tcp).start();
    let gateway = gate(&gunicorn);
    let backlog = Backlog::watch(gunicorn.address());
    let url = format!("http://{}/work?id=h2&ms=100", gateway.address());
    let output = h2load(&["-n200", "-c10", "-m20", &url]);
    assert!(output.stdout.contains("200 succeeded, 0 failed, 0 errored, 0 timeout"), "{output:?}");
    assert!(output.stdout.contains("status codes: 200 2xx"), "{output:?}");
    check_calm(&gateway, &["app"]);
    check_backlog(&backlog.seen());
    let runs = gunicorn.journal().runs();
    assert_eq!((runs.len(), most_at_once(&runs)), (200, WORKERS as usize));
}

#[test]
fn each_of_two_upstreams_has_a_gate_of_its_own() {
    let gunicorns = [sync(6, Transport::Tcp).start(), sync(6, Transport::Unix).start()];
    let upstream = |name: &str, gunicorn: &Gunicorn| {
        let endpoint = gunicorn.endpoint();
        format!("  {name}: {{ endpoints: [\"{endpoint}\"], workers: {WORKERS}, waiting_room: {{ limit: 1000 }} }}\n")
    };
    let gateway = Gateway::start(&format!(
        "upstreams:\n{}{}sites:\n  - hosts: [localhost]\n    routes: [{{ path: /, proxy: one }}]\n\
         \x20 - hosts: [127.0.0.1]\n    routes: [{{ path: /, proxy: two }}]\nruntime: {{ threads: 2 }}\n",
        upstream("one", &gunicorns[0]),
        upstream("two", &gunicorns[1])
    ));
    let backlogs = [Backlog::watch(gunicorns[0].address()), Backlog::watch(gunicorns[1].address())];
    let outcomes = Storm::of(gateway.address(), 200, |client, turn| {
        let host = if client % 2 == 0 { "localhost" } else { "127.0.0.1" };
        (turn == 0).then(|| Ask::get(client.to_string(), 100).of(host))
    });
    check_calm(&gateway, &["one", "two"]);
    backlogs.into_iter().for_each(|backlog| check_backlog(&backlog.seen()));
    assert_eq!((outcomes.len(), unserved(&outcomes)), (200, Vec::new()));
    for gunicorn in &gunicorns {
        let runs = gunicorn.journal().runs();
        assert_eq!((runs.len(), most_at_once(&runs)), (100, WORKERS as usize));
    }
}

#[test]
fn a_hundred_clients_that_leave_do_not_fill_the_workers_up() {
    // Twice the processes: a request that is sent on behind one whose client has gone would show in the app.
    let gunicorn = sync(2 * WORKERS, Transport::Unix).start();
    let gateway = gate(&gunicorn);
    let leave = |index: usize| {
        let mut client = gateway.client();
        client.send(Ask::get(format!("gone-{index}"), 2000).bytes());
        client
    };
    let clients: Vec<Client> = (0..100).map(leave).collect();
    gateway.wait_metric("hostler_waiting{upstream=\"app\"}", 96.0);
    gunicorn.journal().wait_begun(WORKERS as usize);
    drop(clients);
    // Those who only waited are gone at once: nobody's work had to end for that.
    gateway.wait_metric("hostler_waiting{upstream=\"app\"}", 0.0);
    assert_eq!(gateway.metric("hostler_in_flight{upstream=\"app\"}"), 4.0, "the workers are still at it");
    let honest =
        Storm::of(gateway.address(), 12, |client, turn| (turn == 0).then(|| Ask::get(format!("honest-{client}"), 20)));
    assert_eq!((honest.len(), unserved(&honest)), (12, Vec::new()));
    check_calm(&gateway, &["app"]);
    let runs = gunicorn.journal().runs();
    assert_eq!((runs.len(), most_at_once(&runs)), (4 + 12, WORKERS as usize), "{runs:#?}");
    let access = gateway.stop().access;
    let in_phase = |phase: &str| access.iter().filter(|line| line["status"] == 499 && line["phase"] == phase).count();
    assert_eq!((in_phase("waiting"), in_phase("working")), (96, 4));
}

#[test]
fn who_finds_the_waiting_room_full_is_told_when_to_come_again() {
    let gunicorn = sync(1, Transport::Unix).start();
    let gateway =
        Gateway::before(&format!("endpoints: [\"{}\"], workers: 1, waiting_room: {{ limit: 5 }}", gunicorn.endpoint()));
    let early: Vec<Client> = (0..6)
        .map(|index| {
            let mut client = gateway.client();
            client.send(Ask::get(format!("early-{index}"), 500).bytes());
            client
        })
        .collect();
    gateway.wait_metric("hostler_waiting{upstream=\"app\"}", 5.0);
    let late = Storm::of(gateway.address(), 20, |client, turn| {
        (turn == 0).then(|| Ask::post(format!("late-{client}"), 0, 1000))
    });
    let refused: Vec<_> = late.iter().filter(|outcome| !outcome.is_served()).collect();
    // The worker goes on meanwhile: some of the late ones may find a place that has come free.
    assert!(!refused.is_empty());
    for outcome in &refused {
        let answer = outcome.answer.as_ref().expect("an answer");
        assert_eq!((answer.status, outcome.reason()), (503, Some("queue_full")));
        let seconds: u32 = answer.header("retry-after").expect("Retry-After").parse().unwrap();
        assert!(seconds >= 1, "{seconds}");
    }
    for mut client in early {
        assert_eq!(client.response("GET").status, 200);
    }
    check_calm(&gateway, &["app"]);
    let times = gunicorn.journal().times_run();
    assert_eq!(times.len(), 6 + 20 - refused.len(), "who was refused reached nobody: {times:?}");
}

#[test]
fn a_client_with_one_request_does_not_wait_for_another_with_a_thousand() {
    let gunicorn = sync(WORKERS, Transport::Unix).start();
    let gateway = Gateway::start(&format!(
        "upstreams:\n  app: {{ endpoints: [\"{}\"], workers: {WORKERS}, waiting_room: {{ limit: 2000, timeout: 120s }} }}\n\
         sites:\n  - routes: [{{ path: /, proxy: app }}]\n",
        gunicorn.endpoint()
    ));
    let ask = |source: [u8; 4], id: String| {
        let mut client = Client::connect_from(source, gateway.address());
        client.send(Ask::get(id, 100).bytes());
        client
    };
    let _many: Vec<Client> = (0..1000).map(|index| ask([127, 0, 0, 2], format!("many-{index}"))).collect();
    gateway.wait_metric("hostler_in_flight{upstream=\"app\"}", f64::from(WORKERS));
    let many_wait = look_until(|| (gateway.metric("hostler_waiting{upstream=\"app\"}") > 900.0).then_some(()));
    assert!(many_wait.is_some(), "they do not wait");
    let before = gunicorn.journal().runs().len();
    let mut one = ask([127, 0, 0, 3], "one".to_owned());
    assert_eq!(one.response("GET").status, 200);
    let runs = gunicorn.journal().runs();
    let place = runs.iter().position(|run| run.id == "one").unwrap();
    // Three service times of all workers.
    assert!(place - before <= 3 * WORKERS as usize, "{} others ran meanwhile", place - before);
}

#[test]
fn event_streams_leave_a_worker_for_ordinary_pages() {
    let gunicorn = sync(WORKERS, Transport::Unix).start();
    let gateway = gate(&gunicorn);
    let mut streams: Vec<Client> = Vec::new();
    for _ in 1..WORKERS {
        let mut client = gateway.client();
        client.send("GET /events?count=2&delay=60 HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(client.head().expect("a head").0, 200);
        // The worker has a minute to go before it makes the second.
        assert!(client.peek(10).windows(5).any(|five| five == b"id: 1"));
        streams.push(client);
    }
    let mut one_more = gateway.client();
    // Its worker has begun, and is free again when it finds out at its second event that nobody listens.
    one_more.send("GET /events?count=2&delay=1 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let refused = one_more.response("GET");
    assert_eq!(refused.status, 503, "{refused:?}");
    assert_eq!(gateway.access_of(&refused)["reason"], "streams_full");
    // Who says what it wants is refused before a worker is asked, which would be busy with it for a minute.
    let mut source = gateway.client();
    source.send("GET /events?count=2&delay=60 HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n");
    let refused = source.response("GET");
    let access = gateway.access_of(&refused);
    assert_eq!((refused.status, &access["reason"], &access["endpoint"]), (503, &"streams_full".into(), &().into()));
    let pages =
        Storm::of(gateway.address(), 10, |client, turn| (turn < 3).then(|| Ask::get(format!("{client}-{turn}"), 10)));
    assert_eq!((pages.len(), unserved(&pages)), (30, Vec::new()));
    // The streams go on. The worker of the last page is free a moment after its answer.
    gateway.wait_metric("hostler_in_flight{upstream=\"app\"}", 3.0);
}
