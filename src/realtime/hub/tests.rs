//! The hub as those see it who publish and those who are held.

use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::observe::metrics::Metrics;
use crate::runtime::paused;

/// A hub with one thread: this one.
struct House {
    channels: Channels,
    local: Rc<Local>,
}

impl House {
    fn new() -> Self {
        let channels = Channels::new(Metrics::new().realtime());
        let local = Local::attach(&channels);
        Self { channels, local }
    }

    /// Publishes one after the other: `channel id<before meta=value,… content`.
    fn publish(&self, items: &[Item2<'_>]) {
        let items = items.iter().map(Item2::item).collect();
        self.channels.publish(items).unwrap();
        self.deliver();
    }

    fn deliver(&self) {
        self.local.deliver_all();
    }

    fn held(&self, channels: &[(&str, &[&str], Option<&str>)]) -> Subscriber {
        let subscriber = self.local.subscriber(Format::Stream, 200_000);
        subscriber.move_to(&subscriptions(channels));
        subscriber
    }
}

fn subscriptions(channels: &[(&str, &[&str], Option<&str>)]) -> Vec<Subscription> {
    let subscription = |(channel, filters, position): &(&str, &[&str], Option<&str>)| Subscription {
        channel: (*channel).into(),
        filters: Filters::named(filters.iter().copied()),
        position: position.map(Box::from),
    };
    channels.iter().map(subscription).collect()
}

#[derive(Default, Clone, Copy)]
struct Item2<'a> {
    channel: &'a str,
    id: &'a str,
    before: &'a str,
    meta: &'a [(&'a str, &'a str)],
    filters: Option<&'a [&'a str]>,
    content: &'a str,
}

impl Item2<'_> {
    fn item(&self) -> Item {
        let name = |text: &str| (!text.is_empty()).then(|| text.into());
        let part = StreamPart::Send(Bytes::copy_from_slice(self.content.as_bytes()));
        let filters = self.filters.map(|names| Filters::named(names.iter().copied()));
        Item {
            channel: self.channel.into(),
            id: name(self.id),
            prev_id: name(self.before),
            meta: self.meta.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            stream: Some(Content { filters, part }),
            ..Item::default()
        }
    }
}

fn on<'a>(channel: &'a str, content: &'a str) -> Item2<'a> {
    Item2 { channel, content, ..Item2::default() }
}

fn step<'a>(id: &'a str, before: &'a str) -> Item2<'a> {
    Item2 { channel: "c", id, before, content: id, ..Item2::default() }
}

