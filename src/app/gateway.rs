//! The running gateway: threads, listening sockets, and the configuration in force.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::cache;
use super::thread::{self, Command, Handles};
use super::{Current, InForce};
use crate::access::Checks;
use crate::cache::store::OpenError;
use crate::config::{self, AccessTarget, Bind, Config, Descriptors, Shortage};
use crate::edge::admission::Admission;
use crate::edge::connection::Terms;
use crate::edge::inherited::Inherited;
use crate::edge::listener::{self, BindError, Listening};
use crate::edge::tls::{ServerTls, TlsError, TlsShared};
use crate::middleware::compress::Compressor;
use crate::observe::access_log::AccessLog;
use crate::observe::metrics::Metrics;
use crate::realtime::hub::Channels;
use crate::runtime;
use crate::stack::{Blueprint, Shared};
use crate::upstream::spool::Budget;
use crate::upstream::{self, Connector};

/// What is left of the drain's time for answers to those who wait in vain.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// What is left of it for the cache's disk, which has to be told what was changed last.
const SETTLING: Duration = Duration::from_millis(500);

/// A running gateway.
pub struct Gateway {
    shared: Shared,
    admission: Arc<Admission>,
    tls: TlsShared,
    inherited: Inherited,
    current: Arc<Current>,
    threads: Vec<Thread>,
    listeners: Vec<Bound>,
    left_caches: cache::Left,
}

struct Thread {
    commands: UnboundedSender<Command>,
    handle: JoinHandle<()>,
}

/// A listener that is open.
#[derive(Debug, Clone)]
pub struct Bound {
    /// Its name in the configuration.
    pub name: String,
    /// The address that was bound; several, where systemd has passed several sockets.
    pub addresses: Vec<String>,
    bind: Bind,
}

/// Why a gateway does not start.
#[derive(Debug)]
pub enum StartError {
    /// An address cannot be listened on.
    Bind(BindError),
    /// A certificate or key cannot be used.
    Tls(String, TlsError),
    /// An upstream's TLS cannot be set up.
    Upstream(String, upstream::TlsError),
    /// The cache's folder cannot be used: why, and what is wrong around it.
    Cache(OpenError, Option<String>),
    /// The system did not give what was asked for.
    System(&'static str, std::io::Error),
}

/// Why a reload changed nothing.
pub type ReloadError = StartError;

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(error) => error.fmt(f),
            Self::Tls(listener, error) => write!(f, "listener {listener}: {error}"),
            Self::Upstream(name, error) => write!(f, "upstream {name}: {error}"),
            Self::Cache(error, None) => write!(f, "cache.disk.path: {error}"),
            Self::Cache(error, Some(trouble)) => write!(f, "cache.disk.path: {error}; {trouble}"),
            Self::System(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl From<BindError> for StartError {
    fn from(error: BindError) -> Self {
        Self::Bind(error)
    }
}

impl Gateway {
    /// Opens the listeners, or takes those that the process was started with, and starts the threads. Each of them calls `give_back`, which gives freed memory back to the
    /// system, when it begins and when it has much less to do than it had.
    ///
    /// # Errors
    /// What could not be had; nothing runs then.
    pub fn start(config: Config, inherited: Inherited, give_back: fn()) -> Result<Self, StartError> {
        let metrics = Metrics::new();
        let access_log = AccessLog::start(target(&config), metrics.access_log_dropped.clone())
            .map_err(|error| StartError::System("the access log cannot be opened", error))?;
        let budget = Budget::new(&config.spool);
        let checks = Checks::new(cores(), metrics.password_checks.clone())
            .ok_or_else(|| StartError::System("no random numbers", std::io::ErrorKind::Unsupported.into()))?;
        let compressor = Compressor::new(cores(), metrics.compression());
        let channels = Channels::new(metrics.realtime());
        let checks = Arc::new(checks);
        let count = config.runtime.threads.unwrap_or_else(cores);
        // Before anything listens: whoever comes finds what there is.
        let cache = cache::open(&config, count)?;
        let (tunnels, websocket_clients) = (Arc::default(), Arc::default());
        let shared =
            Shared { metrics, access_log, budget, checks, compressor, channels, tunnels, websocket_clients, cache };
        let tls = TlsShared::new().map_err(|error| StartError::Tls("(all)".into(), error))?;
        let admission = Admission::new(1, 1);
        share_descriptors(&config, count, &admission, &shared);
        let terms = terms(&config, &shared, &tls)?;
        let connectors = connectors(&config)?;
        let mut opened = Vec::new();
        for listener in &config.listeners {
            opened.push(open(listener, &inherited, count)?);
        }
        let blueprint = Blueprint::compile(config, connectors, None, shared.clone());
        blueprint.put_in_force(None);
        let current = Arc::new(Current::new(InForce { blueprint, terms }));
        shared.metrics.config_in_force(current.generation());
        let handles = Handles {
            admission: Arc::clone(&admission),
            metrics: Arc::clone(&shared.metrics),
            budget: Arc::clone(&shared.budget),
            channels: shared.channels.clone(),
            give_back,
        };
        let threads = (0..count).map(|index| start_thread(index, &current, &handles)).collect::<Result<_, _>>()?;
        let (listeners, left_caches) = (Vec::new(), cache::Left::default());
        let mut gateway = Self { shared, admission, tls, inherited, current, threads, listeners, left_caches };
        opened.into_iter().for_each(|(bound, sockets)| gateway.add(bound, sockets));
        Ok(gateway)
    }

    /// Listeners that are open, in the order they were opened.
    #[must_use]
    pub fn listeners(&self) -> &[Bound] {
        &self.listeners
    }

    /// The configuration in force, whichever that is at the time.
    pub(super) fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current)
    }

