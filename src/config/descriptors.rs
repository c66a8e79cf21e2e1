//! How the file descriptors of the process are shared, so that a shortage of one kind starves no other.
//!
//! | share | for | when it is used up |
//! |---|---|---|
//! | clients | connections of clients | the idlest gives way, or the newcomer is turned away |
//! | files | bodies in the spool | `spool_full` for requests, back-pressure for responses |
//! | open | files of routes that are kept open for who asks next | the one that was not asked for goes |
//! | cached | files of the cache's disk that are kept open | the one that was not asked for goes |
//! | tunnels | WebSockets that pass through to workers, beside their clients' connections | `websockets_full` |
//! | kept | workers, the admin listener, listeners, logs, reloads | |

use rustix::process::{Resource, getrlimit};

use super::{Action, Config, Limits, Route, Upstream, WebSocket, WebSocketMode};

/// Of each thread that serves: its event queue, what wakes it, signals, and a connection that is about to be refused.
const THREAD: usize = 5;
/// Connections of the operator, and what else is open or opened now and then: logs, the configuration, certificates,
/// name servers.
const OWN: usize = 48;
/// Connections to an upstream without a bound of its own.
const UNLIMITED: usize = 256;
/// Files of bodies that are enough for many large bodies at once.
const FILES: usize = 1024;
/// Files of routes that are kept open, where there are any.
const KEPT: usize = 512;
/// Files of the cache's disk that are kept open, where it has one.
const CACHED: usize = 512;
/// Its folder, its lock, its journal, and what its threads read and write.
const CACHE_OWN: usize = 48;
/// Newcomers who are in before those who give way to them have left (`edge::admission`).
const OVERLAP: usize = 64;

/// Fewest connections, and WebSockets that pass through, with which an operator can be left without a word who has not asked
/// for more.
const FEW: usize = 1000;

/// The keys that say how many there should be.
pub const CONNECTIONS: &str = "limits.connections";
const TUNNELS: &str = "websocket.max";

/// The shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    /// Connections of clients: `limits.connections`, or fewer.
    pub clients: usize,
    /// Those of one client: `limits.connections_per_client`, and no more than half of fewer than were wanted. So
    /// many WebSockets, too.
    pub per_client: usize,
    /// Files of the spool.
    pub files: usize,
    /// Files of routes that are kept open.
    pub kept: usize,
    /// Files of the cache's disk that are kept open.
    pub cached: usize,
    /// Connections to workers for WebSockets that pass through, over all routes: the sum of their `max`, or fewer.
    pub tunnels: usize,
    /// As many may be open at once. More than `tunnels` where there are descriptors for them: those of routes that a reload has
    /// taken away, or whose `max` it has lowered, stay open and are nobody's fault.
    pub most_tunnels: usize,
    /// The limit of open files with which `limits.connections` and `websocket.max` would be what they say.
    pub wanted: usize,
}

/// Of what there can be less than the configuration says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    /// The key that says how many there should be.
    pub key: &'static str,
    /// What it is.
    pub message: String,
    /// What an operator can do about it.
    pub help: String,
    /// Whether it deserves a warning: an operator wants more than there can be, or there is little indeed.
    pub is_felt: bool,
}

impl Descriptors {
    /// The shares of `limit` descriptors, of a process with so many threads that serve.
    #[must_use]
    pub fn share(config: &Config, limit: usize, threads: usize) -> Self {
        let quarter = limit / 4;
        let has_cache_disk = config.cache.disk.is_some();
        let cache_own = if has_cache_disk { CACHE_OWN } else { 0 };
        let own = (threads * (THREAD + config.listeners.len()) + OWN + cache_own).min(quarter);
        // In flight, idle for the next request, and a probe for each endpoint.
        let slots = |upstream: &Upstream| upstream.workers.slots().map_or(UNLIMITED, |slots| slots as usize);
        let of = |upstream: &Upstream| slots(upstream).saturating_mul(2).saturating_add(upstream.endpoints.len());
        let workers = config.upstreams.iter().map(of).fold(0, usize::saturating_add);
        let connections = config.limits.connections;
        let serves_files =
            routes(config).any(|route| matches!(route.action, Action::Files(_)) || route.sendfile.is_some());
        let most_kept = if serves_files { KEPT } else { 0 };
        let most_cached = if has_cache_disk { CACHED } else { 0 };
        let all_else = (own + most_kept + most_cached + connections + OVERLAP + FILES).saturating_add(workers);
        // Beside the client's, which is one of its connections.
        let wanted_tunnels = routes(config).map(tunnels).fold(0, usize::saturating_add);
        let most_tunnels = quarter.max(limit.saturating_sub(all_else));
        let tunnels = wanted_tunnels.min(most_tunnels);
        let left = limit - own - workers.min(quarter) - tunnels;
        let kept = most_kept.min(left / 8);
        let cached = most_cached.min(left / 8);
        let left = left - kept - cached;
        let files = FILES.min(left / 4);
        let room = left - files;
        let clients = connections.min(room - OVERLAP.min(room / 9)).max(1);
        let most = if clients < connections { (clients / 2).max(1) } else { usize::MAX };
        Self {
            clients,
            per_client: config.limits.connections_per_client.min(most),
            files: files.max(left.saturating_sub(connections + OVERLAP)),
            kept,
            cached,
            tunnels,
            most_tunnels,
            wanted: all_else.saturating_add(wanted_tunnels),
        }
    }

