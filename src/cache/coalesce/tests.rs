//! Flights: by example, and by a model in which leaders leave, fail, hang and land in any order.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;
use tokio::time::advance;

use super::*;

type News = u32;

const PATIENCE: Duration = Duration::from_secs(2);

fn key(number: u8) -> Key {
    Key::from_bytes([number; Key::LENGTH])
}

fn lead(joined: Joined<News>) -> (Lead<News>, Waiter<News>) {
    match joined {
        Joined::Lead(lead, waiter) => (lead, waiter),
        Joined::Wait(_) | Joined::Landed(..) => panic!("somebody leads already"),
    }
}

fn wait(joined: Joined<News>) -> Waiter<News> {
    match joined {
        Joined::Wait(waiter) => waiter,
        Joined::Lead(..) | Joined::Landed(..) => panic!("nobody to wait for"),
    }
}

/// What it is told now, if it is.
fn now(waiter: &mut Waiter<News>) -> Option<Told<News>> {
    // As often as we like: a task of tokio's has its turn only so long.
    match pin!(tokio::task::unconstrained(waiter.news())).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(told) => Some(told),
        Poll::Pending => None,
    }
}

fn news(told: Option<Told<News>>) -> Option<News> {
    match told {
        Some(Told::News(news)) => Some(news),
        _ => None,
    }
}

#[tokio::test(start_paused = true)]
async fn one_leads_and_all_who_wait_are_told() {
    let flights = Flights::new();
    let (first, mut own) = lead(flights.join(&key(1)));
    let mut others: Vec<_> = (0..1000).map(|_| wait(flights.join(&key(1)))).collect();
    let (other, _) = lead(flights.join(&key(2)));
    assert!(others.iter_mut().all(|waiter| now(waiter).is_none()));
    first.tell(&7);
    assert_eq!(news(now(&mut own)), Some(7));
    assert!(others.iter_mut().all(|waiter| news(now(waiter)) == Some(7)));
    assert_eq!(flights.count(), 1, "that of the other key");
    drop(other);
    assert_eq!(flights.count(), 0, "it had nobody left");
}

