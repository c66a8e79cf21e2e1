//! Listening sockets: those that systemd passes, those that reloads must not close, and what systemd is told.

use std::collections::BTreeSet;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use crate::support::client::get;
use crate::support::gateway::Signal;
use crate::support::shop::python;
use crate::support::tool::{Tool, curl};
use crate::support::{Address, Client, Gateway, LIMIT};

const ROUTES: &str = "sites:\n  - routes: [{ path: /, respond: { body: ok } }]\nruntime: { threads: 2 }\n";

/// A gateway that was started with these sockets, written `name=address`.
fn passed(sockets: &[&str], config: &str) -> Gateway {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/pass_sockets.py");
    let python = python();
    let mut launcher = vec![python.to_str().unwrap(), script.to_str().unwrap()];
    launcher.extend(sockets);
    launcher.push("--");
    Gateway::start_by(&launcher, config)
}

fn is_answered(address: &Address) -> bool {
    let mut client = Client::connect(address);
    client.get("/").text() == "ok"
}

#[test]
fn sockets_that_systemd_passes_are_served_by_their_names() {
    let config = format!(
        "listeners:\n  - {{ bind: \"systemd:web\" }}\n  - {{ bind: \"systemd:secure\", tls: {{ local: true }} }}\n\
         admin: {{ bind: \"systemd:admin\" }}\n{ROUTES}"
    );
    // Of the test's own: it is still there when the gateway has ended.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web");
    let unix = format!("web={}", path.display());
    let sockets = ["web=127.0.0.1:0", "admin=127.0.0.254:0", "web=127.0.0.2:0", "secure=127.0.0.3:0", &unix];
    let gateway = passed(&sockets, &config);
    let web = gateway.addresses("systemd:web");
    assert_eq!(web.len(), 3, "all of one name belong to one listener");
    assert_eq!(*web[2], Address::Unix(path.clone()));
    for address in &web {
        // More often than there are threads: each has every socket.
        assert!((0..8).all(|_| is_answered(address)), "{address}");
    }
    let url = format!("https://localhost:{}/", gateway.listener("systemd:secure").port());
    let to = format!("localhost:{}:127.0.0.3", gateway.listener("systemd:secure").port());
    let root = gateway.root();
    let output = curl(&["--cacert", root.to_str().unwrap(), "--resolve", &to, &url]);
    assert_eq!(output.stdout, "ok", "{output:?}");
    assert_eq!(gateway.admin_get("/live").status, 200, "the admin listener may be passed as well");
    let ended = gateway.stop();
    assert!(ended.status.success() && path.exists(), "it is systemd's socket, and stays: {ended:?}");
}

#[test]
fn a_reload_may_leave_a_passed_socket_and_take_it_up_again() {
    let with = format!("listeners:\n  - {{ bind: \"127.0.0.1:0\" }}\n  - {{ bind: \"systemd:web\" }}\n{ROUTES}");
    let without = format!("listeners:\n  - {{ bind: \"127.0.0.1:0\" }}\n{ROUTES}");
    let gateway = passed(&["web=127.0.0.2:0"], &with);
    let address = gateway.listener("systemd:web").clone();
    for _ in 0..3 {
        assert!(is_answered(&address));
        gateway.reload(&without);
        // systemd's socket still listens: who comes now waits until somebody accepts again.
        let mut waiting = Client::connect(&address);
        waiting.send(get("/"));
        gateway.reload(&with);
        assert_eq!(waiting.response("GET").text(), "ok");
    }
}

#[test]
fn a_socket_that_was_not_passed_is_told_with_those_that_were() {
    let (code, log) = Gateway::refuse(&format!("listeners: [{{ bind: \"systemd:web\" }}]\n{ROUTES}"));
    assert_eq!(code, Some(1));
    assert!(log.contains("cannot listen on systemd:web: this process was started without sockets"), "{log}");
    let gateway = passed(&["web=127.0.0.2:0"], &format!("listeners: [{{ bind: \"systemd:web\" }}]\n{ROUTES}"));
    gateway.rewrite(&format!("listeners: [{{ bind: \"systemd:https\" }}]\n{ROUTES}"));
    gateway.signal(Signal::HUP);
    let event = gateway.log_event("the reload is refused", |event| {
        event["message"].as_str().is_some_and(|message| message.starts_with("not reloaded"))
    });
    let message = event["message"].as_str().unwrap();
    assert!(message.contains("no socket of that name. Those that it has passed: web."), "{message}");
    assert!(is_answered(gateway.address()), "what was in force stays");
}

#[test]
fn an_admin_socket_that_others_can_reach_needs_a_token() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/pass_sockets.py");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hostler.yaml");
    std::fs::write(
        &file,
        format!("admin: {{ bind: \"systemd:admin\" }}\nlisteners: [{{ bind: \"127.0.0.1:0\" }}]\n{ROUTES}"),
    )
    .unwrap();
    let binary = env!("CARGO_BIN_EXE_hostler");
    let arguments = [script.to_str().unwrap(), "admin=0.0.0.0:0", "--", binary, "serve", "-c", file.to_str().unwrap()];
    let output = Tool::start(python().to_str().unwrap(), &arguments).output();
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.contains("write admin.token"), "{output:?}");
}

