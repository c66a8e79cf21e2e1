//! The control thread: starts the gateway, listens to signals and to the operator, ends it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use super::background::Background;
use super::gateway::{Gateway, StartError};
use super::notify::Notifier;
use crate::admin::{self, Admin, NotReloaded, Reloaded, Reloads, Running as _};
use crate::config::{self, Config, Loaded, Report, Secret};
use crate::edge::inherited::Inherited;
use crate::edge::listener::Listening;
use crate::edge::local_ca::LocalCa;
use crate::observe::log::Log;
use crate::realtime::publish;
use crate::runtime;

/// How many operators may wait for a reload at a time.
const WAITING_RELOADS: usize = 8;

/// Why `serve` ended otherwise than by a signal.
#[derive(Debug)]
pub enum Failure {
    /// The file cannot be used.
    Config(Report),
    /// What the file asks for cannot be had.
    Start(StartError),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(report) => report.fmt(f),
            Self::Start(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Failure {}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::Start(error)
    }
}

/// Serves as the file says, until a signal ends it. `give_back` gives memory that the calling thread has freed back to the
/// system.
///
/// # Errors
/// Why it did not start.
pub fn serve(path: &Path, give_back: fn()) -> Result<(), Failure> {
    // Before anything is opened that could be taken for one of them.
    let inherited = Inherited::take();
    let loaded = config::load(path).map_err(Failure::Config)?;
    let log = crate::observe::log::init(&loaded.config.logging)
        .map_err(|error| StartError::System("the log cannot be set up", error))?;
    tell_warnings(&loaded);
    raise_descriptor_limit();
    let config = loaded.config;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), config = %path.display(), "Hostler starts");
    runtime::block_on(control(path, config, inherited, log, give_back))
        .map_err(|error| StartError::System("no event queue", error))?
}

/// Warnings of the file, and folders that cannot be used: without that of the spool everything seems fine until the first
/// large body.
fn tell_warnings(loaded: &Loaded) {
    if let Some(warning) = config::spool_trouble(&loaded.config.spool) {
        tracing::warn!("{warning}");
    }
    for trouble in config::roots_trouble(&loaded.config) {
        tracing::warn!("{trouble}");
    }
    for warning in &loaded.warnings {
        let line = warning.line().unwrap_or(0);
        tracing::warn!(
            line,
            "{}{}",
            warning.message(),
            warning.help().map(|help| format!(" ({help})")).unwrap_or_default()
        );
    }
}

/// As many descriptors as this user may have: shells and containers begin with a soft limit of 1,024, and every
/// connection takes one.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        Ok(()) => tracing::debug!(
            from = limit.current,
            to = limit.maximum,
            "the limit of open files is raised to the most that this user may have"
        ),
        Err(error) => tracing::warn!(current = limit.current, "the limit of open files cannot be raised: {error}"),
    }
}

/// The signals that mean something.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
    reopen: Signal,
}

/// What a signal or the operator asks for.
enum Wish {
    Stop,
    /// Somebody may wait to hear how it went.
    Reload(Option<oneshot::Sender<Result<Reloaded, NotReloaded>>>),
    Reopen,
}

impl Signals {
    fn listen() -> Result<Self, StartError> {
        let on = |kind| signal(kind).map_err(|error| StartError::System("signals cannot be received", error));
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            reload: on(SignalKind::hangup())?,
            reopen: on(SignalKind::user_defined1())?,
        })
    }

    async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::Stop,
            _ = self.interrupt.recv() => Wish::Stop,
            _ = self.reload.recv() => Wish::Reload(None),
            _ = self.reopen.recv() => Wish::Reopen,
        }
    }
}

async fn control(path: &Path, config: Config, inherited: Inherited, log: Log, give_back: fn()) -> Result<(), Failure> {
    // Before anything else: a signal that comes while we start is not lost, and does not kill.
    let mut signals = Signals::listen()?;
    let notifier = Notifier::from_environment();
    let operator = config.admin.as_ref().map(|admin| admin::bind(admin, &inherited));
    let operator = operator.transpose().map_err(StartError::Bind)?;
    let token = config.admin.as_ref().and_then(|admin| admin.token.clone());
    let publish = config.realtime.publish.clone();
    let publish_door = publish.as_ref().map(|publish| publish::bind(publish, &inherited));
    let publish_door = publish_door.transpose().map_err(StartError::Bind)?;
    let (reloads, mut asked) = mpsc::channel(WAITING_RELOADS);
    tell_local_ca(&config);
    let mut shutdown = config.shutdown.clone();
    let mut gateway = Gateway::start(config, inherited, give_back)?;
    log.count_lost_into(gateway.shared().metrics.log_dropped.clone());
    let ready = Arc::new(AtomicBool::new(true));
    open_door(operator, token, &gateway, &ready, reloads);
    open_publish_door(publish_door, publish.and_then(|publish| publish.secret), &gateway);
    let mut background = Background::default();
    background.follow(&gateway.current());
    tracing::info!("ready");
    notifier.ready(&status(&gateway));
    loop {
        let wish = tokio::select! {
            wish = signals.next() => wish,
            Some(sender) = asked.recv() => Wish::Reload(Some(sender)),
        };
        match wish {
            Wish::Stop => break,
            Wish::Reopen => reopen(&gateway),
            Wish::Reload(answer_to) => {
                notifier.reloading();
                let result = reload(path, &mut gateway, &mut background);
                if let Ok((config, _)) = &result {
                    log.apply(&config.logging);
                    shutdown = config.shutdown.clone();
                    notifier.ready(&status(&gateway));
                } else {
                    notifier.ready("Not reloaded, see the log: serves as before");
                }
                if let Some(sender) = answer_to {
                    // An error is an operator who has not waited.
                    drop(sender.send(told(result)));
                }
            }
        }
    }
    // Whoever asks for a reload from now on hears that it is too late.
    drop(asked);
    ready.store(false, Ordering::Relaxed);
    notifier.stopping("Lets what is in flight come to its end");
    let stopping = stop(gateway, &shutdown);
    tokio::select! {
        () = stopping => {}
        _ = signals.interrupt.recv() => tracing::warn!("stopped at once, as asked: what was in flight is cut"),
    }
    Ok(())
}

