//! The example shop on servers other than gunicorn: uvicorn, waitress, Apache with mod_wsgi.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::journal::Journal;
use super::lines::Lines;
use super::shop::{self, python};
use super::worker::Transport;
use super::{Address, look_until};

/// Requests that each of these servers works on at once.
pub(crate) const AT_ONCE: u32 = 4;

/// A running server. Ends when it is dropped.
pub(crate) struct Server {
    child: Child,
    log: Lines,
    address: Address,
    folder: TempDir,
}

impl Server {
    /// uvicorn with `shop.asgi`: Django runs the synchronous views in threads.
    pub(crate) fn uvicorn(transport: Transport) -> Self {
        let folder = shop::folder();
        let mut command = Command::new(python());
        command.args(["-m", "uvicorn", "shop.asgi:application", "--lifespan", "off"]);
        match transport {
            Transport::Tcp => command.args(["--host", "127.0.0.1", "--port", "0"]),
            // It believes no peer that has no address, unless it is told to believe everybody.
            Transport::Unix => command.arg("--uds").arg(socket(&folder)).args(["--forwarded-allow-ips", "*"]),
        };
        Self::start(command, folder, |line| after(line, "Uvicorn running on "))
    }

    /// uvicorn with `tests/python/echo_asgi.py`, which speaks WebSocket. `tls`: a certificate and its key.
    pub(crate) fn uvicorn_echo(transport: Transport, tls: Option<(&Path, &Path)>) -> Self {
        let folder = shop::folder();
        let mut command = Command::new(python());
        command.args([
            "-m",
            "uvicorn",
            "echo_asgi:application",
            "--lifespan",
            "off",
            "--ws",
            "websockets",
            "--app-dir",
        ]);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python"));
        match transport {
            Transport::Tcp => command.args(["--host", "127.0.0.1", "--port", "0"]),
            Transport::Unix => command.arg("--uds").arg(socket(&folder)),
        };
        if let Some((certificate, key)) = tls {
            command.arg("--ssl-certfile").arg(certificate).arg("--ssl-keyfile").arg(key);
        }
        Self::start(command, folder, |line| after(line, "Uvicorn running on "))
    }

    /// Waits for a line of its log that contains this.
    pub(crate) fn wait_log(&self, what: &str) {
        let found = self.log.find(|line| line.contains(what).then_some(()));
        assert!(found.is_some(), "the server does not say {what:?}:\n{}", self.log.all().join("\n"));
    }

    /// waitress, told to believe the forwarded fields, which it removes otherwise.
    pub(crate) fn waitress(transport: Transport) -> Self {
        let folder = shop::folder();
        let mut command = Command::new(python());
        command.args(["-m", "waitress", "--trusted-proxy-count=1"]).arg(format!("--threads={AT_ONCE}"));
        command.arg("--trusted-proxy-headers=x-forwarded-for x-forwarded-proto x-forwarded-host x-forwarded-port");
        match transport {
            Transport::Tcp => command.args(["--trusted-proxy=127.0.0.1", "--listen=127.0.0.1:0"]),
            Transport::Unix => {
                command.args(["--trusted-proxy=localhost", &format!("--unix-socket={}", socket(&folder).display())])
            }
        };
        command.arg("shop.wsgi:application");
        Self::start(command, folder, |line| after(line, "Serving on "))
    }

    /// Apache with mod_wsgi in daemon mode. It listens on TCP alone, and tells no port that it was not told.
    pub(crate) fn mod_wsgi() -> Self {
        for _ in 0..10 {
            let folder = shop::folder();
            let port = free_port();
            let file = folder.path().join("apache.conf");
            std::fs::write(&file, apache_config(folder.path(), port)).unwrap();
            std::fs::write(folder.path().join("shop.py"), wsgi_script(folder.path())).unwrap();
            let mut command = Command::new("/usr/sbin/apache2");
            command.args(["-D", "FOREGROUND", "-f"]).arg(&file);
            let address = format!("127.0.0.1:{port}");
            let up = |line: &str| line.contains("resuming normal operations").then(|| address.clone());
            if let Some(server) = Self::try_start(command, folder, up) {
                return server;
            }
            // Somebody was quicker to take that port.
        }
        panic!("Apache does not start")
    }