    /// What is one for the process.
    #[must_use]
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Puts another configuration in force: everything is built and opened first, then swapped at once. Connections
    /// stay open and obey it from their next request on. `runtime` and `admin` hold until the next start.
    ///
    /// # Errors
    /// What could not be had; nothing has changed then.
    pub fn reload(&mut self, config: Config) -> Result<(), ReloadError> {
        let terms = terms(&config, &self.shared, &self.tls)?;
        let connectors = connectors(&config)?;
        let mut opened = Vec::new();
        for listener in config.listeners.iter().filter(|wanted| !self.has(wanted)) {
            opened.push(open(listener, &self.inherited, self.threads.len())?);
        }
        let previous = self.current.in_force.load_full();
        let known = &previous.blueprint.config().cache;
        let cache = self.left_caches.follow(&self.shared.cache, known, &config, self.threads.len())?;
        let retarget = self.shared.access_log.retarget(target(&config));
        retarget.map_err(|error| StartError::System("the access log cannot be opened", error))?;
        self.shared.budget.configure(&config.spool);
        cache::resize(&cache, &config.cache);
        let before = std::mem::replace(&mut self.shared.cache, Arc::clone(&cache));
        let no_longer_caches = previous.blueprint.config().caches() && !config.caches();
        share_descriptors(&config, self.threads.len(), &self.admission, &self.shared);
        let kept: Vec<String> = config.listeners.iter().map(|listener| listener.name.clone()).collect();
        let blueprint = Blueprint::compile(config, connectors, Some(&previous.blueprint), self.shared.clone());
        blueprint.put_in_force(Some(&previous.blueprint));
        let generation = self.current.replace(InForce { blueprint, terms });
        self.shared.metrics.config_in_force(generation);
        self.left_caches.note(&before, known, &cache, &self.shared.metrics);
        // Where nothing is kept, nobody looks at what changes: a later configuration finds nothing of before.
        if no_longer_caches {
            cache::forget(cache.store());
        }
        opened.into_iter().for_each(|(bound, sockets)| self.add(bound, sockets));
        self.close_all_but(&kept);
        Ok(())
    }

