//! `Grip-Hold: response`: the client waits for an answer (long-poll), which is published, or is the app's own when its time is
//! over.
//!
//! When there is news at the app (a hint, or something that the client has missed), the client's request is asked again, with
//! `Grip-Last`, and the client knows nothing of it. One that has had a body cannot be: its client gets the app's answer, and asks
//! again itself.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{self, HeaderMap};
use http::{HeaderName, StatusCode};

use super::ask::{self, Asked, Question, collect, grip_last};
use super::farewell::Farewell;
use super::instruct::{HoldMode, Instruct, LARGEST};
use super::layer::{Terms, full, invalid, read, tell};
use super::{Fault, patch};
use crate::error::Error;
use crate::http::{Exchange, Phase, Response};
use crate::observe::metrics::{HoldKind, HoldLoss, LinkOutcome};
use crate::realtime::hub::{Delivery, Format, Reply, ReplyBody, Subscriber};
use crate::runtime::{Deadline, deadline, drain};

/// How often an app is asked again for one client. One that says each time that there is news would be asked for ever.
const MOST_QUESTIONS: u32 = 100;

/// The answer that is the client's when its time is over.
struct Timely {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// What ends a wait.
enum End {
    Reply(Box<Reply>),
    /// The app is to be asked.
    News,
    /// Its time is over.
    Time,
}

/// Holds the client until it has an answer.
pub(super) async fn hold(
    terms: Rc<Terms>,
    asked: Asked,
    mut instruct: Instruct,
    response: Response,
    exchange: &Rc<Exchange>,
) -> Result<Response, Error> {
    let mut timely = Timely::of(response).await?;
    let subscriber = terms.local.subscriber(Format::Response, terms.buffer);
    let metrics = terms.local.channels().metrics().clone();
    let _guard = metrics.hold(HoldKind::Response);
    let mut farewell = Farewell::new(&terms, &asked, &instruct, exchange)?;
    let mut time = Time { deadline: Deadline::new(), turn: drain::Turn::default() };
    place(&subscriber, &instruct);
    subscriber.compare();
    exchange.working_since.set(None);
    let mut questions = 0;
    loop {
        exchange.phase.set(Phase::Holding);
        time.deadline.arm(instruct.timeout);
        let end = wait(&subscriber, &mut time).await;
        exchange.tick();
        match end {
            End::Reply(reply) => {
                farewell.is_answered();
                return timely.with(*reply);
            }
            End::News if !asked.has_body && questions < MOST_QUESTIONS => {
                questions += 1;
                subscriber.pause();
                let last = grip_last(&subscriber.positions());
                metrics.link(LinkOutcome::Asked);
                let question = terms.ask(exchange, &asked, asked.target.clone(), last, Question::Again);
                let Some(result) = in_time(&mut time, question).await else {
                    farewell.is_answered();
                    return Ok(timely.into_response());
                };
                match result {
                    Ok(answer) if ask::is_usable(answer.status()) => {
                        if !Instruct::is_in(answer.headers()) {
                            farewell.is_answered();
                            return Ok(answer);
                        }
                        let Some(read) = in_time(&mut time, read(answer)).await else {
                            farewell.is_answered();
                            return Ok(timely.into_response());
                        };
                        let (next, answer) = read?;
                        if next.holds(&asked.method) != Some(HoldMode::Response) {
                            farewell.is_answered();
                            return Ok(answer);
                        }
                        let Some(whole) = in_time(&mut time, Timely::of(answer)).await else {
                            farewell.is_answered();
                            return Ok(timely.into_response());
                        };
                        (instruct, timely) = (next, whole?);
                        farewell = farewell.follow(&terms, &asked, &instruct, exchange)?;
                        place(&subscriber, &instruct);
                        subscriber.resume();
                        subscriber.compare();
                    }
                    result => {
                        metrics.link(LinkOutcome::Failed);
                        metrics.lost(HoldLoss::Unrecovered, 1);
                        if let Err(error) = &result {
                            tell(error, exchange);
                        }
                        farewell.is_answered();
                        return Ok(timely.into_response());
                    }
                }
            }
            End::News | End::Time => {
                farewell.is_answered();
                return Ok(timely.into_response());
            }
        }
    }
}

fn place(subscriber: &Subscriber, instruct: &Instruct) {
    subscriber.set_all_meta(instruct.meta.clone());
    subscriber.move_to(&instruct.channels);
}

/// How long a client is held.
struct Time {
    deadline: Deadline,
    /// Whoever waits when the gateway stops has the app's answer, and asks again: not all at once, but each in its turn.
    turn: drain::Turn,
}

impl Time {
    /// Ready when it is over. A drain wakes whoever waits on a deadline.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = deadline::awake();
        if let Some(at) = self.turn.at(now) {
            if at <= now {
                return Poll::Ready(());
            }
            self.deadline.hasten(at - now);
        }
        self.deadline.poll(cx)
    }
}