    /// What an operator should know of where there are too few.
    #[must_use]
    pub fn shortages(&self, config: &Config, limit: usize) -> Vec<Shortage> {
        self.of_clients(config, limit).into_iter().chain(self.of_tunnels(config, limit)).collect()
    }

    fn of_clients(&self, config: &Config, limit: usize) -> Option<Shortage> {
        let connections = config.limits.connections;
        let is_asked_for = connections != Limits::default().connections;
        (self.clients < connections).then(|| Shortage {
            key: CONNECTIONS,
            message: format!(
                "{} connections of clients at once, not {connections} ({CONNECTIONS}), and {} of one client: the limit of open files is {limit}",
                self.clients, self.per_client
            ),
            help: self.remedy(CONNECTIONS),
            is_felt: self.clients < if is_asked_for { connections } else { FEW },
        })
    }

    fn of_tunnels(&self, config: &Config, limit: usize) -> Option<Shortage> {
        let wanted = routes(config).map(tunnels).fold(0, usize::saturating_add);
        let default = WebSocket::of(WebSocketMode::Tunnel).max as usize;
        let asked_for = routes(config).map(tunnels).filter(|max| *max != default).fold(0, usize::saturating_add);
        (self.tunnels < wanted).then(|| Shortage {
            key: TUNNELS,
            message: format!(
                "{} WebSockets that pass through at once, over all routes, not {wanted} ({TUNNELS}): each has a connection to a worker beside its client's, and the limit of open files is {limit}",
                self.tunnels
            ),
            help: self.remedy(TUNNELS),
            is_felt: self.tunnels < asked_for.max(FEW.min(wanted)),
        })
    }

    fn remedy(&self, key: &str) -> String {
        format!(
            "raise it to {} or more (LimitNOFILE in a systemd unit, else the hard limit: ulimit -Hn), or write a smaller {key}",
            self.wanted
        )
    }
}

fn routes(config: &Config) -> impl Iterator<Item = &Route> {
    config.sites.iter().flat_map(|site| &site.routes)
}

/// Connections to workers for WebSockets of a route.
fn tunnels(route: &Route) -> usize {
    let is_tunnel = |websocket: &&WebSocket| websocket.mode == WebSocketMode::Tunnel;
    route.websocket.as_ref().filter(is_tunnel).map_or(0, |websocket| websocket.max as usize)
}

