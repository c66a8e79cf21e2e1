//! `Grip-Link: rel=next`: where the app is asked for one who is held with a stream, and what comes of its answer.
//!
//! A link is where the app says what a client has missed. It is asked when the client has missed something for sure (recovery: what
//! comes meanwhile waits), and now and then when nothing comes (a poll: what comes meanwhile goes out, and the answer counts only as
//! far as it says more). A poll is left out where the gateway itself knows that nothing was missed, so that thousands of quiet
//! clients do not keep the workers busy.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::super::ask::{Asked, Lookup, Page, Question};
use super::super::instruct::{Fault, HoldMode, Instruct, shown};
use super::super::layer::{Terms, invalid, tell};
use super::{Step, Stream, rendered};
use crate::error::{Error, Reason};
use crate::http::{Exchange, Target};
use crate::observe::metrics::{HoldLoss, LinkOutcome};
use crate::realtime::hub::Standing;
use crate::runtime::chance::some_of;
use crate::runtime::deadline;

/// How often a question is repeated that was not answered as it should.
const MOST_FAILURES: u32 = 5;
/// How often a poll is left out because items have led to where the client is.
const MOST_SKIPPED: u32 = 4;
/// A link may not be good for ever: django-eventstream's is for an hour. So long it is not asked for a new one, at most.
const FRESH: Duration = Duration::from_secs(20 * 60);
/// Between pages of a history that say nothing.
const PAUSE: Duration = Duration::from_secs(1);

/// Where the app is asked, and how that stands.
pub(super) struct Links {
    asked: Asked,
    /// Where the next link leads; `None`: there is none any more.
    target: Option<Target>,
    every: Duration,
    /// Since when it is known, by the coarse clock.
    since: Duration,
    /// What is asked when the time comes.
    next: Question,
    fetch: Option<Fetch>,
    failures: u32,
    skipped: u32,
}

/// A question on its way.
struct Fetch {
    task: JoinHandle<Result<Option<Page>, Error>>,
    question: Question,
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Links {
    /// As the app has said first. `None`: it says of no link.
    pub(super) fn new(
        terms: &Terms,
        asked: &Asked,
        instruct: &Instruct,
        exchange: &Exchange,
    ) -> Result<Option<Box<Self>>, Error> {
        let Some(next) = &instruct.next else { return Ok(None) };
        let target = terms.lead(&asked.target, exchange, &next.url).map_err(invalid)?;
        Ok(Some(Box::new(Self {
            asked: asked.clone(),
            target: Some(target),
            every: next.timeout,
            since: deadline::awake(),
            // A history in pages is asked for at once; of one who is held, it is asked whether anything is missing.
            next: if instruct.hold.is_some() { Question::Poll } else { Question::Recover },
            fetch: None,
            failures: 0,
            skipped: 0,
        })))
    }

    /// Whether a question is on its way.
    pub(super) fn is_asking(&self) -> bool {
        self.fetch.is_some()
    }

    /// Whether there is a link to ask, and nothing is asked already.
    pub(super) fn can_ask(&self) -> bool {
        !self.is_asking() && self.target.is_some()
    }

    /// How often, where what comes next is a poll.
    pub(super) fn polls_every(&self) -> Option<Duration> {
        (self.next == Question::Poll).then_some(self.every)
    }
}

/// Whoever says where its client is says as well whom to ask when that client has missed something.
pub(super) fn can_recover(instruct: &Instruct) -> Result<(), Error> {
    let placed = instruct.channels.iter().find(|channel| channel.position.is_some());
    let Some(channel) = placed.filter(|_| instruct.next.is_none()) else { return Ok(()) };
    let name = shown(&channel.channel);
    Err(invalid(Fault(format!(
        "Grip-Channel `{name}` has a prev-id, and there is no Grip-Link with rel=next to ask what the client has missed"
    ))))
}

impl Stream {
    /// The app is to be asked what the client has missed. Without a link there is nobody who could tell: it goes on.
    pub(super) fn recover(&mut self) {
        match self.links.as_mut().filter(|links| links.target.is_some()) {
            None => {
                self.subscriber.free();
                self.subscriber.resume();
            }
            Some(links) => {
                links.next = Question::Recover;
                // A poll was asked before something was missed.
                links.fetch = None;
                self.link_at = Some(Duration::ZERO);
            }
        }
    }

