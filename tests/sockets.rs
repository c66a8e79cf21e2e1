//! Listening sockets: those that systemd passes, those that reloads must not close, and what systemd is told.

use std::collections::BTreeSet;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::support::client::get;
use crate::support::gateway::Signal;
use crate::support::shop::python;
use crate::support::tool::{Output, Tool, curl};
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

/// A file of deploy/.
fn deployed(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)).unwrap()
}

/// The value of a setting of a unit that is there once.
fn setting<'u>(unit: &'u str, name: &str) -> &'u str {
    let values: Vec<&str> = unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).collect();
    let [value] = values[..] else { panic!("{name}= is {values:?}") };
    value
}

/// These units in a folder of the test's own. There is no Hostler at the place where it will be installed.
fn installed<const N: usize>(names: [&str; N]) -> (TempDir, [String; N]) {
    let folder = tempfile::tempdir().unwrap();
    let files = names.map(|name| {
        let file = folder.path().join(name);
        std::fs::write(&file, deployed(name).replace("/usr/local/bin/hostler", "/bin/true")).unwrap();
        file.display().to_string()
    });
    (folder, files)
}

fn analyze(arguments: &[&str], files: &[String]) -> Output {
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    Tool::start("systemd-analyze", &[arguments, &files].concat()).output()
}

#[test]
fn the_units_in_deploy_are_valid_and_the_service_may_do_little() {
    let (_folder, files) = installed(["hostler.service", "hostler.socket", "hostler-http.socket"]);
    let output = analyze(&["verify", "--man=no"], &files);
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{output:?}");
    // Tenths of its own measure of exposure: 100 is a service without any of this, up to 20 it has no complaint.
    let output = analyze(&["security", "--offline=yes", "--threshold=20", "--no-pager"], &files[..1]);
    assert_eq!(output.code, Some(0), "{output:?}");
}

#[test]
fn the_service_starts_and_reloads_as_its_unit_says_and_tells_systemd() {
    let unit = deployed("hostler.service");
    assert_eq!((setting(&unit, "Type"), setting(&unit, "NotifyAccess")), ("notify", "main"));
    let folder = tempfile::tempdir().unwrap();
    let (file, path) = (folder.path().join("hostler.yaml"), folder.path().join("notify"));
    std::fs::write(&file, format!("listeners: [{{ bind: \"unix:./shop.sock\" }}]\n{ROUTES}")).unwrap();
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(LIMIT)).unwrap();
    let start: Vec<&str> = setting(&unit, "ExecStart").split(' ').collect();
    assert_eq!(start[0], "/usr/local/bin/hostler");
    let words =
        start[1..].iter().map(|word| if *word == "/etc/hostler/hostler.yaml" { file.to_str().unwrap() } else { *word });
    let mut command = Command::new(env!("CARGO_BIN_EXE_hostler"));
    command.args(words).env("NOTIFY_SOCKET", &path).env("HOSTLER_STATE_DIR", folder.path());
    let mut service = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // Whatever is told next, or that nothing is, without leaving the service behind.
    let mut bytes = [0; 4096];
    let mut first_line = || {
        let length = manager.recv(&mut bytes).unwrap_or(0);
        String::from_utf8_lossy(&bytes[..length]).lines().next().unwrap_or_default().to_owned()
    };
    let mut told = vec![first_line()];
    let reload: Vec<String> = setting(&unit, "ExecReload")
        .split(' ')
        .map(|word| word.replace("$MAINPID", &service.id().to_string()))
        .collect();
    let reloaded = Command::new(&reload[0]).args(&reload[1..]).status();
    told.extend([first_line(), first_line()]);
    service.kill().unwrap();
    service.wait().unwrap();
    assert!(reloaded.unwrap().success());
    assert_eq!(told, ["READY=1", "RELOADING=1", "READY=1"]);
}

/// The lines below `listeners:` in the comments of a unit.
fn listeners_in_comments(unit: &str) -> String {
    let comments = unit.lines().map(|line| line.strip_prefix("#   ").unwrap_or_default());
    let lines: Vec<&str> =
        comments.skip_while(|line| *line != "listeners:").skip(1).take_while(|line| line.starts_with(' ')).collect();
    assert!(!lines.is_empty(), "{unit}");
    lines.join("\n") + "\n"
}

#[test]
fn the_sockets_in_deploy_have_the_names_that_their_comments_listen_on() {
    let (https, http) = (deployed("hostler.socket"), deployed("hostler-http.socket"));
    for unit in [&https, &http] {
        assert_eq!((setting(unit, "Service"), setting(unit, "BindIPv6Only")), ("hostler.service", "both"));
    }
    let of_https = listeners_in_comments(&https);
    assert!(of_https.contains("tls: ...\n"), "{of_https}");
    let config = format!(
        "listeners:\n{}{}{ROUTES}",
        of_https.replace("tls: ...", "tls: { local: true }"),
        listeners_in_comments(&http)
    );
    let [https, http] = [(https, "127.0.0.2:0"), (http, "127.0.0.3:0")]
        .map(|(unit, address)| format!("{}={address}", setting(&unit, "FileDescriptorName")));
    let gateway = passed(&[&https, &http], &config);
    let to = format!("localhost:{}:127.0.0.2", gateway.listener("systemd:https").port());
    let url = format!("https://localhost:{}/", gateway.listener("systemd:https").port());
    let output = curl(&["--cacert", gateway.root().to_str().unwrap(), "--resolve", &to, &url]);
    assert_eq!(output.stdout, "ok", "{output:?}");
    let redirect = Client::connect(gateway.listener("systemd:http")).get("/");
    assert_eq!((redirect.status, redirect.header("location")), (308, Some("https://shop.example/")));
}

#[test]
fn sockets_that_were_passed_to_another_process_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hostler.yaml");
    std::fs::write(&file, format!("listeners: [{{ bind: \"systemd:web\" }}]\n{ROUTES}")).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/pass_sockets.py");
    let binary = env!("CARGO_BIN_EXE_hostler");
    let words = ["--to-another", "web=127.0.0.1:0", "--", binary, "serve", "-c", file.to_str().unwrap()];
    let output = Tool::start(python().to_str().unwrap(), &[&[script.to_str().unwrap()][..], &words].concat()).output();
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.contains("this process was started without sockets"), "{output:?}");
}
