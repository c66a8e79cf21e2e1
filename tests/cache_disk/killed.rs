//! kill -9 under load, again and again on one folder: no wrong byte is ever served, nothing that was purged comes back, and
//! what was stored is there again.
//!
//! `make bench-cache-killed` runs the same for two minutes, with a kill every five seconds.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use super::pages::TAGS;
use super::{CORRUPTED, INDEXED, Kind, OBJECTS, Page, Site};
use crate::support::{Address, Client, Gateway, LIMIT, Response, look_for};

const PAGES: usize = 160;
const CLIENTS: usize = 8;
/// Between two kills, if there is a time for all.
const EVERY: Duration = Duration::from_secs(5);

/// How long it goes on; `None`: for three kills, each when the clients have come so far.
fn time() -> Option<Duration> {
    let text = std::env::var("HOSTLER_CACHE_CRASH_SECONDS").ok()?;
    Some(Duration::from_secs(text.parse().unwrap_or_else(|_| panic!("HOSTLER_CACHE_CRASH_SECONDS: {text}"))))
}

/// The gateway of the moment.
#[derive(Default)]
struct Place {
    /// How many there have been.
    generation: usize,
    /// `None`: it has been killed.
    address: Option<Address>,
    admin: Option<Address>,
}

/// What all clients share.
struct Siege<'a> {
    site: &'a Site,
    place: Mutex<Place>,
    moved: Condvar,
    is_over: AtomicBool,
    /// By page: what is not younger was purged, and that was answered for.
    floors: Vec<AtomicU64>,
    /// The last version before the gateway of the moment was started.
    born: AtomicU64,
    wrong: Mutex<Vec<String>>,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    answers: AtomicUsize,
    /// Whole answers from the cache that an earlier gateway had stored.
    from_disk: AtomicUsize,
    confirmed: AtomicUsize,
    torn: AtomicUsize,
    /// By the end of their gateway.
    cut: AtomicUsize,
    purges: AtomicUsize,
    soft_purges: AtomicUsize,
    tag_purges: AtomicUsize,
}

fn one_more(counter: &AtomicUsize) {
    counter.fetch_add(1, SeqCst);
}

impl<'a> Siege<'a> {
    fn new(site: &'a Site) -> Self {
        Self {
            site,
            place: Mutex::default(),
            moved: Condvar::new(),
            is_over: AtomicBool::new(false),
            floors: (0..PAGES).map(|_| AtomicU64::new(0)).collect(),
            born: AtomicU64::new(u64::MAX),
            wrong: Mutex::default(),
            counts: Counts::default(),
        }
    }

    fn start(&self) -> Gateway {
        self.born.store(self.site.app.book.version(), SeqCst);
        let gateway = self.site.start();
        let mut place = self.place.lock().unwrap();
        (place.address, place.admin) = (Some(gateway.address().clone()), Some(gateway.admin().clone()));
        self.moved.notify_all();
        gateway
    }

    fn kill(&self, gateway: Gateway) {
        assert_eq!(gateway.metric(CORRUPTED), 0.0, "a file that has its name is whole");
        {
            // Before it is killed: whoever is cut from now on knows why.
            let mut place = self.place.lock().unwrap();
            (place.generation, place.address) = (place.generation + 1, None);
        }
        gateway.kill();
    }