    fn has(&self, wanted: &config::Listener) -> bool {
        self.listeners.iter().any(|bound| bound.name == wanted.name)
    }

    fn add(&mut self, bound: Bound, sockets: Vec<Listening>) {
        for address in &bound.addresses {
            tracing::info!(listener = %bound.name, address, "listening");
        }
        // The configuration that is in force has all that is opened.
        if let Some(terms) = self.current.terms(&bound.name) {
            // As many for each thread.
            for (thread, socket) in self.threads.iter().cycle().zip(sockets) {
                thread.tell(Command::Open(Arc::clone(&terms), socket));
            }
        }
        self.listeners.push(bound);
    }

    fn close_all_but(&mut self, kept: &[String]) {
        for bound in self.listeners.extract_if(.., |bound| !kept.contains(&bound.name)) {
            for address in &bound.addresses {
                tracing::info!(listener = %bound.name, address, "no longer listening");
            }
            self.threads.iter().for_each(|thread| thread.tell(Command::Close(bound.name.clone())));
            bound.remove_socket();
        }
    }

    /// Stops accepting, waits at most `timeout` for exchanges to end, then stops. Returns the number of exchanges
    /// that were cut. Calls `is_draining` when no connection takes another request any more than the one it is about to
    /// have.
    pub async fn stop(self, timeout: Duration, is_draining: impl FnOnce()) -> usize {
        let stop_begun = std::time::Instant::now();
        let (begun, ended): (Vec<_>, Vec<_>) = self.threads.iter().map(Thread::drain).unzip();
        self.listeners.iter().for_each(Bound::remove_socket);
        let mut all = pin!(async {
            // An error is a thread that has ended already.
            for thread in begun {
                let _ = thread.await;
            }
            is_draining();
            for thread in ended {
                let _ = thread.await;
            }
        });
        // Whoever waits for a worker until then is told, and not cut off.
        let (drain, last_words) = parts(timeout);
        if tokio::time::timeout(drain, &mut all).await.is_err() {
            self.current.in_force.load().blueprint.upstreams().iter().for_each(|upstream| upstream.close());
            let _ = tokio::time::timeout(last_words, &mut all).await;
        }
        let mut cut = 0;
        for thread in &self.threads {
            cut += thread.ask(Command::Stop).await.unwrap_or(0);
        }
        for thread in self.threads {
            if thread.handle.join().is_err() {
                tracing::error!("a thread has ended with a panic");
            }
        }
        let stores = std::iter::once(Arc::clone(self.shared.cache.store())).chain(self.left_caches.living());
        cache::settle(stores.collect(), timeout.saturating_sub(stop_begun.elapsed())).await;
        let flushed_by = std::time::Instant::now() + Duration::from_secs(1);
        if !self.shared.access_log.flush_and_stop(flushed_by) {
            tracing::warn!("the last lines of the access log could not be written in time");
        }
        cut
    }
}