    /// It is time to ask the app, unless the gateway itself knows.
    pub(super) fn ask(&mut self) -> Step {
        let metrics = self.terms.local.channels().metrics();
        let Some(links) = &mut self.links else { return Step::Again };
        let Some(target) = links.target.clone() else { return Step::Again };
        if links.next == Question::Poll {
            let is_fresh = deadline::awake() < links.since + FRESH;
            let is_known = self.subscriber.is_confirmed(links.every);
            let has_led = links.skipped < MOST_SKIPPED && self.subscriber.is_chain_whole();
            if is_fresh && (is_known || has_led) {
                links.skipped = if is_known { 0 } else { links.skipped + 1 };
                self.link_at = Some(deadline::awake() + links.every + some_of(links.every / 8));
                metrics.link(LinkOutcome::Skipped);
                return Step::Again;
            }
            self.subscriber.follow();
        }
        links.skipped = 0;
        let (terms, question) = (Rc::clone(&self.terms), links.next);
        let lookup = Lookup {
            exchange: Rc::clone(&self.exchange),
            asked: links.asked.clone(),
            target,
            positions: self.subscriber.positions(),
            age: links.every,
            question,
        };
        let task = tokio::task::spawn_local(async move { terms.page(lookup).await });
        links.fetch = Some(Fetch { task, question });
        self.link_at = None;
        // The answer is looked for, and the time waited for, in the next step.
        Step::Again
    }

    /// Looks for the answer to a question. `None`: none is there.
    pub(super) fn poll_fetch(&mut self, cx: &mut Context<'_>) -> Option<Step> {
        let fetch = self.links.as_mut()?.fetch.as_mut()?;
        let question = fetch.question;
        let Poll::Ready(answer) = Pin::new(&mut fetch.task).poll(cx) else { return None };
        if let Some(links) = &mut self.links {
            links.fetch = None;
        }
        Some(match answer {
            Ok(Ok(Some(page))) => self.turn(page, question),
            Ok(Ok(None)) => {
                self.link_at = None;
                Step::Again
            }
            Ok(Err(error)) => self.failed(&error),
            // It has panicked, which the log tells.
            Err(_) => self.failed(&Error::new(Reason::Internal)),
        })
    }

    /// What the app has said.
    fn turn(&mut self, page: Page, question: Question) -> Step {
        let Page { target, instruct, body, mut room } = page;
        if instruct.hold == Some(HoldMode::Response) {
            let fault =
                Fault("Grip-Link: what it leads to says Grip-Hold: response, and the client has a stream".into());
            return self.failed(&invalid(fault));
        }
        if question == Question::Poll {
            match self.subscriber.standing(&instruct.channels) {
                Standing::Unmoved => {}
                // What came meanwhile says as much.
                Standing::Passed if instruct.hold.is_some() => {
                    return match self.adopt_link(&target, &instruct) {
                        Ok(()) => Step::Again,
                        Err(error) => self.failed(&error),
                    };
                }
                // Or it does not hold the client any more, which may have had less than the app thinks.
                Standing::Passed | Standing::Ahead => {
                    self.subscriber.pause();
                    self.recover();
                    return Step::Again;
                }
            }
        }
        if let Err(error) = self.adopt(&target, &instruct) {
            return self.failed(&error);
        }
        self.page = rendered(&instruct, body);
        if !self.page.is_empty() {
            room.grow(self.page.len());
            self.page_room = Some(room);
            self.has_sent();
        }
        match (instruct.hold, &instruct.next) {
            (Some(_), _) => {
                self.subscriber.resume();
                self.subscriber.compare();
            }
            // Another page of the history, at once; but not for ever at once.
            (None, Some(_)) => {
                self.is_held = false;
                self.subscriber.pause();
                self.link_at = Some(if self.page.is_empty() { deadline::awake() + PAUSE } else { Duration::ZERO });
            }
            (None, None) => self.is_held = false,
        }
        Step::Again
    }

    /// From now on goes by the link that the app has said last.
    fn adopt_link(&mut self, target: &Target, instruct: &Instruct) -> Result<(), Error> {
        let Some(links) = &mut self.links else { return Ok(()) };
        if instruct.hold.is_some() {
            can_recover(instruct)?;
        }
        let next = instruct.next.as_ref();
        let resolved = next.map(|next| self.terms.lead(target, &self.exchange, &next.url));
        links.target = resolved.transpose().map_err(invalid)?;
        links.failures = 0;
        if let Some(next) = next {
            links.every = next.timeout;
        }
        links.since = deadline::awake();
        links.next = if instruct.hold.is_some() { Question::Poll } else { Question::Recover };
        self.link_at = None;
        Ok(())
    }