    fn start(command: Command, folder: TempDir, address: impl Fn(&str) -> Option<String>) -> Self {
        let name = format!("{command:?}");
        Self::try_start(command, folder, address).unwrap_or_else(|| panic!("does not start: {name}"))
    }

    /// Starts it and waits for the line in which `address` finds where it listens.
    fn try_start(mut command: Command, folder: TempDir, address: impl Fn(&str) -> Option<String>) -> Option<Self> {
        shop::prepare(&mut command, folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| {
            panic!("{}: {error} (tests/python/tools.sh installs it)", command.get_program().display())
        });
        let log = Lines::of(child.stderr.take().unwrap());
        let Some(found) = log.find(&address) else {
            eprintln!("{command:?}:\n{}", log.all().join("\n"));
            let _ = child.kill();
            let _ = child.wait();
            return None;
        };
        let address = match found.strip_prefix("http://unix:").or_else(|| found.strip_prefix("unix socket ")) {
            Some(path) => Address::Unix(path.into()),
            None => Address::parse(&found),
        };
        Some(Self { child, log, address, folder })
    }

    /// As `endpoints` in a configuration has it.
    pub(crate) fn endpoint(&self) -> String {
        self.address.endpoint()
    }

    /// Every run of the app. Not kept by `shop.asgi`.
    pub(crate) fn journal(&self) -> Journal {
        Journal::at(shop::journal(self.folder.path()))
    }

    /// Its log as it is now.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.all()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Errors say that it has ended already.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        if look_until(|| self.child.try_wait().ok().flatten()).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn socket(folder: &TempDir) -> PathBuf {
    folder.path().join("server.sock")
}

/// The first words after `what`.
fn after(line: &str, what: &str) -> Option<String> {
    let (_, rest) = line.split_once(what)?;
    Some(rest.split(" (").next()?.to_owned())
}

/// A port that nobody listens on now. Somebody else may take it before the one for whom it is meant.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// As an administrator writes it, in a folder of its own. The shop's Django comes from the tests' venv: it is plain
/// Python, so that Debian's interpreter runs it whichever one the venv was made with.
fn apache_config(folder: &Path, port: u16) -> String {
    let (shop, packages) = (shop::root(), site_packages());
    let (folder, shop, packages) = (folder.display(), shop.display(), packages.trim());
    // Root serves nobody itself, and needs to be told who does.
    let user = if rustix::process::geteuid().is_root() { "User www-data\nGroup www-data\n" } else { "" };
    format!(
        "ServerRoot {folder}\nServerName localhost\nPidFile {folder}/apache.pid\nDefaultRuntimeDir {folder}\n\
         ErrorLog /dev/stderr\nLogLevel notice\nListen 127.0.0.1:{port}\n{user}\
         LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so\n\
         LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so\n\
         LoadModule wsgi_module /usr/lib/apache2/modules/mod_wsgi.so\n\
         StartServers 1\nServerLimit 2\nThreadsPerChild 16\nMaxRequestWorkers 32\nKeepAliveTimeout 5\n\
         WSGIDaemonProcess shop processes=1 threads={AT_ONCE} python-path={shop}:{packages}\n\
         WSGIProcessGroup shop\nWSGIApplicationGroup %{{GLOBAL}}\nWSGISocketPrefix {folder}/wsgi\n\
         WSGIScriptAlias / {folder}/shop.py\n\
         WSGITrustedProxies 127.0.0.1\nWSGITrustedProxyHeaders X-Forwarded-For X-Forwarded-Proto X-Forwarded-Host X-Forwarded-Port\n\
         <Directory {folder}>\nRequire all granted\n</Directory>\n"
    )
}

/// mod_wsgi hands Apache's environment to nobody.
fn wsgi_script(folder: &Path) -> String {
    let set = |(name, value): (&str, PathBuf)| format!("os.environ[{name:?}] = {value:?}\n");
    let variables: String = shop::variables(folder).into_iter().map(set).collect();
    format!("import os\n{variables}from shop.wsgi import application\n")
}

/// Where the venv keeps Django.
fn site_packages() -> String {
    let code = "import django, pathlib; print(pathlib.Path(django.__file__).parent.parent)";
    let output = Command::new(python()).args(["-c", code]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}
