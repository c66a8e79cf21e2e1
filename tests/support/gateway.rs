//! The real binary, started on a configuration of the test's own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

pub(crate) use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::lines::Lines;
use super::tool::{Output, Tool};
use super::{Address, Client, H2, Response, look_until};

const BINARY: &str = env!("CARGO_BIN_EXE_hostler");

/// A running gateway. Ends when it is dropped.
///
/// Listeners are written with port 0. Two of them cannot both be `127.0.0.1:0`: loopback has more addresses, such as
/// `127.0.0.2:0`. Under these names ([`Gateway::listener`]) the test finds out where they are.
pub(crate) struct Gateway {
    child: Child,
    folder: TempDir,
    log: Lines,
    access: Lines,
    listeners: Vec<(String, Address)>,
    admin: Address,
}

/// How a gateway that was told to stop has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// All of its log.
    pub(crate) log: Vec<String>,
    /// All of its access log.
    pub(crate) access: Vec<Value>,
}

impl Gateway {
    /// Starts on this configuration and waits until it is ready. What the configuration does not say of `admin` and
    /// `logging` is added, and `listeners` too: one on 127.0.0.1. `@folder@` stands for the folder of the file.
    pub(crate) fn start(config: &str) -> Self {
        Self::start_with(config, |_| {})
    }

    /// In front of one upstream `app` with these keys, such as `endpoints: [...], workers: 1`.
    pub(crate) fn before(upstream: &str) -> Self {
        Self::start(&before(upstream))
    }

    /// The same, with a word in how the process is started.
    pub(crate) fn start_with(config: &str, prepare: impl FnOnce(&mut Command)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = command(folder.path(), config);
        prepare(&mut command);
        Self::spawn(folder, command)
    }

    /// The same in a process that may have so many open files.
    pub(crate) fn start_limited(files: usize, config: &str) -> Self {
        Self::start_by(&["sh", "-c", "ulimit -n \"$0\" && exec \"$@\"", &files.to_string()], config)
    }

    /// The same by another program, which gets the command as its last arguments and becomes it.
    pub(crate) fn start_by(launcher: &[&str], config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let command = command_by(launcher, folder.path(), config);
        Self::spawn(folder, command)
    }

    fn spawn(folder: TempDir, mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let log = Lines::of(child.stderr.take().unwrap());
        let access = Lines::of(child.stdout.take().unwrap());
        let admin = Address::Unix(PathBuf::new());
        let mut gateway = Self { child, folder, log, access, listeners: Vec::new(), admin };
        gateway.learn_addresses();
        gateway
    }

    fn learn_addresses(&mut self) {
        let mut listeners = Vec::new();
        let mut admin = None;
        let is_ready = self.log.find(|line| {
            let event: Value = serde_json::from_str(line).ok()?;
            let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
            match text("message").as_str() {
                "listening" => listeners.push((text("listener"), Address::parse(&text("address")))),
                message if message.starts_with("the admin listener answers") => {
                    admin = Some(Address::parse(&text("address")));
                }
                "ready" => return Some(()),
                _ => {}
            }
            None
        });
        if is_ready.is_none() {
            self.fail("it is not ready");
        }
        self.listeners = listeners;
        self.admin = admin.expect("an admin listener");
    }

    /// Runs `serve` on a configuration with which it is not to start. The exit code and what it said.
    pub(crate) fn refuse(config: &str) -> (Option<i32>, String) {
        let folder = tempfile::tempdir().unwrap();
        refused(command(folder.path(), config))
    }

    /// The same by another program, as [`Gateway::start_by`].
    pub(crate) fn refuse_by(launcher: &[&str], config: &str) -> (Option<i32>, String) {
        let folder = tempfile::tempdir().unwrap();
        refused(command_by(launcher, folder.path(), config))
    }

    /// The first listener of the configuration.
    pub(crate) fn address(&self) -> &Address {
        &self.listeners[0].1
    }

    /// The listener whose `bind` is this, to the letter.
    pub(crate) fn listener(&self, bind: &str) -> &Address {
        match self.listeners.iter().find(|(name, _)| name == bind) {
            Some((_, address)) => address,
            None => self.fail(&format!("no listener {bind}")),
        }
    }

