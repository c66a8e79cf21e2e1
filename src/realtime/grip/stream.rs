//! `Grip-Hold: stream`: the client gets the app's answer at once, then what is published, for as long as it is there.
//!
//! A link (`Grip-Link: rel=next`) is where the app says what a client has missed. It is asked when the client has missed something
//! for sure (recovery: what comes meanwhile waits), and now and then when nothing comes (a poll: what comes meanwhile goes out, and
//! the answer counts only as far as it says more). A poll is left out where the gateway itself knows that nothing was missed, so
//! that thousands of quiet clients do not keep the workers busy.
//!
//! When the gateway stops, the stream ends as if the app had ended it: an `EventSource` connects again by itself.

use std::cell::Cell;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header;
use tokio::task::JoinHandle;

use super::ask::{Asked, LARGEST_PAGE, Page, Question, collect};
use super::instruct::{Fault, HoldMode, Instruct, KeepAlive, KeepAliveMode};
use super::layer::{Held, Terms, full, invalid, tell};
use super::links::PageRoom;
use crate::error::{Error, Reason};
use crate::http::{Body, Exchange, Response, Source, Target};
use crate::observe::metrics::{HoldGuard, HoldKind, HoldLoss, LinkOutcome};
use crate::realtime::hub::{Delivery, Format, Standing, Subscriber, render};
use crate::runtime::{Deadline, deadline, drain};

/// How often a question is repeated that was not answered as it should.
const MOST_FAILURES: u32 = 5;
/// How often a poll is left out because items have led to where the client is.
const MOST_SKIPPED: u32 = 4;
/// A link may not be good for ever: django-eventstream's is for an hour. So long it is not asked for a new one, at most.
const FRESH: Duration = Duration::from_secs(20 * 60);
/// Between pages of a history that say nothing.
const PAUSE: Duration = Duration::from_secs(1);
/// Bytes of a page that go out at a time.
const PIECE: usize = 64 << 10;
/// What an event stream is kept alive with of which the app says nothing: a comment.
const COMMENT: &[u8] = b":\n\n";

/// The answer of a client that is held with a stream.
pub(super) async fn hold(
    terms: Rc<Terms>,
    asked: Asked,
    instruct: Instruct,
    response: Response,
    exchange: &Rc<Exchange>,
) -> Result<Response, Error> {
    can_recover(&instruct)?;
    let subscriber = terms.local.subscriber(Format::Stream, terms.buffer);
    let (mut head, mut first) = response.into_parts();
    if !instruct.content_filters().is_empty() {
        first = full(rendered(&instruct, collect(first, LARGEST_PAGE).await?));
    }
    // Whoever reads a history in pages has all of it before anything else.
    if instruct.hold.is_some() {
        subscriber.set_all_meta(instruct.meta.clone());
        subscriber.move_to(&instruct.channels);
        subscriber.confirm(&instruct.channels);
        subscriber.compare();
    }
    // It is not the whole that the app has measured.
    head.headers.remove(header::CONTENT_LENGTH);
    let is_events = head.headers.get(header::CONTENT_TYPE).is_some_and(is_events);
    head.extensions.insert(Held);
    exchange.working_since.set(None);
    let farewell = Farewell::new(&terms, &asked, &instruct, exchange)?;
    let links = Links::new(&terms, &asked, &instruct, exchange)?;
    let guard = terms.local.channels().metrics().hold(HoldKind::Stream);
    let default = (is_events && !terms.keep_alive.is_zero()).then(|| KeepAlive {
        data: Bytes::from_static(COMMENT),
        every: terms.keep_alive,
        mode: KeepAliveMode::Idle,
    });
    let stream = Stream {
        exchange: Rc::clone(exchange),
        subscriber,
        first,
        page: Bytes::new(),
        page_room: None,
        keep_alive: instruct.keep_alive.or(default),
        alive_at: None,
        link_at: None,
        deadline: Deadline::new(),
        links,
        is_held: instruct.hold.is_some(),
        terms,
        _farewell: farewell,
        _guard: guard,
    };
    Ok(Response::from_parts(head, Body::Stream(Box::new(stream))))
}

/// Whoever says where its client is says as well whom to ask when that client has missed something.
fn can_recover(instruct: &Instruct) -> Result<(), Error> {
    let placed = instruct.channels.iter().find(|channel| channel.position.is_some());
    let Some(channel) = placed.filter(|_| instruct.next.is_none()) else { return Ok(()) };
    let name = super::instruct::shown(&channel.channel);
    Err(invalid(Fault(format!(
        "Grip-Channel `{name}` has a prev-id, and there is no Grip-Link with rel=next to ask what the client has missed"
    ))))
}