#[tokio::test(start_paused = true)]
async fn what_has_landed_is_joined_until_it_is_stored() {
    let flights = Flights::new();
    let (first, _own) = lead(flights.join(&key(1)));
    let landed = first.land(&7);
    let Joined::Landed(7, id) = flights.join(&key(1)) else { panic!("it has landed") };
    // Who cannot use it begins anew, and the old one ends without a trace.
    let (second, _waiter) = lead(flights.join_anew(&key(1), id));
    drop(landed);
    let mut third = wait(flights.join(&key(1)));
    // Another one who could not use the old one either.
    let _fourth = wait(flights.join_anew(&key(1), id));
    second.tell(&8);
    assert_eq!(news(now(&mut third)), Some(8));
    assert_eq!(flights.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_leaves_is_succeeded_by_the_first_who_is_still_there() {
    let flights = Flights::new();
    let (first, own) = lead(flights.join(&key(1)));
    drop(own);
    let gone: Vec<_> = (0..10).map(|_| wait(flights.join(&key(1)))).collect();
    let mut heir = wait(flights.join(&key(1)));
    let mut last = wait(flights.join(&key(1)));
    drop(gone);
    drop(first);
    let Some(Told::Lead(second)) = now(&mut heir) else { panic!("it is the next") };
    assert!(now(&mut last).is_none());
    second.tell(&1);
    assert_eq!(news(now(&mut last)), Some(1));
}

#[tokio::test(start_paused = true)]
async fn an_heir_that_leaves_before_it_hears_of_it_passes_it_on() {
    let flights = Flights::new();
    let (first, own) = lead(flights.join(&key(1)));
    let (heir, mut next) = (wait(flights.join(&key(1))), wait(flights.join(&key(1))));
    drop(own);
    drop(first);
    // It has been told, and never looked.
    drop(heir);
    assert!(matches!(now(&mut next), Some(Told::Lead(_))));
    assert_eq!(flights.count(), 0, "the lead was dropped, with nobody left");
}

#[tokio::test(start_paused = true)]
async fn of_all_who_have_waited_too_long_one_leads() {
    let flights = Flights::new();
    let (hanging, _own) = lead(flights.join(&key(1)));
    let mut waiters: Vec<_> = (0..100).map(|_| wait(flights.join(&key(1)))).collect();
    let mut leads = Vec::new();
    for round in 1..=3 {
        advance(PATIENCE).await;
        for waiter in &mut waiters {
            let polled = pin!(waiter.news_or_turn(PATIENCE)).poll(&mut Context::from_waker(Waker::noop()));
            match polled {
                Poll::Ready(Told::Lead(lead)) => leads.push(lead),
                Poll::Ready(_) => panic!("there is no news"),
                Poll::Pending => {}
            }
        }
        assert_eq!(leads.len(), round, "one more each time that patience is over");
    }
    // The one that hangs fails at last: others are on their way.
    hanging.fail(&13);
    assert!(waiters.iter_mut().all(|waiter| now(waiter).is_none()));
    leads.pop().unwrap().tell(&7);
    assert!(waiters.iter_mut().all(|waiter| news(now(waiter)) == Some(7)), "also those who lead themselves");
    leads.into_iter().for_each(|late| late.tell(&8));
    assert_eq!(flights.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_last_of_several_leaders_that_fail_tells_all() {
    let flights = Flights::new();
    let (first, mut own) = lead(flights.join(&key(1)));
    let mut other = wait(flights.join(&key(1)));
    advance(PATIENCE).await;
    let Told::Lead(second) = other.news_or_turn(PATIENCE).await else { panic!("its turn") };
    first.fail(&1);
    assert!(now(&mut own).is_none());
    second.fail(&2);
    assert_eq!((news(now(&mut own)), news(now(&mut other))), (Some(2), Some(2)));
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_hears_at_the_latest_from_the_first_leader_that_began_after_he_came() {
    let flights = Flights::new();
    let (first, mut own) = lead(flights.join(&key(1)));
    let mut early: Vec<_> = (0..100).map(|_| wait(flights.join(&key(1)))).collect();
    advance(PATIENCE).await;
    let Told::Lead(second) = early[0].news_or_turn(PATIENCE).await else { panic!("its turn") };
    let mut late = wait(flights.join(&key(1)));
    advance(PATIENCE).await;
    let Told::Lead(third) = early[1].news_or_turn(PATIENCE).await else { panic!("its turn") };
    let mut latest = wait(flights.join(&key(1)));
    first.fail(&1);
    assert!(early.iter_mut().chain([&mut own]).all(|waiter| now(waiter).is_none()), "they came when it had begun");
    second.fail(&2);
    assert!(early.iter_mut().chain([&mut own]).all(|waiter| news(now(waiter)) == Some(2)));
    assert!(now(&mut late).is_none() && now(&mut latest).is_none());
    third.fail(&3);
    assert_eq!((news(now(&mut late)), news(now(&mut latest))), (Some(3), Some(3)), "it was the last");
    assert_eq!(flights.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_fails_while_an_elder_one_goes_on_is_heard_by_nobody() {
    let flights = Flights::new();
    let (first, mut own) = lead(flights.join(&key(1)));
    let mut other = wait(flights.join(&key(1)));
    advance(PATIENCE).await;
    let Told::Lead(second) = other.news_or_turn(PATIENCE).await else { panic!("its turn") };
    second.fail(&2);
    assert!(now(&mut own).is_none() && now(&mut other).is_none());
    first.tell(&1);
    assert_eq!((news(now(&mut own)), news(now(&mut other))), (Some(1), Some(1)));
}

#[tokio::test(start_paused = true)]
async fn a_quiet_flight_gives_way_to_who_really_waits() {
    let flights = Flights::new();
    let quiet = flights.lead_quietly(&key(1)).unwrap();
    assert!(quiet.is_wanted() && flights.lead_quietly(&key(1)).is_none(), "one at a time");
    let (loud, mut own) = lead(flights.join(&key(1)));
    let mut other = wait(flights.join(&key(1)));
    assert!(flights.lead_quietly(&key(1)).is_none());
    loud.tell(&7);
    assert_eq!((news(now(&mut own)), news(now(&mut other))), (Some(7), Some(7)));
    assert!(!quiet.is_wanted());
    quiet.tell(&8);
    assert_eq!(flights.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_waits_for_is_wanted_by_nobody() {
    let flights = Flights::new();
    let (first, own) = lead(flights.join(&key(1)));
    assert!(first.is_wanted());
    drop(own);
    assert!(!first.is_wanted());
    let other = wait(flights.join(&key(1)));
    assert!(first.is_wanted());
    drop(other);
    assert!(!first.is_wanted());
}

#[tokio::test(start_paused = true)]
async fn those_who_have_left_take_no_room() {
    let flights = Flights::new();
    let (_first, _own) = lead(flights.join(&key(1)));
    for _ in 0..10_000 {
        drop(wait(flights.join(&key(1))));
    }
    let shard = flights.shard(&key(1));
    assert!(shard[&key(1)].waiters.len() <= PRUNE + 1);
}

#[test]
fn flights_go_from_thread_to_thread() {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Arc<Flights<News>>>();
    is_shared::<Lead<News>>();
    is_shared::<Landed<News>>();
    is_shared::<Waiter<News>>();
}

/// What happens next.
#[derive(Debug, Clone, Copy)]
enum Step {
    Join,
    JoinQuietly,
    /// The client of this place leaves.
    Leave(usize),
    /// The leader of this place goes without a word, fails, ends, or lands.
    Drop(usize),
    Fail(usize),
    Tell(usize),
    Land(usize),
    /// What has landed is stored.
    Store(usize),
    /// Patience is over, and this one looks.
    Turn(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let place = 0..8_usize;
    prop_oneof![
        6 => Just(Step::Join),
        1 => Just(Step::JoinQuietly),
        2 => place.clone().prop_map(Step::Leave),
        2 => place.clone().prop_map(Step::Drop),
        2 => place.clone().prop_map(Step::Fail),
        1 => place.clone().prop_map(Step::Tell),
        1 => place.clone().prop_map(Step::Land),
        1 => place.clone().prop_map(Step::Store),
        2 => place.prop_map(Step::Turn),
    ]
}

#[derive(Default)]
struct Model {
    leads: Vec<Lead<News>>,
    landed: Vec<Landed<News>>,
    waiters: Vec<Waiter<News>>,
}

impl Model {
    fn joined(&mut self, joined: Joined<News>) {
        match joined {
            Joined::Lead(lead, waiter) => {
                self.leads.push(lead);
                self.waiters.push(waiter);
            }
            Joined::Wait(waiter) => self.waiters.push(waiter),
            Joined::Landed(..) => {}
        }
    }

    /// Those who are told go, but for who leads now.
    fn hear(&mut self) {
        let mut at = 0;
        while at < self.waiters.len() {
            match now(&mut self.waiters[at]) {
                None => at += 1,
                Some(Told::Lead(lead)) => {
                    self.waiters.remove(at);
                    self.leads.push(lead);
                }
                Some(Told::News(_) | Told::Over) => drop(self.waiters.remove(at)),
            }
        }
    }

    async fn take(&mut self, flights: &Arc<Flights<News>>, step: Step) {
        let pick = |at: usize, length: usize| (length > 0).then(|| at % length);
        match step {
            Step::Join => self.joined(flights.join(&key(1))),
            Step::JoinQuietly => self.leads.extend(flights.lead_quietly(&key(1))),
            Step::Leave(at) => drop(pick(at, self.waiters.len()).map(|at| self.waiters.remove(at))),
            Step::Drop(at) => drop(pick(at, self.leads.len()).map(|at| self.leads.remove(at))),
            Step::Fail(at) => drop(pick(at, self.leads.len()).map(|at| self.leads.remove(at).fail(&1))),
            Step::Tell(at) => drop(pick(at, self.leads.len()).map(|at| self.leads.remove(at).tell(&2))),
            Step::Land(at) => {
                let landed = pick(at, self.leads.len()).map(|at| self.leads.remove(at).land(&3));
                self.landed.extend(landed);
            }
            Step::Store(at) => drop(pick(at, self.landed.len()).map(|at| self.landed.remove(at))),
            Step::Turn(at) => {
                advance(PATIENCE).await;
                if let Some(at) = pick(at, self.waiters.len()) {
                    let turn = self.waiters[at].take_turn(PATIENCE);
                    self.leads.extend(turn);
                }
            }
        }
        self.hear();
    }
}

proptest! {
    #[test]
    fn nobody_who_waits_is_ever_lost(steps in proptest::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (flights, mut model) = (Flights::new(), Model::default());
            for step in steps {
                model.take(&flights, step).await;
                for waiter in &model.waiters {
                    let is_led = model.leads.iter().any(|lead| lead.id == waiter.id);
                    assert!(is_led, "after {step:?} somebody waits for nobody");
                }
                let leaders = {
                    let shard = flights.shard(&key(1));
                    shard.get(&key(1)).filter(|flight| flight.landed.is_none()).map_or(0, |flight| flight.leading.len())
                };
                let current: Option<u64> = flights.shard(&key(1)).get(&key(1)).map(|flight| flight.id);
                let own = model.leads.iter().filter(|lead| Some(lead.id) == current).count();
                assert!(leaders <= own, "after {step:?} leaders are counted that are not there");
            }
            // However it goes on, all come to an end.
            while let Some(lead) = model.leads.pop() {
                drop(lead);
                model.hear();
            }
            assert!(model.waiters.is_empty());
            model.landed.clear();
            assert_eq!(flights.count(), 0);
        });
    }
}
