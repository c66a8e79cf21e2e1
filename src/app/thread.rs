//! One thread that serves: its runtime, its listening sockets, its connections, its stack.

mod accept;
mod ebb;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tokio::time::Instant;

use self::accept::accept;
use self::ebb::Ebb;
use super::Current;
use crate::edge::admission::Admission;
use crate::edge::connection::Terms;
use crate::edge::listener::Listening;
use crate::files::Cache;
use crate::http1::server::Entry;
use crate::middleware::compress::forget_encoders;
use crate::observe::metrics::Metrics;
use crate::observe::throttle::Throttle;
use crate::realtime::hub::{Channels, Local};
use crate::runtime::allowance::WHEN_SHORT;
use crate::runtime::deadline::{self, Spare};
use crate::runtime::{buffers, drain};
use crate::stack::Stack;
use crate::upstream::spool::Budget;
use crate::upstream::{Client, InForce};

/// How often idle connections to workers are looked at.
const SWEEP: Duration = Duration::from_millis(250);
/// How many idle connections one sweep closes, at most, because another thread needs places.
const GIVE_WAY: usize = 64;

/// Of so many connections one sweep gives up one that makes no progress, while the spool is short.
const GIVE_UP: usize = 64;

/// What the control thread asks of a thread that serves.
pub(super) enum Command {
    /// Accept on this socket too. The terms come along: when the thread hears of it, another configuration may be in force,
    /// which has no such listener any more, and whoever comes then is served all the same.
    Open(Arc<Terms>, Listening),
    /// Accept what is already queued there, then close it.
    Close(String),
    /// Close all, let connections end. Says when every connection knows of it, and when none is left.
    Drain { begun: oneshot::Sender<()>, ended: oneshot::Sender<()> },
    /// End now. Answers with the number of exchanges that are cut.
    Stop(oneshot::Sender<usize>),
}

/// What is one for the process, whatever the configuration.
#[derive(Clone)]
pub(super) struct Handles {
    pub(super) admission: Arc<Admission>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) budget: Arc<Budget>,
    pub(super) channels: Channels,
    /// Gives memory that this thread has freed back to the system.
    pub(super) give_back: fn(),
}

/// What the tasks of a thread share.
struct Thread {
    current: Arc<Current>,
    admission: Arc<Admission>,
    metrics: Arc<Metrics>,
    budget: Arc<Budget>,
    /// Who is held here, whatever the configuration.
    local: Rc<Local>,
    /// How many newcomers this thread has turned away since the last sweep, for want of somebody idle.
    turned_away: Cell<usize>,
    built: RefCell<Built>,
    /// The clients of `built`, for what began under another configuration.
    in_force: InForce,
    connections: Cell<usize>,
    /// Told when the last connection has ended.
    empty: Notify,
}

/// The stack of one configuration.
struct Built {
    generation: u64,
    stack: Rc<Stack>,
    clients: Vec<Rc<Client>>,
    files: Rc<Cache>,
}

impl Thread {
    fn build(current: &Current, in_force: &InForce, local: &Rc<Local>) -> Built {
        // The number first: a stack newer than its number is built once more, an older one would stay.
        let generation = current.generation();
        let (stack, clients, files) = current.in_force.load().blueprint.build(in_force, local);
        Built { generation, stack: Rc::new(stack), clients, files }
    }

    /// Builds the stack anew if another configuration is in force.
    fn follow(&self) {
        let mut built = self.built.borrow_mut();
        if built.generation != self.current.generation() {
            built.clients.iter().for_each(|client| client.retire());
            *built = Self::build(&self.current, &self.in_force, &self.local);
        }
    }

    /// Asks the idlest connection to leave, or else one that does not go on. Whether there was one.
    fn make_room(&self) -> bool {
        let is_made = deadline::make_room();
        if is_made {
            self.metrics.connections_evicted.inc();
        }
        is_made
    }
}

/// Where the requests of this thread's connections enter.
#[derive(Clone)]
struct Door(Rc<Thread>);

impl Entry for Door {
    type Stack = Stack;

