//! `Grip-Hold: stream`: the client gets the app's answer at once, then what is published, for as long as it is there.
//!
//! What it asks its app meanwhile (`Grip-Link: rel=next`) is in [`next`].
//!
//! When the gateway stops, the stream ends as if the app had ended it: an `EventSource` connects again by itself. Not all at once,
//! but each in its turn.

mod next;

use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header;

use self::next::{Links, can_recover};
use super::ask::{Asked, LARGEST_PAGE, collect};
use super::farewell::Farewell;
use super::instruct::{Instruct, KeepAlive, KeepAliveMode};
use super::layer::{Held, Terms, full};
use super::links::PageRoom;
use crate::error::{Error, Reason};
use crate::http::{Body, Exchange, Response, Source};
use crate::observe::metrics::{HoldGuard, HoldKind};
use crate::realtime::hub::{Delivery, Format, Subscriber, render};
use crate::runtime::chance::some_of;
use crate::runtime::{Deadline, deadline, drain};

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
        turn: drain::Turn::default(),
        links,
        is_held: instruct.hold.is_some(),
        terms,
        _farewell: farewell,
        _guard: guard,
    };
    Ok(Response::from_parts(head, Body::Stream(Box::new(stream))))
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
    turn: drain::Turn,
    links: Option<Box<Links>>,
    /// Whether anything is to come but pages.
    is_held: bool,
    _farewell: Farewell,
    _guard: HoldGuard,
}

/// What the body is to do.
enum Step {
    Data(Bytes),
    /// Look again.
    Again,
    End,
    Cut(Error),
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
        if let Some(links) = self.links.as_ref().filter(|links| !links.is_asking())
            && let Some(every) = links.polls_every()
        {
            self.link_at = Some(now + every);
        }
    }

    fn overflow(&self) -> Error {
        let room = self.terms.buffer;
        Error::new(Reason::HoldOverflow).detail(format!("more than {room} bytes waited for it (realtime.buffer)"))
    }

    fn poll_time(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        loop {
            let now = deadline::awake();
            let turn = self.turn.at(now);
            if turn.is_some_and(|at| at <= now) {
                return Poll::Ready(Step::End);
            }
            if let Some(keep_alive) = &self.keep_alive {
                match self.alive_at {
                    // Not all at the same moment.
                    None => self.alive_at = Some(now + keep_alive.every - some_of(keep_alive.every / 8)),
                    Some(at) if at <= now => {
                        self.alive_at = Some(now + keep_alive.every);
                        return Poll::Ready(Step::Data(keep_alive.data.clone()));
                    }
                    Some(_) => {}
                }
            }
            if let Some(links) = self.links.as_ref().filter(|links| links.can_ask()) {
                match (self.link_at, links.polls_every()) {
                    (None, Some(every)) => self.link_at = Some(now + every + some_of(every / 8)),
                    (Some(at), _) if at > now => {}
                    (None, None) | (Some(_), _) => return Poll::Ready(self.ask()),
                }
            } else if !self.is_held && self.links.as_ref().is_none_or(|links| !links.is_asking()) {
                return Poll::Ready(Step::End);
            }
            let can_ask = self.links.as_ref().is_some_and(|links| links.can_ask());
            let times = [self.alive_at, self.link_at.filter(|_| can_ask), turn];
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
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod unit {
    use super::super::fixture::{Fixture, answer, body_of, ends_of_a_drain};
    use super::*;
    use crate::runtime::paused;

    /// One who is held, and of whom the app may be asked.
    pub(super) const STREAM: &str =
        "Grip-Hold: stream | Content-Type: text/plain | Grip-Link: </next>; rel=next; timeout=1";

    /// There is news for whoever is on `a`.
    pub(super) const HINT: &str = r#"{"channel":"a","http-stream":{"action":"hint"}}"#;

    #[test]
    fn a_drain_ends_streams_each_in_its_turn() {
        paused(async || {
            let ends = ends_of_a_drain("Grip-Hold: stream | Grip-Channel: a").await;
            let most = Duration::from_secs(2) + 2 * deadline::TICK;
            assert!(ends.iter().all(|end| *end <= most), "{ends:?}");
            let moments: std::collections::HashSet<_> = ends.iter().collect();
            assert!(moments.len() > 4, "{ends:?}");
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
}