/// What the app says itself, as the filters of its channels make it.
fn rendered(instruct: &Instruct, content: Bytes) -> Bytes {
    let filters = instruct.content_filters();
    if filters.is_empty() {
        return content;
    }
    let position = |name: &str| {
        let channel = instruct.channels.iter().find(|channel| *channel.channel == *name)?;
        channel.position.as_deref()
    };
    render(&content, filters, &instruct.meta, position).into()
}

fn is_events(value: &http::HeaderValue) -> bool {
    value.as_bytes().get(..17).is_some_and(|start| start.eq_ignore_ascii_case(b"text/event-stream"))
}

/// A body that goes on.
struct Stream {
    terms: Rc<Terms>,
    exchange: Rc<Exchange>,
    subscriber: Subscriber,
    /// What the app has said itself.
    first: Body,
    /// What a link has led to, and has not gone out.
    page: Bytes,
    /// Of which this is the room.
    page_room: Option<PageRoom>,
    keep_alive: Option<KeepAlive>,
    /// When, by the coarse clock, the stream is to be kept alive, and the app is to be asked.
    alive_at: Option<Duration>,
    link_at: Option<Duration>,
    deadline: Deadline,
    links: Option<Box<Links>>,
    /// Whether anything is to come but pages.
    is_held: bool,
    _farewell: Farewell,
    _guard: HoldGuard,
}

/// Where the app is asked, and how that stands.
struct Links {
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

/// What the body is to do.
enum Step {
    Data(Bytes),
    /// Look again.
    Again,
    End,
    Cut(Error),
}

impl Links {
    fn new(terms: &Terms, asked: &Asked, instruct: &Instruct, exchange: &Exchange) -> Result<Option<Box<Self>>, Error> {
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
}

impl Source for Stream {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        loop {
            if !matches!(self.first, Body::Empty) {
                match self.first.poll_data(cx) {
                    Poll::Ready(None) => self.first = Body::Empty,
                    other => return other,
                }
                continue;
            }
            match self.poll_step(cx) {
                Poll::Ready(Step::Data(data)) if data.is_empty() => {}
                Poll::Ready(Step::Data(data)) => return Poll::Ready(Some(Ok(data))),
                Poll::Ready(Step::Again) => {}
                Poll::Ready(Step::End) => return Poll::Ready(None),
                Poll::Ready(Step::Cut(error)) => return Poll::Ready(Some(Err(error))),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn remaining(&self) -> Option<u64> {
        None
    }

    fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        self.subscriber.poll_overflow(cx).map(|()| self.overflow())
    }
}

impl Stream {
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        if !self.page.is_empty() {
            // Piece by piece: as long as the last has not been asked for, the room is taken.
            return Poll::Ready(Step::Data(self.page.split_to(self.page.len().min(PIECE))));
        }
        self.page_room = None;
        if let Poll::Ready(delivery) = self.subscriber.poll_next(cx) {
            return Poll::Ready(self.delivered(delivery));
        }
        if let Some(answer) = self.poll_fetch(cx) {
            return Poll::Ready(answer);
        }
        if drain::is_draining() {
            return Poll::Ready(Step::End);
        }
        self.poll_time(cx)
    }

    fn delivered(&mut self, delivery: Delivery) -> Step {
        match delivery {
            Delivery::Data(data) => {
                self.has_sent();
                Step::Data(data)
            }
            Delivery::Close(..) => Step::End,
            Delivery::Overflow => Step::Cut(self.overflow()),
            Delivery::Hint => {
                self.subscriber.pause();
                self.recover();
                Step::Again
            }
            Delivery::Recover => {
                self.recover();
                Step::Again
            }
            // Of other formats.
            Delivery::Reply(_) | Delivery::Message(_) | Delivery::Refresh => Step::Again,
        }
    }

    /// Something has been published: neither the client nor the app has to be spoken to for a while.
    fn has_sent(&mut self) {
        let now = deadline::awake();
        if let Some(keep_alive) = &self.keep_alive
            && keep_alive.mode == KeepAliveMode::Idle
        {
            self.alive_at = Some(now + keep_alive.every);
        }
        if let Some(links) = &self.links
            && links.next == Question::Poll
            && links.fetch.is_none()
        {
            self.link_at = Some(now + links.every);
        }
    }