/// What comes of a question while the client is held. `None`: its time is over, or the gateway stops; it has the app's first answer
/// then, and asks again itself.
async fn in_time<F: Future>(time: &mut Time, question: F) -> Option<F::Output> {
    let mut question = pin!(question);
    poll_fn(|cx| {
        if let Poll::Ready(output) = question.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        time.poll(cx).map(|()| None)
    })
    .await
}

async fn wait(subscriber: &Subscriber, time: &mut Time) -> End {
    poll_fn(|cx| {
        while let Poll::Ready(delivery) = subscriber.poll_next(cx) {
            match delivery {
                Delivery::Reply(reply) => return Poll::Ready(End::Reply(reply)),
                Delivery::Hint | Delivery::Recover => return Poll::Ready(End::News),
                Delivery::Overflow => return Poll::Ready(End::Time),
                // Of other formats.
                Delivery::Data(_) | Delivery::Message(_) | Delivery::Close(..) | Delivery::Refresh => {}
            }
        }
        time.poll(cx).map(|()| End::Time)
    })
    .await
}

impl Timely {
    async fn of(response: Response) -> Result<Self, Error> {
        let (head, body) = response.into_parts();
        let body = collect(body, LARGEST).await?;
        let mut headers = head.headers;
        // It is the writer's business, and may be another one's length.
        headers.remove(header::CONTENT_LENGTH);
        Ok(Self { status: head.status, headers, body })
    }

    fn into_response(self) -> Response {
        let mut response = Response::new(full(self.body));
        (*response.status_mut(), *response.headers_mut()) = (self.status, self.headers);
        response
    }