/// All that has come.
fn got(subscriber: &Subscriber) -> Vec<String> {
    let mut cx = Context::from_waker(Waker::noop());
    let mut all = Vec::new();
    while let Poll::Ready(delivery) = subscriber.poll_next(&mut cx) {
        all.push(match delivery {
            Delivery::Data(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            other => format!("{other:?}"),
        });
    }
    all
}

#[test]
fn an_item_comes_to_those_on_its_channel_and_to_nobody_else() {
    let house = House::new();
    let (one, two) = (house.held(&[("a", &[], None)]), house.held(&[("a", &[], None), ("b", &[], None)]));
    house.publish(&[on("a", "1"), on("b", "2"), on("c", "3")]);
    assert_eq!((got(&one), got(&two)), (vec!["1".into()], vec!["1".to_owned(), "2".to_owned()]));
    two.unsubscribe("a");
    drop(one);
    house.publish(&[on("a", "4"), on("b", "5")]);
    assert_eq!(got(&two), ["5"]);
    drop(two);
    assert_eq!(house.local.rooms(), 0, "nobody is left, and no memory of them");
}

#[test]
fn those_who_leave_do_not_lose_others_their_place() {
    let house = House::new();
    let mut all: Vec<Subscriber> = (0..50).map(|_| house.held(&[("a", &[], None), ("b", &[], None)])).collect();
    // Some in the middle, the first and the last.
    for at in [49, 20, 0, 7, 30] {
        all.swap_remove(at.min(all.len() - 1));
    }
    all[3].unsubscribe("a");
    house.publish(&[on("a", "x"), on("b", "y")]);
    for (at, one) in all.iter().enumerate() {
        let expected: &[&str] = if at == 3 { &["y"] } else { &["x", "y"] };
        assert_eq!(got(one), expected, "{at}");
    }
}

#[test]
fn filters_say_for_whom_an_item_is_and_make_its_content() {
    let user = [("user", "7"), ("id_format", "%(c)s"), ("name", "ann")];
    /// Filters of the client, metadata and filters of the item, its content, and what comes.
    type Row<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], Option<&'a [&'a str]>, &'a str, &'a [&'a str]);
    let rows: [Row<'_>; 18] = [
        (&[], &[("sender", "7")], None, "x", &["x"]),
        (&["skip-self"], &[("sender", "7")], None, "x", &[]),
        (&["skip-self"], &[("sender", "8")], None, "x", &["x"]),
        (&["skip-self"], &[], None, "x", &["x"]),
        (&["skip-users"], &[("skip_users", "1,7")], None, "x", &[]),
        (&["skip-users"], &[("skip_users", "1, 7 ,9")], None, "x", &[]),
        (&["skip-users"], &[("skip_users", "77")], None, "x", &["x"]),
        (&["skip-users"], &[("skip_users", "")], None, "x", &["x"]),
        (&["require-sub"], &[("require_sub", "c")], None, "x", &["x"]),
        (&["require-sub"], &[("require_sub", "d")], None, "x", &[]),
        (&["require-sub"], &[("require_sub", "")], None, "x", &["x"]),
        (&["nonsense"], &[("sender", "7")], None, "x", &["x"]),
        (&["build-id"], &[], None, "id: %I 100%%", &["id: 2 100%"]),
        (&["var-subst"], &[], None, "hello %(name)s", &["hello ann"]),
        (&["build-id"], &[], Some(&["build-id"]), "%I", &["2"]),
        (&[], &[], Some(&["build-id"]), "%I", &[]),
        (&["build-id", "skip-self"], &[], Some(&[]), "%I", &[]),
        (&["build-id", "var-subst"], &[], Some(&["var-subst", "build-id"]), "%I %(name)s", &["2 ann"]),
    ];
    for (filters, meta, content_filters, content, expected) in rows {
        let house = House::new();
        let held = house.held(&[("c", filters, Some("1"))]);
        user.iter().for_each(|(name, value)| held.set_meta(name, Some(value)));
        house.publish(&[Item2 { channel: "c", id: "2", before: "1", meta, filters: content_filters, content }]);
        assert_eq!(got(&held), expected, "{filters:?} {meta:?} {content_filters:?} {content}");
        let positions = held.positions();
        assert_eq!(&*positions[0].1, "2", "the client is there, whether it was for it or not");
    }
}

#[test]
fn content_of_its_own_is_made_when_a_client_takes_it_with_the_id_of_when_it_came() {
    let house = House::new();
    let held = house.held(&[("c", &["build-id"], Some("1"))]);
    held.set_meta("id_format", Some("%(c)s"));
    let item = |id, before| Item2 { content: "%I ", ..step(id, before) };
    house.publish(&[item("2", "1"), item("3", "2")]);
    assert_eq!(got(&held), ["2 ", "3 "]);
    assert_eq!(&*held.positions()[0].1, "3");
}

#[test]
fn who_has_missed_something_is_told_to_recover_and_goes_on_from_where_the_app_says() {
    let house = House::new();
    let held = house.held(&[("c", &[], Some("1"))]);
    house.publish(&[step("2", "1")]);
    assert_eq!(got(&held), ["2"]);
    // Something between was lost before it came here.
    house.channels.recover();
    house.deliver();
    assert_eq!(got(&held), ["Recover"]);
    house.publish(&[step("5", "4"), step("6", "5")]);
    assert!(got(&held).is_empty(), "kept until the app has answered");
    held.move_to(&subscriptions(&[("c", &[], Some("5"))]));
    held.resume();
    assert_eq!(got(&held), ["6"], "5 was in what the app said");
    house.publish(&[step("7", "6")]);
    assert_eq!(got(&held), ["7"]);
}