    fn current(&self) -> Rc<Stack> {
        self.0.follow();
        Rc::clone(&self.0.built.borrow().stack)
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
pub(super) async fn run(
    current: Arc<Current>,
    Handles { admission, metrics, budget, channels, give_back }: Handles,
    mut commands: UnboundedReceiver<Command>,
) {
    let local = Local::attach(&channels);
    tokio::task::spawn_local(Rc::clone(&local).run());
    let in_force = InForce::default();
    let built = RefCell::new(Thread::build(&current, &in_force, &local));
    let (connections, empty) = (Cell::new(0), Notify::new());
    let thread = Rc::new(Thread {
        current,
        admission,
        metrics,
        budget,
        local,
        turned_away: Cell::new(0),
        built,
        in_force,
        connections,
        empty,
    });
    // A listener may have several sockets.
    let mut listening: HashMap<String, Vec<Rc<Notify>>> = HashMap::new();
    tokio::task::spawn_local(sweep(Rc::clone(&thread), give_back));
    while let Some(command) = commands.recv().await {
        match command {
            Command::Open(terms, socket) => {
                let closing = Rc::new(Notify::new());
                listening.entry(terms.name.to_string()).or_default().push(Rc::clone(&closing));
                tokio::task::spawn_local(accept(Rc::clone(&thread), terms, socket, closing));
            }
            Command::Close(name) => {
                listening.remove(&name).iter().flatten().for_each(|closing| closing.notify_one());
            }
            Command::Drain { begun, ended } => {
                listening.drain().flat_map(|(_, closing)| closing).for_each(|closing| closing.notify_one());
                tokio::task::spawn_local(drain_connections(Rc::clone(&thread), begun, ended));
            }
            Command::Stop(cut) => {
                // An error is a control thread that does not wait for the answer any more.
                let _ = cut.send(crate::http::cut_open_exchanges());
                return;
            }
        }
    }
}

async fn drain_connections(thread: Rc<Thread>, begun: oneshot::Sender<()>, ended: oneshot::Sender<()>) {
    // The accept loops take what is queued before the count can be trusted.
    tokio::task::yield_now().await;
    let timeout = thread.current.in_force.load().blueprint.config().shutdown.timeout;
    drain::begin(drain::Ending::within(timeout));
    // An error is a control thread that does not wait for the answer any more; here and below.
    let _ = begun.send(());
    loop {
        let empty = thread.empty.notified();
        if thread.connections.get() == 0 {
            // What is still to be told to apps of clients that have gone.
            drain::errands().await;
            let _ = ended.send(());
            return;
        }
        empty.await;
    }
}

async fn sweep(thread: Rc<Thread>, give_back: fn()) {
    let mut tick = tokio::time::interval(SWEEP);
    let (mut seen, mut ebb) = (0, Ebb::default());
    // What making the stack has needed.
    give_back();
    loop {
        tick.tick().await;
        // WebSockets send no requests that would see to it.
        thread.follow();
        for client in &thread.built.borrow().clients {
            client.sweep();
        }
        thread.built.borrow().files.sweep(Instant::now());
        give_way(&thread, &mut seen).await;
        give_up(&thread);
        if ebb.has_fallen_to(thread.connections.get() + crate::http::open_exchanges()) {
            buffers::forget_pieces();
            forget_encoders();
            give_back();
        }
    }
}

/// While the spool is short of room: those who have made no progress for longest have to go.
fn give_up(thread: &Thread) {
    static THROTTLE: Throttle = Throttle::new();
    if !thread.budget.is_short() {
        return;
    }
    // One where there are few: the next look shows whether that was enough.
    let most = thread.connections.get() / GIVE_UP + 1;
    let given_up = (0..most).take_while(|_| deadline::evict(Spare::Stalled)).count();
    if given_up > 0
        && let Some(left_out) = THROTTLE.pass()
    {
        tracing::warn!(
            left_out,
            "the spool is nearly full: clients that make no progress for {WHEN_SHORT:?} are given up. See `spool`, and LimitNOFILE for its files"
        );
    }
}

/// Makes room for those whom other threads had to turn away, and down to a limit that a reload has lowered. Every thread
/// does so at the same time: each looks before each step how many are still too many.
async fn give_way(thread: &Thread, seen: &mut usize) {
    let admission = &thread.admission;
    let in_want = admission.in_want();
    let all_wanted = in_want.wrapping_sub(std::mem::replace(seen, in_want));
    let wanted = all_wanted.saturating_sub(thread.turned_away.take());
    for _ in 0..GIVE_WAY {
        if !admission.is_short_of(wanted) || !thread.make_room() {
            break;
        }
        // Whoever gives way leaves before the next look.
        tokio::task::yield_now().await;
    }
}