    /// Where the gateway is, once it is there. `None`: it is over.
    fn place(&self) -> Option<(usize, Address, Address)> {
        let mut place = self.place.lock().unwrap();
        let deadline = Instant::now() + LIMIT;
        loop {
            if self.is_over.load(SeqCst) {
                return None;
            }
            if let (Some(address), Some(admin)) = (&place.address, &place.admin) {
                return Some((place.generation, address.clone(), admin.clone()));
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            place = self.moved.wait_timeout(place, left).unwrap().0;
        }
    }

    /// Whether the gateway that was there then still is.
    fn stands(&self, generation: usize) -> bool {
        self.place.lock().unwrap().generation == generation
    }

    fn complain(&self, what: String) {
        self.wrong.lock().unwrap().push(what);
    }

    /// Fails if anything was wrong.
    fn check(&self) {
        let wrong = self.wrong.lock().unwrap().join("\n");
        assert!(wrong.is_empty(), "{wrong}");
    }

    fn client(&self, number: usize) {
        let mut chance = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(number as u64 + 1);
        let mut connection: Option<(usize, Client)> = None;
        while let Some((generation, address, admin)) = self.place() {
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            let page = Page((chance >> 8) as usize % PAGES);
            let kept = connection.take().filter(|(of, _)| *of == generation).map(|(_, client)| client);
            let Some(mut client) = kept.or_else(|| Client::try_connect(&address).ok()) else { continue };
            let goes_on = match chance % 64 {
                0 => self.purge(&mut client, page),
                1 => self.soften(&mut client, page),
                2 if chance >> 6 & 7 == 0 => self.purge_tag(&admin, page),
                _ => self.get(&mut client, page, generation),
            };
            if goes_on {
                connection = Some((generation, client));
            }
        }
    }

    /// Whether the connection can be used again.
    fn get(&self, client: &mut Client, page: Page, generation: usize) -> bool {
        let (floor, born) = (self.floors[page.0].load(SeqCst), self.born.load(SeqCst));
        let answer = answer(client, "GET", &format!("GET {} HTTP/1.1\r\nHost: shop.example\r\n\r\n", page.path()));
        let answer = match answer {
            Some(answer) if answer.cut.is_none() => answer,
            answer => return self.cut(page, generation, answer.as_ref()),
        };
        one_more(&self.counts.answers);
        match (answer.status, page.read(&answer)) {
            (200, Ok(version)) if version > floor => {
                let status = answer.header("cache-status").unwrap_or_default();
                if status.contains("; hit") && version <= born && generation > 0 {
                    one_more(&self.counts.from_disk);
                }
                if page.kind() == Kind::Confirmed && status.contains("fwd-status=304") {
                    one_more(&self.counts.confirmed);
                }
            }
            (200, Ok(version)) => {
                self.complain(format!("{page:?} has come back: version {version} of {floor}; {:?}", answer.headers));
            }
            (200, Err(wrong)) => self.complain(format!("{page:?}: {wrong}; {:?}", answer.headers)),
            // The app has gone before anything of its answer had been sent on.
            (502, _) if page.kind() == Kind::Torn => one_more(&self.counts.torn),
            (status, _) => self.complain(format!("{page:?}: {status}; {:?}", answer.headers)),
        }
        answer.header("connection").is_none_or(|value| value != "close")
    }

    /// An answer that is not whole: its gateway was killed, or the app has torn it. What there is of it is right.
    fn cut(&self, page: Page, generation: usize, answer: Option<&Response>) -> bool {
        let was_killed = !self.stands(generation);
        let is_torn = answer.is_some_and(|answer| page.was_torn(answer));
        one_more(if is_torn { &self.counts.torn } else { &self.counts.cut });
        if !was_killed && !is_torn {
            self.complain(format!(
                "{page:?} was cut by a gateway that stands: {:?}",
                answer.map(|answer| &answer.headers)
            ));
        }
        if let Some(Err(wrong)) = answer.filter(|answer| answer.status == 200).map(|answer| page.read_beginning(answer))
        {
            self.complain(format!("{page:?}: {wrong}"));
        }
        false
    }

    fn purge(&self, client: &mut Client, page: Page) -> bool {
        let last = self.site.app.book.refuse(std::iter::once(page));
        let order = format!("PURGE {} HTTP/1.1\r\nHost: shop.example\r\n\r\n", page.path());
        let Some(answer) = answer(client, "PURGE", &order) else { return false };
        if answer.status != 200 {
            self.complain(format!("PURGE {page:?}: {}; {:?}", answer.status, answer.headers));
        } else if answer.cut.is_none() {
            self.floors[page.0].fetch_max(last, SeqCst);
            one_more(&self.counts.purges);
        }
        answer.cut.is_none()
    }

    /// Marks a page as stale: the app is asked about it, and may confirm it.
    fn soften(&self, client: &mut Client, page: Page) -> bool {
        let order = format!("PURGE {} HTTP/1.1\r\nHost: shop.example\r\nSoft-Purge: 1\r\n\r\n", page.path());
        let answer = answer(client, "PURGE", &order).filter(|answer| answer.cut.is_none());
        one_more(&self.counts.soft_purges);
        answer.is_some()
    }

    /// All pages with the tag of this one, by the admin listener.
    fn purge_tag(&self, admin: &Address, page: Page) -> bool {
        let all = || (0..PAGES).map(Page).filter(|other| other.0 % TAGS == page.0 % TAGS);
        let last = self.site.app.book.refuse(all());
        let Ok(mut client) = Client::try_connect(admin) else { return true };
        let order = format!(
            "POST /purge?tag={} HTTP/1.1\r\nHost: localhost\r\nX-Hostler-Control: 1\r\nContent-Length: 0\r\n\r\n",
            page.tag()
        );
        match answer(&mut client, "POST", &order) {
            Some(answer) if answer.status == 200 && answer.cut.is_none() => {
                all().for_each(|page| {
                    self.floors[page.0].fetch_max(last, SeqCst);
                });
                one_more(&self.counts.tag_purges);
            }
            Some(answer) if answer.cut.is_none() => self.complain(format!("POST /purge: {answer:?}")),
            _ => {}
        }
        true
    }

    /// Waits until the clients have come so far under the gateway of the moment, or have found something wrong.
    fn go_on(&self, turn: usize, is_timed: bool) {
        let count = |counter: &AtomicUsize| counter.load(SeqCst);
        let (answers, from_disk) = (count(&self.counts.answers), count(&self.counts.from_disk));
        let is_wrong = || !self.wrong.lock().unwrap().is_empty();
        // At another point of its work each time.
        let is_far = || {
            count(&self.counts.answers) >= answers + 600 + 150 * turn
                && (turn == 0 || count(&self.counts.from_disk) > from_disk)
        };
        let limit = if is_timed { EVERY } else { LIMIT * 3 };
        let came = look_for(limit, || (is_wrong() || (!is_timed && is_far())).then_some(()));
        assert!(is_timed || came.is_some(), "they do not go on: {:?}", self.counts);
    }
}

/// Sends a request. `None`: the connection has ended before a head.
fn answer(client: &mut Client, method: &str, request: &str) -> Option<Response> {
    client.try_send(request).ok()?;
    client.try_response(method)
}

/// Ends the clients, also when something panics.
struct Over<'a>(&'a Siege<'a>);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, SeqCst);
        self.0.moved.notify_all();
    }
}