impl Bound {
    fn remove_socket(&self) {
        if let Bind::Unix(path) = &self.bind {
            // Somebody may have taken it away; there is nothing to do about it.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Thread {
    fn tell(&self, command: Command) {
        // An error is a thread that has ended already.
        let _ = self.commands.send(command);
    }

    /// What says that the thread drains, and what says that it has nothing left.
    fn drain(&self) -> (oneshot::Receiver<()>, oneshot::Receiver<()>) {
        let ((begun, has_begun), (ended, has_ended)) = (oneshot::channel(), oneshot::channel());
        self.tell(Command::Drain { begun, ended });
        (has_begun, has_ended)
    }

    fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> oneshot::Receiver<T> {
        let (sender, receiver) = oneshot::channel();
        self.tell(command(sender));
        receiver
    }
}

/// How long a drain waits for exchanges to end, and then for answers to those who wait in vain. The rest is the cache's.
fn parts(timeout: Duration) -> (Duration, Duration) {
    let (last_words, settling) = (LAST_WORDS.min(timeout / 4), SETTLING.min(timeout / 8));
    (timeout - last_words - settling, last_words)
}

/// Where access lines go.
fn target(config: &Config) -> Option<AccessTarget> {
    config.logging.access.as_ref().map(|access| access.to.clone())
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Gives each kind of descriptor its share, and says when that is not what the configuration wants.
fn share_descriptors(config: &Config, threads: usize, admission: &Admission, shared: &Shared) {
    let (limit, _) = config::open_files();
    let shares = Descriptors::share(config, limit, threads);
    admission.configure(shares.clients, shares.per_client);
    shared.budget.allow_files(shares.files);
    shared.tunnels.allow(shares.most_tunnels);
    // One is as good as a connection, whatever carries it.
    shared.websocket_clients.allow(shares.per_client);
    for Shortage { message, help, is_felt, .. } in shares.shortages(config, limit) {
        if is_felt {
            tracing::warn!("{message}; {help}");
        } else {
            tracing::info!("{message}; {help}");
        }
    }
}

fn start_thread(index: usize, current: &Arc<Current>, handles: &Handles) -> Result<Thread, StartError> {
    let (commands, receiver) = unbounded_channel();
    let (current, handles) = (Arc::clone(current), handles.clone());
    let body = move || {
        if let Err(error) = runtime::block_on(thread::run(current, handles, receiver)) {
            tracing::error!("a thread cannot serve: {error}");
        }
    };
    let handle = std::thread::Builder::new()
        .name(format!("hostler-{index}"))
        .spawn(body)
        .map_err(|error| StartError::System("a thread cannot be started", error))?;
    Ok(Thread { commands, handle })
}

fn open(
    listener: &config::Listener,
    inherited: &Inherited,
    threads: usize,
) -> Result<(Bound, Vec<Listening>), StartError> {
    let (sockets, addresses) = listener::bind(&listener.bind, inherited, threads)?;
    Ok((Bound { name: listener.name.clone(), addresses, bind: listener.bind.clone() }, sockets))
}

/// How each listener's connections are to be served. Reads certificates.
fn terms(config: &Config, shared: &Shared, tls: &TlsShared) -> Result<Vec<Arc<Terms>>, StartError> {
    let compile = |listener: &config::Listener| {
        let read = |config| ServerTls::read(config, listener.http2, tls);
        let failed = |error| StartError::Tls(listener.name.clone(), error);
        Ok(Arc::new(Terms {
            name: listener.name.as_str().into(),
            tls: listener.tls.as_ref().map(read).transpose().map_err(failed)?,
            http2: listener.http2,
            proxy_protocol: listener.proxy_protocol,
            trusted_proxies: config.trusted_proxies.clone(),
            redirect_https: listener.redirect_https,
            websockets: config.takes_websockets(),
            limits: config.limits.clone(),
            listener_metrics: shared.metrics.listener(&listener.name),
            metrics: Arc::clone(&shared.metrics),
        }))
    };
    config.listeners.iter().map(compile).collect()
}

/// The ways to the endpoints of each upstream. Reads certificates.
fn connectors(config: &Config) -> Result<Vec<Vec<Connector>>, StartError> {
    let of = |upstream: &config::Upstream| {
        let compile = |endpoint| Connector::compile(upstream, endpoint);
        let connectors = upstream.endpoints.iter().map(compile).collect::<Result<_, _>>();
        connectors.map_err(|error| StartError::Upstream(upstream.name.clone(), error))
    };
    config.upstreams.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_cut_the_disk_of_the_cache_has_time_of_its_own() {
        for (timeout, drain, last_words) in [(0, 0, 0), (800, 500, 200), (30_000, 29_000, 500)] {
            let parts = parts(Duration::from_millis(timeout));
            assert_eq!(parts, (Duration::from_millis(drain), Duration::from_millis(last_words)), "{timeout}");
        }
    }
}
