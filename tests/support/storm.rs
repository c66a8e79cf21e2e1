//! Many clients at once, each with a connection of its own on which it asks one thing after the other.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::{Address, Client, Response};

/// What one request of a storm asks: `/work?id=…`.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) method: &'static str,
    /// Unique in the storm; in the journal too.
    pub(crate) id: String,
    /// How long the view works.
    pub(crate) ms: u32,
    /// Bytes of the body of a POST.
    pub(crate) body: usize,
    pub(crate) host: &'static str,
}

impl Ask {
    pub(crate) fn get(id: impl Into<String>, ms: u32) -> Self {
        Self { method: "GET", id: id.into(), ms, body: 0, host: "localhost" }
    }

    pub(crate) fn post(id: impl Into<String>, ms: u32, body: usize) -> Self {
        Self { method: "POST", id: id.into(), ms, body, host: "localhost" }
    }

    /// The same of another host of the shop's.
    pub(crate) fn of(self, host: &'static str) -> Self {
        Self { host, ..self }
    }

    /// The bytes of HTTP/1.1.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let Self { method, id, ms, body, host } = self;
        let length = if *method == "POST" { format!("Content-Length: {body}\r\n") } else { String::new() };
        let head = format!("{method} /work?id={id}&ms={ms} HTTP/1.1\r\nHost: {host}\r\n{length}\r\n");
        let mut bytes = head.into_bytes();
        bytes.resize(bytes.len() + body, b'x');
        bytes
    }
}

/// What became of it.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) ask: Ask,
    /// `None`: the connection ended without an answer.
    pub(crate) answer: Option<Response>,
}

impl Outcome {
    /// Why the gateway has answered itself.
    pub(crate) fn reason(&self) -> Option<&str> {
        let status = self.answer.as_ref()?.header("proxy-status")?;
        status.split_once("details=\"")?.1.split('"').next()
    }

    /// The app answered, and to this request.
    pub(crate) fn is_served(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| {
            answer.status == 200 && answer.cut.is_none() && {
                let told: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                told["id"] == self.ask.id && told["size"] == self.ask.body
            }
        })
    }
}

/// Whether a storm goes on, and how far it has come. For the thread that makes the weather meanwhile.
#[derive(Default)]
pub(crate) struct Storm {
    over: AtomicBool,
    answered: AtomicUsize,
    outcomes: Mutex<Vec<Outcome>>,
}

impl Storm {
    /// How many requests have an outcome.
    pub(crate) fn answered(&self) -> usize {
        self.answered.load(Ordering::SeqCst)
    }

    /// Runs `weather` while `clients` ask what `next` gives them for client and turn; when it returns, those under way
    /// are the last. All outcomes.
    pub(crate) fn during(
        address: &Address,
        clients: usize,
        next: impl Fn(usize, usize) -> Ask + Sync,
        weather: impl FnOnce(&Self),
    ) -> Vec<Outcome> {
        Self::run(address, clients, |client, turn| Some(next(client, turn)), weather)
    }

    /// Each of `clients` asks what `next` gives it, until that gives no more. All outcomes.
    pub(crate) fn of(
        address: &Address,
        clients: usize,
        next: impl Fn(usize, usize) -> Option<Ask> + Sync,
    ) -> Vec<Outcome> {
        let all = AtomicUsize::new(0);
        let counted = |client, turn| {
            next(client, turn).or_else(|| {
                all.fetch_add(1, Ordering::SeqCst);
                None
            })
        };
        Self::run(address, clients, counted, |_| {
            let done = super::look_for(super::LIMIT * 3, || (all.load(Ordering::SeqCst) == clients).then_some(()));
            assert!(done.is_some(), "the storm does not end");
        })
    }

    fn run(
        address: &Address,
        clients: usize,
        next: impl Fn(usize, usize) -> Option<Ask> + Sync,
        weather: impl FnOnce(&Self),
    ) -> Vec<Outcome> {
        let storm = Self::default();
        std::thread::scope(|scope| {
            for number in 0..clients {
                let (storm, next) = (&storm, &next);
                scope.spawn(move || storm.client(address, |turn| next(number, turn)));
            }
            let _over = Over(&storm.over);
            weather(&storm);
        });
        storm.outcomes.into_inner().unwrap()
    }

    fn client(&self, address: &Address, next: impl Fn(usize) -> Option<Ask>) {
        let mut connection = None;
        for turn in 0.. {
            if self.over.load(Ordering::SeqCst) {
                return;
            }
            let Some(ask) = next(turn) else { return };
            let client = connection.get_or_insert_with(|| Client::connect(address));
            // A gateway that answers early may have closed: the answer tells.
            let _ = client.try_send(ask.bytes());
            let answer = client.try_response(ask.method);
            let goes_on = answer.as_ref().is_some_and(|answer| {
                answer.cut.is_none() && answer.header("connection").is_none_or(|value| value != "close")
            });
            if !goes_on {
                connection = None;
            }
            self.outcomes.lock().unwrap().push(Outcome { ask, answer });
            self.answered.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Ends the storm, also when the weather panics.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// The outcomes that are none the app gave, in words for a failed test.
pub(crate) fn unserved(outcomes: &[Outcome]) -> Vec<String> {
    let words = |outcome: &Outcome| {
        let answer = outcome.answer.as_ref().map(|answer| {
            let reason = answer.header("proxy-status").unwrap_or_default().to_owned();
            (answer.status, reason, answer.cut.clone())
        });
        format!("{} {}: {answer:?}", outcome.ask.method, outcome.ask.id)
    };
    outcomes.iter().filter(|outcome| !outcome.is_served()).map(words).collect()
}