#[test]
fn a_gateway_that_is_killed_under_load_serves_no_wrong_byte_afterwards_and_nothing_that_was_purged() {
    // Smaller than all pages together: some are driven out meanwhile.
    let site = Site::with(PAGES, "memory: 8MiB, max_object: 8MiB", "40MiB");
    let siege = Siege::new(&site);
    let kills = time().map_or(3, |time| time.as_secs().div_ceil(EVERY.as_secs()) as usize);
    let gateway = std::thread::scope(|scope| {
        let _over = Over(&siege);
        let mut gateway = siege.start();
        (0..CLIENTS).for_each(|number| {
            let siege = &siege;
            scope.spawn(move || siege.client(number));
        });
        for turn in 0..kills {
            siege.go_on(turn, time().is_some());
            if !siege.wrong.lock().unwrap().is_empty() {
                break;
            }
            siege.kill(gateway);
            gateway = siege.start();
        }
        siege.go_on(kills, time().is_some());
        gateway
    });
    println!("{kills} kills: {:?}", siege.counts);
    siege.check();
    check_whole(&siege, gateway);
}

/// All files are found, and all pages are right, a last time.
fn check_whole(siege: &Siege<'_>, gateway: Gateway) {
    siege.kill(gateway);
    let gateway = siege.start();
    gateway.wait_metric(INDEXED, 1.0);
    let objects = gateway.metric(OBJECTS);
    let from_disk = siege.counts.from_disk.load(SeqCst);
    let generation = siege.place.lock().unwrap().generation;
    for page in (0..PAGES).map(Page) {
        siege.get(&mut gateway.client(), page, generation);
    }
    siege.check();
    let found = siege.counts.from_disk.load(SeqCst) - from_disk;
    println!("{objects} objects are there, {found} of {PAGES} pages come from them");
    assert!(objects > 10.0 && found > 10, "{objects} objects, {found} pages of them");
    assert_eq!(gateway.metric(CORRUPTED), 0.0);
    let Counts { answers, from_disk, confirmed, torn, purges, soft_purges, .. } = &siege.counts;
    for (what, count) in [
        ("answers", answers),
        ("from disk", from_disk),
        ("confirmed", confirmed),
        ("torn", torn),
        ("purges", purges),
        ("soft purges", soft_purges),
    ] {
        assert!(count.load(SeqCst) > 0, "no {what}: the load is not what it is meant to be; {:?}", siege.counts);
    }
}