    /// All addresses of that listener.
    pub(crate) fn addresses(&self, bind: &str) -> Vec<&Address> {
        self.listeners.iter().filter(|(name, _)| name == bind).map(|(_, address)| address).collect()
    }

    /// A client of the first listener.
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address())
    }

    /// A client of the first listener that speaks HTTP/2 with prior knowledge.
    pub(crate) fn h2(&self) -> H2 {
        H2::connect(self.address())
    }

    /// The folder of the configuration.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The root that has signed for `tls: { local: true }`.
    pub(crate) fn root(&self) -> PathBuf {
        self.folder().join("state/local-ca/root.crt")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The admin listener.
    pub(crate) fn admin(&self) -> &Address {
        &self.admin
    }

    /// Runs `hostler` with these arguments on the configuration of this gateway.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Output {
        cli(arguments, &self.folder().join("hostler.yaml"))
    }

    /// What `/status` says.
    pub(crate) fn status(&self) -> Value {
        serde_json::from_str(self.admin_get("/status").text()).expect("JSON")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        if signal == Signal::STOP {
            look_until(|| self.is_stopped().then_some(())).expect("it stops");
        }
    }

    /// Whether no thread of it runs any more: each of them hears of a signal in its own time.
    fn is_stopped(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        threads.map(|thread| std::fs::read_to_string(thread.unwrap().path().join("stat")).unwrap()).all(|stat| {
            // Behind the name, which may hold anything.
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
        })
    }

    /// Puts another configuration into the file. Not in force before [`Gateway::reload`].
    pub(crate) fn rewrite(&self, config: &str) {
        std::fs::write(self.folder().join("hostler.yaml"), complete(self.folder(), config)).unwrap();
    }

    /// Puts another configuration in force, and waits until the gateway says so.
    pub(crate) fn reload(&self, config: &str) {
        self.rewrite(config);
        let before = self.log.count();
        self.signal(Signal::HUP);
        let done = self.log.find_from(before, |line| {
            let event: Value = serde_json::from_str(line).ok()?;
            let message = event["message"].as_str()?;
            if message.starts_with("not reloaded") { Some(false) } else { (message == "reloaded").then_some(true) }
        });
        if done != Some(true) {
            self.fail("it did not reload");
        }
    }

    /// The first event of the log, written or yet to come, that `is_it` takes.
    pub(crate) fn log_event(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let event = self.log.find(|line| serde_json::from_str(line).ok().filter(|event| is_it(event)));
        event.unwrap_or_else(|| self.fail(&format!("no log event: {what}")))
    }

    /// The log as it is now.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.all()
    }

    /// The first line of the access log, written or yet to come, that `is_it` takes.
    pub(crate) fn access_line(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let line = self.access.find(|line| serde_json::from_str(line).ok().filter(|line| is_it(line)));
        line.unwrap_or_else(|| self.fail(&format!("no access line: {what}")))
    }

    /// The access line of the exchange that had this response.
    pub(crate) fn access_of(&self, response: &Response) -> Value {
        let id = response.id();
        // Only the line itself is worth being read as JSON: there may be many before it.
        let line = self.access.find(|line| if line.contains(id) { serde_json::from_str(line).ok() } else { None });
        line.unwrap_or_else(|| self.fail(&format!("no access line: {id}")))
    }

    /// The access line of the one exchange with this path.
    pub(crate) fn access_of_path(&self, path: &str) -> Value {
        self.access_line(path, |line| line["path"] == path)
    }

    /// `GET` from the admin listener.
    pub(crate) fn admin_get(&self, path: &str) -> Response {
        let mut client = Client::connect(&self.admin);
        client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
        client.response("GET")
    }

    /// The value of a series now, such as `hostler_in_flight{upstream="app"}`; 0 when there is none yet.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let text = self.admin_get("/metrics");
        let value = text.text().lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Waits until a series has a value.
    pub(crate) fn wait_metric(&self, series: &str, wanted: f64) {
        let mut last = f64::NAN;
        let found = look_until(|| {
            last = self.metric(series);
            ((last - wanted).abs() < 1e-9).then_some(())
        });
        if found.is_none() {
            self.fail(&format!("{series} is {last}, not {wanted}"));
        }
    }

    /// Waits until no worker of `app` is busy and nobody waits for one.
    pub(crate) fn wait_idle(&self) {
        self.wait_metric("hostler_in_flight{upstream=\"app\"}", 0.0);
        self.wait_metric("hostler_waiting{upstream=\"app\"}", 0.0);
    }

    /// How often this failure was counted, under the upstream's name or under none.
    pub(crate) fn failures(&self, upstream: &str, reason: &str) -> f64 {
        self.metric(&failures_of(upstream, reason))
    }

    /// Waits until this failure has been counted so often. An exchange is counted at its end, and that may come after what its
    /// client and its app see of it: a connection that was upgraded ends when its client has closed it, or has had its time.
    pub(crate) fn wait_failures(&self, upstream: &str, reason: &str, wanted: f64) {
        self.wait_metric(&failures_of(upstream, reason), wanted);
    }

    /// Memory that the process has in use (VmRSS).
    pub(crate) fn rss_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    /// The most it ever had (VmHWM).
    pub(crate) fn peak_rss_kib(&self) -> u64 {
        self.status_kib("VmHWM:")
    }

    fn status_kib(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Open file descriptors.
    pub(crate) fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// SIGTERM, then waits for the end.
    pub(crate) fn stop(self) -> Ended {
        self.signal(Signal::TERM);
        self.ended()
    }

    /// SIGKILL. Fails when it has ended by itself.
    pub(crate) fn kill(mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            self.fail(&format!("it has ended by itself: {status}"));
        }
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for an end that has been asked for.
    pub(crate) fn ended(mut self) -> Ended {
        let status = look_until(|| self.child.try_wait().unwrap());
        let Some(status) = status else { self.fail("it has not ended") };
        let access = self.access.to_end();
        let access = access.iter().map(|line| serde_json::from_str(line).expect(line)).collect();
        Ended { status, log: self.log.to_end(), access }
    }

    /// Fails the test with all that the gateway has said.
    pub(crate) fn fail(&self, what: &str) -> ! {
        panic!(
            "{what}\n--- log of the gateway\n{}\n--- access log\n{}\n---",
            self.log.all().join("\n"),
            self.access.all().join("\n")
        );
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Errors say that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A configuration with one upstream `app` that has these keys, and everything sent there.
pub(crate) fn before(upstream: &str) -> String {
    format!("upstreams:\n  app: {{ {upstream} }}\nsites:\n  - routes:\n      - {{ path: /, proxy: app }}\n")
}

/// Runs `hostler` with these arguments and `-c FILE`.
pub(crate) fn cli(arguments: &[&str], file: &Path) -> Output {
    Tool::start(BINARY, &[arguments, &["-c", file.to_str().unwrap()]].concat()).output()
}

fn failures_of(upstream: &str, reason: &str) -> String {
    format!("hostler_failures_total{{reason=\"{reason}\",upstream=\"{upstream}\"}}")
}

fn command(folder: &Path, config: &str) -> Command {
    let file = folder.join("hostler.yaml");
    std::fs::write(&file, complete(folder, config)).unwrap();
    let mut command = Command::new(BINARY);
    command.args(["serve", "-c"]).arg(&file).env("HOSTLER_STATE_DIR", folder.join("state"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn command_by(launcher: &[&str], folder: &Path, config: &str) -> Command {
    let whole = command(folder, config);
    let mut command = Command::new(launcher[0]);
    let launcher = launcher[1..].iter().map(|argument| argument.replace("@folder@", &folder.display().to_string()));
    command.args(launcher).arg(whole.get_program()).args(whole.get_args());
    command.envs(whole.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// How it ends, and what it says.
fn refused(mut command: Command) -> (Option<i32>, String) {
    let output = command.spawn().unwrap().wait_with_output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The configuration with what a test need not write.
fn complete(folder: &Path, config: &str) -> String {
    let defaults = [
        ("listeners:", "listeners:\n  - { bind: \"127.0.0.1:0\" }\n"),
        ("admin:", "admin: { bind: \"127.0.0.254:0\" }\n"),
        ("logging:", "logging: { format: json, access: { to: stdout } }\n"),
        ("runtime:", "runtime: { threads: 1 }\n"),
    ];
    let mut text = config.replace("@folder@", &folder.display().to_string());
    for (key, default) in defaults {
        if !text.lines().any(|line| line.starts_with(key)) {
            text.push_str(default);
        }
    }
    text
}