    /// The app is to be asked what the client has missed. Without a link there is nobody who could tell: it goes on.
    fn recover(&mut self) {
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

    fn overflow(&self) -> Error {
        let room = self.terms.buffer;
        Error::new(Reason::HoldOverflow).detail(format!("more than {room} bytes waited for it (realtime.buffer)"))
    }

    fn poll_time(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        loop {
            let now = deadline::awake();
            if let Some(keep_alive) = &self.keep_alive {
                match self.alive_at {
                    // Not all at the same moment.
                    None => self.alive_at = Some(now + keep_alive.every - jitter(keep_alive.every / 8)),
                    Some(at) if at <= now => {
                        self.alive_at = Some(now + keep_alive.every);
                        return Poll::Ready(Step::Data(keep_alive.data.clone()));
                    }
                    Some(_) => {}
                }
            }
            if let Some(links) = self.links.as_mut().filter(|links| links.fetch.is_none() && links.target.is_some()) {
                match self.link_at {
                    None if links.next == Question::Poll => {
                        self.link_at = Some(now + links.every + jitter(links.every / 8));
                    }
                    None => return Poll::Ready(self.ask()),
                    Some(at) if at <= now => return Poll::Ready(self.ask()),
                    Some(_) => {}
                }
            } else if self.links.as_ref().is_none_or(|links| links.fetch.is_none()) && !self.is_held {
                return Poll::Ready(Step::End);
            }
            let times = [self.alive_at, self.link_at.filter(|_| self.is_waiting_for_link())];
            match times.into_iter().flatten().min() {
                Some(at) => self.deadline.arm(at.saturating_sub(now)),
                None => self.deadline.disarm(),
            }
            // Polled even where it is not armed: a drain wakes whoever waits on one.
            if self.deadline.poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn is_waiting_for_link(&self) -> bool {
        self.links.as_ref().is_some_and(|links| links.fetch.is_none() && links.target.is_some())
    }

    /// It is time to ask the app, unless the gateway itself knows.
    fn ask(&mut self) -> Step {
        let metrics = self.terms.local.channels().metrics();
        let Some(links) = &mut self.links else { return Step::Again };
        let Some(target) = links.target.clone() else { return Step::Again };
        if links.next == Question::Poll {
            let is_fresh = deadline::awake() < links.since + FRESH;
            let is_known = self.subscriber.is_confirmed(links.every);
            let has_led = links.skipped < MOST_SKIPPED && self.subscriber.is_chain_whole();
            if is_fresh && (is_known || has_led) {
                links.skipped = if is_known { 0 } else { links.skipped + 1 };
                self.link_at = Some(deadline::awake() + links.every + jitter(links.every / 8));
                metrics.link(LinkOutcome::Skipped);
                return Step::Again;
            }
            self.subscriber.follow();
        }
        links.skipped = 0;
        let (terms, exchange, asked) = (Rc::clone(&self.terms), Rc::clone(&self.exchange), links.asked.clone());
        let (question, age, positions) = (links.next, links.every, self.subscriber.positions());
        let task =
            tokio::task::spawn_local(
                async move { terms.page(&exchange, &asked, target, &positions, age, question).await },
            );
        links.fetch = Some(Fetch { task, question });
        self.link_at = None;
        // The answer is looked for, and the time waited for, in the next step.
        Step::Again
    }

    /// Looks for the answer to a question. `None`: none is there.
    fn poll_fetch(&mut self, cx: &mut Context<'_>) -> Option<Step> {
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
        self.link_at = Some(deadline::awake() + pause + jitter(Duration::from_secs(1)));
        Step::Again
    }
}

/// Some of it, by chance: so that what began at the same moment does not go on so.
fn jitter(most: Duration) -> Duration {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0));
    }
    // SplitMix64: every value once, in an order that looks like none.
    let state = STATE.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
    STATE.set(state);
    let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    let part = (mixed >> 40) as u32;
    most.mul_f64(f64::from(part) / f64::from(1_u32 << 24))
}

/// `Grip-Link: rel=gone`: the app is told that the client has left. Nothing, for most.
pub(super) struct Farewell(Option<Box<Going>>);

struct Going {
    terms: Rc<Terms>,
    exchange: Rc<Exchange>,
    asked: Asked,
    target: Target,
}

impl Farewell {
    /// As the app wants it.
    pub(super) fn new(
        terms: &Rc<Terms>,
        asked: &Asked,
        instruct: &Instruct,
        exchange: &Rc<Exchange>,
    ) -> Result<Self, Error> {
        let Some(url) = &instruct.gone else { return Ok(Self(None)) };
        let target = terms.lead(&asked.target, exchange, url).map_err(invalid)?;
        let (terms, exchange) = (Rc::clone(terms), Rc::clone(exchange));
        Ok(Self(Some(Box::new(Going { terms, exchange, asked: asked.clone(), target }))))
    }

    /// The same, where the app has said another one since.
    pub(super) fn follow(
        mut self,
        terms: &Rc<Terms>,
        asked: &Asked,
        instruct: &Instruct,
        exchange: &Rc<Exchange>,
    ) -> Result<Self, Error> {
        if instruct.gone.is_some() {
            self.is_answered();
            return Self::new(terms, asked, instruct, exchange);
        }
        Ok(self)
    }