#[test]
fn check_says_that_systemd_alone_knows_its_sockets() {
    let gateway = passed(&["web=127.0.0.2:0"], &format!("listeners: [{{ bind: \"systemd:web\" }}]\n{ROUTES}"));
    let output = gateway.cli(&["check"]);
    let said = format!("{}{}", output.stdout, output.stderr);
    assert_eq!(output.code, Some(0), "{said}");
    assert!(said.contains("whether systemd passes a socket called `web` shows only when it starts Hostler"), "{said}");
    assert!(said.contains("FileDescriptorName=web"), "{said}");
}

/// The sockets of this process that listen on a port, by their inodes.
fn listening(gateway: &Gateway, port: u16) -> BTreeSet<u64> {
    let process = format!("/proc/{}", gateway.pid());
    // RFC 793's LISTEN, as the kernel writes it.
    let table = std::fs::read_to_string(format!("{process}/net/tcp")).unwrap();
    let of_port = table.lines().skip(1).filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let local = u16::from_str_radix(words[1].rsplit(':').next()?, 16).ok()?;
        (local == port && words[3] == "0A").then(|| words[9].parse::<u64>().unwrap())
    });
    let of_port: BTreeSet<u64> = of_port.collect();
    let opened = std::fs::read_dir(format!("{process}/fd")).unwrap().filter_map(|entry| {
        let target = std::fs::read_link(entry.unwrap().path()).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok()
    });
    opened.filter(|inode| of_port.contains(inode)).collect()
}

#[test]
fn reloads_never_close_the_sockets_that_stay() {
    let config = |generation: u32| {
        // Another listener comes and goes beside it.
        let other = if generation.is_multiple_of(2) { "" } else { "  - { bind: \"127.0.0.2:0\" }\n" };
        format!(
            "listeners:\n  - {{ bind: \"127.0.0.1:0\" }}\n{other}\
             sites:\n  - routes: [{{ path: /, respond: {{ body: \"{generation}\" }} }}]\nruntime: {{ threads: 2 }}\n"
        )
    };
    let gateway = Gateway::start(&config(0));
    let before = listening(&gateway, gateway.address().port());
    assert_eq!(before.len(), 2, "one for each thread");
    for generation in 1..=20 {
        // Connections that nobody need have accepted yet are served by whoever comes.
        let mut queued: Vec<Client> = (0..8).map(|_| gateway.client()).collect();
        gateway.reload(&config(generation));
        for client in &mut queued {
            client.send(get("/"));
            assert_eq!(client.response("GET").text(), generation.to_string());
        }
        assert_eq!(listening(&gateway, gateway.address().port()), before, "after reload {generation}");
    }
}

/// The next state that systemd is told.
fn state(manager: &UnixDatagram) -> Vec<String> {
    let mut bytes = [0; 4096];
    let length = manager.recv(&mut bytes).expect("a state");
    String::from_utf8(bytes[..length].to_vec()).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn systemd_is_told_of_the_start_of_reloads_and_of_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(LIMIT)).unwrap();
    let gateway = Gateway::start_with(ROUTES, |command| {
        command.env("NOTIFY_SOCKET", &path);
    });
    assert_eq!(state(&manager), ["READY=1", "STATUS=Serves on 127.0.0.1:0"]);
    gateway.reload(ROUTES);
    let reloading = state(&manager);
    assert_eq!(reloading[0], "RELOADING=1");
    assert!(reloading[1].strip_prefix("MONOTONIC_USEC=").is_some_and(|micros| micros.parse::<u64>().is_ok()));
    assert_eq!(state(&manager), ["READY=1", "STATUS=Serves on 127.0.0.1:0"]);
    gateway.rewrite("sites: 1\n");
    gateway.signal(Signal::HUP);
    assert_eq!(state(&manager)[0], "RELOADING=1");
    let refused = state(&manager);
    assert_eq!(refused[0], "READY=1", "it serves as before");
    assert!(refused[1].starts_with("STATUS=Not reloaded, see the log"), "{refused:?}");
    gateway.signal(Signal::TERM);
    assert_eq!(state(&manager)[0], "STOPPING=1");
    assert!(gateway.ended().status.success());
}

#[test]
fn the_units_in_deploy_are_valid() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    let folder = tempfile::tempdir().unwrap();
    for name in ["hostler.service", "hostler.socket", "hostler-http.socket"] {
        let text = std::fs::read_to_string(deploy.join(name)).unwrap();
        // There is no Hostler at the place where it will be installed.
        std::fs::write(folder.path().join(name), text.replace("/usr/local/bin/hostler", "/bin/true")).unwrap();
    }
    let files = ["hostler.service", "hostler.socket", "hostler-http.socket"].map(|name| folder.path().join(name));
    let files = files.each_ref().map(|file| file.to_str().unwrap());
    let output = Tool::start("systemd-analyze", &[&["verify", "--man=no"][..], &files].concat()).output();
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{output:?}");
}