/// What `systemctl status` shows of a gateway that serves.
fn status(gateway: &Gateway) -> String {
    let mut names: Vec<&str> = gateway.listeners().iter().map(|bound| bound.name.as_str()).collect();
    names.dedup();
    format!("Serves on {}", names.join(", "))
}

async fn stop(gateway: Gateway, shutdown: &config::Shutdown) {
    if !shutdown.delay.is_zero() {
        tracing::info!("stopping: /ready says no, and accepting goes on for {:?} (shutdown.delay)", shutdown.delay);
        tokio::time::sleep(shutdown.delay).await;
    }
    // Not before it is true of every thread: whoever reads the line may rely on it.
    let tell = || {
        tracing::info!(
            "stopping: no more connections, exchanges in flight have {:?} (shutdown.timeout)",
            shutdown.timeout
        );
    };
    match gateway.stop(shutdown.timeout, tell).await {
        0 => tracing::info!("stopped: everything in flight has ended"),
        cut => tracing::warn!(
            exchanges = cut,
            "stopped: {cut} exchanges were still in flight after {:?} and were cut",
            shutdown.timeout
        ),
    }
}

fn open_door(
    operator: Option<(Listening, String)>,
    token: Option<Secret>,
    gateway: &Gateway,
    ready: &Arc<AtomicBool>,
    reloads: Reloads,
) {
    let Some((socket, address)) = operator else { return };
    let shared = gateway.shared();
    let admin = Admin {
        metrics: Arc::clone(&shared.metrics),
        budget: Arc::clone(&shared.budget),
        ready: Arc::clone(ready),
        token,
        started: Instant::now(),
        running: gateway.current(),
        reloads,
    };
    tracing::info!(%address, "the admin listener answers /metrics, /live, /ready, /status and control");
    tokio::task::spawn_local(admin::listen(socket, admin));
}

/// Lets apps publish, and the hub keep its time.
fn open_publish_door(door: Option<(Listening, String)>, secret: Option<Secret>, gateway: &Gateway) {
    let channels = &gateway.shared().channels;
    tokio::task::spawn_local(publish::keep_time(channels.clone()));
    let Some((socket, address)) = door else { return };
    tracing::info!(%address, "apps publish here: POST /publish/ (realtime.publish)");
    tokio::task::spawn_local(publish::listen(socket, channels.clone(), secret));
}

/// Loads the file again and puts it in force. On any error everything stays as it is. With the new configuration comes
/// what an operator should hear of it.
fn reload(path: &Path, gateway: &mut Gateway, background: &mut Background) -> Result<(Config, Reloaded), Failure> {
    let begun = Instant::now();
    let result = config::load(path).map_err(Failure::Config).and_then(|loaded| {
        tell_warnings(&loaded);
        let config = loaded.config.clone();
        gateway.reload(loaded.config)?;
        background.follow(&gateway.current());
        Ok((config, loaded.warnings))
    });
    gateway.shared().metrics.config_reloaded(result.is_ok());
    match result {
        Ok((config, warnings)) => {
            let running = gateway.current();
            let reminders = admin::reminders(&running.upstreams());
            reminders.iter().for_each(|reminder| tracing::warn!("{reminder}"));
            tracing::info!(config = %path.display(), took = ?begun.elapsed(), "reloaded");
            let warnings = warnings.iter().map(ToString::to_string).chain(reminders).collect();
            Ok((config, Reloaded { generation: running.generation(), warnings }))
        }
        Err(failure) => {
            tracing::error!("not reloaded, the configuration before stays in force:\n{failure}");
            Err(failure)
        }
    }
}

/// The same for the operator who asked for it.
fn told(result: Result<(Config, Reloaded), Failure>) -> Result<Reloaded, NotReloaded> {
    match result {
        Ok((_, reloaded)) => Ok(reloaded),
        Err(Failure::Config(report)) => Err(NotReloaded::Config(report.to_string())),
        Err(Failure::Start(error)) => Err(NotReloaded::Start(error.to_string())),
    }
}

fn reopen(gateway: &Gateway) {
    match gateway.shared().access_log.reopen() {
        Ok(()) => tracing::info!("the access log was opened anew"),
        Err(error) => tracing::error!("the access log cannot be opened anew, the old file stays in use: {error}"),
    }
}

fn tell_local_ca(config: &Config) {
    let is_local = config.listeners.iter().any(|listener| listener.tls.as_ref().is_some_and(|tls| tls.local));
    if let (true, Ok(ca)) = (is_local, LocalCa::in_state_folder()) {
        tracing::info!(
            root = %ca.root_path().display(),
            "tls.local: certificates come from the local CA (curl --cacert takes its root)"
        );
    }
}