    /// What was published: its fields instead of those by their names.
    fn with(self, reply: Reply) -> Result<Response, Error> {
        let Reply { status, headers, exposed, body } = reply;
        let body = match body {
            ReplyBody::Whole(body) => body,
            ReplyBody::Patch(changes) => match patch::apply(&self.body, &changes) {
                Ok(body) => body.into(),
                Err(why) => return Err(invalid(Fault(format!("http-response: {why}")))),
            },
        };
        let mut merged = self.headers;
        for name in headers.keys() {
            merged.remove(name);
        }
        merged.extend(headers);
        if !exposed.is_empty() {
            let hidden: Vec<HeaderName> =
                merged.keys().filter(|name| !exposed.iter().any(|known| **known == *name.as_str())).cloned().collect();
            for name in hidden {
                merged.remove(name);
            }
        }
        Ok(Self { status, headers: merged, body }.into_response())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod unit {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::super::fixture::{Fixture, answer, body_of, ends_of_a_drain};
    use super::*;
    use crate::observe::metrics::Metrics;
    use crate::realtime::hub::{Channels, Content, Filters, Item, Local, ResponsePart, Subscription};
    use crate::runtime::paused;

    fn item(part: ResponsePart) -> Item {
        Item { channel: "a".into(), response: Some(Content { filters: None, part }), ..Item::default() }
    }

    #[test]
    fn who_waits_for_an_answer_that_does_not_come_has_the_first_when_its_time_is_over() {
        paused(async || {
            let asked = std::cell::Cell::new(0);
            let house = Fixture::new("", "", move |_| {
                let first = "Grip-Hold: response | Grip-Channel: a | Grip-Timeout: 20";
                (asked.replace(asked.get() + 1) == 0).then(|| answer(first, "nothing"))
            });
            let publishing = house.channels.clone();
            let later = tokio::task::spawn_local(async move {
                tokio::time::sleep(Duration::from_secs(5)).await;
                publishing.publish(vec![item(ResponsePart::Hint)]).unwrap();
            });
            let begun = Instant::now();
            let mut response = house.get(Fixture::exchange("/")).await.unwrap();
            assert_eq!(body_of(&mut response, 1).await, "nothing.");
            let took = begun.elapsed().as_secs();
            assert!(house.lines().len() == 2 && (20..22).contains(&took), "{took}");
            later.abort();
        });
    }

    #[test]
    fn a_drain_gives_who_waits_the_apps_answer_each_in_its_turn() {
        paused(async || {
            let ends = ends_of_a_drain("Grip-Hold: response | Grip-Channel: a").await;
            let most = Duration::from_secs(2) + 2 * deadline::TICK;
            assert!(ends.iter().all(|end| *end <= most), "{ends:?}");
            let moments: std::collections::HashSet<_> = ends.iter().collect();
            assert!(moments.len() > 4, "{ends:?}");
        });
    }

    fn reply(body: ReplyBody) -> Reply {
        Reply { status: StatusCode::CREATED, headers: HeaderMap::new(), exposed: Vec::new(), body }
    }

    #[test]
    fn a_wait_ends_with_an_answer_with_news_or_with_its_time() {
        paused(async || {
            let channels = Channels::new(Metrics::new().realtime());
            let local = Local::attach(&channels);
            let delivering = tokio::task::spawn_local(Rc::clone(&local).run());
            for (part, after, wanted) in [
                (ResponsePart::Send(reply(ReplyBody::Whole(Bytes::from_static(b"news")))), 3, "reply"),
                (ResponsePart::Hint, 4, "news"),
                (ResponsePart::Hint, 60, "time"),
            ] {
                let subscriber = local.subscriber(Format::Response, 1_000);
                let subscription = Subscription { channel: "a".into(), filters: Filters::default(), position: None };
                subscriber.subscribe(&subscription).unwrap();
                let (begun, deadline, publishing) = (Instant::now(), Deadline::new(), channels.clone());
                deadline.arm(Duration::from_secs(20));
                let mut time = Time { deadline, turn: drain::Turn::default() };
                let later = tokio::task::spawn_local(async move {
                    tokio::time::sleep(Duration::from_secs(after)).await;
                    publishing.publish(vec![item(part)]).unwrap();
                });
                let ended = match wait(&subscriber, &mut time).await {
                    End::Reply(_) => "reply",
                    End::News => "news",
                    End::Time => "time",
                };
                let took = begun.elapsed().as_secs();
                assert_eq!((ended, took.min(20)), (wanted, after.min(20)), "{took}");
                later.abort();
            }
            delivering.abort();
        });
    }

    #[test]
    fn an_answer_takes_the_place_of_what_the_app_has_said_field_by_field() {
        let timely = || {
            let mut headers = HeaderMap::new();
            for (name, value) in [("x-kept", "1"), ("x-gone", "2"), ("set-cookie", "a=1"), ("set-cookie", "b=2")] {
                headers.append(name, value.parse().unwrap());
            }
            Timely { status: StatusCode::OK, headers, body: Bytes::from_static(b"{\"a\":1}") }
        };
        let mut published = reply(ReplyBody::Whole(Bytes::new()));
        published.headers.insert("set-cookie", "c=3".parse().unwrap());
        published.exposed = vec!["set-cookie".into(), "x-kept".into()];
        let response = timely().with(published).unwrap();
        let names: Vec<&str> = response.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["x-kept", "set-cookie"]);
        assert_eq!(response.headers().get_all("set-cookie").iter().count(), 1);
        assert_eq!((response.status(), response.body().remaining()), (StatusCode::CREATED, Some(0)));
        let patch = |changes: &'static [u8]| timely().with(reply(ReplyBody::Patch(Bytes::from_static(changes))));
        let patched = patch(br#"[{"op":"replace","path":"/a","value":23}]"#).unwrap();
        assert_eq!(patched.body().remaining(), Some(8));
        assert!(patch(br#"[{"op":"remove","path":"/b"}]"#).is_err());
    }
}