/// Open files that this process may have: now, and at most.
#[must_use]
pub fn open_files() -> (usize, usize) {
    let limit = getrlimit(Resource::Nofile);
    // Whoever has no limit has this one, which is the kernel's (fs.nr_open) unless somebody has raised it.
    let of = |limit: Option<u64>| limit.map_or(1 << 20, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    (of(limit.current), of(limit.maximum))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::load_str;

    fn config(limits: &str, workers: &str) -> Config {
        let text = format!(
            "limits: {{ {limits} }}\nsites: [{{ routes: [{{ path: /, proxy: app }}] }}]\n\
             upstreams: {{ app: {{ endpoints: [\"http://127.0.0.1:8000\"], workers: {workers} }} }}\n"
        );
        load_str(&text, "test.yaml", Path::new("/"), &|_| None).unwrap().config
    }

    #[test]
    fn the_shares_never_exceed_the_limit_and_nobody_is_left_without() {
        for limit in [64, 100, 256, 1024, 4096, 20_000, 65_536, 1 << 20] {
            for threads in [1, 2, 64] {
                for workers in ["4", "500", "unlimited"] {
                    let shares = Descriptors::share(&config("", workers), limit, threads);
                    let newcomers = OVERLAP.min(shares.clients / 8 + 1);
                    let kept = limit as i64 - (shares.clients + newcomers + shares.files) as i64;
                    assert!(kept >= (limit as i64 / 4).min(50), "{limit} {threads} {workers}: {shares:?} {kept}");
                    assert!(shares.clients >= limit / 4 || shares.clients == 20_000, "{limit}: {shares:?}");
                    assert!(shares.files >= limit / 10 || shares.files >= FILES, "{limit}: {shares:?}");
                }
            }
        }
    }

    #[test]
    fn websockets_that_pass_through_have_their_share_and_no_more_than_a_quarter_unless_there_is_enough_for_all() {
        let config = |websocket: &str| {
            let text = format!(
                "sites: [{{ routes: [{{ path: /, proxy: app, websocket: {websocket} }}] }}]\n\
                 upstreams: {{ app: {{ endpoints: [\"http://127.0.0.1:8000\"], workers: 4 }} }}\n"
            );
            load_str(&text, "test.yaml", Path::new("/"), &|_| None).unwrap().config
        };
        let (off, few, many) = (config("off"), config("{ mode: tunnel, max: 500 }"), config("tunnel"));
        for limit in [64, 256, 1024, 4096, 20_000] {
            let clients = |config: &Config| Descriptors::share(config, limit, 2).clients;
            assert!(clients(&many) >= limit / 8, "{limit}");
            assert!(clients(&few) <= clients(&off) && clients(&many) <= clients(&few), "{limit}");
            let tunnels = |config: &Config| Descriptors::share(config, limit, 2).tunnels;
            assert_eq!([tunnels(&off), tunnels(&few), tunnels(&many)], [0, 500.min(limit / 4), limit / 4], "{limit}");
            let shares = Descriptors::share(&many, limit, 2);
            assert!(
                shares.clients + shares.files + shares.kept + shares.tunnels <= limit - (limit / 4).min(50),
                "{shares:?}"
            );
        }
        let wanted = |config: &Config| Descriptors::share(config, 1024, 2).wanted;
        assert_eq!([wanted(&few) - wanted(&off), wanted(&many) - wanted(&off)], [500, 10_000]);
        let shares = Descriptors::share(&many, wanted(&many), 2);
        assert_eq!((shares.clients, shares.tunnels), (20_000, 10_000));
        // After a reload to fewer, or to a route of another name, those of before are open still.
        let most = |config: &Config, limit| Descriptors::share(config, limit, 2).most_tunnels;
        assert_eq!([most(&off, 1024), most(&few, 1024), most(&many, 1024)], [256; 3]);
        assert!(most(&few, 100_000) > 50_000 && most(&off, 100_000) > 50_000);
        assert_eq!(shares.shortages(&many, wanted(&many)), []);
    }

    #[test]
    fn fewer_websockets_that_pass_through_than_were_asked_for_are_told_and_felt() {
        for (routes, limit, few, felt) in [
            ("websocket: tunnel", 65_536, None, false),
            // Nobody has asked for so many, and there are enough for most.
            (
                "websocket: tunnel",
                20_000,
                Some("5000 WebSockets that pass through at once, over all routes, not 10000"),
                false,
            ),
            (
                "websocket: tunnel",
                1024,
                Some("256 WebSockets that pass through at once, over all routes, not 10000"),
                true,
            ),
            ("websocket: { mode: tunnel, max: 9000 }", 20_000, Some("5000 WebSockets"), true),
            ("websocket: { mode: tunnel, max: 200 }", 1024, None, false),
            ("websocket: { mode: over_http, max: 9000 }", 1024, None, false),
        ] {
            let text = format!(
                "sites: [{{ routes: [{{ path: /, proxy: app, {routes} }}] }}]\n\
                 upstreams: {{ app: {{ endpoints: [\"http://127.0.0.1:8000\"], workers: 4 }} }}\n"
            );
            let config = load_str(&text, "test.yaml", Path::new("/"), &|_| None).unwrap().config;
            let shares = Descriptors::share(&config, limit, 2);
            let mut told = shares.shortages(&config, limit);
            told.retain(|shortage| shortage.key == TUNNELS);
            assert_eq!(told.len(), usize::from(few.is_some()), "{routes} {limit}: {told:?}");
            for told in told {
                assert!(told.message.starts_with(few.unwrap_or_default()), "{}", told.message);
                assert!(
                    told.help.contains(&shares.wanted.to_string()) && told.help.contains("websocket.max"),
                    "{}",
                    told.help
                );
                assert_eq!(told.is_felt, felt, "{routes} {limit}");
            }
        }
    }

    #[test]
    fn files_are_kept_open_for_routes_that_send_some() {
        let config = |keys: &str| {
            let text = format!(
                "sites: [{{ routes: [{{ path: /, {keys} }}] }}]\n\
                 upstreams: {{ app: {{ endpoints: [\"http://127.0.0.1:8000\"], workers: 4 }} }}\n"
            );
            load_str(&text, "test.yaml", Path::new("/"), &|_| None).unwrap().config
        };
        for (keys, kept) in
            [("proxy: app", 0), ("files: ./static", KEPT), ("proxy: app, sendfile: { roots: [/srv/media] }", KEPT)]
        {
            assert_eq!(Descriptors::share(&config(keys), 65_536, 2).kept, kept, "{keys}");
        }
    }

    #[test]
    fn files_are_kept_open_only_where_there_are_any_and_never_many() {
        let text = "sites: [{ routes: [{ path: /, files: ./static }] }]\n";
        let with_files = load_str(text, "test.yaml", Path::new("/"), &|_| None).unwrap().config;
        for (limit, most) in [(64, 8), (256, 32), (1024, 128), (1 << 20, KEPT)] {
            let shares = Descriptors::share(&with_files, limit, 2);
            assert!((1..=most).contains(&shares.kept), "{limit}: {shares:?}");
            let newcomers = OVERLAP.min(shares.clients / 8 + 1);
            let own = limit as i64 - (shares.clients + newcomers + shares.files + shares.kept) as i64;
            // Each share is rounded by itself.
            assert!(own + 1 >= (limit as i64 / 4).min(50), "{limit}: {shares:?} {own}");
            assert_eq!(Descriptors::share(&config("", "4"), limit, 2).kept, 0);
        }
    }

    #[test]
    fn the_files_of_a_cache_are_kept_open_where_it_has_a_disk_and_never_many() {
        let config = |keys: &str| {
            let text = format!(
                "cache: {{ {keys} }}\nsites: [{{ routes: [{{ path: /, proxy: app, cache: true }}] }}]\n\
                 upstreams: {{ app: {{ endpoints: [\"http://127.0.0.1:8000\"], workers: 4 }} }}\n"
            );
            load_str(&text, "test.yaml", Path::new("/"), &|_| None).unwrap().config
        };
        let (memory, disk) = (config("memory: 1MiB"), config("disk: { path: /var/cache/hostler }"));
        for (limit, most) in [(64, 8), (256, 32), (1024, 128), (1 << 20, CACHED)] {
            let shares = Descriptors::share(&disk, limit, 2);
            assert!((1..=most).contains(&shares.cached), "{limit}: {shares:?}");
            assert_eq!(Descriptors::share(&memory, limit, 2).cached, 0, "{limit}");
            let all = shares.clients + shares.files + shares.kept + shares.cached + shares.tunnels;
            assert!(all < limit, "{shares:?}");
        }
    }

    #[test]
    fn where_there_are_fewer_one_client_does_not_have_all() {
        for (limits, limit) in [("", 256), ("", 64), ("connections_per_client: 5000", 1024), ("connections: 400", 256)]
        {
            let config = config(limits, "4");
            let shares = Descriptors::share(&config, limit, 2);
            assert_eq!(shares.per_client, shares.clients / 2, "{limits}: {shares:?}");
            let message = &shares.shortages(&config, limit)[0].message;
            assert!(message.contains(&format!("and {} of one client", shares.per_client)), "{message}");
        }
        assert_eq!(Descriptors::share(&config("connections_per_client: 5", "4"), 256, 2).per_client, 5);
        // Whoever has written so is obeyed.
        assert_eq!(Descriptors::share(&config("connections: 50", "4"), 256, 2).per_client, 1000);
    }

    #[test]
    fn with_as_many_as_are_wanted_connections_are_what_was_written() {
        for workers in ["4", "300", "unlimited"] {
            let config = config("connections: 5000", workers);
            let wanted = Descriptors::share(&config, 256, 2).wanted;
            let shares = Descriptors::share(&config, wanted, 2);
            assert_eq!((shares.clients, shares.shortages(&config, wanted)), (5000, vec![]), "{workers}");
            assert_eq!(shares.per_client, 1000, "{workers}");
            let fewer = Descriptors::share(&config, wanted - FILES - OVERLAP - 100, 2);
            let Shortage { message, help, .. } = fewer.shortages(&config, 5000).remove(0);
            assert!(
                message.contains("not 5000 (limits.connections)") && help.contains(&wanted.to_string()),
                "{message}"
            );
        }
    }
}
