//! How old a response is (4.2.3, 5.1), and clocks that are set.

use super::*;
use crate::cache::policy::freshness::initial_age;

#[test]
fn age_counts_what_it_was_on_the_way() {
    let hit = |age: &str| format!("200 | cache-control: max-age=3600 | {age}");
    for (age, after, expected, section) in [
        ("age: 0", 3599, "hit", "5.1"),
        ("age: 1800", 1799, "hit", "4.2.3"),
        ("age: 1800", 1800, "revalidate", "4.2.3"),
        ("age: 7200 | etag: \"a\"", 0, "revalidate", "4.2.3"),
        ("age: 7200", 0, "not stored: aged", "4.2.3"),
        ("age: 2147483647 | etag: \"a\"", 0, "revalidate", "1.2.2"),
        ("age: 2147483648 | etag: \"a\"", 0, "revalidate", "1.2.2"),
        ("age: 99999999999999999999999 | etag: \"a\"", 0, "revalidate", "1.2.2"),
        // The first of a list counts.
        ("age: 7200, 0 | etag: \"a\"", 0, "revalidate", "5.1"),
        ("age: 0, 7200", 0, "hit", "5.1"),
        ("age: 7200 | age: 0 | etag: \"a\"", 0, "revalidate", "5.1"),
        ("age: 0 | age: 7200", 0, "hit", "5.1"),
        // What is no number is none.
        ("age: abc", 0, "hit", "5.1"),
        ("age: -7200", 0, "hit", "5.1"),
        ("age: 7200.0", 0, "hit", "5.1"),
        ("age: 7200;foo=bar", 0, "hit", "5.1"),
        ("age:", 0, "hit", "5.1"),
        // The date of the app.
        ("date: {-1800}", 1799, "hit", "4.2.3: apparent age"),
        ("date: {-1800}", 1800, "revalidate", "4.2.3: apparent age"),
        ("date: {-1800} | age: 1000", 1800, "revalidate", "4.2.3: the greater"),
        ("date: {-1000} | age: 1800", 1800, "revalidate", "4.2.3: the greater"),
        ("date: {1800}", 3599, "hit", "4.2.3: its clock is ahead"),
        ("date: yesterday", 3599, "hit", "no date: now"),
        ("date: {-7200} | date: {-7200}", 3599, "hit", "two dates: now"),
    ] {
        check(&Rules::default(), &[("GET", &hit(age), "", after, expected, section)]);
    }
}

#[test]
fn the_time_that_the_answer_took_is_part_of_its_age() {
    let headers = fields_of("age: 10");
    let slow = Times { requested: STEADY - 2_500, received: STEADY, wall: WALL };
    assert_eq!(initial_age(&headers, WALL, &slow), 12_500);
    assert_eq!(initial_age(&headers, WALL - 60, &slow), 60_000, "or what the date says, if that is more");
    let backwards = Times { requested: STEADY + 1, received: STEADY, wall: WALL };
    assert_eq!(initial_age(&headers, WALL, &backwards), 10_000, "two threads");
}

#[test]
fn age_and_ttl_are_told_in_whole_seconds() {
    let stored = stored("200 | cache-control: max-age=60 | age: 10", &Rules::default()).stored;
    for (now, age, ttl) in
        [(0, 10, 50), (999, 10, 49), (1000, 11, 49), (50_000, 60, 0), (50_001, 60, -1), (61_000, 71, -11)]
    {
        assert_eq!((stored.age_seconds(STEADY + now), stored.ttl(STEADY + now)), (age, ttl), "{now}");
    }
    assert_eq!(stored.age_seconds(u64::MAX), 1 << 31);
    assert!(stored.ttl(u64::MAX) < 0);
}

#[test]
fn no_setting_of_the_wall_clock_changes_an_age() {
    let rules = Rules::default();
    let asked = Asked::of(&Method::GET, &HeaderMap::new(), Context::default(), &rules);
    let (status, headers) = answer("200 | cache-control: max-age=60");
    // The wall clock is a year ahead, or behind, when it is stored and after that: the steady one goes on.
    for wall in [WALL - 31_536_000, WALL, WALL + 31_536_000] {
        let times = Times { wall, ..AT_ONCE };
        let stored = storable(&asked, status, &headers, &times, &rules).unwrap().stored;
        assert_eq!(stored.ttl(STEADY + 30_000), 30, "{wall}");
        assert!(!stored.is_fresh(STEADY + 60_000));
    }
    // Where the app says Date, a clock that is ahead makes responses old, never young.
    let (_, dated) = answer("200 | cache-control: max-age=60 | date: {0} | etag: \"a\"");
    let ahead = Times { wall: WALL + 3600, ..AT_ONCE };
    assert!(!storable(&asked, status, &dated, &ahead, &rules).unwrap().stored.is_fresh(STEADY));
    let behind = Times { wall: WALL - 3600, ..AT_ONCE };
    assert_eq!(storable(&asked, status, &dated, &behind, &rules).unwrap().stored.ttl(STEADY), 60);
}

#[test]
fn a_thread_whose_clock_is_a_little_behind_sees_something_new() {
    let stored = stored("200 | cache-control: max-age=60", &Rules::default()).stored;
    assert_eq!(stored.age(STEADY - 5), 0);
    assert!(stored.is_fresh(STEADY - 5));
}

