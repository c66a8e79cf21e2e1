//! Files that are not as they were written: noticed before a wrong byte goes out, dropped and counted.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{CORRUPTED, INDEXED, OBJECTS, Site, ask_all, ask_until_whole, kept, store_all, wait_more};
use crate::support::Gateway;

/// Where a file says whether it was purged softly: damage there means that it was.
const MARK: std::ops::Range<u64> = 112..120;

/// Flips a bit of each file: in one near its beginning, in another near its end, and so on.
fn damage(files: &[impl AsRef<Path>]) {
    for (number, path) in files.iter().enumerate() {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let length = file.metadata().unwrap().len();
        let at = number as u64 * (length - 1) / (files.len() as u64 - 1);
        let at = if MARK.contains(&at) { MARK.end + 8 } else { at };
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1 << (number % 8)], at).unwrap();
    }
}

/// Every page is right, and none of them is what was stored; each of the files has been counted.
fn check_noticed(site: &Site, gateway: &Gateway, pages: &[super::Page], before: &[u64]) {
    for (page, before) in pages.iter().zip(before) {
        assert!(ask_until_whole(gateway, *page) > *before, "{page:?} was damaged");
    }
    // Two may come to the same one at a time.
    wait_more(gateway, CORRUPTED, pages.len() as f64 - 1.0);
    // What came anew is stored in its place.
    gateway.wait_metric(OBJECTS, pages.len() as f64);
    let (again, asked) = (ask_all(gateway, pages), site.app.book.asked());
    assert_eq!(ask_all(gateway, pages), again);
    assert_eq!(site.app.book.asked(), asked);
}

#[test]
fn files_that_were_damaged_while_nobody_looked_are_noticed_dropped_and_counted() {
    let pages = kept(60);
    let site = Site::new(90);
    let gateway = site.start();
    let versions = store_all(&gateway, &pages);
    gateway.stop();
    let files = site.files();
    assert_eq!(files.len(), pages.len());
    damage(&files);
    let gateway = site.start();
    check_noticed(&site, &gateway, &pages, &versions);
}

#[test]
fn files_that_are_damaged_while_they_are_in_service_are_noticed_dropped_and_counted() {
    let pages = kept(60);
    let site = Site::new(90);
    let gateway = site.start();
    let versions = store_all(&gateway, &pages);
    gateway.stop();
    // Nothing is in memory now but what is known of the files.
    let gateway = site.start();
    gateway.wait_metric(INDEXED, 1.0);
    damage(&site.files());
    check_noticed(&site, &gateway, &pages, &versions);
}

#[test]
fn files_that_are_cut_short_emptied_or_in_anothers_place_are_noticed() {
    let pages = kept(60);
    let site = Site::new(90);
    let gateway = site.start();
    let versions = store_all(&gateway, &pages);
    gateway.stop();
    let files = site.files();
    // Each third is cut, each third emptied, each third is a copy of its neighbour.
    for (number, path) in files.iter().enumerate() {
        let file = File::options().write(true).open(path).unwrap();
        let length = file.metadata().unwrap().len();
        match number % 3 {
            0 => file.set_len(length * (1 + number as u64 % 5) / 6).unwrap(),
            1 => file.set_len(0).unwrap(),
            _ => drop(std::fs::copy(&files[(number + 1) % files.len()], path).unwrap()),
        }
    }
    let gateway = site.start();
    check_noticed(&site, &gateway, &pages, &versions);
}
