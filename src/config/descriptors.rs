//! How the file descriptors of the process are shared, so that a shortage of one kind starves no other.
//!
//! | share | for | when it is used up |
//! |---|---|---|
//! | clients | connections of clients | the idlest gives way, or the newcomer is turned away |
//! | files | bodies in the spool | `spool_full` for requests, back-pressure for responses |
//! | open | files of routes that are kept open for who asks next | the one that was not asked for goes |
//! | kept | workers, WebSockets that pass through to them, the admin listener, listeners, logs, reloads | |

use rustix::process::{Resource, getrlimit};

use super::{Action, Config, Limits, Route, Upstream, WebSocketMode};

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
/// Newcomers who are in before those who give way to them have left (`edge::admission`).
const OVERLAP: usize = 64;

/// Fewest connections with which an operator can be left without a word who has not asked for more.
const FEW_CONNECTIONS: usize = 1000;

/// The shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    /// Connections of clients: `limits.connections`, or fewer.
    pub clients: usize,
    /// Those of one client: `limits.connections_per_client`, and no more than half of fewer than were wanted.
    pub per_client: usize,
    /// Files of the spool.
    pub files: usize,
    /// Files of routes that are kept open.
    pub kept: usize,
    /// The limit of open files with which `limits.connections` would be what it says.
    pub wanted: usize,
}

impl Descriptors {
    /// The shares of `limit` descriptors, of a process with so many threads that serve.
    #[must_use]
    pub fn share(config: &Config, limit: usize, threads: usize) -> Self {
        let quarter = limit / 4;
        let own = (threads * (THREAD + config.listeners.len()) + OWN).min(quarter);
        // In flight, idle for the next request, and a probe for each endpoint.
        let slots = |upstream: &Upstream| upstream.workers.slots().map_or(UNLIMITED, |slots| slots as usize);
        let of = |upstream: &Upstream| slots(upstream).saturating_mul(2).saturating_add(upstream.endpoints.len());
        let workers = config.upstreams.iter().map(of).fold(0, usize::saturating_add);
        let connections = config.limits.connections;
        let routes = || config.sites.iter().flat_map(|site| &site.routes);
        // Beside the client's, which is one of its connections.
        let tunnels = routes().map(tunnels).fold(0, usize::saturating_add);
        let serves_files = routes().any(|route| matches!(route.action, Action::Files(_)) || route.sendfile.is_some());
        let left = limit - own - workers.min(quarter) - tunnels.min(quarter);
        let kept = if serves_files { KEPT.min(left / 8) } else { 0 };
        let left = left - kept;
        let files = FILES.min(left / 4);
        let room = left - files;
        let clients = connections.min(room - OVERLAP.min(room / 9)).max(1);
        let most = if clients < connections { (clients / 2).max(1) } else { usize::MAX };
        Self {
            clients,
            per_client: config.limits.connections_per_client.min(most),
            files: files.max(left.saturating_sub(connections + OVERLAP)),
            kept,
            wanted: (own + kept + connections + OVERLAP + FILES).saturating_add(workers).saturating_add(tunnels),
        }
    }

    /// Whether that deserves a warning: an operator wants more connections than there can be, or there are few indeed.
    #[must_use]
    pub fn are_felt(&self, config: &Config) -> bool {
        let is_asked_for = config.limits.connections != Limits::default().connections;
        self.clients < if is_asked_for { config.limits.connections } else { FEW_CONNECTIONS }
    }

    /// What an operator should know when there are too few.
    #[must_use]
    pub fn trouble(&self, config: &Config, limit: usize) -> Option<(String, String)> {
        let connections = config.limits.connections;
        (self.clients < connections).then(|| {
            (
                format!(
                    "{} connections of clients at once, not {connections} (limits.connections), and {} of one client: the limit of open files is {limit}",
                    self.clients, self.per_client
                ),
                format!(
                    "raise it to {} or more (LimitNOFILE in a systemd unit, else the hard limit: ulimit -Hn), or write a smaller limits.connections",
                    self.wanted
                ),
            )
        })
    }
}

/// Connections to workers for WebSockets of a route.
fn tunnels(route: &Route) -> usize {
    let is_tunnel = |websocket: &&super::WebSocket| websocket.mode == WebSocketMode::Tunnel;
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
    fn websockets_that_pass_through_have_their_share_and_no_more_than_a_quarter() {
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
        }
        let wanted = |config: &Config| Descriptors::share(config, 1024, 2).wanted;
        assert_eq!([wanted(&few) - wanted(&off), wanted(&many) - wanted(&off)], [500, 10_000]);
        let shares = Descriptors::share(&many, wanted(&many), 2);
        assert_eq!((shares.clients, shares.trouble(&many, wanted(&many))), (20_000, None));
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
    fn where_there_are_fewer_one_client_does_not_have_all() {
        for (limits, limit) in [("", 256), ("", 64), ("connections_per_client: 5000", 1024), ("connections: 400", 256)]
        {
            let config = config(limits, "4");
            let shares = Descriptors::share(&config, limit, 2);
            assert_eq!(shares.per_client, shares.clients / 2, "{limits}: {shares:?}");
            let (message, _) = shares.trouble(&config, limit).unwrap();
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
            assert_eq!((shares.clients, shares.trouble(&config, wanted)), (5000, None), "{workers}");
            assert_eq!(shares.per_client, 1000, "{workers}");
            let fewer = Descriptors::share(&config, wanted - FILES - OVERLAP - 100, 2);
            let (message, help) = fewer.trouble(&config, 5000).unwrap();
            assert!(
                message.contains("not 5000 (limits.connections)") && help.contains(&wanted.to_string()),
                "{message}"
            );
        }
    }
}