    /// The client has what it came for: it has not left.
    pub(super) fn is_answered(&mut self) {
        self.0 = None;
    }
}

impl Drop for Farewell {
    fn drop(&mut self) {
        let Some(going) = self.0.take() else { return };
        // A gateway that stops has no time for it, and may have no tasks any more.
        if drain::is_draining() {
            return;
        }
        let Going { terms, exchange, asked, target } = *going;
        let Some(parting) = terms.links.farewell() else {
            tracing::debug!("an app is not told that a held client has left: too many have left at once");
            return;
        };
        tokio::task::spawn_local(async move {
            let _parting = parting;
            if let Err(error) = terms.ask(&exchange, &asked, target, None, Question::Gone).await {
                tracing::debug!("an app was not told that a held client has left: {error}");
            }
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod unit {
    use std::time::SystemTime;

    use base64::Engine as _;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;

    use super::super::fixture::{Fixture, answer, body_of};
    use super::*;
    use crate::runtime::paused;

    const STREAM: &str = "Grip-Hold: stream | Content-Type: text/plain | Grip-Link: </next>; rel=next; timeout=1";

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
    fn a_client_is_kept_alive_while_its_app_does_not_answer_a_question() {
        paused(async || {
            let house = Fixture::new("", "", |head| {
                let fields =
                    format!("{STREAM} | Grip-Channel: a; prev-id=1 | Grip-Keep-Alive: k; timeout=5; mode=interval");
                head.starts_with("GET / ").then(|| answer(&fields, "[1]"))
            });
            let mut response = house.get(Fixture::exchange("/")).await.unwrap();
            let all = body_of(&mut response, 29).await;
            assert!(house.lines().len() > 1, "it is asked");
            assert_eq!(all, "[1]kkkkk");
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
            let channels = Rc::new(std::cell::OnceCell::<crate::realtime::hub::Channels>::new());
            let publishing = Rc::clone(&channels);
            let asked = Cell::new(0);
            let house = Fixture::new("", "", move |head| {
                if head.starts_with("GET / ") {
                    return Some(answer(&format!("{STREAM} | Grip-Channel: a; prev-id=1"), "[1]"));
                }
                if asked.replace(asked.get() + 1) == 0 {
                    let item = br#"{"items":[{"channel":"a","id":"2","prev-id":"1","http-stream":{"content":"(2)"}}]}"#;
                    let items = crate::realtime::publish::items::read(item).unwrap();
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

    const HINT: &str = r#"{"channel":"a","http-stream":{"action":"hint"}}"#;

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

    #[test]
    fn a_page_has_room_until_its_client_has_taken_it() {
        paused(async || {
            let house = Fixture::new("", "", |head| {
                let page = if head.starts_with("GET / ") { 1 } else { 300_000 };
                Some(answer(&format!("{STREAM} | Grip-Channel: a; prev-id=1"), &"x".repeat(page)))
            });
            let mut response = house.get(Fixture::exchange("/")).await.unwrap();
            assert_eq!(response.body_mut().data().await.unwrap().unwrap().len(), 1);
            house.publish(HINT);
            let mut pieces = Vec::new();
            while pieces.iter().sum::<usize>() < 300_000 {
                pieces.push(response.body_mut().data().await.unwrap().unwrap().len());
                assert_eq!(house.terms.links.page_bytes(), 300_000, "what is being written is kept whole");
            }
            assert_eq!(pieces[0], PIECE);
            assert_eq!(body_of(&mut response, 0).await, "");
            assert_eq!(house.terms.links.page_bytes(), 0);
        });
    }

    #[test]
    fn the_first_page_of_a_stream_may_be_large_where_it_is_rendered() {
        paused(async || {
            let house = Fixture::new("", "", |_| {
                let fields = "Grip-Hold: stream | Content-Type: text/plain | Grip-Channel: a; filter=var-subst | Grip-Set-Meta: n=ann";
                Some(answer(fields, &format!("%(n)s{}", "x".repeat(300_000))))
            });
            let mut response = house.get(Fixture::exchange("/")).await.unwrap();
            let body = body_of(&mut response, 1).await;
            assert!(body.starts_with("annx") && body.len() == 300_003, "{}", body.len());
        });
    }

    #[test]
    fn chance_stays_within_its_bounds_and_is_not_always_the_same() {
        let most = Duration::from_secs(10);
        let all: Vec<Duration> = (0..100).map(|_| jitter(most)).collect();
        assert!(all.iter().all(|one| *one < most));
        assert!(all.iter().any(|one| *one < most / 4) && all.iter().any(|one| *one > most * 3 / 4));
        assert_eq!(jitter(Duration::ZERO), Duration::ZERO);
    }
}
