//! A folder that cannot be used, or stops being of use: said clearly at the start; and later it costs the cache its disk, and
//! no client an answer.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::{INDEXED, OBJECTS, Site, WRITE_FAILURES, ask, ask_all, kept, purge, store_all, wait_more};
use crate::support::Gateway;

/// Becomes the gateway without root's right to pass by permissions, if it is root who runs the tests.
fn as_anybody() -> Vec<&'static str> {
    if rustix::process::geteuid().is_root() {
        vec!["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--"]
    } else {
        vec!["env"]
    }
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// The folder and all in it.
fn folders(path: &Path) -> Vec<PathBuf> {
    let mut found = vec![path.to_owned()];
    let mut next = 0;
    while let Some(folder) = found.get(next) {
        let inner = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
        let inner: Vec<_> = inner.collect();
        found.extend(inner);
        next += 1;
    }
    found
}

#[test]
fn two_processes_on_one_folder_are_one_too_many_and_the_second_says_so() {
    let site = Site::new(10);
    let gateway = site.start();
    let (code, said) = Gateway::refuse(&site.config());
    assert_eq!(code, Some(1), "{said}");
    for words in ["another process has it", "cache.disk.path", &site.folder().display().to_string()] {
        assert!(said.contains(words), "{words}: {said}");
    }
    store_all(&gateway, &kept(3));
    // The first has the folder until it ends, however.
    gateway.kill();
    assert_eq!(ask_all(&site.start(), &kept(3)).len(), 3);
}

#[test]
fn a_folder_that_nothing_can_be_written_to_is_refused_at_the_start_with_its_name() {
    let site = Site::new(10);
    std::fs::create_dir(site.folder()).unwrap();
    set_mode(&site.folder(), 0o555);
    let (code, said) = Gateway::refuse_by(&as_anybody(), &site.config());
    assert_eq!(code, Some(1), "{said}");
    for words in [&*site.folder().display().to_string(), "cannot be opened for writing", "Permission denied"] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[test]
fn a_folder_that_turns_read_only_costs_nobody_an_answer_and_is_used_again_when_it_is_not() {
    let pages = kept(60);
    let site = Site::new(2000);
    let gateway = Gateway::start_by(&as_anybody(), &site.config());
    let (first, second) = pages.split_at(30);
    let versions = store_all(&gateway, first);
    let locked = folders(&site.folder());
    locked.iter().for_each(|path| set_mode(path, 0o555));
    ask_all(&gateway, second);
    wait_more(&gateway, WRITE_FAILURES, 0.0);
    assert_eq!(ask_all(&gateway, first), versions, "what is there is read");
    locked.iter().for_each(|path| set_mode(path, 0o755));
    check_used_again(&site, gateway, &pages[..]);
}

/// Asks for further pages until the disk takes them, and finds them there after a restart.
fn check_used_again(site: &Site, gateway: Gateway, known: &[super::Page]) {
    let before = gateway.metric(OBJECTS);
    let mut more = (known.last().unwrap().0 + 1..).map(super::Page).filter(|page| page.kind() == super::Kind::Kept);
    let mut client = gateway.client();
    // It is left alone for a while after a failure.
    let taken = crate::support::look_until(|| {
        ask(&mut client, more.next().unwrap());
        (gateway.metric(OBJECTS) > before).then_some(())
    });
    assert!(taken.is_some(), "the disk is not used again: {:?}", gateway.log());
    drop(client);
    gateway.stop();
    let gateway = site.start();
    gateway.wait_metric(INDEXED, 1.0);
    assert!(gateway.metric(OBJECTS) > before);
    ask_all(&gateway, known);
}

/// No file of the process may grow beyond this any more. What a full disk answers is another error, which needs a disk of one's own;
/// the store's tests have that.
fn limit_files(gateway: &Gateway, bytes: Option<u64>) {
    let pid = Pid::from_raw(gateway.pid().try_into().unwrap());
    prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
}

/// Becomes the gateway, which is not killed where a write goes beyond the limit of files.
const BEYOND_THE_LIMIT: [&str; 4] = ["sh", "-c", "trap '' XFSZ && exec \"$@\"", "sh"];

#[test]
fn a_disk_that_takes_nothing_more_costs_nobody_an_answer_and_is_used_again_when_it_does() {
    let pages = kept(60);
    let site = Site::new(2000);
    let gateway = Gateway::start_by(&BEYOND_THE_LIMIT, &site.config());
    let (first, second) = pages.split_at(30);
    let versions = store_all(&gateway, first);
    limit_files(&gateway, Some(0));
    ask_all(&gateway, second);
    wait_more(&gateway, WRITE_FAILURES, 0.0);
    assert_eq!(ask_all(&gateway, first), versions, "what is there is read");
    // In force at once, though it cannot be written down; whoever asked for it is told.
    let answer = purge(&mut gateway.client(), first[0]);
    assert!(answer.status >= 500, "{answer:?}");
    assert!(ask(&mut gateway.client(), first[0]) > versions[0], "it was purged");
    limit_files(&gateway, None);
    check_used_again(&site, gateway, &pages[..]);
}
