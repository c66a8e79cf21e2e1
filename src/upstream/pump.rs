//! What is left of an exchange once the response head is on its way up: the body, the connection, the worker's slot.
//!
//! A small body that came with the head needs nothing more. For every other one a task of its own reads at the
//! worker's speed into a pipe, so that the worker is free as soon as it has written its last byte, whoever reads.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::exchange::Client;
use super::room::{Permit, StreamPermit};
use super::spool::{self, Budget, Share};
use super::wire::{Connection, End, ResponseBody};
use crate::config::MinRate;
use crate::error::{Error, Reason};
use crate::http::{Body, Exchange};
use crate::runtime::{Allowance, Deadline};

/// What a response takes that is passed on as it comes, without read-ahead.
const STREAM: Share = Share { memory: 64 << 10, disk: 0, client: None };

/// How long a slow client has, at most, while no worker may be pinned for it.
const LAST_CHANCE: Duration = Duration::from_secs(5);
/// What a client has to take while there is no room in the spool for what it does not take.
const WITHOUT_ROOM: MinRate = MinRate { min: 256 << 10, after: LAST_CHANCE };
/// A client that takes nothing for so long is slow: its worker is pinned.
const AT_ONCE: Duration = Duration::from_millis(100);
/// How often it is looked whether somebody waits for the worker of such a client.
const LOOK: Duration = Duration::from_millis(10);

/// How a response is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passage {
    /// At the worker's speed, into the spool.
    ReadAhead,
    /// At the client's speed: an event stream, or what the app or the route wants unbuffered.
    Stream,
}

/// Everything that ends with the exchange.
pub(super) struct Rest {
    pub(super) client: Rc<Client>,
    pub(super) exchange: Rc<Exchange>,
    pub(super) permit: Permit,
}

impl Rest {
    /// How much longer a worker may keep its slot for nobody.
    fn patience(&self) -> Duration {
        self.client.upstream().abandon().saturating_sub(self.exchange.gone_for().unwrap_or_default())
    }
}

/// The body for the layers above. Takes over the connection and the slot.
///
/// # Errors
/// [`Reason::StreamsFull`]: the body would pin a worker, and enough are pinned already.
pub(super) fn body(
    mut body: ResponseBody,
    rest: Rest,
    passage: Passage,
    share: Share,
    budget: &std::sync::Arc<Budget>,
) -> Result<Body, Error> {
    if let Some(here) = body.take_here() {
        // It came with the head, whose coming has been noted.
        let now = rest.exchange.now();
        end(body, rest, now);
        return Ok(if here.is_empty() { Body::Empty } else { Body::Full(here) });
    }
    let mut pin = None;
    if passage == Passage::Stream {
        pin = rest.permit.pin();
        if pin.is_none() {
            let error = rest.client.upstream().streams_full();
            rest.client.failed(&error, rest.permit.endpoint(), &rest.exchange);
            leave(body.into_busy(), rest);
            return Err(error);
        }
    }
    let share = if passage == Passage::Stream { STREAM } else { share };
    let share = Share { client: rest.exchange.client.get(), ..share };
    let (writer, reader) = spool::pipe(body.remaining(), share, budget);
    tokio::task::spawn_local(pump(body, writer, rest, pin));
    Ok(Body::Stream(Box::new(reader)))
}

/// The app has handed its answer over, so that whatever body it announces is for nobody, and may never come. The slot is
/// free as soon as the worker is, and a connection whose body is not here whole serves nobody again.
pub(super) fn let_go(mut body: ResponseBody, rest: Rest) {
    if body.take_here().is_some() {
        let now = rest.exchange.now();
        return end(body, rest, now);
    }
    let limit = rest.patience();
    tokio::task::spawn_local(async move {
        body.into_busy().done_with(limit).await;
        drop(rest.permit);
    });
}

async fn pump(mut body: ResponseBody, writer: spool::Writer, rest: Rest, pin: Option<StreamPermit>) {
    let begun = Instant::now();
    let is_stream = pin.is_some();
    let result = match copy(&mut body, &writer, &rest, is_stream).await {
        Ok(result) => result,
        Err(spool::Gone) => {
            drop(writer);
            // A stream may never end by itself: the worker's next write is to fail.
            if is_stream {
                leave(body.into_busy(), rest)
            } else {
                drain(body, rest).await
            }
            return;
        }
    };
    let now = Instant::now();
    rest.exchange.time(|timings| timings.body = now - begun);
    if let Err(error) = &result {
        rest.client.failed(error, rest.permit.endpoint(), &rest.exchange);
        // A stream has no end of its own: a restart of the app cuts all of them at once.
        if !is_stream {
            rest.client.judge(rest.permit.endpoint(), error.reason);
        }
    }
    let reason = result.as_ref().err().map(|error| error.reason);
    writer.end(result).await;
    match reason {
        None => end(body, rest, now),
        // It may be asleep in the middle of its answer: its slot is not free.
        Some(Reason::IdleTimeout) => hold(body.into_busy(), rest.patience(), rest.permit),
        // The worker does not know, and is free soonest if it may finish: gunicorn lingers for seconds after a failed write.
        Some(Reason::StreamsFull | Reason::SpoolFull) => drain(body, rest).await,
        Some(_) => {}
    }
}

