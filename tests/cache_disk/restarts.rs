//! What is on disk answers after a restart, at once, and asks nobody; and the folder stays as large as it may be.

use super::{INDEXED, OBJECTS, Page, Site, ask, ask_all, kept, purge, store_all};
use crate::support::look_until;

/// Only small ones: there are many of them.
fn small(count: usize) -> Vec<Page> {
    kept(count * 3).into_iter().filter(|page| page.0 % 8 > 2).take(count).collect()
}

#[test]
fn what_was_stored_answers_at_once_after_a_restart_while_the_other_files_are_still_looked_for() {
    let pages = small(600);
    let site = Site::new(pages.last().unwrap().0 + 1);
    let gateway = site.start();
    let versions = store_all(&gateway, &pages);
    gateway.stop();
    let (gateway, asked) = (site.start(), site.app.book.asked());
    // The last ones first: whoever looks for files has other ones before them.
    let mut client = gateway.client();
    for (page, version) in pages.iter().zip(&versions).rev() {
        assert_eq!(ask(&mut client, *page), *version, "{page:?}");
    }
    assert_eq!(site.app.book.asked(), asked, "nobody was asked");
    gateway.wait_metric(INDEXED, 1.0);
    gateway.wait_metric(OBJECTS, pages.len() as f64);
    assert_eq!(ask_all(&gateway, &pages), versions);
    assert_eq!(site.app.book.asked(), asked);
}

#[test]
fn large_answers_are_there_after_a_restart_and_whole() {
    let pages: Vec<Page> = kept(40).into_iter().filter(|page| page.0 % 8 <= 2).collect();
    let site = Site::new(60);
    let gateway = site.start();
    let versions = store_all(&gateway, &pages);
    gateway.stop();
    let (gateway, asked) = (site.start(), site.app.book.asked());
    // More than once: what is asked for often goes up to memory.
    for turn in 0..5 {
        assert_eq!(ask_all(&gateway, &pages), versions, "turn {turn}");
    }
    assert_eq!(site.app.book.asked(), asked);
}

#[test]
fn what_was_purged_does_not_come_back_though_the_gateway_is_killed_when_it_has_answered() {
    let pages = kept(40);
    let site = Site::new(60);
    let gateway = site.start();
    let versions = store_all(&gateway, &pages);
    let (purged, others) = pages.split_at(4);
    for page in purged {
        assert_eq!(purge(&mut gateway.client(), *page).status, 200);
    }
    gateway.kill();
    let (gateway, asked) = (site.start(), site.app.book.asked());
    for (page, version) in purged.iter().zip(&versions) {
        assert!(ask(&mut gateway.client(), *page) > *version, "{page:?} has come back");
    }
    assert_eq!(site.app.book.asked(), asked + purged.len());
    assert_eq!(ask_all(&gateway, others), versions[purged.len()..], "the others are there");
    gateway.wait_metric(INDEXED, 1.0);
}

#[test]
fn the_folder_takes_no_more_than_it_may() {
    const MOST: u64 = 8 << 20;
    let site = Site::with(100, "memory: 8MiB, max_object: 4MiB", "8MiB");
    let gateway = site.start();
    let pages = kept(70);
    // About four times as much.
    let versions = ask_all(&gateway, &pages);
    let taken = || site.files().iter().filter_map(|path| path.metadata().ok()).map(|meta| meta.len()).sum::<u64>();
    let mut last = 0;
    let fits = look_until(|| {
        last = taken();
        (last <= MOST && last > 0).then_some(())
    });
    assert!(fits.is_some(), "{last} bytes");
    gateway.kill();
    let gateway = site.start();
    gateway.wait_metric(INDEXED, 1.0);
    assert!(gateway.metric(OBJECTS) > 0.0 && taken() <= MOST);
    for (page, before) in pages.iter().zip(versions) {
        assert!(ask(&mut gateway.client(), *page) >= before, "{page:?}");
    }
}
