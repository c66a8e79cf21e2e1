//! The accept loop of one listener: who comes is let in, in another's place, or turned away.

use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rustix::io::Errno;
use tokio::sync::Notify;

use super::{Door, Open, Thread};
use crate::edge::connection::{self, Terms};
use crate::edge::listener::{Accepted, Listening};
use crate::error::Reason;

/// After an error of accept that is the process's, not the connection's.
const PAUSE: Duration = Duration::from_millis(100);
/// How many idle connections give way when somebody else has the descriptors.
const SHED: usize = 16;

/// One listener's way into this thread.
struct Gate {
    thread: Rc<Thread>,
    /// Kept: while a reload takes the listener away, its last connections are still served as they were.
    terms: Arc<Terms>,
}

/// Accepts until `closing` is told, and then what is still queued.
pub(super) async fn accept(thread: Rc<Thread>, terms: Arc<Terms>, socket: Listening, closing: Rc<Notify>) {
    let acceptor = match socket.into_acceptor() {
        Ok(acceptor) => acceptor,
        Err(error) => {
            tracing::error!(listener = %terms.name, "cannot be served: {error}");
            return;
        }
    };
    let mut closing = pin!(closing.notified());
    let mut gate = Gate { thread, terms };
    loop {
        let accepted = poll_fn(|cx| match acceptor.poll_accept(cx) {
            Poll::Ready(accepted) => Poll::Ready(Some(accepted)),
            Poll::Pending => closing.as_mut().poll(cx).map(|()| None),
        });
        match accepted.await {
            Some(Ok(accepted)) => {
                let has_made_room = gate.admit(accepted);
                if has_made_room {
                    // Whoever gives way leaves before the next one comes.
                    tokio::task::yield_now().await;
                }
            }
            Some(Err(error)) if is_the_connections(&error) => {}
            Some(Err(error)) => {
                gate.cannot_accept(&error);
                tokio::time::sleep(PAUSE).await;
            }
            None => break,
        }
    }
    // Clients whose connection the kernel has already accepted for us are served, not reset.
    for accepted in acceptor.into_queued() {
        gate.admit(accepted);
    }
}

impl Gate {
    /// Serves a connection, or turns it away. Whether another one is about to end for it.
    fn admit(&mut self, accepted: Accepted) -> bool {
        if let Some(terms) = self.thread.current.terms(&self.terms.name) {
            self.terms = terms;
        }
        let terms = Arc::clone(&self.terms);
        // Behind a proxy that is trusted are many clients, whom a PROXY header may name yet; those on a unix socket have no
        // address.
        let client = accepted.peer.filter(|peer| !terms.is_trusted(Some(*peer))).map(|peer| peer.ip());
        let mut has_made_room = false;
        let make_room = || {
            has_made_room = self.thread.make_room();
            if !has_made_room {
                // As `Admission::in_want` counts.
                self.thread.turned_away.update(|count| count + 1);
            }
            has_made_room
        };
        let mut place = match self.thread.admission.enter(client, make_room) {
            Ok(place) => place,
            Err(reason) => {
                connection::refuse(&accepted.socket, &terms, reason);
                self.tell(reason, &accepted);
                return has_made_room;
            }
        };
        let open = Open::new(&self.thread);
        let door = Door(Rc::clone(&self.thread));
        tokio::task::spawn_local(async move {
            connection::serve(accepted.socket, terms, door, &mut place).await;
            drop((place, open));
        });
        has_made_room
    }

    fn tell(&self, reason: Reason, accepted: &Accepted) {
        let admission = &self.thread.admission;
        let Some(left_out) = admission.lines.of(reason).pass() else { return };
        let listener = &*self.terms.name;
        if reason == Reason::TooManyConnectionsOfClient {
            tracing::warn!(
                listener,
                reason = reason.as_str(),
                left_out,
                peer = accepted.peer.map(tracing::field::display),
                "a connection is turned away: its client has {} already (limits.connections_per_client). If that is your load balancer, add it to `trusted_proxies`; if many people share that address, raise the limit",
                admission.limit_per_client()
            );
        } else {
            tracing::warn!(
                listener,
                reason = reason.as_str(),
                left_out,
                "a connection is turned away: {} are open and none of them is idle or stalled. Raise limits.connections, and LimitNOFILE with it",
                admission.open()
            );
        }
    }

    /// Somebody has taken the descriptors that were ours, or the kernel is short of memory: the idlest go first, so that
    /// the next try may find one.
    fn cannot_accept(&self, error: &io::Error) {
        let errno = Errno::from_io_error(error);
        if matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) {
            let _ = (0..SHED).take_while(|_| self.thread.make_room()).count();
        }
        if let Some(left_out) = self.thread.admission.lines.cannot_accept.pass() {
            tracing::error!(
                listener = %self.terms.name,
                left_out,
                "cannot accept connections: {error}. If it says too many open files, raise LimitNOFILE (systemd) or ulimit -n"
            );
        }
    }
}

/// Errors that speak of the one connection, which is gone already.
fn is_the_connections(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::ConnectionAborted | K::ConnectionReset | K::Interrupted)
}