/// From the worker to the pipe, to the end of the body.
async fn copy(
    body: &mut ResponseBody,
    writer: &spool::Writer,
    rest: &Rest,
    is_stream: bool,
) -> Result<Result<(), Error>, spool::Gone> {
    let mut stall = Stall { deadline: Deadline::new(), without_room: Allowance::new(WITHOUT_ROOM), pin: None };
    loop {
        let data = match next(body, writer).await? {
            Ok(Some(data)) => data,
            Ok(None) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error)),
        };
        let pushed =
            if is_stream { writer.push(data).await.map(Ok) } else { push(writer, data, rest, &mut stall).await };
        if let Err(error) = pushed? {
            return Ok(Err(error));
        }
    }
}

/// How long a worker waits for its client.
struct Stall {
    deadline: Deadline,
    without_room: Allowance,
    /// Kept from the first stall to the end of the body.
    pin: Option<StreamPermit>,
}

impl Stall {
    /// Waits for a push that finds no room in the budget. `None`: the client has taken too little meanwhile.
    async fn without_room<T>(
        &mut self,
        length: u64,
        writer: &spool::Writer,
        rest: &Rest,
        mut push: Pin<&mut impl Future<Output = T>>,
    ) -> Option<T> {
        let Self { deadline, without_room, pin } = self;
        if pin.is_none() {
            *pin = rest.permit.pin_without_room();
        }
        if pin.is_none() {
            return unpinned(writer, rest, push).await;
        }
        let pushed = poll_fn(|cx| match push.as_mut().poll(cx) {
            Poll::Ready(pushed) => Poll::Ready(Some(pushed)),
            // Only our own disk is waited for.
            Poll::Pending if writer.is_taken() => Poll::Pending,
            Poll::Pending => without_room.poll_wait(deadline, cx).map(|()| None),
        });
        let pushed = pushed.await;
        without_room.moved(length, deadline);
        pushed
    }
}

/// Waits for a push while no worker may be pinned: not for long, and not when somebody else waits for the worker.
async fn unpinned<T>(writer: &spool::Writer, rest: &Rest, mut push: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    let begun = Instant::now();
    loop {
        if let Ok(pushed) = tokio::time::timeout(LOOK, push.as_mut()).await {
            return Some(pushed);
        }
        if writer.is_taken() {
            return Some(push.await);
        }
        if rest.permit.is_wanted() || begun.elapsed() >= LAST_CHANCE {
            return None;
        }
    }
}

/// Into the spool. When its part of that is full and the client slow, the worker is pinned: at most as many as streams may
/// be, and half as many, for a short time, when there is no room for anybody, or for that client.
async fn push(
    writer: &spool::Writer,
    data: Bytes,
    rest: &Rest,
    stall: &mut Stall,
) -> Result<Result<(), Error>, spool::Gone> {
    let length = data.len() as u64;
    writer.let_reader_run(length).await;
    let mut push = pin!(writer.push(data));
    if let Poll::Ready(pushed) = poll_fn(|cx| Poll::Ready(push.as_mut().poll(cx))).await {
        return pushed.map(Ok);
    }
    if writer.is_taken() {
        return push.await.map(Ok);
    }
    if writer.is_short() {
        return match stall.without_room(length, writer, rest, push).await {
            Some(pushed) => pushed.map(Ok),
            None => Ok(Err(spool::full())),
        };
    }
    if stall.pin.is_none() {
        if let Ok(pushed) = tokio::time::timeout(AT_ONCE, push.as_mut()).await {
            return pushed.map(Ok);
        }
        if writer.is_taken() {
            return push.await.map(Ok);
        }
        // A body larger than its share is the route's wish.
        stall.pin = rest.permit.pin();
    }
    if stall.pin.is_some() {
        return push.await.map(Ok);
    }
    match unpinned(writer, rest, push).await {
        Some(pushed) => pushed.map(Ok),
        None => Ok(Err(rest.client.upstream().streams_full())),
    }
}

/// The next piece. While nothing comes, the reader is watched.
async fn next(body: &mut ResponseBody, writer: &spool::Writer) -> Result<Result<Option<Bytes>, Error>, spool::Gone> {
    let mut data = pin!(body.data());
    poll_fn(|cx| match data.as_mut().poll(cx) {
        Poll::Ready(data) => Poll::Ready(Ok(data)),
        Poll::Pending => writer.poll_gone(cx).map(|()| Err(spool::Gone)),
    })
    .await
}

/// Nobody takes the rest; the worker still writes. It is let finish, within bounds, so that its slot is not given to
/// another request while it is busy.
async fn drain(body: ResponseBody, rest: Rest) {
    if let Some(connection) = body.finish(rest.patience()).await {
        rest.client.keep(rest.permit.endpoint(), connection, Instant::now());
    }
}

/// After the last byte of the body: the connection goes back to the pool, or the slot waits until the worker has closed.
fn end(body: ResponseBody, mut rest: Rest, now: Instant) {
    match body.into_end() {
        End::Reusable(connection) => {
            rest.permit.ended(now);
            rest.client.keep(rest.permit.endpoint(), connection, now);
        }
        // It runs the app's `close()` after its last byte, and takes no other request before that.
        End::Closing(connection) => hold(connection, rest.patience(), rest.permit),
        End::Useless => {}
    }
}

/// Keeps the slot of a worker that is still busy, until it closes or `limit` has passed.
pub(super) fn hold(connection: Connection, limit: Duration, permit: Permit) {
    tokio::task::spawn_local(async move {
        connection.closed(limit).await;
        drop(permit);
    });
}

/// The client of a stream has left, or may not have it: the worker is told by the failure of its next write, and keeps
/// its slot until it is done.
fn leave(connection: Connection, rest: Rest) {
    let abandon = rest.patience();
    tokio::task::spawn_local(async move {
        connection.abandoned(abandon).await;
        drop(rest.permit);
    });
}
