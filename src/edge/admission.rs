//! Who is let in: connections in all, and per client (`limits.connections`, `limits.connections_per_client`).
//!
//! One for the process, asked once when a connection is accepted and once when it has gone; a request knows nothing of
//! it. A client over its own limit is turned away, and harms nobody. Where all places are taken, an idle connection gives
//! way to the newcomer; when there is none, the newcomer is turned away.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::Reason;
use crate::http::{PerClient, network};
use crate::observe::throttle::Throttle;

/// How many newcomers may be in before those who give way to them have left: an eighth of the limit, but no more than
/// this. `config::Descriptors` leaves room for them.
const OVERLAP: usize = 64;

/// The places that there are for connections.
pub struct Admission {
    limit: AtomicUsize,
    limit_per_client: AtomicUsize,
    open: AtomicUsize,
    /// How often a thread had nobody idle who could give way: others may have.
    in_want: AtomicUsize,
    /// When the log was told last.
    pub lines: Lines,
    /// Connections of each client.
    clients: PerClient,
}

/// What the log hears of connections that are not served, at most a line a second of each kind, whatever the thread.
#[derive(Debug, Default)]
pub struct Lines {
    /// The system gives none.
    pub cannot_accept: Throttle,
    too_many: Throttle,
    too_many_of_client: Throttle,
}

impl Lines {
    /// Those for connections that are turned away.
    #[must_use]
    pub fn of(&self, reason: Reason) -> &Throttle {
        match reason {
            Reason::TooManyConnectionsOfClient => &self.too_many_of_client,
            _ => &self.too_many,
        }
    }
}

/// One of the places. Dropping it makes it free.
#[must_use = "the place is taken while this lives"]
pub struct Place {
    admission: Arc<Admission>,
    client: Option<u64>,
}

impl Admission {
    /// `limit` places, of which one client may have `per_client`.
    #[must_use]
    pub fn new(limit: usize, per_client: usize) -> Arc<Self> {
        Arc::new(Self {
            limit: AtomicUsize::new(limit),
            limit_per_client: AtomicUsize::new(per_client),
            open: AtomicUsize::new(0),
            in_want: AtomicUsize::new(0),
            lines: Lines::default(),
            clients: PerClient::default(),
        })
    }

    /// Changes the limits. Who is in stays in.
    pub fn configure(&self, limit: usize, per_client: usize) {
        self.limit.store(limit, Ordering::Relaxed);
        self.limit_per_client.store(per_client, Ordering::Relaxed);
    }

    /// Connections that may be open at once.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Connections that one client may have.
    #[must_use]
    pub fn limit_per_client(&self) -> usize {
        self.limit_per_client.load(Ordering::Relaxed)
    }

    /// Connections that are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// A place for a connection of `client`; `None` is somebody to whom the limit per client does not apply: the other
    /// end of a unix socket, or a proxy that is trusted. `make_room` asks an idle connection to leave, if it can.
    ///
    /// # Errors
    /// [`Reason::TooManyConnectionsOfClient`], [`Reason::TooManyConnections`].
    pub fn enter(self: &Arc<Self>, client: Option<IpAddr>, make_room: impl FnOnce() -> bool) -> Result<Place, Reason> {
        let client = client.map(network);
        if let Some(client) = client {
            self.count(client)?;
        }
        let limit = self.limit();
        let before = self.open.fetch_add(1, Ordering::AcqRel);
        // From here on it gives back what it has taken.
        let place = Place { admission: Arc::clone(self), client };
        if before < limit {
            return Ok(place);
        }
        if before < limit.saturating_add(overlap(limit)) {
            if make_room() {
                return Ok(place);
            }
            self.in_want.fetch_add(1, Ordering::Relaxed);
        }
        Err(Reason::TooManyConnections)
    }

    /// How often, since the process began, a newcomer was turned away by a thread without anybody idle.
    #[must_use]
    pub fn in_want(&self) -> usize {
        self.in_want.load(Ordering::Relaxed)
    }

    /// Whether somebody has to leave before so many newcomers find a place, of whom no more count than may be in at once
    /// before others have left. Moves with every place: several threads that make room ask before each step.
    #[must_use]
    pub fn is_short_of(&self, wanted: usize) -> bool {
        let limit = self.limit();
        self.open() + wanted.min(overlap(limit)) > limit
    }

    fn count(&self, client: u64) -> Result<(), Reason> {
        let is_counted = self.clients.take(client, self.limit_per_client());
        is_counted.then_some(()).ok_or(Reason::TooManyConnectionsOfClient)
    }

    /// How many clients are known.
    #[cfg(test)]
    fn clients(&self) -> usize {
        self.clients.clients()
    }
}

impl Place {
    /// Counts it among those of `client`, whom a proxy that is trusted has named only now.
    ///
    /// # Errors
    /// [`Reason::TooManyConnectionsOfClient`].
    pub fn belongs_to(&mut self, client: IpAddr) -> Result<(), Reason> {
        if self.client.is_none() {
            let client = network(client);
            self.admission.count(client)?;
            self.client = Some(client);
        }
        Ok(())
    }

    /// How many one client may have.
    #[must_use]
    pub fn limit_per_client(&self) -> usize {
        self.admission.limit_per_client()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.admission.open.fetch_sub(1, Ordering::AcqRel);
        if let Some(client) = self.client {
            self.admission.clients.give_back(client);
        }
    }
}