#[test]
fn a_gap_in_a_chain_is_noticed_by_those_who_have_a_position() {
    let house = House::new();
    let (with, without) = (house.held(&[("c", &[], Some("1"))]), house.held(&[("c", &[], None)]));
    house.publish(&[step("3", "2")]);
    assert_eq!((got(&with), got(&without)), (vec!["Recover".to_owned()], vec!["3".to_owned()]));
    // The app's answer was made before 3: it goes out now.
    with.move_to(&subscriptions(&[("c", &[], Some("2"))]));
    with.resume();
    assert_eq!(got(&with), ["3"]);
    // What stands outside the chain is for everybody, and moves nobody.
    house.publish(&[on("c", "hello"), step("4", "3")]);
    assert_eq!(got(&with), ["hello", "4"]);
}

#[test]
fn what_was_kept_goes_on_where_the_app_says_channel_by_channel() {
    let house = House::new();
    let held = house.held(&[("b", &[], Some("1")), ("c", &[], Some("1"))]);
    house.channels.recover();
    house.deliver();
    assert_eq!(got(&held), ["Recover"]);
    let other = Item2 { channel: "b", content: "b2", ..step("2", "1") };
    house.publish(&[other, step("2", "1"), on("c", "outside"), step("3", "2")]);
    held.move_to(&subscriptions(&[("b", &[], Some("1")), ("c", &[], Some("2"))]));
    held.resume();
    assert_eq!(got(&held), ["b2", "outside", "3"], "2 of c was in what the app said, and nothing is missing");
}

#[test]
fn what_was_kept_and_does_not_follow_has_the_app_asked_once_more() {
    for (said, expected) in [("5", &["6"][..]), ("6", &[]), ("3", &[])] {
        let house = House::new();
        let held = house.held(&[("c", &[], Some("1"))]);
        house.publish(&[step("6", "5")]);
        assert_eq!(got(&held), ["Recover"]);
        // It has answered before it knew of 4 and 5.
        held.move_to(&subscriptions(&[("c", &[], Some("3"))]));
        held.resume();
        assert_eq!(got(&held), ["Recover"], "between 3 and 6 something is missing");
        held.move_to(&subscriptions(&[("c", &[], Some(said))]));
        held.resume();
        assert_eq!(got(&held), expected, "{said}");
    }
}

#[test]
fn an_item_that_the_client_has_by_its_app_is_nothing_new() {
    let house = House::new();
    let held = house.held(&[("c", &[], Some("5"))]);
    // The app had written it when it answered, and publishes it only now.
    house.publish(&[step("5", "4")]);
    assert!(got(&held).is_empty(), "neither again nor as a gap");
    house.publish(&[step("6", "5")]);
    assert_eq!(got(&held), ["6"]);
}

#[test]
fn who_can_ask_nobody_takes_what_comes() {
    let house = House::new();
    let held = house.held(&[("c", &[], Some("1"))]);
    house.publish(&[step("3", "2")]);
    assert_eq!(got(&held), ["Recover"]);
    held.free();
    held.resume();
    house.publish(&[step("9", "8")]);
    assert_eq!(got(&held), ["3", "9"]);
}

#[test]
fn a_channel_that_comes_with_a_later_answer_is_compared_and_others_are_not() {
    let house = House::new();
    let held = house.held(&[("c", &[], Some("1"))]);
    house.publish(&[Item2 { channel: "d", ..step("1", "") }, Item2 { channel: "d", ..step("2", "1") }]);
    house.publish(&[step("2", "1")]);
    assert_eq!(got(&held), ["2"]);
    held.pause();
    // The app has a 3 that is on its way.
    held.move_to(&subscriptions(&[("c", &[], Some("3")), ("d", &[], Some("1"))]));
    held.resume();
    held.compare();
    assert_eq!(got(&held), ["Recover"], "2 of d came before the client was on it");
    held.move_to(&subscriptions(&[("c", &[], Some("3")), ("d", &[], Some("2"))]));
    held.resume();
    held.compare();
    assert!(got(&held).is_empty());
}

#[test]
fn what_was_published_between_the_apps_answer_and_the_hold_is_noticed() {
    let house = House::new();
    house.publish(&[step("1", ""), step("2", "1")]);
    let late = house.held(&[("c", &[], Some("1"))]);
    late.compare();
    assert_eq!(got(&late), ["Recover"]);
    let again = house.held(&[("c", &[], Some("1"))]);
    again.compare();
    assert!(got(&again).is_empty(), "one of both was wrong: it is not asked for ever");
    // What is still in the inbox is not missed.
    house.publish(&[step("3", "2")]);
    let held = house.held(&[("c", &[], Some("3"))]);
    house.channels.publish(vec![step("4", "3").item()]).unwrap();
    held.compare();
    assert_eq!(got(&held), ["4"]);
}

