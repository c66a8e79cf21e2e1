//! One thread that serves: its runtime, its listening sockets, its connections, its stack.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;

use super::Current;
use crate::edge::connection::{self, Terms};
use crate::edge::listener::Listening;
use crate::http1::server::Entry;
use crate::observe::throttle::Throttle;
use crate::runtime::{Socket, drain};
use crate::stack::Stack;
use crate::upstream::Client;

/// How often idle connections to workers are looked at.
const SWEEP: Duration = Duration::from_millis(250);
/// After an error of accept that is the process's, not the connection's: no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the control thread asks of a thread that serves.
pub(super) enum Command {
    /// Accept on this socket too.
    Open(String, Listening),
    /// Accept what is already queued there, then close it.
    Close(String),
    /// Close all, let connections end, say when none is left.
    Drain(oneshot::Sender<()>),
    /// End now. Answers with the number of exchanges that are cut.
    Stop(oneshot::Sender<usize>),
}

/// What the tasks of a thread share.
struct Thread {
    current: Arc<Current>,
    built: RefCell<Built>,
    connections: Cell<usize>,
    /// Told when the last connection has ended.
    empty: Notify,
}

/// The stack of one configuration.
struct Built {
    generation: u64,
    stack: Rc<Stack>,
    clients: Vec<Rc<Client>>,
}

impl Thread {
    fn build(current: &Current) -> Built {
        // The number first: a stack newer than its number is built once more, an older one would stay.
        let generation = current.generation();
        let (stack, clients) = current.in_force.load().blueprint.build();
        Built { generation, stack: Rc::new(stack), clients }
    }
}

/// Where the requests of this thread's connections enter.
#[derive(Clone)]
struct Door(Rc<Thread>);

impl Entry for Door {
    type Stack = Stack;

    fn current(&self) -> Rc<Stack> {
        let thread = &self.0;
        let mut built = thread.built.borrow_mut();
        if built.generation != thread.current.generation() {
            built.clients.iter().for_each(|client| client.retire());
            *built = Thread::build(&thread.current);
        }
        Rc::clone(&built.stack)
    }
}

/// Counts a connection for as long as it lives.
struct Open(Rc<Thread>);

impl Open {
    fn new(thread: &Rc<Thread>) -> Self {
        thread.connections.set(thread.connections.get() + 1);
        Self(Rc::clone(thread))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let left = self.0.connections.get() - 1;
        self.0.connections.set(left);
        if left == 0 {
            self.0.empty.notify_waiters();
        }
    }
}

/// The life of the thread: does what it is told until it is told to stop.
pub(super) async fn run(current: Arc<Current>, mut commands: UnboundedReceiver<Command>) {
    let built = RefCell::new(Thread::build(&current));
    let thread = Rc::new(Thread { current, built, connections: Cell::new(0), empty: Notify::new() });
    let mut listening: HashMap<String, Rc<Notify>> = HashMap::new();
    tokio::task::spawn_local(sweep(Rc::clone(&thread)));
    while let Some(command) = commands.recv().await {
        match command {
            Command::Open(name, socket) => {
                let closing = Rc::new(Notify::new());
                listening.insert(name.clone(), Rc::clone(&closing));
                tokio::task::spawn_local(accept(Rc::clone(&thread), name, socket, closing));
            }
            Command::Close(name) => {
                if let Some(closing) = listening.remove(&name) {
                    closing.notify_one();
                }
            }
            Command::Drain(drained) => {
                listening.drain().for_each(|(_, closing)| closing.notify_one());
                tokio::task::spawn_local(drain_connections(Rc::clone(&thread), drained));
            }
            Command::Stop(cut) => {
                // An error is a control thread that does not wait for the answer any more.
                let _ = cut.send(crate::http::cut_open_exchanges());
                return;
            }
        }
    }
}

async fn drain_connections(thread: Rc<Thread>, drained: oneshot::Sender<()>) {
    // The accept loops take what is queued before the count can be trusted.
    tokio::task::yield_now().await;
    drain::begin();
    loop {
        let empty = thread.empty.notified();
        if thread.connections.get() == 0 {
            let _ = drained.send(());
            return;
        }
        empty.await;
    }
}

async fn accept(thread: Rc<Thread>, name: String, socket: Listening, closing: Rc<Notify>) {
    let acceptor = match socket.into_acceptor() {
        Ok(acceptor) => acceptor,
        Err(error) => {
            tracing::error!(listener = %name, "cannot be served: {error}");
            return;
        }
    };
    let mut closing = pin!(closing.notified());
    // Kept: while a reload takes the listener away, its last connections are still served as they were.
    let mut terms = thread.current.terms(&name);
    let throttle = Throttle::default();
    loop {
        let accepted = poll_fn(|cx| match acceptor.poll_accept(cx) {
            Poll::Ready(accepted) => Poll::Ready(Some(accepted)),
            Poll::Pending => closing.as_mut().poll(cx).map(|()| None),
        });
        match accepted.await {
            Some(Ok(socket)) => spawn(&thread, &name, socket, &mut terms),
            Some(Err(error)) if is_the_connections(&error) => {}
            Some(Err(error)) => {
                if throttle.pass().is_some() {
                    tracing::error!(
                        listener = %name,
                        "cannot accept connections: {error}. If it says too many open files, raise LimitNOFILE (systemd) or ulimit -n"
                    );
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            None => break,
        }
    }
    // Clients whose connection the kernel has already accepted for us are served, not reset.
    for socket in acceptor.into_queued() {
        spawn(&thread, &name, socket, &mut terms);
    }
}

fn spawn(thread: &Rc<Thread>, listener: &str, socket: Socket, last: &mut Option<Arc<Terms>>) {
    let Some(terms) = thread.current.terms(listener).or_else(|| last.clone()) else { return };
    *last = Some(Arc::clone(&terms));
    let open = Open::new(thread);
    let door = Door(Rc::clone(thread));
    tokio::task::spawn_local(async move {
        connection::serve(socket, terms, door).await;
        drop(open);
    });
}

/// Errors that speak of the one connection, which is gone already.
fn is_the_connections(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as K;
    matches!(error.kind(), K::ConnectionAborted | K::ConnectionReset | K::Interrupted)
}

async fn sweep(thread: Rc<Thread>) {
    let mut tick = tokio::time::interval(SWEEP);
    loop {
        tick.tick().await;
        for client in &thread.built.borrow().clients {
            client.sweep();
        }
    }
}
