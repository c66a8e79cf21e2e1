//! Large downloads as users make them: with curl, broken off and resumed.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use super::tool::{Output, Tool};

/// A gigabyte takes its time where two others build.
const PATIENCE: Duration = Duration::from_secs(120);
/// What curl gives as its exit code when nobody takes its output any more.
const WRITE_ERROR: i32 = 23;

/// Makes a file of so many bytes in which every place has bytes of its own now and then: a hole that is somewhere else, or
/// a part that is missing, is seen. It takes no room on the disk.
pub(crate) fn plant(path: &Path, length: u64) {
    let mut file = File::create(path).unwrap();
    file.set_len(length).unwrap();
    for at in (0..length - 8).step_by(1 << 20) {
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(&at.to_be_bytes()).unwrap();
    }
}

/// Downloads as far as about `part`, then the rest, and compares the whole with the file that is served. `arguments` are
/// curl's. The second answer's status.
pub(crate) fn resume(url: &str, arguments: &[&str], part: u64, original: &Path, folder: &Path) -> u16 {
    let copy = folder.join("download");
    let target = copy.display().to_string();
    // Whoever takes the output has enough, and goes.
    let script = "set -o pipefail; out=$1 part=$2; shift 2; curl -sS \"$@\" | head -c \"$part\" > \"$out\"";
    let broken =
        Tool::start("bash", &[&["-c", script, "bash", &target, &part.to_string()], arguments, &[url]].concat());
    let broken = broken.output_within(PATIENCE);
    assert_eq!(broken.code, Some(WRITE_ERROR), "{broken:?}");
    assert_eq!(std::fs::metadata(&copy).unwrap().len(), part);
    let rest = ["-sS", "--continue-at", "-", "--output", &target, "--write-out", "%{http_code}"];
    let rest: Output = Tool::start("curl", &[&rest[..], arguments, &[url]].concat()).output_within(PATIENCE);
    assert_eq!(rest.code, Some(0), "{rest:?}");
    assert!(is_same(&copy, original), "what was downloaded is another file");
    std::fs::remove_file(copy).unwrap();
    rest.stdout.parse().unwrap_or_else(|_| panic!("no status: {rest:?}"))
}

fn is_same(one: &Path, other: &Path) -> bool {
    let (mut one, mut other) = (File::open(one).unwrap(), File::open(other).unwrap());
    let length = |file: &File| file.metadata().unwrap().len();
    if length(&one) != length(&other) {
        return false;
    }
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut to_compare = length(&one);
    while to_compare > 0 {
        let here = usize::try_from(to_compare.min(1 << 20)).unwrap();
        one.read_exact(&mut left[..here]).unwrap();
        other.read_exact(&mut right[..here]).unwrap();
        if left[..here] != right[..here] {
            return false;
        }
        to_compare -= here as u64;
    }
    true
}