#[test]
fn who_is_compared_has_what_is_on_its_way_and_the_rest_comes_in_its_turn() {
    paused(async || {
        let house = House::new();
        let other = house.held(&[("d", &[], None)]);
        house.publish(&[step("1", "")]);
        let held = house.held(&[("c", &[], Some("1"))]);
        let mut items: Vec<Item> = (0..10).map(|_| on("d", "x").item()).collect();
        items.push(step("2", "1").item());
        house.channels.publish(items).unwrap();
        held.compare();
        assert_eq!((got(&held), got(&other).len()), (vec!["2".to_owned()], 0));
        let delivering = tokio::task::spawn_local(Rc::clone(&house.local).run());
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(got(&other).len(), 10);
        delivering.abort();
    });
}

#[test]
fn who_takes_too_little_is_given_up_and_costs_no_more() {
    let house = House::new();
    let held = house.local.subscriber(Format::Stream, 1_000);
    held.move_to(&subscriptions(&[("c", &[], None)]));
    let large = "x".repeat(5_000);
    house.publish(&[on("c", &large)]);
    assert_eq!(got(&held), [large.as_str()], "one is always taken");
    let piece = "y".repeat(300);
    house.publish(&[on("c", &piece), on("c", &piece)]);
    assert_eq!(got(&held).len(), 2);
    house.publish(&[on("c", &piece), on("c", &piece), on("c", &piece)]);
    house.publish(&[on("c", "more")]);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(held.poll_overflow(&mut cx).is_ready());
    assert_eq!(got(&held), ["Overflow"]);
    house.publish(&[on("c", "more")]);
    assert!(got(&held).is_empty());
}

#[test]
fn an_answer_is_compared_with_what_has_come_meanwhile() {
    let house = House::new();
    let held = house.held(&[("c", &[], Some("1"))]);
    let standing = |position: &str| held.standing(&subscriptions(&[("c", &[], Some(position))]));
    held.follow();
    assert_eq!(standing("1"), Standing::Unmoved);
    for (said, expected) in [("2", Standing::Passed), ("3", Standing::Passed), ("4", Standing::Ahead)] {
        let house = House::new();
        let held = house.held(&[("c", &[], Some("1"))]);
        held.follow();
        house.publish(&[step("2", "1"), step("3", "2")]);
        assert_eq!(held.standing(&subscriptions(&[("c", &[], Some(said))])), expected, "{said}");
    }
}

#[test]
fn what_the_gateway_has_seen_itself_need_not_be_asked() {
    paused(async || {
        let house = House::new();
        let age = Duration::from_secs(120);
        let (one, other) = (house.held(&[("c", &[], Some("1"))]), house.held(&[("c", &[], Some("1"))]));
        assert!(!one.is_confirmed(age) && !one.is_chain_whole());
        one.confirm(&subscriptions(&[("c", &[], Some("1"))]));
        assert!(other.is_confirmed(age) && !other.is_chain_whole(), "what the app told one holds for both");
        tokio::time::sleep(age).await;
        assert!(!other.is_confirmed(age));
        house.publish(&[step("2", "1")]);
        assert!(one.is_confirmed(age) && one.is_chain_whole());
        let free = house.held(&[("c", &[], None)]);
        assert!(!free.is_confirmed(age), "without positions there is nothing to compare");
    });
}

#[test]
fn a_client_is_on_so_many_channels_at_most() {
    let house = House::new();
    let held = house.local.subscriber(Format::Message, 1_000);
    let names: Vec<String> = (0..=limits::CHANNELS_PER_CLIENT).map(|at| at.to_string()).collect();
    let results: Vec<_> =
        names.iter().map(|name| held.subscribe(&subscriptions(&[(name, &[], None)])[0]).is_ok()).collect();
    assert_eq!(results.iter().filter(|ok| **ok).count(), limits::CHANNELS_PER_CLIENT);
    assert!(held.subscribe(&subscriptions(&[("0", &["skip-self"], None)])[0]).is_ok(), "it is there already");
}