    /// The same, and by all else that it has said.
    fn adopt(&mut self, target: &Target, instruct: &Instruct) -> Result<(), Error> {
        self.adopt_link(target, instruct)?;
        if instruct.hold.is_some() {
            self.subscriber.set_all_meta(instruct.meta.clone());
            self.subscriber.move_to(&instruct.channels);
            self.subscriber.confirm(&instruct.channels);
            self.is_held = true;
        }
        if let Some(keep_alive) = &instruct.keep_alive {
            self.keep_alive = Some(keep_alive.clone());
        }
        Ok(())
    }

    /// The app could not be asked, or has said nothing that helps. Again later; a client that misses something is let go in the end,
    /// so that it connects anew.
    fn failed(&mut self, error: &Error) -> Step {
        let metrics = self.terms.local.channels().metrics();
        metrics.link(LinkOutcome::Failed);
        tell(error, &self.exchange);
        let Some(links) = &mut self.links else { return Step::End };
        links.failures += 1;
        if links.failures > MOST_FAILURES {
            if links.next == Question::Poll {
                links.failures = 0;
                self.link_at = None;
                return Step::Again;
            }
            metrics.lost(HoldLoss::Unrecovered, 1);
            tracing::debug!("a stream is ended: its app could not say what its client has missed: {error}");
            return Step::End;
        }
        let pause = Duration::from_secs(1 << (links.failures - 1));
        self.link_at = Some(deadline::awake() + pause + some_of(Duration::from_secs(1)));
        Step::Again
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod unit {
    use std::cell::{Cell, OnceCell};
    use std::time::SystemTime;

    use base64::Engine as _;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;

    use super::super::unit::{HINT, STREAM};
    use super::*;
    use crate::realtime::grip::fixture::{Fixture, answer, body_of};
    use crate::realtime::hub::Channels;
    use crate::realtime::publish::items;
    use crate::runtime::paused;

    #[test]
    fn a_question_for_one_who_is_held_for_long_is_signed_and_dated_now() {
        paused(async || {
            let house = Fixture::new("", "", |head| {
                let position = if head.starts_with("GET /next ") { "" } else { "[1]" };
                Some(answer(&format!("{STREAM} | Grip-Channel: a; prev-id=1"), position))
            });
            let mut exchange = Fixture::exchange("/");
            exchange.received_at = SystemTime::now() - Duration::from_secs(7_200);
            let mut response = house.get(exchange).await.unwrap();
            // It is known for a second that nothing was missed.
            assert_eq!(body_of(&mut response, 10).await, "[1]");
            let heads = house.heads.borrow();
            let field = |head: &str, name: &str| {
                let value = head
                    .lines()
                    .find_map(|line| line.split_once(": ").filter(|(known, _)| known.eq_ignore_ascii_case(name)));
                value.map(|(_, value)| value.to_owned()).unwrap()
            };
            let expires = |head: &str| {
                let signature = field(head, "grip-sig");
                let claims = BASE64_URL_SAFE_NO_PAD.decode(signature.split('.').nth(1).unwrap()).unwrap();
                serde_json::from_slice::<serde_json::Value>(&claims).unwrap()["exp"].as_u64().unwrap()
            };
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
            assert!(heads[0].starts_with("GET / ") && expires(&heads[0]) < now);
            assert!(heads[1].starts_with("GET /next ") && expires(&heads[1]) >= now + 3_500, "{}", heads[1]);
            assert_ne!(field(&heads[0], "x-request-start"), field(&heads[1], "x-request-start"));
        });
    }

    #[test]
    fn who_is_held_through_a_reload_is_asked_for_at_the_upstream_in_force() {
        paused(async || {
            let held = |head: &str, body| {
                let position = if head.starts_with("GET /next ") { body } else { "[1]" };
                Some(answer(&format!("{STREAM} | Grip-Channel: a; prev-id=1"), position))
            };
            let before = Fixture::new("", "", move |head| held(head, "[old]"));
            let after = Fixture::new("", "", move |head| held(head, "[new]"));
            let mut response = before.get(Fixture::exchange("/")).await.unwrap();
            assert_eq!(body_of(&mut response, 0).await, "[1]");
            before.in_force.put(&[Rc::clone(&after.client)]);
            before.publish(HINT);
            assert_eq!(body_of(&mut response, 1).await, "[new]");
            assert_eq!((before.lines().len(), &*after.lines()[0]), (1, "GET /next HTTP/1.1"));
            // Without it they go where they went.
            before.in_force.put(&[]);
            before.publish(HINT);
            assert_eq!(body_of(&mut response, 1).await, "[old]");
        });
    }

    #[test]
    fn who_has_missed_something_is_not_left_in_silence_by_an_answer_that_helps_nobody() {
        for fields in [
            // Whom to ask the next time is not said.
            "Grip-Hold: stream | Grip-Channel: a; prev-id=4",
            "Grip-Hold: stream | Grip-Channel: a; prev-id=4 | Grip-Link: <http://other.example/>; rel=next",
        ] {
            paused(async || {
                let house = Fixture::new("", "", move |head| {
                    let first = format!("{STREAM} | Grip-Channel: a; prev-id=1");
                    Some(if head.starts_with("GET / ") { answer(&first, "[1]") } else { answer(fields, "") })
                });
                let mut response = house.get(Fixture::exchange("/")).await.unwrap();
                house.publish(r#"{"channel":"a","id":"5","prev-id":"4","http-stream":{"content":"(5)"}}"#);
                assert_eq!(body_of(&mut response, 60).await, "[1].", "it ends, and the client connects anew: {fields}");
                let asked = house.lines().len() - 1;
                assert!((2..=6).contains(&asked), "{asked}");
            });
        }
    }

    #[test]
    fn a_poll_whose_answer_ends_the_stream_is_asked_again_where_something_came_meanwhile() {
        paused(async || {
            let channels = Rc::new(OnceCell::<Channels>::new());
            let publishing = Rc::clone(&channels);
            let asked = Cell::new(0);
            let house = Fixture::new("", "", move |head| {
                if head.starts_with("GET / ") {
                    return Some(answer(&format!("{STREAM} | Grip-Channel: a; prev-id=1"), "[1]"));
                }
                if asked.replace(asked.get() + 1) == 0 {
                    let item = br#"{"items":[{"channel":"a","id":"2","prev-id":"1","http-stream":{"content":"(2)"}}]}"#;
                    let items = items::read(item).unwrap();
                    publishing.get().unwrap().publish(items).unwrap();
                }
                Some(answer("Content-Type: text/plain", "[end]"))
            });
            let _ = channels.set(house.channels.clone());
            let mut response = house.get(Fixture::exchange("/")).await.unwrap();
            assert_eq!(body_of(&mut response, 60).await, "[1](2)[end].");
        });
    }

    #[test]
    fn what_was_missed_before_a_history_ended_is_noticed() {
        paused(async || {
            let house = Fixture::new("", "", |head| {
                let held = format!("{STREAM} | Grip-Channel: a; prev-id=");
                Some(match head.split(' ').nth(1).unwrap() {
                    "/" => answer("Content-Type: text/plain | Grip-Link: </p2>; rel=next", "[0]"),
                    "/p2" => answer(&format!("{held}1"), "[1]"),
                    _ if head.contains("last-id=1\r\n") => answer(&format!("{held}2"), "[2]"),
                    _ => answer(&format!("{held}2"), ""),
                })
            });
            let item = |id: &str| format!(r#"{{"channel":"a","id":"{id}","http-stream":{{"content":"({id})"}}}}"#);
            house.publish(&format!("{},{}", item("1"), item("2")));
            let mut response = house.get(Fixture::exchange("/")).await.unwrap();
            assert_eq!(body_of(&mut response, 1).await, "[0][1][2]");
        });
    }

    #[test]
    fn a_turn_that_does_not_come_is_not_waited_for_for_ever() {
        paused(async || {
            let house =
                Fixture::new("", "", |_| Some(answer(&format!("{STREAM} | Grip-Channel: a; prev-id=1"), "[1]")));
            let mut turns = Vec::new();
            for _ in 0..house.terms.links.places() {
                turns.push(house.terms.links.turn(Question::Recover).await);
            }
            let mut response = house.get(Fixture::exchange("/")).await.unwrap();
            house.publish(HINT);
            assert_eq!(body_of(&mut response, 1_000).await, "[1].");
        });
    }
}