fn overlap(limit: usize) -> usize {
    OVERLAP.min(limit / 8 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, last]))
    }

    fn nobody_idle() -> bool {
        false
    }

    #[test]
    fn a_client_over_its_limit_is_turned_away_and_others_are_not() {
        let admission = Admission::new(100, 2);
        let mut places: Vec<_> = (0..2).map(|_| admission.enter(ip(1), nobody_idle).unwrap()).collect();
        let asked = || panic!("nobody gives way to a client that has enough");
        assert_eq!(admission.enter(ip(1), asked).err(), Some(Reason::TooManyConnectionsOfClient));
        places.push(admission.enter(ip(2), nobody_idle).unwrap());
        assert_eq!((admission.open(), admission.clients()), (3, 2));
        drop(places.remove(0));
        places.push(admission.enter(ip(1), nobody_idle).unwrap());
        drop(places);
        assert_eq!((admission.open(), admission.clients()), (0, 0), "nothing is left of anybody");
    }

    #[test]
    fn an_ipv6_client_is_its_64_however_it_is_known() {
        let v6 = |address: &str| -> IpAddr { address.parse().unwrap() };
        let admission = Admission::new(100, 2);
        let mut places = vec![admission.enter(Some(v6("2001:db8::1")), nobody_idle).unwrap()];
        let mut named = admission.enter(None, nobody_idle).unwrap();
        named.belongs_to(v6("2001:db8::2")).unwrap();
        places.push(named);
        let neighbour = v6("2001:db8:0:0:ffff::3");
        assert_eq!(admission.enter(Some(neighbour), nobody_idle).err(), Some(Reason::TooManyConnectionsOfClient));
        let mut named = admission.enter(None, nobody_idle).unwrap();
        assert_eq!(named.belongs_to(neighbour), Err(Reason::TooManyConnectionsOfClient));
        drop(named);
        places.push(admission.enter(Some(v6("2001:db8:0:1::1")), nobody_idle).unwrap());
        assert_eq!((admission.open(), admission.clients()), (3, 2));
        drop(places);
        assert_eq!((admission.open(), admission.clients()), (0, 0));
    }

    #[test]
    fn who_has_no_address_or_is_trusted_is_held_to_the_whole_alone() {
        let admission = Admission::new(5, 1);
        let places: Vec<_> = (0..5).map(|_| admission.enter(None, nobody_idle).unwrap()).collect();
        assert_eq!(admission.enter(None, nobody_idle).err(), Some(Reason::TooManyConnections));
        assert_eq!(places.len(), 5);
    }

    #[test]
    fn a_client_whom_a_proxy_names_is_counted_from_then_on() {
        let admission = Admission::new(10, 2);
        let client = ip(1).unwrap();
        let mut places: Vec<_> = (0..3).map(|_| admission.enter(None, nobody_idle).unwrap()).collect();
        assert!(places[..2].iter_mut().all(|place| place.belongs_to(client).is_ok()));
        assert_eq!(places[2].belongs_to(client), Err(Reason::TooManyConnectionsOfClient));
        assert_eq!(admission.enter(ip(1), nobody_idle).err(), Some(Reason::TooManyConnectionsOfClient));
        drop(places.pop());
        drop(places.pop());
        places.push(admission.enter(ip(1), nobody_idle).unwrap());
        drop(places);
        assert_eq!((admission.open(), admission.clients()), (0, 0), "nothing is left of anybody");
    }

    #[test]
    fn all_places_taken_an_idle_connection_gives_way_or_the_newcomer_does() {
        let admission = Admission::new(3, 100);
        let mut places: Vec<_> = (0..3).map(|_| admission.enter(ip(1), nobody_idle).unwrap()).collect();
        assert_eq!(admission.enter(ip(2), nobody_idle).err(), Some(Reason::TooManyConnections));
        assert_eq!((admission.open(), admission.clients(), admission.in_want()), (3, 1, 1));
        places.push(admission.enter(ip(2), || true).unwrap());
        assert_eq!(admission.open(), 4, "who gives way has not left yet");
        drop(places.remove(0));
        assert!(admission.is_short_of(1) && !admission.is_short_of(0));
        drop(places.pop());
        assert!(!admission.is_short_of(1));
    }

    #[test]
    fn those_who_are_to_leave_and_do_not_are_a_few() {
        let admission = Admission::new(1000, 10_000);
        let places: Vec<_> = std::iter::from_fn(|| admission.enter(ip(1), || true).ok()).take(2000).collect();
        assert_eq!(places.len(), 1000 + OVERLAP);
    }

    #[test]
    fn other_limits_hold_from_the_next_connection_on() {
        let admission = Admission::new(3, 3);
        let places: Vec<_> = (0..3).map(|_| admission.enter(ip(1), nobody_idle).unwrap()).collect();
        admission.configure(10, 2);
        assert_eq!(admission.enter(ip(1), nobody_idle).err(), Some(Reason::TooManyConnectionsOfClient));
        assert!(admission.enter(ip(2), nobody_idle).is_ok());
        assert_eq!((places.len(), admission.open()), (3, 3));
    }

    #[test]
    fn a_lower_limit_is_a_shortage_until_enough_have_left_and_a_flood_asks_for_no_more_than_a_few_places() {
        let admission = Admission::new(1000, 1000);
        let mut places: Vec<_> = (0..100).map(|_| admission.enter(ip(1), nobody_idle).unwrap()).collect();
        assert!(!admission.is_short_of(900), "there are places");
        admission.configure(40, 1000);
        while admission.is_short_of(0) {
            places.pop();
        }
        assert_eq!(places.len(), 40);
        while admission.is_short_of(1_000_000) {
            places.pop();
        }
        assert_eq!(places.len(), 40 - 6);
    }
}