#[test]
fn the_frame_of_a_message_is_made_once_and_is_one_of_rfc_6455() {
    for (length, head) in [(0, &[0x81, 0][..]), (125, &[0x81, 125]), (126, &[0x81, 126, 0, 126])] {
        let message = Message::new(Kind::Text, Bytes::from(vec![b'x'; length]));
        assert_eq!(message.frame()[..head.len()], *head);
        assert_eq!(message.frame().len(), head.len() + length);
    }
    let large = Message::new(Kind::Binary, Bytes::from(vec![0; 70_000]));
    assert_eq!(large.frame()[..10], [0x82, 127, 0, 0, 0, 0, 0, 1, 0x11, 0x70]);
    let house = House::new();
    let held: Vec<Subscriber> = (0..2)
        .map(|_| {
            let held = house.local.subscriber(Format::Message, 1_000);
            held.move_to(&subscriptions(&[("c", &[], None)]));
            held
        })
        .collect();
    let message = MessagePart::Send(Message::new(Kind::Text, Bytes::from_static(b"hi")));
    let content = Content { filters: None, part: message };
    house.channels.publish(vec![Item { channel: "c".into(), message: Some(content), ..Item::default() }]).unwrap();
    house.deliver();
    let frames: Vec<Bytes> = held
        .iter()
        .map(|held| match held.poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Delivery::Message(message)) => message.frame().clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(frames[0], &b"\x81\x02hi"[..]);
    assert_eq!(frames[0].as_ptr(), frames[1].as_ptr(), "the same bytes");
}

#[test]
fn every_thread_gets_a_publish_once_and_a_full_hub_takes_no_more() {
    let house = House::new();
    let other = Local::attach(&house.channels);
    let far = other.subscriber(Format::Stream, 1_000);
    far.move_to(&subscriptions(&[("c", &[], None)]));
    let near = house.held(&[("c", &[], None)]);
    house.publish(&[on("c", "1")]);
    other.deliver_all();
    assert_eq!((got(&near), got(&far)), (vec!["1".to_owned()], vec!["1".to_owned()]));
    // A thread that does not deliver.
    let large = "x".repeat(1 << 20);
    let taken = (0..200).take_while(|_| house.channels.publish(vec![on("c", &large).item()]).is_ok()).count();
    assert_eq!(taken, limits::UNDELIVERED >> 20);
    assert_eq!(house.channels.publish(vec![on("c", "2").item()]), Err(Behind));
    house.deliver();
    other.deliver_all();
    assert!(house.channels.publish(vec![on("c", "2").item()]).is_ok());
}

/// Another way, which takes everything and brings nothing: that is for whoever reads at its end.
#[derive(Default)]
struct Wire(std::sync::Mutex<(Vec<Item>, usize)>);

impl Fanout for Wire {
    fn publish(&self, items: Vec<Item>) -> Result<Report, Behind> {
        self.0.lock().unwrap().0.extend(items);
        Ok(Report::default())
    }

    fn recover(&self) {
        self.0.lock().unwrap().1 += 1;
    }
}

#[test]
fn with_a_fan_out_everything_comes_by_it_and_a_recovery_as_well() {
    let wire = std::sync::Arc::new(Wire::default());
    let way: std::sync::Arc<dyn Fanout> = std::sync::Arc::clone(&wire) as _;
    let channels = Channels::new(Metrics::new().realtime()).with_fanout(way);
    let house = House { local: Local::attach(&channels), channels };
    let held = house.held(&[("c", &[], Some("1"))]);
    house.publish(&[step("2", "1")]);
    house.channels.recover();
    house.deliver();
    assert!(got(&held).is_empty(), "it is on its way");
    let (items, recoveries) = std::mem::take(&mut *wire.0.lock().unwrap());
    house.channels.arrive(items).unwrap();
    (0..recoveries).for_each(|_| house.channels.arrive_recover());
    house.deliver();
    assert_eq!(got(&held), ["2", "Recover"]);
}

#[test]
fn an_item_that_waits_in_vain_is_let_go() {
    paused(async || {
        let house = House::new();
        let held = house.held(&[("c", &[], None)]);
        house.publish(&[step("1", ""), step("3", "2")]);
        assert_eq!(got(&held), ["1"]);
        tokio::time::sleep(limits::PATIENCE).await;
        house.channels.sweep();
        house.deliver();
        assert_eq!(got(&held), ["3"]);
    });
}