#[test]
fn what_an_earlier_process_stored_goes_on_ageing() {
    let rules = Rules { stale_if_error: Duration::MAX, ..Rules::default() };
    let stored = stored("200 | cache-control: max-age=60 | etag: \"a\"", &rules).stored;
    let read = |now| Stored::from_bytes(&stored.to_bytes()).unwrap().resumed(now);
    assert_eq!(read(STEADY + 30_000), stored);
    assert_eq!(read(STEADY + 30_000).ttl(STEADY + 30_000), 30);
    // Clocks are corrected by a little all the time.
    assert!(read(STEADY - 1000).is_fresh(STEADY - 1000));
    // Set back by an hour: nobody knows how old it is, now or when that hour has passed again.
    let lost = read(STEADY - 3_600_000);
    for now in [STEADY - 3_600_000, STEADY, STEADY + 30_000] {
        assert!(!lost.is_fresh(now) && lost.staleness(now) > 0);
    }
    let asked = Asked::of(&Method::GET, &HeaderMap::new(), Context::default(), &rules);
    assert_eq!(serve(Some(&lost), &asked, &rules, STEADY), Serve::Revalidate(Why::Stale), "it can still be asked for");
    // Set forward: it is as old as it seems.
    assert!(!read(STEADY + 86_400_000).is_fresh(STEADY + 86_400_000));
}

#[test]
fn what_another_version_wrote_is_not_read() {
    let bytes = stored("200 | cache-control: max-age=60", &Rules::default()).stored.to_bytes();
    assert!(Stored::from_bytes(&bytes).is_some());
    let mut other = bytes;
    other[37] = 200;
    assert_eq!(Stored::from_bytes(&other), None);
}

#[test]
fn what_is_purged_softly_is_stale_from_then_on() {
    let rules = Rules { stale_while_revalidate: Duration::from_secs(30), ..Rules::default() };
    let asked = Asked::of(&Method::GET, &HeaderMap::new(), Context::default(), &rules);
    let purged = stored("200 | cache-control: max-age=60", &rules).stored.expired(STEADY + 10_000);
    for (after, expected) in [(10, "stale, refreshed"), (40, "stale, refreshed"), (41, "revalidate")] {
        assert_eq!(words(serve(Some(&purged), &asked, &rules, STEADY + after * 1000)), expected, "{after}");
    }
    // What is stale already does not become younger.
    let old = stored("200 | cache-control: max-age=5", &rules).stored;
    for after in [0, 10_000, 20_000] {
        let purged = old.expired(STEADY + 10_000);
        assert_eq!(
            (purged.ttl(STEADY + after), purged.is_fresh(STEADY + after)),
            (old.ttl(STEADY + after), old.is_fresh(STEADY + after))
        );
    }
    // Twice: the first time counts. Written and read, it is still purged.
    assert_eq!(purged.expired(STEADY + 30_000), purged);
    assert_eq!(Stored::from_bytes(&purged.to_bytes()), Some(purged));
}

#[test]
fn the_windows_of_what_is_purged_softly_count_from_the_purge_whoever_looks_and_when() {
    let rules = Rules { stale_while_revalidate: Duration::from_secs(30), ..Rules::default() };
    let stored = stored("200 | cache-control: max-age=60", &rules).stored;
    let staleness = |at: u64, now: u64| stored.purged(STEADY + at, STEADY + now).staleness(STEADY + now);
    assert_eq!([20_000, 50_000].map(|now| staleness(20_000, now)), [0, 30_000]);
    assert_eq!(staleness(80_000, 100_000), 40_000, "it was stale before");
    for now in [18_500, 19_999] {
        let read_before = stored.purged(STEADY + 20_000, STEADY + now);
        assert!(!read_before.is_fresh(STEADY + now), "the clock was read before the purge came");
        assert!(staleness(20_000, now) < 1000);
    }
    assert_eq!(staleness(20_000, 10_000), 10_000, "the clock was set back: stale since it came");
    assert_eq!(stored.purged(0, STEADY + 10_000).staleness(STEADY + 10_000), 10_000, "nobody knows when it was");
}

proptest::proptest! {
    #[test]
    fn no_times_make_it_overflow(
        received: u64, requested: u64, wall: u64, now: u64, age in "[0-9]{0,24}", seconds in "[0-9]{0,24}", windows: [u32; 2],
    ) {
        let rules = Rules { stale_while_revalidate: Duration::MAX, stale_if_error: Duration::MAX, ..Rules::default() };
        let asked = Asked::of(&Method::GET, &HeaderMap::new(), Context::default(), &rules);
        let text = format!(
            "200 | etag: \"a\" | age: {age} | date: {{0}} | cache-control: max-age={seconds}, stale-if-error={}, stale-while-revalidate={}",
            windows[0], windows[1],
        );
        let (status, headers) = answer(&text);
        let stored = storable(&asked, status, &headers, &Times { requested, received, wall }, &rules).unwrap().stored;
        let _ = (stored.ttl(now), stored.ends(&rules), stored.may_replace_failure(&rules, now), stored.resumed(now));
        let _ = serve(Some(&stored), &asked, &rules, now);
        proptest::prop_assert_eq!(Stored::from_bytes(&stored.to_bytes()), Some(stored));
        proptest::prop_assert_eq!(stored.is_fresh(now), stored.staleness(now) == 0 && stored.age(now) < stored.lifetime());
        proptest::prop_assert!(stored.is_fresh(now) || serve(Some(&stored), &asked, &rules, now) != Serve::Hit);
    }
}
